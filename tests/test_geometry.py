"""Geometry of codebooks equals plain NumPy, for tiny and for large codebooks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from making import QUANTIZERS, tiny

from imtok.analysis import geometry
from imtok.analysis.geometry import code_vectors, codebook_geometry, distinct_codebooks, effective_rank, evenly_spaced
from imtok.analysis.statistics import Geometry
from imtok.quantizer_config import FSQConfig, ProductConfig, ResidualConfig, VQConfig


def drawn(codes: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(codes, dim, generator=torch.Generator().manual_seed(seed)) + 3


def seen(vectors: torch.Tensor, counts: np.ndarray | None = None) -> Geometry:
    counts = np.ones(len(vectors), np.int64) if counts is None else counts
    return codebook_geometry(vectors, counts, codebook=0, fixed=False)


def numpy_rank(rows: np.ndarray) -> float:
    """By the singular values of the rows themselves."""
    singular = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    shares = singular / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def nearest_others(rows: np.ndarray) -> np.ndarray:
    table = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(table, np.inf)
    return table.min(axis=1)


def test_the_geometry_equals_plain_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "_ROWS", 16)  # several tiles, the last ones short
    monkeypatch.setattr(geometry, "_COLUMNS", 24)
    vectors = drawn(90, 5)
    rows = vectors.double().numpy()
    counts = np.random.default_rng(0).integers(0, 9, 90)
    found = seen(vectors, counts)
    assert (found.codes, found.dim, found.codebook) == (90, 5, 0)
    norms, distances = np.linalg.norm(rows, axis=1), nearest_others(rows)
    assert found.mean_norm == pytest.approx(norms.mean())
    assert found.median_distance == pytest.approx(np.median(distances), rel=1e-12)
    for histogram, values in ((found.norms, norms), (found.distances, distances)):
        assert histogram.counts == np.histogram(values, 40)[0].tolist()
        assert histogram.edges == pytest.approx(np.histogram(values, 40)[1])
    assert found.effective_rank == pytest.approx(numpy_rank(rows))
    assert found.effective_rank_used == pytest.approx(numpy_rank(np.repeat(rows, counts, axis=0)))


def test_the_map_is_the_two_main_axes() -> None:
    vectors = drawn(60, 3) * torch.tensor([1.0, 9.0, 4.0])
    rows = vectors.double().numpy()
    found = seen(vectors, np.arange(60))
    axes = np.linalg.svd(rows - rows.mean(axis=0))[2][:2]
    expected = (rows - rows.mean(axis=0)) @ axes.T
    np.testing.assert_allclose(np.abs(found.points), np.abs(expected), atol=1e-9)
    assert found.point_codes == found.point_counts == list(range(60))


def test_equal_codes_are_near_duplicates_of_each_other() -> None:
    vectors = drawn(20, 4)
    vectors[7] = vectors[3]
    vectors[11] = vectors[12] + 1e-4
    found = seen(vectors)
    assert found.near_duplicates == 4
    assert found.distances.edges[0] == 0


def test_distances_far_from_the_origin_keep_their_digits() -> None:
    rows = np.array([[1e6, 0.0], [1e6, 1e-3], [1e6, 1.0]])
    assert seen(torch.from_numpy(rows)).median_distance == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize("levels", [(5, 5, 5), (8, 8, 5), (7, 5)])
def test_nearest_codes_of_fsq_are_one_step_apart(levels: tuple[int, ...]) -> None:
    ((book, _),) = distinct_codebooks(tiny(quantizer=FSQConfig(levels=levels)).quantizer)
    found = codebook_geometry(code_vectors(book), np.zeros(math.prod(levels), np.int64), codebook=0, fixed=True)
    assert found.median_distance == pytest.approx(1 / (max(levels) // 2))
    assert sum(found.distances.counts) == math.prod(levels)
    assert found.near_duplicates == 0


def test_equal_extent_in_all_directions_is_full_rank() -> None:
    signs = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    assert 2.999 < effective_rank(signs) <= 3
    assert effective_rank(signs, torch.tensor([1, 0, 0, 0, 0, 0, 0, 1])) == pytest.approx(1)


def test_a_single_code_has_no_distance() -> None:
    found = seen(torch.ones(1, 3))
    assert (found.codes, found.median_distance, found.near_duplicates, found.effective_rank) == (1, 0, 0, 0)
    assert sum(found.distances.counts) == 0
    assert found.points == [(0, 0)]


def test_codes_that_are_all_equal_are_all_near_duplicates() -> None:
    found = seen(torch.full((5, 2), 2.0))
    assert (found.near_duplicates, found.median_distance, found.effective_rank) == (5, 0, 0)
    assert sum(found.norms.counts) == 5


def test_one_dimension_and_no_use_work() -> None:
    found = seen(torch.tensor([[0.0], [1.0], [3.0]]), np.zeros(3, np.int64))
    assert found.median_distance == 1
    assert (found.effective_rank, found.effective_rank_used) == (pytest.approx(1), 0)
    assert [y for _, y in found.points] == [0, 0, 0]
    assert [x for x, _ in found.points] == pytest.approx([-4 / 3, -1 / 3, 5 / 3])


def test_lengths_that_differ_by_rounding_alone_are_one_bar() -> None:
    vectors = torch.nn.functional.normalize(drawn(50, 6).double()).float()
    found = seen(vectors)
    assert max(found.norms.counts) == 50
    assert (found.norms.edges[0], found.norms.edges[-1]) == pytest.approx((0.94875, 1.04875))


@pytest.mark.parametrize(
    ("number", "most", "places"),
    [(10, 4, [0, 2, 5, 7]), (3, 9, [0, 1, 2]), (7, 1, [0]), (4, 0, []), (0, 4, [])],
)
def test_indices_are_evenly_spaced_from_the_first_on(number: int, most: int, places: list[int]) -> None:
    assert evenly_spaced(number, most).tolist() == places


def test_of_many_codes_evenly_spaced_ones_are_sought_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MOST_SOUGHT", 10)
    vectors = drawn(95, 3)
    found = seen(vectors)
    assert found.codes == sum(found.distances.counts) == 10
    places = [place * 95 // 10 for place in range(10)]
    expected = nearest_others(vectors.double().numpy())[places]
    assert found.median_distance == pytest.approx(np.median(expected))
    assert sum(found.norms.counts) == 95


def test_a_large_map_shows_most_used_and_evenly_spaced_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MOST_POINTS", 6)
    counts = np.array([0, 5, 0, 0, 9, 0, 0, 7, 0, 0, 0, 0])
    found = seen(drawn(12, 2), counts)
    assert found.point_codes == [0, 1, 4, 5, 7, 9]
    assert found.point_counts == [0, 5, 9, 0, 7, 0]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codebooks_are_shared_as_the_configuration_says(name: str) -> None:
    config = QUANTIZERS[name]
    books = distinct_codebooks(tiny(quantizer=config).eval().quantizer)
    assert sorted(index for _, indices in books for index in indices) == list(range(len(config.codebook_ids)))
    for base, indices in books:
        assert len({config.codebook_ids[index] for index in indices}) == 1
        assert (not base.code_tensors()) == (config.base.kind in ("fsq", "lfq", "bsq"))
    assert len(books) == len(set(config.codebook_ids))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_vectors_are_what_the_base_quantizer_looks_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "_CHUNK", 13)
    quantizer = tiny(quantizer=QUANTIZERS[name]).eval().quantizer
    for book, _ in distinct_codebooks(quantizer):
        vectors = code_vectors(book)
        assert vectors.shape == (quantizer.num_codes, book.code_dim)
        looked_up = book.lookup(torch.tensor([[[quantizer.num_codes - 1, 1]]]))
        assert torch.equal(vectors[[-1, 1]], looked_up[0, :, 0].T)


def test_codes_of_a_cosine_codebook_have_unit_length() -> None:
    ((book, _),) = distinct_codebooks(tiny(quantizer=QUANTIZERS["cosine"]).eval().quantizer)
    assert seen(code_vectors(book)).mean_norm == pytest.approx(1, abs=1e-6)


def test_codes_of_residual_stages_add_up_to_the_latents() -> None:
    config = ResidualConfig(part=VQConfig(dim=4, num_codes=32), depth=2, scales=(1.0, 0.5))
    quantizer = tiny(quantizer=config).eval().quantizer
    first, second = (code_vectors(book) for book, _ in distinct_codebooks(quantizer))
    latents = quantizer.lookup(torch.tensor([[[[5, 9]]]]))
    torch.testing.assert_close(latents[0, :, 0, 0], first[5] + 0.5 * second[9])


def test_heads_of_a_product_have_codebooks_of_their_own() -> None:
    quantizer = tiny(quantizer=ProductConfig(part=VQConfig(dim=3, num_codes=32), heads=2)).eval().quantizer
    first, second = (code_vectors(book) for book, _ in distinct_codebooks(quantizer))
    latents = quantizer.lookup(torch.tensor([[[[5, 9]]]]))
    assert torch.equal(latents[0, :, 0, 0], torch.cat([first[5], second[9]]))
