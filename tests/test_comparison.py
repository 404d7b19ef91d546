"""Token sets side by side."""

from __future__ import annotations

import json
from typing import Any

import pytest
from statistics_example import example

from imtok.analysis.comparison import Row, comparison_dict, comparison_rows
from imtok.analysis.statistics import Statistics


def measured(name: str, psnr: float | None, raw: float, coded: float, **quality: Any) -> Statistics:
    """A set with its quality and bits per image."""
    statistics = example(name=name)
    assert statistics.tokenizer
    assert statistics.tokenizer.reconstruction
    reconstruction = statistics.tokenizer.reconstruction.model_copy(update={"psnr": psnr, **quality})
    tokenizer = statistics.tokenizer.model_copy(update={"reconstruction": reconstruction})
    bits = statistics.bits.model_copy(update={"raw_per_image": raw, "coded_per_image": coded})
    return statistics.model_copy(update={"tokenizer": tokenizer, "bits": bits})


def two_codebooks() -> Statistics:
    """Counted together all codes occur, and in each codebook alone some never do."""
    use = example().codebooks[0]
    books = [
        use.model_copy(update={"usage": 1 - dead / 1024, "used": 1024 - dead, "dead": dead}) for dead in (256, 768)
    ]
    return example(num_codebooks=2, codebooks=books, usage=1.0, used=1024, dead=0)


def row(name: str, *sets: Statistics) -> Row:
    return next(row for row in comparison_rows(sets) if row.name == name)


def test_bits_per_image_come_first_and_beside_quality() -> None:
    sets = [measured("a", 25.9, 2560, 1894.4), measured("b", 30.125, 10240, 9000)]
    rows = comparison_rows(sets)
    assert [row.name for row in rows[:4]] == [
        "bits per image, raw",
        "bits per image, coded",
        "bits per pixel, coded",
        "PSNR",
    ]
    assert rows[0].values == ("2,560", "10,240")
    assert rows[1].values == ("1,894", "9,000")
    assert rows[3].values == ("25.90 dB", "30.12 dB")
    assert rows[3].beside == ("at 2,560 bits", "at 10,240 bits")
    assert [row("SSIM", *sets).whole(place) for place in (0, 1)] == ["0.7400 at 2,560 bits", "0.7400 at 10,240 bits"]


@pytest.mark.parametrize(
    ("name", "field", "values", "best"),
    [("usage", "usage", (0.5, 0.75), 1), ("Gini", "gini", (0.5, 0.75), 0), ("Zipf slope", "zipf_slope", (-1, 0), None)],
)
def test_the_best_set_has_the_most_or_the_least(
    name: str, field: str, values: tuple[float, float], best: int | None
) -> None:
    assert row(name, *(example(**{field: value}) for value in values)).best == best


def test_different_measurements_and_equal_values_have_no_best_set() -> None:
    assert row("usage", example(usage=0.5), example(usage=0.75, size=64)).best is None
    fewer = example(usage=0.75).model_copy(update={"images": 999})
    assert row("usage", example(usage=0.5), fewer).best is None
    assert row("usage", example(usage=0.75), example(usage=0.7501)).best is None
    assert row("usage", example(usage=0.5)).best is None
    one, more = measured("a", 25.0, 2560, 2000), measured("b", 26.0, 2560, 2000)
    assert row("PSNR", one, more).best == 1
    assert row("PSNR", one, measured("b", 26.0, 2560, 2000, protocol="another")).best is None


def test_fewer_bits_and_stabler_codes_alone_are_not_best() -> None:
    rows = comparison_rows([measured("a", 25.0, 2560, 2000), measured("b", 25.0, 1280, 1000)])
    for name in ("bits per image, raw", "bits per image, coded", "same after a pass", "JPEG quality 75"):
        assert next(row for row in rows if row.name == name).best is None


def test_a_set_ahead_in_quality_or_bits_dominates() -> None:
    sets = [
        measured("base", 25.0, 2560, 2000),
        measured("better", 26.0, 2560, 2000),
        measured("shorter", 24.0, 1280, 1000),
        measured("wasteful", 24.0, 2560, 2100),
    ]
    assert row("dominated by", *sets).values == ("better", "nobody", "nobody", "base, better, shorter")
    assert row("dominated by", sets[0], measured("twin", 25.0, 2560, 2000)).values == ("nobody", "nobody")


def test_sets_measured_on_other_images_do_not_dominate() -> None:
    sets = [measured("a", 25.0, 2560, 2000), measured("b", 26.0, 2560, 2000, images=7), example(tokenizer=False)]
    assert "dominated by" not in [row.name for row in comparison_rows(sets)]
    for other in ({"images": 999}, {"size": 64}):
        fewer = measured("b", 26.0, 2560, 1000).model_copy(update=other)
        assert "dominated by" not in [row.name for row in comparison_rows([sets[0], fewer])]


def test_exact_images_are_ahead_of_all() -> None:
    sets = [measured("a", 90.0, 2560, 2000), measured("exact", None, 2560, 2000)]
    assert row("PSNR", *sets).values == ("90.00 dB", "exact")
    assert row("PSNR", *sets).best == 1
    assert row("dominated by", *sets).values == ("exact", "nobody")


def test_absent_values_are_dashes_and_absent_rows_left_out() -> None:
    without = example(tokenizer=False, per_256_images=None, quantizer=None)
    assert row("PSNR", example(), without).values[1] == "-"
    assert row("usage per 256 images", example(), without).values == ("91.0%", "-")
    names = {row.name for row in comparison_rows([without, without])}
    assert not names & {"PSNR", "SSIM", "same after a pass", "JPEG quality 95", "usage per 256 images", "quantizer"}


def test_perturbations_are_compared_by_name() -> None:
    assert row("shift right by 1 pixel", example(), example()).values == ("62.0% changed", "62.0% changed")


def test_codebooks_are_part_of_the_codes_where_there_are_several() -> None:
    assert row("codes", example(), example(num_codebooks=4)).values == ("16 x 16 of 1,024", "16 x 16 x 4 of 1,024")


def test_several_codebooks_show_mean_and_worst() -> None:
    several = two_codebooks()
    assert row("usage", example(), several).values == ("95.7%", "50.0%")
    assert row("usage", example(), several).beside == ("", "(mean of 2 codebooks; worst: number 2, 25.0%)")
    assert row("dead codes", example(), several).whole(1) == "512 (mean of 2 codebooks; worst: number 2, 768)"
    assert row("usage", example(usage=0.6), several).best == 0


def test_an_error_too_small_for_four_decimals_keeps_its_digits() -> None:
    statistics = example()
    assert statistics.tokenizer
    assert statistics.tokenizer.error
    error = statistics.tokenizer.error.model_copy(update={"relative": 1.234e-5})
    tokenizer = statistics.tokenizer.model_copy(update={"error": error})
    assert row("quantization error", statistics.model_copy(update={"tokenizer": tokenizer})).values == ("1.2e-05",)


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for row in comparison_rows([example(), two_codebooks()])]
    assert len(names) == len(set(names))
    assert {"PSNR", "dominated by", "usage", "JPEG quality 95"} <= set(names)


def test_mutual_information_ranges_from_gain_to_estimate() -> None:
    neighbours = example().horizontal
    assert neighbours
    few_pairs = neighbours.model_copy(update={"coded_bits": 15.0, "mutual_information_corrected_bits": 11.6})
    shown = row("mutual information", example(), example(horizontal=few_pairs), example(horizontal=None)).values
    assert shown == ("1.72 to 2.40", "0.00 to 11.60", "-")


def test_every_row_has_values_and_a_definition() -> None:
    for each in comparison_rows([example(), example(), example(tokenizer=False)]):
        assert len(each.values) == 3
        assert each.definition


def test_the_json_holds_the_whole_records() -> None:
    sets = [example(name="a"), example(name="b", tokenizer=False)]
    record = json.loads(json.dumps(comparison_dict(sets)))
    assert (record["format"], record["version"]) == ("imtok-comparison", 1)
    assert [Statistics.model_validate(each) for each in record["tokenizers"]] == sets
