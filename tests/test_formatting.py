"""Formatting that terminal and report share."""

from __future__ import annotations

import pytest
from statistics_example import example

from imtok.analysis.formatting import (
    brief,
    headline,
    map_range,
    over_codebooks,
    significant,
    span_name,
    tells_places_apart,
    together,
    token_bits,
    worst,
)
from imtok.analysis.statistics import PositionMap, Span, Statistics


def two_codebooks() -> Statistics:
    use = example().codebooks[0]
    first = use.model_copy(update={"usage": 0.75, "dead": 256, "gini": 0.2, "zipf_slope": -1.5})
    second = use.model_copy(update={"usage": 0.25, "dead": 768, "gini": 0.6, "zipf_slope": -0.5})
    return example(num_codebooks=2, codebooks=[first, second], usage=1.0, dead=0)


def test_the_headline_of_several_codebooks_is_their_mean() -> None:
    head = headline(two_codebooks())
    assert (head.usage, head.dead, head.gini, head.zipf_slope) == (0.5, 512, pytest.approx(0.4), -1.0)


def test_with_one_codebook_the_headline_is_that_of_the_set() -> None:
    assert (headline(example(usage=0.6)).usage, worst(example(), "usage"), together(example())) == (0.6, None, "")


def test_the_worst_codebook_has_the_least_or_the_most() -> None:
    found = {name: worst(two_codebooks(), name) for name in ("usage", "dead", "gini", "zipf_slope")}
    assert found == {
        "usage": ("number 2", 0.25), "dead": ("number 2", 768), "gini": ("number 2", 0.6),
        "zipf_slope": ("number 1", -1.5),
    }  # fmt: skip


def test_a_codebook_without_a_slope_is_left_out() -> None:
    statistics = two_codebooks()
    statistics.codebooks[0] = statistics.codebooks[0].model_copy(update={"zipf_slope": None})
    assert over_codebooks(statistics, "zipf_slope") == -0.5


def test_a_map_spans_its_values_but_at_least_one_bit() -> None:
    assert map_range([[2.0, 5.0]]) == (2.0, 5.0)
    assert map_range([[8.0, 8.1]]) == (pytest.approx(7.1), 8.1)


@pytest.mark.parametrize(("entropies", "expected"), [([2.0, 1.97, 0.5], False), ([2.0, 1.95, 0.5], True)])
def test_positions_are_compared_unless_most_are_near_the_limit(entropies: list[float], expected: bool) -> None:
    positions = PositionMap(images=4, entropy_bits=[entropies], limit_bits=2.0, surprisal_bits=[entropies])
    assert tells_places_apart(positions) == expected


def test_rows_of_bits_go_from_the_limit_to_the_coder() -> None:
    rows = [(row.name, row.low, row.high) for row in token_bits(example())]
    assert rows == [
        ("log2 K", 10.0, None), ("entropy", 9.123, None), ("given left", 6.7, 7.4), ("given above", 6.9, 7.6),
        ("coded", 7.4, None),
    ]  # fmt: skip


def test_spans_are_named_by_how_often_their_codes_occur() -> None:
    spans = [(0, 0), (1, 1), (2, 9), (1000, 9999), (10_000, 99_999)]
    named = [span_name(Span(low=low, high=high, codes=1)) for low, high in spans]
    assert named == ["never", "once", "2 to 9", "1,000 to 9,999", "10k to 100k"]


def test_small_numbers_keep_two_digits() -> None:
    assert [significant(value) for value in (0.0, 0.0123, 0.001, 0.00099, 1.234e-5, -2e-6)] == [
        "0.0000", "0.0123", "0.0010", "0.00099", "1.2e-05", "-2e-06",
    ]  # fmt: skip


def test_axes_are_short() -> None:
    assert [brief(value) for value in (0.5, 10, 2500, 1e6, 3e9, -2.0)] == ["0.5", "10", "2.5k", "1M", "3B", "−2"]
