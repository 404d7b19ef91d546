"""Checkpoints by an address of the Hub, served by a stand-in on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
from hub_server import Hub, use_hub
from published import drawn, maskgit_shapes

import imtok
from imtok.errors import HubError
from imtok.interop import import_checkpoint
from imtok.interop.fetching import fetched

pytest.importorskip("huggingface_hub", reason="needs the extra hf")

WEIGHTS = drawn(maskgit_shapes())
SETTINGS = b'{"resolution": 32}'


@pytest.fixture
def hub(hub_server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A stand-in with the same weights as one file and as two, beside files that no import needs."""
    hub_server.repositories.clear()
    use_hub(hub_server, tmp_path / "cache", monkeypatch)
    names = sorted(WEIGHTS)
    shards = {
        f"s{number}.safetensors": safetensors.torch.save({name: WEIGHTS[name] for name in names[number::2]})
        for number in (0, 1)
    }
    index = {"weight_map": {name: f"s{names.index(name) % 2}.safetensors" for name in names}}
    whole = safetensors.torch.save(WEIGHTS)
    hub_server.add(
        "org/one", {"config.json": SETTINGS, "model.safetensors": whole, "model.onnx": b"x", "run.py": b"1/0"}
    )
    hub_server.add("org/files", {"config.json": SETTINGS, "f16.safetensors": whole, "f8.safetensors": b"x"})
    hub_server.add("org/two", {"model.safetensors.index.json": json.dumps(index).encode(), **shards})
    return hub_server


def test_a_repository_is_imported_with_its_commit(hub: Hub, tmp_path: Path) -> None:
    import_checkpoint("hf://org/one", tmp_path / "out", license="Apache-2.0")
    config = imtok.load(tmp_path / "out").config
    assert config.size == 32
    assert config.origin is not None
    assert (config.origin.source, config.origin.license) == ("hf://org/one", "Apache-2.0")
    assert config.origin.revision == next(iter(hub.repositories["org/one"].commits))
    names = {file.name for file in fetched("hf://org/one").path.iterdir()}
    assert names == {"config.json", "model.safetensors"}


def test_a_file_and_shards_are_imported_by_address(hub: Hub, tmp_path: Path) -> None:
    one = import_checkpoint("hf://org/files/f16.safetensors", tmp_path / "one")
    two = import_checkpoint("hf://org/two", tmp_path / "two")
    assert one.tokenizer.fingerprint == two.tokenizer.fingerprint
    assert one.origin.source == "hf://org/files/f16.safetensors"
    assert "f8.safetensors" not in {
        file.name for file in fetched("hf://org/files/f16.safetensors").path.parent.iterdir()
    }


def test_a_repository_without_usual_names_asks_for_a_file(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"no weights under a usual name; name their file: hf://org/files/FILE"):
        import_checkpoint("hf://org/files", tmp_path / "out")
    hub.add("org/odd", {"f16.safetensors": b"x"})
    with pytest.raises(HubError, match=r"it holds f16\.safetensors"):
        import_checkpoint("hf://org/odd", tmp_path / "out")
