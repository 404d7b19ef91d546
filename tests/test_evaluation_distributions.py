"""Frechet distance, precision and recall of features, against torch-fidelity's own functions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imtok.evaluation import distributions
from imtok.evaluation.distributions import frechet_distance, gaussian_of, rows_in_blocks, share_inside


def features(count: int, dim: int, seed: int) -> Tensor:
    """Features as Inception's are: at least 0, with correlated columns and another mean in each."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, dim, generator=generator) @ torch.randn(dim, dim, generator=generator) / dim**0.5
    return (mixed + torch.rand(dim, generator=generator)).relu()


@pytest.mark.parametrize("count", [600, 40])
def test_the_frechet_distance_is_that_of_torch_fidelity(count: int) -> None:
    fid = pytest.importorskip("torch_fidelity.metric_fid", reason="torch-fidelity is not installed")
    originals = features(count, 64, 0)
    restored = (originals + 0.1 * features(count, 64, 1)).relu()
    statistics = [fid.fid_features_to_statistics(each) for each in (restored, originals)]
    expected = fid.fid_statistics_to_metric(*statistics, verbose=False)[fid.KEY_METRIC_FID]
    assert frechet_distance(gaussian_of([restored]), gaussian_of([originals])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [6, 40, 300])
def test_few_images_leave_no_rounding_in_the_distance(count: int) -> None:
    originals = features(count, 64, 0).double()
    restored = (originals + 0.1 * features(count, 64, 1)).relu()
    first, second = (each - each.mean(dim=0) for each in (restored, originals))
    root = torch.linalg.svdvals(first @ second.T).sum()  # those of (C1 C2)^(1/2), times N - 1
    spread = (first.square().sum() + second.square().sum() - 2 * root) / (count - 1)
    expected = (restored.mean(dim=0) - originals.mean(dim=0)).square().sum() + spread
    assert frechet_distance(gaussian_of([restored]), gaussian_of([originals])) == pytest.approx(
        expected.item(), rel=1e-10
    )


def test_the_frechet_distance_of_two_known_normal_laws() -> None:
    first = distributions.Gaussian(torch.tensor([1.0, 0.0]).double(), torch.diag(torch.tensor([4.0, 1.0])).double())
    second = distributions.Gaussian(torch.tensor([0.0, 2.0]).double(), torch.diag(torch.tensor([9.0, 1.0])).double())
    assert frechet_distance(first, second) == pytest.approx(1 + 4 + (3 - 2) ** 2)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


def test_large_means_cost_the_covariance_no_digits() -> None:
    values = features(300, 8, 2).double()
    mean, covariance = gaussian_of([values + 1e6])
    torch.testing.assert_close(
        covariance, torch.from_numpy(gaussian_of([values]).covariance.numpy()), rtol=1e-8, atol=1e-8
    )
    torch.testing.assert_close(mean - 1e6, values.mean(dim=0), rtol=1e-9, atol=1e-9)


def test_results_are_bit_equal_for_any_parts_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    originals, restored = features(2500, 48, 3), features(2500, 48, 4)
    expected = frechet_distance(gaussian_of([restored]), gaussian_of([originals]))
    share = share_inside(restored, originals)
    for cores, part in ((1, 7), (3, 1000), (5, 2499)):
        monkeypatch.setattr(distributions, "usable_cores", lambda cores=cores: cores)
        parts = [list(torch.split(each, part)) for each in (restored, originals)]
        assert frechet_distance(*map(gaussian_of, parts)) == expected
        assert share_inside(restored, originals) == share


def test_blocks_hold_all_rows_in_order_wherever_batches_end() -> None:
    rows = torch.arange(23.0).view(23, 1)
    blocks = list(rows_in_blocks(torch.split(rows, 4), 9))
    assert [len(block) for block in blocks] == [9, 9, 5]
    assert torch.equal(torch.cat(blocks), rows)
    assert list(rows_in_blocks([], 9)) == []


@pytest.mark.parametrize(("block", "tile"), [(1024, 4096), (16, 24)])
def test_precision_and_recall_are_those_of_torch_fidelity(
    monkeypatch: pytest.MonkeyPatch, block: int, tile: int
) -> None:
    prc = pytest.importorskip("torch_fidelity.metric_prc", reason="torch-fidelity is not installed")
    monkeypatch.setattr(distributions, "_BLOCK", block)
    monkeypatch.setattr(distributions, "_TILE", tile)
    originals = features(150, 12, 5)
    restored = 0.8 * features(130, 12, 6) + 0.1
    precision, recall = prc.calculate_precision_recall_full(restored, originals)
    assert 0.05 < precision < 0.95
    assert share_inside(restored, originals) == pytest.approx(precision, abs=1e-6)
    assert share_inside(originals, restored) == pytest.approx(recall, abs=1e-6)


def test_precision_by_hand() -> None:
    centres = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # nearest others at 1, 1, 2 and 7
    queries = torch.tensor([[-1.5], [-0.5], [2.5], [5.5], [2.0], [18.0]])
    assert share_inside(queries, centres, neighbours=1) == pytest.approx(4 / 6)
