"""Weights of metrics by name: a named file, the cache, or fetched; without them the other metrics are measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from imtok.errors import ConfigError
from imtok.evaluation import METRICS, empty_copies, open_available
from imtok.evaluation import weights as module
from imtok.evaluation.weights import WEIGHTS, find_weights, parse_weights
from imtok.weights import PublishedWeights

CPU = torch.device("cpu")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place in the cache of the weights `alexnet` and `inception`, whose address answers nothing."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    published = PublishedWeights("the net's weights", "http://127.0.0.1:9/net-a08a0fcb.pth")
    monkeypatch.setattr(module, "WEIGHTS", {"alexnet": lambda: published, "inception": lambda: published})
    return published.cached


def place(file: Path, data: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def test_addresses_are_the_published_ones() -> None:
    assert {name: weights().url.rpartition("/")[2] for name, weights in WEIGHTS.items()} == {
        "alexnet": "alexnet-owt-7be5be79.pth",
        "inception": "weights-inception-2015-12-05-6726825d.pth",
        "vgg16": "vgg16-397923af.pth",
    }


def test_the_inception_is_that_of_torch_fidelity() -> None:
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="no torch-fidelity")
    assert WEIGHTS["inception"]().url == fidelity.URL_INCEPTION_V3


def test_a_named_file_is_used_and_its_hash_recorded(net: Path, tmp_path: Path) -> None:
    file = place(tmp_path / "mine.pth", b"other")
    found = find_weights("alexnet", {"alexnet": file}, needed_by="LPIPS")
    assert (found.path, found.published) == (file, False)
    assert found.sha256.startswith("d9298a10")
    assert str(found) == "sha256 d9298a10, not the published file"
    with pytest.raises(ConfigError, match=r"gone.pth: no such file; alexnet=PATH names the net's weights, as http"):
        find_weights("alexnet", {"alexnet": tmp_path / "gone.pth"}, needed_by="LPIPS")


def test_a_whole_file_in_the_cache_is_used(net: Path) -> None:
    place(net, b"net")
    assert find_weights("alexnet", {}, needed_by="LPIPS").published


def test_a_partial_file_in_the_cache_is_refused(net: Path) -> None:
    place(net, b"ne")
    with pytest.raises(ConfigError, match=r"its SHA-256 begins with .{8}, expected a08a0fcb; remove the file"):
        find_weights("alexnet", {}, needed_by="LPIPS")


def test_without_fetching_the_absent_file_is_named(net: Path) -> None:
    with pytest.raises(ConfigError, match=r"net-a08a0fcb.pth: no such file; LPIPS needs the net's weights"):
        find_weights("alexnet", {}, needed_by="LPIPS", fetch=False)


def test_the_command_line_names_files_by_weights() -> None:
    assert parse_weights(["vgg16=a=b.pth", "inception=c"]) == {"vgg16": Path("a=b.pth"), "inception": Path("c")}
    with pytest.raises(ConfigError, match="--weights resnet=x: unknown weights resnet, expected one of alexnet, inc"):
        parse_weights(["resnet=x"])
    with pytest.raises(ConfigError, match="--weights vgg16: expected NAME=PATH"):
        parse_weights(["vgg16"])


def test_metrics_without_weights_are_left_out_with_a_reason(net: Path) -> None:
    opened = open_available([METRICS[name] for name in ("psnr", "rfid", "lpips_alex", "recall")], CPU)
    assert [metric.name for metric in opened.metrics] == ["psnr"]
    assert set(opened.missing) == {"rfid", "lpips_alex", "recall"}
    assert "(Connection refused); put that file there or name it by --weights inception=PATH" in opened.missing["rfid"]
    assert opened.missing["recall"] == opened.missing["rfid"]
    assert opened.weights == {}


def test_one_network_and_its_rows_serve_all_its_metrics(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.weight = 0, nn.Parameter(torch.ones(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return images.float().mean(dim=2).flatten(1)

    place(net, b"net")
    opening: list[Path | None] = []
    network = Network()
    monkeypatch.setattr(
        METRICS["rfid"], "open_network", classmethod(lambda _, weights: opening.append(weights) or network)
    )
    opened = open_available([METRICS[name] for name in ("rfid", "precision", "recall")], CPU)
    assert opening == [net]
    assert opened.weights["inception"].published
    pairs = torch.randint(0, 256, (2, 9, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for metrics in (opened.metrics, empty_copies(opened.metrics)):
        network.calls = 0
        for metric in metrics:
            metric.update(*pairs)
        assert network.calls == 2
        assert [metric.shares for metric in metrics] == [False, True, True]
        assert [metric.images for metric in metrics] == [9, 9, 9]
        restored = empty_copies(metrics)
        for metric, saved in zip(restored, metrics, strict=True):
            metric.restore(saved.state())
        assert [metric.compute() for metric in restored] == [metric.compute() for metric in metrics]
        for metric, other in zip(restored, metrics, strict=True):
            metric.merge(other)
        assert [metric.images for metric in restored] == [18, 18, 18]


def test_a_few_images_are_refused_with_the_reason(net: Path) -> None:
    metric = METRICS["rfid"](nn.Identity())
    metric.add_rows(restored=torch.zeros(2047, 1), originals=torch.zeros(2047, 1))
    assert metric.refusal().startswith("rFID needs 2,048 images or more, and there are 2,047: of fewer images than fea")
    metric.add_rows(restored=torch.zeros(1, 1), originals=torch.zeros(1, 1))
    assert metric.refusal() == ""
    assert METRICS["precision"](nn.Identity()).refusal().startswith("precision needs 4 images or more, and there are 0")
    assert METRICS["psnr"]().refusal() == ""
