"""The tables of a report: top codes, codebooks, classes, codes that change most, duplicates."""

# Axes: K codes, Q codebooks.

from __future__ import annotations

from imtok.analysis.figures import CodeShare, Figures
from imtok.analysis.pictures import Pictures
from imtok.analysis.shown import several, together
from imtok.report.document import card
from imtok.report.markup import Markup, element, joined, picture, table
from imtok.report.style import number, percent


def tables(figures: Figures, pictures: Pictures | None) -> Markup | None:
    """All tables that have rows: small ones two in a row, so that none is left alone."""
    swatches = _swatches(figures, pictures)
    small = {
        f"Codes used most{together(figures)}": _top(figures, swatches),
        "Codebooks": _codebooks(figures),
        "Codes that change most" + (", first codebook" if several(figures) else ""): _changing(figures, swatches),
    }
    shown = [(name, made) for name, made in small.items() if made is not None]
    widths = ["half"] * (len(shown) - len(shown) % 2) + ["wide"] * (len(shown) % 2)
    cards = [card(name, made, width=width, long=True) for (name, made), width in zip(shown, widths, strict=True)]
    cards += [made for made in (_classes(figures), _duplicates(figures)) if made is not None]
    return element("div", *cards, class_="cards") if cards else None


def _swatches(figures: Figures, pictures: Pictures | None) -> dict[int, Markup]:
    """Code to its picture; with several codebooks a code looks different in each, so there is none."""
    if pictures is None or figures.num_codebooks > 1:
        return {}
    return {
        int(code): element("span", picture(pixels, "", pixelated=True), class_="swatch")
        for code, pixels in zip(pictures.codes, pictures.swatches, strict=True)
    }


def _code(code: int, swatches: dict[int, Markup]) -> Markup:
    unknown = element("span", class_="swatch") if swatches else None  # so that the codes stay in line
    return joined(swatches.get(code, unknown), str(code))


def _top(figures: Figures, swatches: dict[int, Markup]) -> Markup | None:
    if not figures.top or not figures.tokens:
        return None
    even = figures.tokens / figures.codebook_size
    rows = [
        [_code(code, swatches), number(times), percent(times / figures.tokens), f"{number(times / even, 1)} ×"]
        for code, times in figures.top
    ]
    heads = ["code", "occurrences", "of all tokens", "over even"]
    return table(heads, rows, label="Codes used most")


def _codebooks(figures: Figures) -> Markup | None:
    if figures.num_codebooks < 2:
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
        for place, each in enumerate(figures.codebooks, 1)
    ]
    heads = ["codebook", "used", "usage", "perplexity", "bits", "dead", "nearly", "Gini"]
    return table(heads, rows, label="Codebooks")


def _changing(figures: Figures, swatches: dict[int, Markup]) -> Markup | None:
    if figures.tokenizer is None:
        return None
    sources: list[tuple[str, list[CodeShare]]] = [("encoded again", figures.tokenizer.idempotence.least_stable)]
    sources += [(each.name, each.most_changed) for each in figures.tokenizer.sensitivity.disturbances]
    rows = [
        [_code(each.code, swatches), name, percent(each.share), number(each.tokens)]
        for name, shares in sources
        for each in shares[:5]
    ]
    if not rows:
        return None
    heads = ["code", "when", "changed", "of tokens"]
    return table(heads, rows, words=2, label="Codes that change most")


def _classes(figures: Figures) -> Markup | None:
    if not figures.classes:
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
        for each in figures.classes
    ]
    heads = ["class", "images", "used", "perplexity", "KL divergence, bits", "codes most its own (share over all)"]
    return card(f"Classes{together(figures)}", table(heads, rows, label="Classes"), long=True)


def _duplicates(figures: Figures) -> Markup | None:
    found = figures.duplicates
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
