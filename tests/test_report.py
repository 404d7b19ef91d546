"""The report: what stands in the page, in which order, and that nothing in it comes from or goes anywhere else."""

from __future__ import annotations

import base64
import itertools
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from statistics_example import example, example_pictures

from imtok.analysis.comparison import comparison_rows
from imtok.analysis.diagnostics import verdict
from imtok.analysis.statistics import Finding, Statistics
from imtok.analysis.visualisations import Visualisations
from imtok.report import comparison_page, report_page
from imtok.report.comparison_plots import labels, letter
from imtok.report.explanations import EXPLANATIONS
from imtok.report.glossary import REFERENCES, glossary
from imtok.report.html import plot_cards
from imtok.report.plot import Plot
from imtok.report.plots import statistics_plots
from imtok.report.style import panel

HOSTILE = "<script>alert('&amp;')</script>\"><img src=x onerror=alert(1)>"
VOID = {"meta", "link", "img", "source"}


class Reader(HTMLParser):
    """Elements, ids and texts of a page; what is opened must be closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def finding(name: str, grade: Any) -> Finding:
    return Finding(name=name, grade=grade, text=f"what {name} is", page=f"docs/collapse.md#{name}")


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", page)


@pytest.fixture(scope="module")
def whole() -> str:
    return report_page(example(), example_pictures())


def test_a_page_is_one_document_for_phones_and_dark_rooms(whole: str) -> None:
    page = Reader(whole)
    assert whole.startswith("<!DOCTYPE html>")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert {"name": "color-scheme", "content": "light dark"} in page.all("meta")
    assert "@media screen and (prefers-color-scheme: dark)" in whole
    assert "@media print" in whole
    assert len(page.all("h1")) == 1


def test_sections_lead_from_the_statistics_to_their_definitions(whole: str) -> None:
    assert headings(whole) == [
        "Statistics", "Use", "Place and neighbours", "The codebook", "Robustness", "Visualisations", "Tables",
        "Definitions",
    ]  # fmt: skip
    page = Reader(whole)
    assert [link["href"] for link in page.all("a")] == [f"#{section['id']}" for section in page.all("section")]


def test_a_page_loads_nothing_and_runs_nothing(whole: str) -> None:
    page = Reader(whole)
    names = {name for name, _ in page.elements}
    assert names.isdisjoint({"script", "iframe", "object", "embed", "video", "audio", "base", "form"})
    loaded = [value for _, each in page.elements for name, value in each.items() if name in ("src", "href", "srcset")]
    assert all(value is not None and value.startswith(("data:", "#")) for value in loaded)
    assert "@import" not in whole
    assert "url(" not in whole
    assert not [name for _, each in page.elements for name in each if name.startswith("on")]
    policy = next(each["content"] for each in page.all("meta") if "http-equiv" in each)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_ids_are_unique_and_every_plot_has_a_name(whole: str) -> None:
    page = Reader(whole)
    ids = [each["id"] for _, each in page.elements if "id" in each]
    assert len(ids) == len(set(ids))
    assert all(each["alt"] is not None for each in page.all("img"))
    names = [each["alt"] for each in page.all("img") if each.get("class") == "plot"]
    assert names == [plot.title for plot in statistics_plots(example())]


def test_a_plot_is_an_image_in_light_and_in_dark(whole: str) -> None:
    page = Reader(whole)
    dark, light = page.all("source"), [each for each in page.all("img") if each.get("class") == "plot"]
    assert {each["media"] for each in dark} == {"screen and (prefers-color-scheme: dark)"}
    plot = statistics_plots(example())[0]
    assert (svg_at(light[0]["src"]), svg_at(dark[0]["srcset"])) == plot.svg()


def svg_at(address: str | None) -> str:
    """Return the SVG that a data address holds."""
    assert address is not None
    head, data = address.split(",")
    assert head == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode()


def test_the_same_statistics_give_the_same_page(whole: str) -> None:
    assert report_page(example(), example_pictures()) == whole


def test_the_main_statistics_are_tiles() -> None:
    text = Reader(report_page(example(tokenizer=False))).text
    for words in ("Usage 95.7% 980 of 1,024 codes", "Perplexity 556 54.3% of 1,024", "Dead codes 44 and 12 nearly dead",
                  "Entropy 9.12 bits of 10.00; 9.12 bias-corrected", "Bits an image 2,560 raw 0.156 a pixel",
                  "Coded 1,894 bits 0.116 a pixel, by the left neighbour"):  # fmt: skip
        assert words in text


def test_a_missing_statistic_leaves_its_tile_to_another() -> None:
    text = Reader(report_page(example(tokenizer=False, per_256_images=None))).text
    assert "Gini 0.52" in text
    assert "Duplicates 2" in text
    assert "PSNR" in Reader(report_page(example())).text


def several_codebooks() -> Statistics:
    """Two that use different codes: counted together, all of them."""
    use = example().codebooks[0]
    books = [
        use.model_copy(update={"used": used, "usage": used / 1024, "dead": 1024 - used, "gini": gini})
        for used, gini in ((256, 0.8), (768, 0.4))
    ]
    return example(num_codebooks=2, codebooks=books, used=1024, usage=1.0, dead=0, gini=0.1)


def test_several_codebooks_have_their_mean_and_the_worst() -> None:
    text = Reader(report_page(several_codebooks())).text
    assert "Usage 50.0% 512 of 1,024 codes, mean of 2 codebooks; least: number 1, 25.0%" in text
    assert "Dead codes 512 and 12 nearly dead, mean of 2 codebooks; most: number 1, 768" in text
    assert "of 10.00; 9.12 bias-corrected; least: number 1, 9.12" in text
    text = Reader(report_page(several_codebooks().model_copy(update={"per_256_images": None}))).text
    assert "Gini 0.60 0: even use; 1: one code has all; most: number 1, 0.80" in text


def test_the_worst_finding_is_the_verdict_the_others_follow() -> None:
    statistics = example(findings=[finding("odd", "hint"), finding("bad", "problem"), finding("dull", "warning")])
    assert (verdict(statistics).word, verdict(statistics).text) == ("Problem", "what bad is")
    page = report_page(statistics)
    text = Reader(page).text
    assert headings(page)[0] == "Further advice"
    assert text.index("what bad is") < text.index("Warning: dull") < text.index("Hint: odd")
    assert text.count("what bad is") == 1
    assert "docs/collapse.md#bad" in text


def test_advice_keeps_its_options_whole_and_can_be_copied() -> None:
    text = "try --set quantizer.dim=8 --set a<b=1 (--set, or --sets)"
    for grade in ("hint", "problem"):
        page = report_page(example(findings=[finding("odd", grade).model_copy(update={"text": text})]))
        assert page.count('<span class="command">--set</span>') == 3
        assert '<span class="command">--set</span> a&lt;b=1' in page
        assert text in "".join(Reader(page).words)
    assert ".command { white-space: nowrap; }" in page


def test_a_codebook_without_findings_or_with_hints_alone_is_healthy() -> None:
    assert "Healthy no statistic passes" in Reader(report_page(example(findings=[]))).text
    text = Reader(report_page(example(findings=[finding("odd", "hint")]))).text
    assert "Healthy no statistic passes" in text
    assert "what odd is" in text


@pytest.mark.parametrize(
    ("changes", "caption"),
    [
        ({"dimensions": []}, "In a healthy codebook few codes occur never or once."),
        ({}, "The corners of a fixed grid are rarely reached"),
        ({"tokens": 2048}, "At 2 tokens per code, codes that occur never or once may only be rare"),
    ],
)
def test_captions_know_the_quantizer_and_the_sample(changes: dict[str, Any], caption: str) -> None:
    text = Reader(report_page(example(findings=[], **changes))).text
    assert caption in text
    assert ("few codes occur never" in text) == (changes == {"dimensions": []})


def test_orange_codes_are_explained_only_where_drawn() -> None:
    statistics = example()
    assert statistics.tokenizer is not None
    for counts, explained in (([3, 0, 5], True), ([3, 1, 5], False)):
        geometry = statistics.tokenizer.geometry[0].model_copy(
            update={"points": [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)], "point_counts": counts}
        )
        tokenizer = statistics.tokenizer.model_copy(update={"geometry": [geometry]})
        text = Reader(report_page(statistics.model_copy(update={"tokenizer": tokenizer}))).text
        assert ("Orange ones never occur." in text) == explained


def test_every_known_finding_is_explained_within_the_report() -> None:
    page = Path(__file__).parents[1] / "docs/collapse.md"
    assert sorted(EXPLANATIONS) == sorted(re.findall(r"(?m)^### (.+)$", page.read_text()))
    text = Reader(report_page(example(findings=[finding("dead-codes", "warning"), finding("uneven-use", "hint")]))).text
    for name in ("dead-codes", "uneven-use"):
        assert EXPLANATIONS[name] in text
    assert "More in" not in text  # a page that the reader of a mailed report does not have


def test_a_folder_that_has_hardly_anything_still_has_a_page() -> None:
    nothing: dict[str, Any] = dict.fromkeys(("positions", "horizontal", "vertical", "per_256_images", "quantizer"))
    lists: dict[str, Any] = {
        name: [] for name in ("top", "frequency", "rank_frequency", "growth", "dimensions", "classes", "findings")
    }
    none = example().duplicates.model_copy(update={"images": 0, "duplicates": 0, "groups": 0, "largest": []})
    statistics = example(tokenizer=False, grid=(1, 1), **nothing, **lists).model_copy(
        update={"images": 0, "tokens": 0, "used": 0, "duplicates": none, "fingerprint": ""}
    )
    page = report_page(statistics)
    assert headings(page) == ["Statistics", "Definitions"]
    assert Reader(page).all("img") == []


def test_texts_from_outside_are_texts() -> None:
    classes = [each.model_copy(update={"name": HOSTILE}) for each in example().classes]
    duplicates = example().duplicates.model_copy(update={"largest": [[HOSTILE, HOSTILE]]})
    bad = finding("x", "warning").model_copy(update={"text": HOSTILE, "page": HOSTILE})
    pictures = example_pictures()
    shown = Visualisations(**{**vars(pictures), "keys": (HOSTILE,) * 6})
    statistics = example(name=HOSTILE, quantizer=HOSTILE, classes=classes, duplicates=duplicates, findings=[bad, bad])
    for page in (report_page(statistics, shown), comparison_page([(statistics, shown), (statistics, shown)])):
        assert "<script" not in page
        assert "onerror" not in {name for _, each in Reader(page).elements for name in each}
        assert HOSTILE in Reader(page).text


def test_unprintable_characters_of_names_are_replaced() -> None:
    name = "cat\x00\x1b[31m\udcff\ufffe"
    classes = [each.model_copy(update={"name": name}) for each in example().classes]
    page = report_page(example(name=name, classes=classes))
    page.encode()
    assert "<h1>cat\ufffd\ufffd[31m\ufffd\ufffd</h1>" in page


def test_every_statistic_is_defined_and_single_ones_have_values(whole: str) -> None:
    text = Reader(whole).text
    assert "dead 44 codes that never occur" in text
    assert "coded_per_token 7.40" in text or "coded_per_token 7.4000" in text
    for name in ("zipf_slope", "effective_rank_used", "divergence_bits", "same_as_first", "least_changed"):
        assert name in text
    assert "Every statistic by its name in imtok stats --json" in text


def test_small_statistics_keep_their_digits_in_the_glossary() -> None:
    entries = {entry.name: entry.value for entry in glossary(example(gini=1.234e-5))[0].entries}
    assert entries["gini"] == "1.2e−05"


def test_tables_tell_top_codes_classes_and_duplicates(whole: str) -> None:
    text = Reader(whole).text
    assert "17 4,100 1.6% 16.4 ×" in text
    assert "bird 100 700 300.0 0.40 1 (6.2 ×), 2 (4.4 ×), 3 (3.1 ×)" in text
    assert "2 of 1,000 images have the codes of an earlier one at every place, in 1 group." in text


def test_codes_in_tables_have_swatches_where_there_is_one_codebook(whole: str) -> None:
    assert whole.count('class="swatch"') >= 3
    several = report_page(example(num_codebooks=2, codebooks=example().codebooks * 2), example_pictures())
    assert 'class="swatch"' not in several
    assert "<h3>Codebooks</h3>" in several


def test_swatches_are_pixels_and_a_patch_of_nowhere_is_hatched(whole: str) -> None:
    assert whole.count('class="pixelated"') >= 127
    assert whole.count('<div class="none"></div>') == 1
    assert 'title="code 0, ' in whole


def test_swatches_of_several_codebooks_name_the_first(whole: str) -> None:
    page = report_page(several_codebooks(), example_pictures())
    for words in ("What codes look like, first codebook", "Quantization error, first codebook"):
        assert f"<h3>{words}</h3>" in page
        assert words not in whole
    assert page.count("in a residual quantizer, its first stage alone.") == 2
    assert "<h3>Codes that change most, first codebook</h3>" in page
    assert "<h3>Codes used most, all codebooks together</h3>" in page


def test_reconstructions_without_originals_stand_alone() -> None:
    page = report_page(example(images=False), example_pictures(images=False))
    assert page.count('alt="decoded: photos/') == 6
    assert 'alt="original: photos/' not in page


@pytest.mark.parametrize(("count", "widths"), [(1, {"lone"}), (2, {"half"}), (3, {"third"}), (4, {"half"})])
def test_no_row_of_cards_is_left_with_a_lonely_one(count: int, widths: set[str]) -> None:
    cards = plot_cards([Plot(name, "use", name, name, panel()[0]) for name in "abcd"[:count]])
    assert {width for _, width in cards} == widths


def test_a_visualisation_carries_its_own_pixels(whole: str) -> None:
    swatch = next(each for each in Reader(whole).all("img") if each["alt"] == "swatch of code 0")
    assert swatch["src"] is not None
    with Image.open(BytesIO(base64.b64decode(swatch["src"].removeprefix("data:image/png;base64,")))) as image:
        assert np.array_equal(image, example_pictures().swatches[0])
    assert (swatch["width"], swatch["height"], swatch["class"]) == ("8", "8", "pixelated")


def compared() -> list[tuple[Statistics, Visualisations | None]]:
    return [
        (example(name="runs/a/tokens", findings=[]), example_pictures()),
        (example(name="runs/b/tokens", findings=[finding("bad", "problem")]), example_pictures()),
        (example(name="runs/c/tokens", tokenizer=False), None),
    ]


def test_a_comparison_shows_the_rows_that_the_terminal_shows() -> None:
    sets = compared()
    page = Reader(comparison_page(sets))
    for row in comparison_rows([statistics for statistics, _ in sets]):
        assert row.name in page.text
    assert "PSNR 25.90 dB at 2,560 bits 25.90 dB at 2,560 bits –" in page.text


def test_a_name_with_at_in_it_is_a_name() -> None:
    sets = [(example(name=name), None) for name in ("tokens at 256", "b")]
    better = sets[0][0].model_copy(update={"bits": sets[0][0].bits.model_copy(update={"raw_per_image": 99.0})})
    page = comparison_page([(better, None), sets[1]])
    assert '<th scope="row">dominated by</th><td>nobody</td><td>tokens at 256</td>' in page
    assert "<small>at 99 bits</small>" in page


def test_headings_go_down_step_by_step_and_columns_have_heads(whole: str) -> None:
    for page in (whole, comparison_page(compared())):
        steps = [int(step) for step in re.findall(r"<h(\d)", page)]
        assert steps[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(steps))
        assert re.findall("<th[^>]*></th>", page) == []


def test_a_comparison_has_a_verdict_and_a_letter_for_each() -> None:
    text = Reader(comparison_page(compared())).text
    assert "3 token folders side by side" in text
    assert "A runs/a/tokens Healthy : no statistic" in text
    assert "B runs/b/tokens Problem : what bad is" in text


def test_reconstructions_of_the_same_images_stand_below_one_another() -> None:
    page = comparison_page(compared())
    stack = page[page.index('alt="original: photos/0.jpg"') : page.index('alt="original: photos/1.jpg"')]
    assert re.findall(r'alt="(\w+): photos/0.jpg"', stack) == ["original", "A", "B"]


def test_reconstructions_of_other_images_stand_apart() -> None:
    (first, pictures), *others = compared()
    assert pictures is not None
    other = Visualisations(**{**vars(pictures), "keys": tuple(f"else/{place}" for place in range(6))})
    page = comparison_page([(first, pictures), (others[0][0], other)])
    assert "Reconstructions of A" in page
    assert "Reconstructions of B" in page


def test_a_comparison_loads_nothing_and_its_ids_are_unique() -> None:
    page = Reader(comparison_page(compared()))
    ids = [each["id"] for _, each in page.elements if "id" in each]
    assert len(ids) == len(set(ids))
    loaded = [value for _, each in page.elements for name, value in each.items() if name in ("src", "href")]
    assert all(value is not None and value.startswith(("data:", "#")) for value in loaded)


def test_names_lose_what_all_of_them_share() -> None:
    assert labels([statistics for statistics, _ in compared()]) == ["A  a", "B  b", "C  c"]
    assert labels([example(name="x"), example(name="x")]) == ["A  x", "B  x"]


def test_letters_go_on_after_the_alphabet() -> None:
    assert [letter(place) for place in (0, 25, 26, 27, 52)] == ["A", "Z", "AA", "AB", "BA"]


def test_the_sources_of_the_definitions_stand_at_the_end() -> None:
    text = Reader(report_page(example())).text
    assert all(text.index("sources") < text.index(reference) for reference in REFERENCES)
