"""The statistics of `imtok stats` in a terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from statistics_example import example

from imtok.analysis.statistics import Dimension, Duplicates, Finding, PositionMap, Statistics, Use
from imtok.cli.stats_charts import bar, heat_map, plain, sparkline
from imtok.cli.stats_view import print_sets

WIDTHS = [24, 40, 60, 80, 120, 200]


def text(*sets: Statistics, width: int = 80, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, **options)
    print_sets(console, sets)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def healthy() -> Statistics:
    none = Duplicates(images=1000, duplicates=0, groups=0, largest=[])
    return example(tokenizer=False, dimensions=[], classes=[], findings=[], duplicates=none)


def with_grid(high: int, wide: int) -> Statistics:
    bits = [[float(row + column) for column in range(wide)] for row in range(high)]
    positions = PositionMap(images=1000, entropy_bits=bits, limit_bits=64.0, surprisal_bits=bits)
    return example(tokenizer=False, grid=(high, wide), positions=positions)


def empty() -> Statistics:
    statistics = healthy()
    nothing = {"tokens": 0, "used": 0, "usage": 0.0, "dead": 1024, "zipf_slope": None, "top": [], "growth": []}
    absent = {"positions": None, "horizontal": None, "vertical": None, "per_256_images": None, "rank_frequency": []}
    return statistics.model_copy(update={"images": 0, **nothing, **absent})


def test_main_statistics_stand_beside_their_names() -> None:
    shown = text(healthy())
    for line in (
        r"images +1,000, 3 inputs skipped",
        r"tokens +256,000",
        r"codes used +980 of 1,024 \(95\.7%\)",
        r"per 256 images +91\.0% \(89\.0% to 93\.0%\)",
        r"dead codes +44, and 12 nearly dead",
        r"perplexity +556\.4 \(54\.3% of K\)",
        r"entropy +9\.120 of 10\.000 bits a token, 9\.123 corrected",
        r"bits an image +2,560 raw, 1,894 coded \(left neighbour\)",
        r"neighbours +mutual information 1\.72 to 2\.40 across, 1\.52 to 2\.20 down",
        r"evenness +Gini 0\.520, Zipf slope -0\.61",
        r"duplicates +0 of 1,000 images",
        r"most used +17 \(1\.60%\), 3 \(1\.52%\)",
    ):
        assert re.search(rf"(?m)^{line}", shown), line


def test_meanings_stand_beside_where_the_width_allows() -> None:
    meaning = "that many equally frequent codes would carry as much"
    assert meaning in text(healthy(), width=120)
    assert meaning not in text(healthy(), width=80)


def test_a_healthy_set_takes_a_screen_and_a_half() -> None:
    lines = text(healthy()).splitlines()
    assert "healthy: no statistic passes the threshold of a warning" in lines
    assert len(lines) <= 48


def test_advice_comes_before_the_figures_the_gravest_first() -> None:
    grades = ("hint", "problem", "warning")
    findings = [Finding(name=grade, grade=grade, text=f"about {grade}", page="docs/x.md") for grade in grades]
    shown = text(example(findings=findings))
    assert "healthy" not in shown
    places = [shown.index(words) for words in ("about problem", "about warning", "about hint", "codes used")]
    assert places == sorted(places)
    assert "problem about problem (problem)" in shown
    assert "--report REPORT.html says more about each finding" in shown


def test_hints_alone_leave_a_set_healthy_and_are_listed() -> None:
    shown = text(example(findings=[Finding(name="x", grade="hint", text="worth knowing", page="docs/x.md")]))
    assert shown.index("healthy: no statistic passes") < shown.index("hint worth knowing (x)")


def several_codebooks() -> Statistics:
    """Two that use different codes: counted together, all of them."""
    use = example().codebooks[0]
    books = [
        use.model_copy(
            update={"used": used, "usage": used / 1024, "dead": 1024 - used, "gini": gini, "perplexity": most}
        )
        for used, gini, most in ((256, 0.8, 100.0), (768, 0.4, 500.0))
    ]
    return example(num_codebooks=2, codebooks=books, used=1024, usage=1.0, dead=0, gini=0.1, perplexity=999.0)


def test_several_codebooks_are_told_by_their_mean_and_the_worst() -> None:
    shown = text(several_codebooks(), width=110)
    for line in (
        r"codes used +512 of 1,024 \(50\.0%\), mean of 2 codebooks; least: number 1, 25\.0%",
        r"dead codes +512, and 12 nearly dead; most: number 1, 768",
        r"perplexity +300\.0 .*; least: number 1, 100\.0",
        r"entropy +9\.120 of 10\.000 .*; least: number 1, 9\.120",
        r"evenness +Gini 0\.600, .*; Gini most: number 1, 0\.800",
    ):
        assert re.search(rf"(?m)^{line}", shown), line
    assert "999.0" not in shown


def test_charts_name_the_codebooks_that_they_count() -> None:
    shown = text(several_codebooks(), width=200)
    for words in (
        r"most used .*, all codebooks together",
        "codes by how often they occur, all codebooks together",
        "occurrences by rank, both logarithmic, all codebooks together",
        "codes used by images seen, all codebooks together",
        "by class, all codebooks together",
        "least stable, first codebook: ",
        "changed most, first codebook: ",
        r"by code .*, first codebook",
    ):
        assert re.search(words, shown), words
    assert not re.search("codebooks? together|first codebook", text(example(), width=200))


def test_a_map_of_hardly_anything_but_noise_spans_a_bit() -> None:
    noise = [[8.0, 8.1]]
    positions = PositionMap(images=9, entropy_bits=noise, limit_bits=64.0, surprisal_bits=noise)
    assert text(example(positions=positions)).count("7.10  ░▒▓█ 8.10") == 2


def test_each_severity_has_its_colour() -> None:
    problem = Finding(name="x", grade="problem", text="collapsed", page="docs/x.md")
    assert "\x1b[1;31mproblem\x1b[0m" in text(
        example(findings=[problem]), force_terminal=True, color_system="truecolor", no_color=False
    )


def test_a_set_without_images_is_not_called_healthy() -> None:
    shown = text(empty())
    assert "no images: there are no tokens to analyze; 3 inputs were skipped" in shown
    assert "healthy" not in shown
    assert "codes by how often" not in shown
    assert re.search(r"(?m)^most used +none", shown)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_console(width: int) -> None:
    books = [Use(**{name: getattr(example(), name) for name in Use.model_fields})] * 12
    long = {"name": "folder/" * 40, "quantizer": "VQ " * 50, "num_codebooks": 12, "codebooks": books}
    pages = [text(example(**long), width=width), text(empty(), width=width), text(with_grid(70, 90), width=width)]
    pages.append(text(*[example(**long)] * 3, width=width))
    for page in pages:
        assert max(cell_len(line) for line in page.splitlines()) <= width


def test_the_histogram_has_a_bar_for_each_group_of_codes() -> None:
    shown = text(healthy(), width=60)
    for line in (r"never █\S* +44", r"once \S+ +6", r"10 to 99 █+\S? +300", r"100 to 999 █+\S? +560"):
        assert re.search(line, shown), line


def test_bits_a_token_are_bars_in_proportion() -> None:
    shown = text(healthy(), width=60)
    lengths = {}
    for name in ("log2 K", "given left", "coded"):
        found = re.search(rf"{name} (█+)\S?(░*)", shown)
        assert found
        lengths[name] = (len(found[1]), len(found[2]))
    longest = lengths["log2 K"][0]
    assert lengths["coded"] == (pytest.approx(0.74 * longest, abs=1), 0)
    assert lengths["given left"] == (pytest.approx(0.67 * longest, abs=1), pytest.approx(0.07 * longest, abs=1))
    assert "6.70 to 7.40" in shown


def test_sampled_neighbours_are_reported() -> None:
    statistics = healthy()
    assert statistics.horizontal
    sampled = statistics.horizontal.model_copy(update={"contexts_share": 0.125})
    assert "neighbours of 12.5% of the codes" in text(statistics.model_copy(update={"horizontal": sampled}))
    assert "of the codes" not in text(statistics)


def test_a_map_in_colours_has_two_rows_a_line() -> None:
    shown = text(with_grid(16, 16), force_terminal=True, color_system="truecolor", no_color=False)
    *rows, scale = [line for line in shown.splitlines() if "▀" in line]
    assert "30.00" in scale
    assert len(rows) == 8
    assert {line.count("▀") for line in rows} == {32}
    assert "\x1b[38;2;68;1;84;48;2;" in rows[0]
    assert "\x1b[38;2;253;231;37" not in rows[0]


@pytest.mark.parametrize("options", [{}, {"force_terminal": True, "color_system": "truecolor", "no_color": True}])
def test_a_map_without_colours_is_made_of_shades(options: dict[str, Any]) -> None:
    shown = text(with_grid(16, 16), **options)
    assert "▀" not in shown
    assert sum(bool(re.search("[░▒▓]", line)) for line in shown.splitlines()) == 9  # and the scale
    assert "0.00  ░▒▓█ 30.00" in shown


def test_entropy_by_place_is_left_out_for_too_few_images() -> None:
    full = PositionMap(images=8, entropy_bits=[[3.0, 2.99]], limit_bits=3.0, surprisal_bits=[[8.0, 12.5]])
    shown = text(example(positions=full))
    assert "entropy left out: 8 images are too few" in shown
    assert "8.00  ░▒▓█ 12.50" in shown
    assert "2.99" not in shown


@pytest.mark.parametrize(("high", "wide", "lines", "across"), [(4, 4, 10, 20), (8, 8, 8, 16), (32, 32, 16, 32)])
def test_small_maps_are_enlarged_in_whole_steps(high: int, wide: int, lines: int, across: int) -> None:
    rows = heat_map([[0.0] * wide] * high, 0, 1, 60, colours=True)[:-1]
    assert (len(rows), {len(row) for row in rows}) == (lines, {across})


def test_large_maps_are_pooled_by_their_means() -> None:
    rows = heat_map([[1.0] * 32 + [0.0] * 32] * 64, 0, 1, 32, colours=False)[:-1]
    assert [row.plain for row in rows] == ["█" * 16 + " " * 16] * 16
    ragged = heat_map([[1.0] * 5] * 5, 0, 1, 3, colours=False)[:-1]
    assert [row.plain for row in ragged] == ["███"] * 2


def test_a_map_of_odd_rows_fills_its_last_line() -> None:
    rows = heat_map([[0.0, 1.0]] * 21, 0, 1, 2, colours=True)
    assert len(rows[:-1]) == 11
    assert {row.plain for row in rows[:-1]} == {"▀▀"}


def test_a_map_of_one_value_is_drawn() -> None:
    assert [row.plain for row in heat_map([[3.0]], 3, 3, 4, colours=False)[:-1]] == ["    "] * 2


def test_names_and_keys_are_no_markup_and_move_no_cursor() -> None:
    keys = ["[red]x[/red].jpg", "\x1b[2J.jpg", ":cat:.jpg"]
    statistics = example(
        name="[bold]tokens[/]",
        duplicates=Duplicates(images=9, duplicates=2, groups=3, largest=[keys]),
        classes=[example().classes[0].model_copy(update={"name": "[red]bird"})],
    )
    shown = text(statistics)
    for words in ("codebook use in [bold]tokens[/]", "[red]x[/red].jpg = \\x1b[2J.jpg = :cat:.jpg", "[red]bird"):
        assert words in shown
    assert "\x1b" not in shown
    assert "and 2 more such groups" in shown
    assert "[bold]tokens[/]" in text(statistics, statistics)


def test_a_long_name_keeps_its_end() -> None:
    assert plain("a/very/long/path/tokens-fsq", 12).plain == "…/tokens-fsq"
    assert cell_len(plain("層" * 20, 12).plain) <= 12


def test_codebooks_dimensions_and_classes_are_listed_where_there_are_any() -> None:
    assert "by codebook" not in text(healthy())
    assert "by dimension" not in text(healthy())
    assert "by class" not in text(healthy())
    use = healthy().codebooks[0]
    stages = [use.model_copy(update={"used": 900 - number}) for number in range(12)]
    dimensions = [Dimension(codebook=0, dimension=0, shares=[0.25, 0.5, 0.25], entropy_bits=1.5, max_bits=1.585)]
    classes = [example().classes[0].model_copy(update={"name": f"class{number}"}) for number in range(12)]
    shown = text(example(codebooks=stages, num_codebooks=12, dimensions=dimensions, classes=classes))
    assert "16 x 16 x 12 codes of 1,024" in shown
    assert re.search(r" 1 ▄█▄ 1\.50 of 1\.58", shown)
    assert re.search(r"10 █+\S? +891 +556\.4", shown)
    assert "and 2 more codebooks" in shown
    assert re.search(r"class0 +100 +700 +300\.0 +0\.40", shown)
    assert "class9" in shown
    assert "class10" not in shown
    assert "and 2 more classes" in shown


def test_the_tokenizer_has_its_own_part() -> None:
    shown = text(example(), width=120)
    for words in (
        r"the tokenizer in tokens/tokenizer",
        r"PSNR +25\.90 dB",
        r"bits +2,560 an image, 1,894 coded",
        r"protocol: PIL bicubic to 128, uint8 RGB",
        r"pass 3 █+\S? +76\.0%  34\.8 dB",
        r"codes changed, 64 images",
        r"JPEG quality 95 █+\S? +11\.0%",
        r"relative +9\.0% of the latents' power",
        r"effective rank +12\.4 of 32 \(9\.8 used\)",
        r"near duplicates +5",
    ):
        assert re.search(words, shown), words
    assert "the tokenizer in" not in text(healthy())


def test_without_images_the_diagnostics_use_decoded_ones() -> None:
    shown = text(example(images=False))
    assert "codes changed, 64 decoded images" in shown
    assert "PSNR" not in shown
    assert "quantization error" not in shown


def test_a_comparison_stars_the_best_and_keeps_every_set() -> None:
    sets = [example(name=f"set-{number}", usage=0.5 + number / 20) for number in range(7)]
    shown = text(*sets)
    for statistics in sets:
        assert statistics.name in shown
    assert shown.count("80.0% *") == 1
    assert "* the best" in shown
    assert re.search(r"PSNR +25\.90 dB at 2,560", shown)


def test_a_wide_comparison_has_bits_in_the_same_line() -> None:
    shown = text(example(name="a"), example(name="b"), width=120)
    assert re.search(r"PSNR +25\.90 dB at 2,560 bits +25\.90 dB at 2,560 bits", shown)
    assert "dominated by: another set" in shown


def test_bars_are_exact_to_an_eighth_and_small_values_visible() -> None:
    assert bar(0.5, 4) == "██"
    assert bar(0.5 + 1 / 32, 4) == "██▏"
    assert bar(1e-9, 4) == "▏"
    assert bar(0.0, 4) == ""
    assert bar(2.0, 4) == "████"
    assert sparkline([0, 1e-9, 0.5, 1]) == " ▁▄█"
    assert sparkline([0.25, 0.75, 1.0], 2).splitlines() == [" ▄█", "▄██"]


def test_codes_that_more_images_would_use_are_not_called_dead() -> None:
    statistics = example(expected_used=1010.4)
    assert re.search(
        r"dead codes +44, and 12 nearly dead; more images would show 30 of them or more", text(statistics, width=110)
    )
    assert "would show" not in text(example(expected_used=985.0), width=110)
