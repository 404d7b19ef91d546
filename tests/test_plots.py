"""Plots: what is drawn of which figures, and what their SVG and PNG hold."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from statistics_example import example, example_pictures

from imtok.analysis.formatting import number, percent, shortened
from imtok.analysis.statistics import ClassUse, Dimension, Neighbours, PositionMap, Statistics, Use
from imtok.analysis.visualisations import Visualisations
from imtok.report import token_plots, tokenizer_plots
from imtok.report.charts import Bar, draw_bars
from imtok.report.comparison_plots import colour
from imtok.report.plot import Plot
from imtok.report.plots import all_plots, compared_plots, statistics_plots, write_plots
from imtok.report.style import COLOURS, NARROW, SERIES, panel
from imtok.report.token_plots import growth, rank_frequency

OF_TOKENS = {
    "frequency", "rank-frequency", "growth", "levels", "entropy-map", "surprisal-map", "neighbours", "classes",
}  # fmt: skip
WORDS_IN = set(COLOURS) - {"line", "card", "page", "pale"}  # all that anything may be written in
OF_TOKENIZER = {"norms", "distances", "code-map", "idempotence", "sensitivity"}


def names(statistics: Statistics, visualisations: Visualisations | None = None) -> set[str]:
    return {plot.name for plot in all_plots(statistics, visualisations)}


def plot_of(statistics: Statistics, name: str) -> Plot:
    """Draw one plot alone."""
    function = name.replace("-", "_")
    module = token_plots if hasattr(token_plots, function) else tokenizer_plots
    plot: Plot | None = getattr(module, function)(statistics)
    assert plot is not None
    return plot


def drawn(statistics: Statistics, name: str) -> str:
    """Return the SVG of one plot, in light colours."""
    return plot_of(statistics, name).svg()[0]


def figure_of(statistics: Statistics, name: str) -> Figure:
    return plot_of(statistics, name).figure


def texts(statistics: Statistics, name: str) -> list[str]:
    """Return all texts of one plot."""
    return texts_in(drawn(statistics, name))


def texts_in(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def emptied() -> Statistics:
    """A folder in which no image could be read."""
    nothing = {"used": 0, "usage": 0.0, "dead": 1024, "nearly_dead": 0, "expected_used": 0.0, "zipf_slope": None}
    zeros = dict.fromkeys(
        ("entropy_bits", "entropy_corrected_bits", "perplexity", "normalized_perplexity", "gini"), 0.0
    )
    use = Use(tokens=0, **nothing, **zeros)
    lists = {name: [] for name in ("top", "frequency", "rank_frequency", "growth", "dimensions", "classes")}
    maps = dict.fromkeys(("positions", "horizontal", "vertical", "per_256_images"))
    return example(tokenizer=False).model_copy(
        update={**use.model_dump(), **lists, **maps, "images": 0, "codebooks": [use], "findings": []}
    )


def codebooks(count: int) -> list[Use]:
    whole = example()
    use = Use(**{name: getattr(whole, name) for name in Use.model_fields})
    return [use.model_copy(update={"usage": 1 - place / count}) for place in range(count)]


def test_tokens_alone_have_their_plots_and_no_others() -> None:
    assert names(example(tokenizer=False)) == OF_TOKENS


def test_a_tokenizer_adds_its_own_and_images_the_error() -> None:
    assert names(example(images=False)) == OF_TOKENS | OF_TOKENIZER
    assert names(example()) == OF_TOKENS | OF_TOKENIZER | {"error"}


def test_visualisations_add_sheets() -> None:
    assert [plot.name for plot in all_plots(example(), example_pictures())][-2:] == ["reconstructions", "swatches"]


def test_a_plot_has_section_title_and_caption() -> None:
    plot = plot_of(example(), "growth")
    assert (plot.name, plot.section, plot.title) == ("growth", "use", "Growth of the codes used")
    assert plot.caption == (
        "Codes used after a number of images, in the order of the folder. Where the curve is flat, more images bring "
        "no new codes."
    )
    for each in (*statistics_plots(example()), *compared_plots([example(), example()])):
        assert each.caption.endswith(".")
        assert "\n" not in each.caption


def test_nothing_counted_is_nothing_drawn() -> None:
    assert statistics_plots(emptied()) == []


def test_several_codebooks_have_a_plot_of_their_use() -> None:
    statistics = example(num_codebooks=8, codebooks=codebooks(8))
    assert [text for text in texts(statistics, "codebooks") if text.startswith("codebook")] == [
        f"codebook {place}" for place in range(1, 9)
    ]


def test_plots_name_the_codebooks_that_they_count() -> None:
    statistics = example(num_codebooks=2, codebooks=codebooks(2))
    for name, words in {
        "frequency": "all codebooks together",
        "rank-frequency": "occurrences, all codebooks together",
        "growth": "codes used, all codebooks together",
        "classes": "all codebooks together",
        "error": "tokens measured on, first codebook",
    }.items():
        assert words in texts(statistics, name), name
        assert not [text for text in texts(example(), name) if "codebook" in text]


def test_bars_tell_how_many_codes_occur_how_often() -> None:
    written = texts(example(), "frequency")
    assert written[:6] == ["never", "once", "2 to 9", "10 to 99", "100 to 999", "1,000 to 9,999"]
    assert "44  ·  4.3%" in written


def test_the_plot_of_ranks_has_even_share_and_slope() -> None:
    written = texts(example(), "rank-frequency")
    assert "even use: 250 each" in written
    assert "slope −0.61" in written
    assert not [text for text in texts(example(zipf_slope=None), "rank-frequency") if text.startswith("slope")]


def test_a_single_rank_or_image_is_no_curve() -> None:
    assert rank_frequency(example(rank_frequency=[(1, 7)])) is None
    assert growth(example(growth=[(1, 7)])) is None


def test_the_expected_codes_are_drawn_where_far_from_the_used() -> None:
    assert "700 expected of more images" in texts(example(used=400, expected_used=700.0), "growth")
    assert "997 expected of more images" not in texts(example(), "growth")


def test_what_a_neighbour_leaves_is_a_range() -> None:
    written = texts(example(), "neighbours")
    assert {"10.00", "9.12", "6.70 to 7.40", "coded, left neighbour"} <= set(written)


def test_neighbours_of_some_codes_only_are_said_to_be() -> None:
    pair = example().horizontal
    assert isinstance(pair, Neighbours)
    statistics = example(horizontal=pair.model_copy(update={"contexts_share": 0.125}))
    assert "neighbours of 12.5% of the codes" in texts(statistics, "neighbours")


def test_too_few_images_have_no_map_of_entropy() -> None:
    few = PositionMap(images=4, entropy_bits=[[2.0, 1.97, 0.5]], limit_bits=2.0, surprisal_bits=[[9.0, 7.0, 5.0]])
    assert OF_TOKENS - names(example(tokenizer=False, positions=few, grid=(1, 3))) == {"entropy-map"}


def test_one_place_is_no_map() -> None:
    one = PositionMap(images=4, entropy_bits=[[1.0]], limit_bits=2.0, surprisal_bits=[[9.0]])
    assert names(example(tokenizer=False, positions=one, grid=(1, 1))).isdisjoint({"entropy-map", "surprisal-map"})


def test_a_map_of_equal_places_spans_a_bit() -> None:
    statistics = example(positions=PositionMap(images=9, entropy_bits=[[2.0] * 4] * 4, limit_bits=3.0,
                                            surprisal_bits=[[8.0] * 4] * 4))  # fmt: skip
    assert figure_of(statistics, "surprisal-map").axes[0].images[0].get_clim() == (7.0, 8.0)


def test_signs_are_bars_and_levels_are_histograms() -> None:
    signs = [Dimension(codebook=0, dimension=at, shares=[0.25, 0.75], entropy_bits=0.81, max_bits=1.0) for at in (0, 1)]
    assert "75.0% plus" in texts(example(dimensions=signs), "levels")
    assert "2.40 of 3.00 bits" in texts(example(), "levels")


@pytest.mark.parametrize(("count", "wide"), [(4, False), (12, False), (18, True)])
def test_many_signs_take_a_wide_plot(count: int, wide: bool) -> None:
    signs = [Dimension(codebook=0, dimension=at, shares=[0.5, 0.5], entropy_bits=1.0, max_bits=1.0)
             for at in range(count)]  # fmt: skip
    assert plot_of(example(dimensions=signs), "levels").wide == wide


def test_the_bar_of_a_sign_is_its_positive_share() -> None:
    signs = [Dimension(codebook=0, dimension=0, shares=[0.25, 0.75], entropy_bits=0.81, max_bits=1.0)]
    assert widths(figure_of(example(dimensions=signs), "levels")) == [1.0, 0.0, 0.75]


def test_a_range_goes_on_in_a_paler_colour() -> None:
    _, axes = panel()
    draw_bars(axes, [Bar("a", 2.0, "2 to 3", upto=3.0), Bar("b", 1.0, "1")], 4.0)
    tracks, ranges, bars = (axes.patches[at : at + 2] for at in (0, 2, 4))
    assert [[bar.get_width() for bar in row] for row in (tracks, ranges, bars)] == [[4, 4], [3, 0], [2, 1]]
    assert ranges[0].get_alpha() < bars[0].get_alpha() == 1


def test_several_sets_are_bars_by_letter_and_name() -> None:
    sets = [changed("a", used=0.5), changed("b", used=0.75)]
    written = of_several(sets, "use")
    assert written[:4] == ["A  a", "B  b", "50.0%  ·  556", "75.0%  ·  556"]
    assert widths(figure_of_several(sets, "use"))[-2:] == [0.5, 0.75]
    books = codebooks(2)  # of usage 1 and 0.5
    assert "75.0%  ·  556" in of_several([changed("a"), example(num_codebooks=2, codebooks=books)], "use")
    assert "means over codebooks" in of_several([changed("a"), example(num_codebooks=2, codebooks=books)], "use")


def test_compared_bits_are_coded_as_bars_raw_as_strokes() -> None:
    sets = [changed("a", raw=2560.0, coded=1900.0), changed("b", raw=5120.0, coded=3000.0)]
    assert of_several(sets, "bits")[2:4] == ["1,900  ·  2,560", "3,000  ·  5,120"]
    axes = figure_of_several(sets, "bits").axes[0]
    assert [bar.get_width() for bar in axes.patches[-2:]] == [1900, 3000]
    assert [stroke.get_xdata()[0] for stroke in axes.lines] == [2560, 5120]
    assert axes.get_xlim() == (0, 5120)


def test_quality_is_a_line_from_coded_to_raw_bits() -> None:
    axes = figure_of_several([changed("a", coded=1900.0), changed("b", coded=900.0, psnr=22.0)], "quality").axes[0]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines] == [
        ([1900, 2560], [25.9, 25.9]), ([1900], [25.9]), ([900, 2560], [22, 22]), ([900], [22]),
    ]  # fmt: skip
    assert [letter.xy for letter in axes.texts] == [(1900, 25.9), (900, 22.0)]


def test_quality_shows_sets_measured_alike_alone() -> None:
    sets = [changed("a"), changed("b", psnr=22.0), changed("c", psnr=30.0, images=500)]
    axes = figure_of_several(sets, "quality").axes[0]
    assert [letter.get_text() for letter in axes.texts] == ["A", "B"]
    assert "quality" not in {plot.name for plot in compared_plots(sets[1:])}


def test_stability_of_several_sets_is_that_of_the_first_pass() -> None:
    sets = [example(name="a"), example(name="b")]
    assert of_several(sets, "stability")[2:] == ["81.0%", "81.0%"]
    assert widths(figure_of_several(sets, "stability"))[-2:] == [0.81, 0.81]


def test_compared_lines_are_shares_with_letters_at_their_ends() -> None:
    sets = [example(name=name, rank_frequency=[(1, 2560), (9, 256)], growth=[(1, 256), (8, 512)]) for name in "ab"]
    for name, ends in {"rank-frequency": (9, 0.001), "growth": (8, 0.5)}.items():
        axes = figure_of_several(sets, name).axes[0]
        assert [letter.xy for letter in axes.texts] == [ends, ends]
        assert "all codebooks together" not in " ".join(of_several(sets, name))
    sets[0].codebooks.append(sets[0].codebooks[0])
    assert "share of the tokens, all codebooks together" in of_several(sets, "rank-frequency")
    assert "share of the codebook used, all codebooks together" in of_several(sets, "growth")


def changed(
    name: str,
    *,
    used: float = 0.9,
    raw: float = 2560.0,
    coded: float = 1900.0,
    psnr: float = 25.9,
    images: int = 1000,
) -> Statistics:
    """A token set with what a comparison draws of it."""
    whole = example(name=name, usage=used)
    assert whole.tokenizer
    assert whole.tokenizer.reconstruction
    shown = whole.tokenizer.reconstruction.model_copy(update={"psnr": psnr})
    bits = whole.bits.model_copy(update={"raw_per_image": raw, "coded_per_image": coded})
    tokenizer = whole.tokenizer.model_copy(update={"reconstruction": shown})
    return whole.model_copy(update={"bits": bits, "tokenizer": tokenizer, "images": images})


def figure_of_several(sets: list[Statistics], name: str) -> Figure:
    return next(plot.figure for plot in compared_plots(sets) if plot.name == name)


def of_several(sets: list[Statistics], name: str) -> list[str]:
    """What is written in one plot of a comparison."""
    return texts_in(next(plot for plot in compared_plots(sets) if plot.name == name).svg()[0])


def widths(figure: Figure) -> list[float]:
    """How long the bars are: those of all tracks, then of the ranges, then of the values."""
    return [patch.get_width() for patch in figure.axes[0].patches]


def test_the_classes_that_differ_most_come_first() -> None:
    classes = [
        ClassUse(label=at, name=f"c{at}", images=1, tokens=9, used=3, perplexity=2.0, divergence_bits=at / 100, own=[])
        for at in range(100)
    ]
    shown = [text for text in texts(example(classes=classes), "classes") if text.startswith("c")]
    assert shown == [f"c{at}" for at in range(99, 83, -1)]


def test_codes_that_the_method_fixes_have_a_map_alone() -> None:
    tokenizer = example().tokenizer
    assert tokenizer is not None
    fixed = tokenizer.model_copy(update={"geometry": [tokenizer.geometry[0].model_copy(update={"fixed": True})]})
    assert OF_TOKENIZER - names(example().model_copy(update={"tokenizer": fixed})) == {"norms", "distances"}


def test_the_tables_of_several_codebooks_share_a_wide_plot() -> None:
    tokenizer = example().tokenizer
    assert tokenizer is not None
    tables = [tokenizer.geometry[0].model_copy(update={"codebook": place}) for place in range(5)]
    statistics = example().model_copy(update={"tokenizer": tokenizer.model_copy(update={"geometry": tables})})
    assert [plot.wide for plot in statistics_plots(statistics) if plot.section == "codes"] == [True, True, True, False]
    assert "codebook 5" in texts(statistics, "norms")


def test_every_code_is_a_dot_of_the_map() -> None:
    tokenizer = example().tokenizer
    assert tokenizer is not None
    dots = sum(path.count("M") for path in re.findall(r' d="([^"]*)"', drawn(example(), "code-map")))
    assert len(tokenizer.geometry[0].points) <= dots <= len(tokenizer.geometry[0].points) + 4


def test_a_disturbance_that_changes_nothing_has_no_decibels() -> None:
    tokenizer = example().tokenizer
    assert tokenizer is not None
    same = tokenizer.sensitivity.disturbances[0].model_copy(update={"changed": 0.0, "psnr": None})
    still = tokenizer.sensitivity.model_copy(update={"disturbances": [same], "of_decoded": True})
    written = texts(example().model_copy(update={"tokenizer": tokenizer.model_copy(update={"sensitivity": still})}),
                    "sensitivity")  # fmt: skip
    assert "0%" in written
    assert "measured on decoded images, no images given" in written


def test_the_same_statistics_give_the_same_svg() -> None:
    for one, other in zip(statistics_plots(example()), statistics_plots(example()), strict=True):
        assert one.svg() == other.svg()


def test_an_svg_is_a_small_document_in_the_readers_font() -> None:
    text = drawn(example(), "rank-frequency")
    assert ElementTree.fromstring(text).get("viewBox") == "0 0 380 260"
    assert "system-ui, " in text
    assert "DejaVu" not in text
    assert "<metadata" not in text
    assert "\n" not in text
    assert not re.findall(r'[ "]-?[0-9]+[.][0-9]{3,}', text)


def test_the_dark_svg_differs_in_colours_alone() -> None:
    dark_of = dict(COLOURS.values())
    for plot in statistics_plots(example()):
        light, dark = plot.svg()
        colours = re.findall("#[0-9a-f]{6}", light)
        assert colours
        assert re.findall("#[0-9a-f]{6}", dark) == [dark_of.get(colour, colour) for colour in colours]
        assert re.sub("#[0-9a-f]{6}", "", dark) == re.sub("#[0-9a-f]{6}", "", light)


def test_numbers_and_colours_in_a_plots_texts_stay() -> None:
    name = "0.1234 #1f69b3"
    classes = [each.model_copy(update={"name": name}) for each in example().classes]
    for svg in plot_of(example(classes=classes), "classes").svg():
        assert name in texts_in(svg)


def test_two_thousand_points_are_a_small_drawing() -> None:
    tokenizer = example().tokenizer
    assert tokenizer is not None
    points = [(float(x), float(y)) for x, y in np.random.default_rng(0).standard_normal((2048, 2))]
    table = tokenizer.geometry[0].model_copy(
        update={"points": points, "point_codes": list(range(2048)), "point_counts": [1] * 2048}
    )
    statistics = example().model_copy(update={"tokenizer": tokenizer.model_copy(update={"geometry": [table]})})
    assert len(drawn(statistics, "code-map")) < 24 * 2048


def test_names_are_written_as_they_are_whatever_is_in_them() -> None:
    name = "<b>$x^2$</b>&"
    classes = [each.model_copy(update={"name": name}) for each in example().classes]
    assert name in texts(example(classes=classes), "classes")
    assert "<b>" not in drawn(example(classes=classes), "classes")


def test_names_the_font_lacks_are_no_warning(tmp_path: Path) -> None:
    classes = [each.model_copy(update={"name": "猫"}) for each in example().classes]
    assert write_plots(tmp_path, [plot_of(example(classes=classes), "classes")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["classes.png"]


def test_plots_are_files_of_two_pixels_for_one_on_white(tmp_path: Path) -> None:
    made = [*statistics_plots(example(tokenizer=False))[:2], *all_plots(example(), example_pictures())[-2:]]
    assert write_plots(tmp_path / "new", made) == 4
    assert {path.stem for path in (tmp_path / "new").iterdir()} == {plot.name for plot in made}
    with Image.open(tmp_path / "new" / "frequency.png") as image:
        assert image.width == 2 * (NARROW + 24)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_same_statistics_give_the_same_png() -> None:
    assert plot_of(example(), "growth").png() == plot_of(example(), "growth").png()


def test_a_png_shows_the_dots_of_a_cloud() -> None:
    with Image.open(BytesIO(plot_of(example(), "error").png())) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels[..., 2] - pixels[..., 0] > 60).sum() > 3000  # some 300 dots of 4.5 pixels, at two for one, blue


def test_the_users_settings_are_neither_used_nor_changed() -> None:
    with matplotlib.rc_context({"font.size": 40, "axes.facecolor": "red"}):
        loud = plot_of(example(), "frequency").png()
        assert matplotlib.rcParams["font.size"] == 40
    assert loud == plot_of(example(), "frequency").png()


def test_no_two_roles_and_no_two_series_share_a_colour() -> None:
    for mode in (0, 1):
        colours = [pair[mode] for pair in COLOURS.values()]
        assert len(colours) == len(set(colours))
    assert len(set(SERIES)) == len(SERIES)


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("ground", ["card", "page"])
@pytest.mark.parametrize("ink", sorted(WORDS_IN))
def test_words_stand_out_from_their_ground(mode: int, ground: str, ink: str) -> None:
    assert contrast(COLOURS[ink][mode], COLOURS[ground][mode]) >= 4.5  # WCAG 2.1, 1.4.3


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("place", range(len(SERIES)))
def test_letters_stand_out_from_their_tags(mode: int, place: int) -> None:
    tag = next(pair for pair in COLOURS.values() if pair[0] == colour(place))
    assert contrast(COLOURS["card"][mode], tag[mode]) >= 4.5


def contrast(one: str, other: str) -> float:
    """Of two colours, from 1 to 21."""

    def luminance(colour: str) -> float:
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot(channels, (0.2126, 0.7152, 0.0722)))

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0%"), (1.0, "100%"), (0.99999, ">99.9%"), (1e-6, "<0.1%"), (0.957, "95.7%"), (0.5, "50.0%")],
)
def test_percent_is_exact_at_nothing_and_all_alone(share: float, text: str) -> None:
    assert percent(share) == text


def test_numbers_are_written_for_readers() -> None:
    assert [number(1234567), number(-0.614, 2)] == ["1,234,567", "−0.61"]
    assert shortened("a/very/long/path/to/tokens", 11) == "a/ver…okens"
    assert shortened("short", 11) == "short"
