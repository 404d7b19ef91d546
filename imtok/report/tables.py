"""The tables of a report: top codes, codebooks, classes, codes that change most, duplicates."""

# Axes: K codes, Q codebooks.

from __future__ import annotations

from imtok.analysis.formatting import several, together
from imtok.analysis.statistics import CodeShare, Statistics
from imtok.analysis.visualisations import Visualisations
from imtok.report.document import card
from imtok.report.markup import Markup, element, joined, picture, table
from imtok.report.style import number, percent


def tables(statistics: Statistics, pictures: Visualisations | None) -> Markup | None:
    """All tables that have rows: small ones two in a row, so that none is left alone."""
    swatches = _swatches(statistics, pictures)
    small = {
        f"Codes used most{together(statistics)}": _top(statistics, swatches),
        "Codebooks": _codebooks(statistics),
        "Codes that change most" + (", first codebook" if several(statistics) else ""): _changing(statistics, swatches),
    }
    shown = [(name, made) for name, made in small.items() if made is not None]
    widths = ["half"] * (len(shown) - len(shown) % 2) + ["wide"] * (len(shown) % 2)
    cards = [card(name, made, width=width, long=True) for (name, made), width in zip(shown, widths, strict=True)]
    cards += [made for made in (_classes(statistics), _duplicates(statistics)) if made is not None]
    return element("div", *cards, class_="cards") if cards else None


def _swatches(statistics: Statistics, pictures: Visualisations | None) -> dict[int, Markup]:
    """Code to its picture; with several codebooks a code looks different in each, so there is none."""
    if pictures is None or statistics.num_codebooks > 1:
        return {}
    return {
        int(code): element("span", picture(pixels, "", pixelated=True), class_="swatch")
        for code, pixels in zip(pictures.codes, pictures.swatches, strict=True)
    }


def _code(code: int, swatches: dict[int, Markup]) -> Markup:
    unknown = element("span", class_="swatch") if swatches else None  # so that the codes stay in line
    return joined(swatches.get(code, unknown), str(code))


def _top(statistics: Statistics, swatches: dict[int, Markup]) -> Markup | None:
    if not statistics.top or not statistics.tokens:
        return None
    even = statistics.tokens / statistics.codebook_size
    rows = [
        [_code(code, swatches), number(times), percent(times / statistics.tokens), f"{number(times / even, 1)} ×"]
        for code, times in statistics.top
    ]
    heads = ["code", "occurrences", "of all tokens", "over even"]
    return table(heads, rows, label="Codes used most")


def _codebooks(statistics: Statistics) -> Markup | None:
    if statistics.num_codebooks < 2:
        return None
    rows = [
        [
            str(place),
            number(each.used),
            percent(each.usage),
            number(each.perplexity, 1),
            number(each.entropy_corrected_bits, 2),
            number(each.dead),
            number(each.nearly_dead),
            number(each.gini, 2),
        ]
        for place, each in enumerate(statistics.codebooks, 1)
    ]
    heads = ["codebook", "used", "usage", "perplexity", "bits", "dead", "nearly", "Gini"]
    return table(heads, rows, label="Codebooks")


def _changing(statistics: Statistics, swatches: dict[int, Markup]) -> Markup | None:
    if statistics.tokenizer is None:
        return None
    sources: list[tuple[str, list[CodeShare]]] = [("encoded again", statistics.tokenizer.idempotence.least_stable)]
    sources += [(each.name, each.most_changed) for each in statistics.tokenizer.sensitivity.disturbances]
    rows = [
        [_code(each.code, swatches), name, percent(each.share), number(each.tokens)]
        for name, shares in sources
        for each in shares[:5]
    ]
    if not rows:
        return None
    heads = ["code", "when", "changed", "of tokens"]
    return table(heads, rows, words=2, label="Codes that change most")


def _classes(statistics: Statistics) -> Markup | None:
    if not statistics.classes:
        return None
    rows = [
        [
            each.name or str(each.label),
            number(each.images),
            number(each.used),
            number(each.perplexity, 1),
            number(each.divergence_bits, 2),
            ", ".join(f"{code} ({number(times, 1)} ×)" for code, times in each.own[:3]),
        ]
        for each in statistics.classes
    ]
    heads = ["class", "images", "used", "perplexity", "KL divergence, bits", "codes most its own (share over all)"]
    return card(f"Classes{together(statistics)}", table(heads, rows, label="Classes"), long=True)


def _duplicates(statistics: Statistics) -> Markup | None:
    found = statistics.duplicates
    if not found.duplicates:
        return None
    groups = [
        element("li", *(joined(", " if place else None, element("code", key)) for place, key in enumerate(keys)))
        for keys in found.largest
    ]
    text = (
        f"{number(found.duplicates)} of {number(found.images)} images have the codes of an earlier one at every place, "
        f"in {number(found.groups)} {'group' if found.groups == 1 else 'groups'}."
    )
    return card("Images with the same codes", element("ul", *groups), text)
