"""The contract of a metric: rows of images that are cut, written down and joined again without a change of a bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from imtok.evaluation import METRICS, Metric
from imtok.tokenizer import to_float


class Standin(nn.Module):
    """In place of VGG16, AlexNet and Inception: distances and features of the mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def distances(self, restored: Tensor, originals: Tensor) -> Tensor:
        return self.weight * (restored - originals).abs().mean(dim=(1, 2, 3))

    def forward(self, images: Tensor) -> Tensor:
        floats = images if images.is_floating_point() else to_float(images)
        return floats[:, :, ::5].mean(dim=(2, 3)).detach()


def fresh(metric: type[Metric]) -> Metric:
    return metric(Standin()) if metric.needs else metric()


def batches_for(metric: type[Metric]) -> list[tuple[Tensor, Tensor]]:
    """Batches of reconstructions and originals, of unequal sizes."""
    generator, side = torch.Generator().manual_seed(0), max(16, metric.smallest)
    return [
        tuple(torch.randint(0, 256, (size, 3, side, side), generator=generator, dtype=torch.uint8) for _ in range(2))
        for size in (3, 1, 4)
    ]


@pytest.mark.parametrize("metric", METRICS.values())
def test_parts_restored_and_merged_in_order_are_the_whole(metric: type[Metric]) -> None:
    whole = fresh(metric)
    states = []
    for batch in batches_for(metric):
        whole.update(*batch)
        part = fresh(metric)
        part.update(*batch)
        states.append(part.state())
    merged = fresh(metric)
    for state in states:
        part = fresh(metric)
        part.restore(state)
        merged.merge(part)
    assert merged.compute() == whole.compute()
    assert merged.interval() == whole.interval()
    assert merged.images == whole.images == 8
    for name, rows in whole.state().items():
        assert torch.equal(rows, merged.state()[name])
        assert len(rows) == 8


@pytest.mark.parametrize("metric", METRICS.values())
def test_restoring_takes_the_place_of_earlier_rows(metric: type[Metric]) -> None:
    first, other, batches = fresh(metric), fresh(metric), batches_for(metric)
    first.update(*batches[0])
    other.update(*batches[2])
    assert other.compute() != first.compute() or metric.name in {"precision", "recall"}
    other.restore(first.state())
    assert other.compute() == first.compute()
    other.restore(fresh(metric).state())
    assert other.images == 0


@pytest.mark.parametrize("metric", METRICS.values())
def test_floats_of_levels_are_measured_as_the_levels(metric: type[Metric]) -> None:
    levels, floats = fresh(metric), fresh(metric)
    for restored, originals in batches_for(metric):
        levels.update(restored, originals)
        floats.update(to_float(restored), to_float(originals))
    assert floats.compute() == pytest.approx(levels.compute(), rel=1e-6)


def test_floats_between_levels_are_not_rounded() -> None:
    originals = torch.zeros(1, 3, 16, 16)
    psnr = METRICS["psnr"]()
    psnr.update(originals + 0.25 / 127.5, originals)
    assert psnr.compute() == pytest.approx(20 * torch.tensor(255 / 0.25).log10().item(), rel=1e-6)
