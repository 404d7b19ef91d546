"""Published weights: fetched whole or not at all, and read without running code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from imtok.errors import ConfigError
from imtok.weights import PublishedWeights, fetched, file_sha256, read_weights, require_shapes


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of torch's cache, not there yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "torch" / "hub" / "checkpoints"


def fetch(url: str) -> Path:
    return fetched(PublishedWeights("the net's weights", url), needed_by="a test needs", remedy="do without")


def test_a_file_is_fetched_once_under_its_published_name(cache: Path, tmp_path: Path) -> None:
    data = b"weights"
    published = tmp_path / f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    published.write_bytes(data)
    found = fetch(published.as_uri())
    assert found == cache / published.name
    assert file_sha256(found) == hashlib.sha256(data).hexdigest()
    url = published.as_uri()
    published.unlink()
    assert fetch(url) == found


def test_a_file_cut_short_is_not_kept(cache: Path, tmp_path: Path) -> None:
    published = tmp_path / f"net-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    published.write_bytes(b"weig")
    with pytest.raises(ConfigError, match=r"the net's weights, which a test needs, are not there .*invalid hash.*"):
        fetch(published.as_uri())
    assert list(cache.iterdir()) == []


def test_offline_the_reason_stands_in_one_line(cache: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        fetch("http://127.0.0.1:9/net-00000000.pth")
    assert str(caught.value) == (
        f"{cache / 'net-00000000.pth'}: the net's weights, which a test needs, are not there and cannot be fetched "
        "from http://127.0.0.1:9/net-00000000.pth (Connection refused); do without"
    )


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_tensors_are_read_from_both_formats(
    tmp_path: Path, save: Callable[[dict[str, torch.Tensor], Path], None]
) -> None:
    path = tmp_path / ("net.safetensors" if save is save_file else "net.pth")
    save({"a": torch.arange(3.0)}, path)
    assert read_weights(path, "url")["a"].tolist() == [0, 1, 2]


class Harm:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("legacy", [True, False])
def test_pickled_code_does_not_run(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a": Harm(tmp_path / "made")}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ConfigError, match=r"net.pth: cannot be read as weights; put url in its place"):
        read_weights(path, "url")
    assert not (tmp_path / "made").exists()


def test_the_first_wrong_shape_is_named(tmp_path: Path) -> None:
    expected = {"a": torch.zeros(2, 3), "b": torch.zeros(())}
    path = Path("net.pth")
    require_shapes(path, dict(expected), expected, network="Net", url="url")
    for wrong, message in (
        ({"a": torch.zeros(2), "b": torch.zeros(())}, "a is 2, expected 2 x 3; name Net's, as url has it"),
        ({"a": torch.zeros(2, 3)}, "b is absent, expected a scalar"),
        ({**expected, "c": torch.zeros(1)}, "c is 1, expected absent"),
    ):
        with pytest.raises(ConfigError, match=f"net.pth: holds another network than Net, {message}"):
            require_shapes(path, wrong, expected, network="Net", url="url")
