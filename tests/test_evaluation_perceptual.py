"""LPIPS on AlexNet with random weights in the published layout, against the `lpips` package and torchmetrics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from imtok.errors import ConfigError
from imtok.evaluation import METRICS
from imtok.evaluation.perceptual import AlexLPIPS
from imtok.tokenizer import to_float


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """AlexNet's convolutions by torchvision's names, with numbers that keep the scale of what passes through."""
    from torchvision.models import alexnet

    random = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {f"features.{name}": value.shape for name, value in alexnet().features.state_dict().items()}
    return {
        name: torch.randn(shape, generator=random) * ((2 / shape[1:].numel()) ** 0.5 if len(shape) > 1 else 0.1)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def metric(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> AlexLPIPS:
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(weights, path)
    return AlexLPIPS(AlexLPIPS.open_network(path))


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    originals = torch.randint(0, 256, (3, 3, 48, 48), generator=generator, dtype=torch.uint8)
    noise = torch.randint(-30, 31, originals.shape, generator=generator)
    return (originals + noise).clamp(0, 255).to(torch.uint8), originals


@pytest.mark.filterwarnings("ignore")
def test_the_distance_is_that_of_the_lpips_package(
    metric: AlexLPIPS, weights: dict[str, Tensor], pair: tuple[Tensor, Tensor]
) -> None:
    lpips = pytest.importorskip("lpips", reason="lpips is not installed")
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for name, value in network.net.named_parameters():
        value.data = weights["features." + name.partition(".")[2]]
    with torch.no_grad():
        expected = network(*map(to_float, pair)).flatten()
    torch.testing.assert_close(metric.of_images(*pair), expected, rtol=1e-4, atol=1e-6)
    assert expected.min() > 1e-3


def test_the_distance_is_that_of_torchmetrics(
    metric: AlexLPIPS, weights: dict[str, Tensor], pair: tuple[Tensor, Tensor]
) -> None:
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(net="alex", pnet_rand=True)
    for name, value in network.net.named_parameters():
        value.data = weights["features." + name.partition(".")[2]]
    with torch.no_grad():
        expected = network(*map(to_float, pair)).flatten()
    torch.testing.assert_close(metric.of_images(*pair), expected, rtol=1e-5, atol=1e-7)


def test_the_mean_has_the_bits_of_the_perceptual_loss(metric: AlexLPIPS, pair: tuple[Tensor, Tensor]) -> None:
    fresh, total = metric.fresh(), 0.0
    for first, last in ((0, 2), (2, 3)):
        restored, originals = (each[first:last] for each in pair)
        fresh.update(restored, originals)
        total += float(fresh.network(to_float(restored), to_float(originals))) * len(originals)
    assert fresh.compute() == total / 3
    assert fresh.values.mean().item() == pytest.approx(total / 3, rel=1e-6)


def test_images_down_to_the_smallest_side_have_a_distance(metric: AlexLPIPS) -> None:
    images = torch.zeros(1, 3, AlexLPIPS.smallest, AlexLPIPS.smallest, dtype=torch.uint8)
    assert metric.of_images(images, images).tolist() == [0.0]
    smaller = images[:, :, 1:, 1:]
    with pytest.raises(ValueError, match="images are 30 x 30 pixels, and LPIPS needs 31 a side"):
        metric.of_images(smaller, smaller)


def test_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"holds another network than AlexNet, features.0.bias is absent"):
        METRICS["lpips_alex"].open_network(tmp_path / "other.pth")
