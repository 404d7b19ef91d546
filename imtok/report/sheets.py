"""Pictures in the page: swatches of codes, and reconstructions under their originals, of one tokenizer or several."""

# Axes: n codes shown, m images shown.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imtok.analysis.visualisations import Pixels, Visualisations
from imtok.report.document import card
from imtok.report.markup import Markup, element, joined, picture
from imtok.report.style import number, shortened
from imtok.report.words import WORDS, Words, of_first_codebook


def swatches(pictures: Visualisations, num_codebooks: int = 1) -> Markup | None:
    """Each code's decoded swatch above its mean patch, the most used first."""
    if not len(pictures.codes):
        return None
    cells = [_code(pictures, place) for place in range(len(pictures.codes))]
    words = of_first_codebook(WORDS["swatches"], num_codebooks)
    sheet = element("div", *cells, class_="sheet codes", role="region", aria_label=words.title, tabindex=0)
    unseen = any(count == 0 for count in pictures.patch_counts)
    return _sheet_card(words, sheet, more=" Hatched: nowhere in the pictures looked at." if unseen else "")


def _code(pictures: Visualisations, place: int) -> Markup:
    code, count = str(pictures.codes[place]), number(int(pictures.counts[place]))
    if pictures.patch_counts[place]:
        patch = picture(pictures.patches[place], f"mean patch of code {code}", pixelated=True)
    else:
        patch = element("div", class_="none")
    swatch = picture(pictures.swatches[place], f"swatch of code {code}", pixelated=True)
    return element("figure", swatch, patch, element("figcaption", code), title=f"code {code}, {count} times")


def reconstructions(pictures: Visualisations, of: str = "") -> Markup | None:
    """Originals above reconstructions; without originals, what the tokens decode to."""
    if not len(pictures.decoded):
        return None
    rows = [] if pictures.originals is None else [("original", pictures.originals)]
    return _sheet_card(WORDS["reconstructions"], _stacks(pictures.keys, [*rows, ("", pictures.decoded)]), of)


def compared_reconstructions(all_pictures: Sequence[tuple[str, Visualisations]]) -> list[Markup]:
    """Reconstructions of several tokenizers, named by letter: below one another where they are of the same images."""
    shown = [(letter, pictures) for letter, pictures in all_pictures if len(pictures.decoded)]
    if len(shown) < 2 or not _same_images([pictures for _, pictures in shown]):
        return [made for letter, each in shown if (made := reconstructions(each, f" of {letter}"))]
    first = next((pictures for _, pictures in shown if pictures.originals is not None), shown[0][1])
    rows = [] if first.originals is None else [("original", first.originals)]
    stacks = _stacks(first.keys, [*rows, *((letter, pictures.decoded) for letter, pictures in shown)])
    return [_sheet_card(WORDS["reconstructions"], stacks)]


def _sheet_card(words: Words, pictures: Markup, of: str = "", more: str = "") -> Markup:
    """The words come first here: a sheet may be long."""
    return card(words.title + of, joined(element("p", words.text + more), pictures), long=True)


def _same_images(all_pictures: list[Visualisations]) -> bool:
    first, *others = all_pictures
    return all(each.keys == first.keys and each.decoded.shape == first.decoded.shape for each in others) and all(
        np.array_equal(each.originals, first.originals)
        for each in others
        if each.originals is not None and first.originals is not None
    )


def _stacks(keys: tuple[str, ...], rows: list[tuple[str, Pixels]]) -> Markup:
    """An image in each column: its versions below one another, each with its name where there are several kinds."""
    several = len(rows) > 2
    stacks = []
    for place, key in enumerate(keys):
        parts: list[Markup] = []
        for name, images in rows:
            parts.append(picture(images[place], f"{name or 'decoded'}: {key}"))
            if several:
                parts.append(element("figcaption", name))
        stacks.append(element("figure", *parts, element("figcaption", shortened(key, 60), title=key)))
    return element("div", *stacks, class_="sheet images")
