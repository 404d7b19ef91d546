"""Inception's features on random weights in the published layout, against torch-fidelity and clean-fid."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from imtok.errors import ConfigError
from imtok.evaluation.inception import InceptionFeatures, Resizing
from imtok.tokenizer import to_float

fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="no torch-fidelity")


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inception's names and shapes with random numbers that keep the scale of what passes through."""
    from torchvision.models import inception_v3

    random = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False).state_dict()

    def draw(name: str, shape: torch.Size) -> Tensor:
        if len(shape) > 1:
            return torch.randn(shape, generator=random) * (2 / shape[1:].numel()) ** 0.5
        near = 0.1 * torch.randn(shape, generator=random)
        return near + 1 if name.endswith(("bn.weight", "running_var")) else near

    path = tmp_path_factory.mktemp("weights") / "weights-inception.pth"
    kept = {name: value.shape for name, value in shapes.items() if not name.endswith("num_batches_tracked")}
    torch.save({name: draw(name, shape) for name, shape in kept.items()}, path)
    return path


@pytest.fixture(scope="module")
def images() -> Tensor:
    """A smooth image with noise, (1, 3, 64, 64) uint8."""
    generator = torch.Generator().manual_seed(1)
    ramp = torch.linspace(0, 200, 64).expand(1, 3, 64, 64)
    return (ramp + 50 * torch.rand(1, 3, 64, 64, generator=generator)).to(torch.uint8)


@pytest.fixture(scope="module")
def compatible(weights_file: Path) -> InceptionFeatures:
    return InceptionFeatures(weights_file)


def test_features_are_those_of_torch_fidelity_to_the_bit(
    compatible: InceptionFeatures, weights_file: Path, images: Tensor
) -> None:
    extractor = fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights_file)
    )
    found = compatible(images)
    assert torch.equal(found, extractor(images)[0])
    assert found.shape == (1, 2048)
    assert found.std() > 1e-3


def test_legacy_pytorch_features_are_those_of_clean_fid(
    compatible: InceptionFeatures, weights_file: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("cleanfid.inception_pytorch", reason="clean-fid is not installed")
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: torch.load(weights_file))
    monkeypatch.setattr(module, "_inception_v3", lambda *_, **__: _torchvisions())
    network = module.InceptionV3(output_blocks=[3], resize_input=False).eval()
    with torch.no_grad():
        expected = network(resized_by_clean_fid("legacy_pytorch", images) / 255)[0].flatten(1)
    monkeypatch.setattr(compatible, "resizing", "pytorch")
    torch.testing.assert_close(compatible(images.clone()), expected, rtol=1e-4, atol=1e-4)


def _torchvisions() -> torch.nn.Module:
    from torchvision.models import inception_v3

    with torch.device("meta"):
        network: torch.nn.Module = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    return network.to_empty(device="cpu")


def resized_by_clean_fid(mode: str, images: Tensor) -> Tensor:
    """Images as clean-fid resizes them, (B, 3, 299, 299) float32 in [0, 255]."""
    resize = pytest.importorskip("cleanfid.resize", reason="clean-fid is not installed").build_resizer(mode)
    resized = np.stack([resize(each.permute(1, 2, 0).numpy()) for each in images])
    return torch.from_numpy(resized).permute(0, 3, 1, 2)


@pytest.fixture
def resized(monkeypatch: pytest.MonkeyPatch) -> Callable[[Resizing, Tensor], Tensor]:
    """What the network is given: its layers are left out."""
    module = InceptionFeatures.__new__(InceptionFeatures)
    torch.nn.Module.__init__(module)
    module.layers = torch.nn.Sequential(torch.nn.BatchNorm2d(3).eval())  # has a parameter, which says where it is
    module._memory = threading.local()
    module.eval()

    def resize(resizing: Resizing, images: Tensor) -> Tensor:
        module.resizing = resizing
        found = module(images.clone()).reshape(len(images), 3, 299, 299)
        return found * (1 + 1e-5) ** 0.5

    return resize


def test_clean_resizing_is_that_of_clean_fid(resized: Callable[[Resizing, Tensor], Tensor], images: Tensor) -> None:
    expected = (resized_by_clean_fid("clean", images) - 128) / 128
    torch.testing.assert_close(resized("clean", images), expected, rtol=1e-5, atol=1e-5)
    assert (resized("tensorflow", images) - expected).abs().max() > 0.05


@pytest.mark.parametrize("resizing", get_args(Resizing))
def test_floats_of_levels_are_resized_as_the_levels(
    resized: Callable[[Resizing, Tensor], Tensor], images: Tensor, resizing: Resizing
) -> None:
    torch.testing.assert_close(resized(resizing, to_float(images)), resized(resizing, images), rtol=1e-5, atol=1e-5)


def test_features_of_a_batch_are_computed_once(
    compatible: InceptionFeatures, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatible, "layers", torch.nn.Sequential(torch.nn.Conv2d(3, 2, 299)))
    originals, first, second = images.clone(), 255 - images, images // 2
    compatible(first)
    found = compatible(originals)
    compatible(second)
    assert compatible(originals) is found
    originals += 1
    changed = compatible(originals)
    assert torch.equal(changed, compatible(originals.clone()))
    assert not torch.equal(changed, found)


def test_opening_draws_no_random_number(weights_file: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    InceptionFeatures(weights_file)
    assert torch.equal(torch.get_rng_state(), before)


class Harm:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.place),)


def test_a_file_of_anything_else_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"Conv2d_1a_3x3.conv.weight": Harm(tmp_path / "made")}, path)
    with pytest.raises(ConfigError, match=r"weights.pth: cannot be read as weights; put https://github.com/toshas"):
        InceptionFeatures(path)
    assert not (tmp_path / "made").exists()
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(
        ConfigError, match=r"another network than Inception \(Missing key.*\"Conv2d_1a.*conv.weight\"\)"
    ):
        InceptionFeatures(path)


def test_without_torch_fidelity_a_line_says_how_to_get_it(weights_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ConfigError, match=r"need torch-fidelity; pip install 'imtok\[eval\]'"):
        InceptionFeatures(weights_file)
