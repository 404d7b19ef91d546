"""Sheets of visualisations: small pictures stacked above a name, described once for the page and for a PNG."""

# Axes: n codes, m images, S side of an image.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from imtok.analysis.formatting import number, shortened
from imtok.analysis.visualisations import Pixels, Visualisations
from imtok.report.plot import FIRST_CODEBOOK, Plot
from imtok.report.style import SOFT, WIDE

_MOST_CODES = 128  # of a PNG
_GAP, _WORDS = 8, 18  # pixels


class Picture(NamedTuple):
    """One picture of a stack."""

    pixels: Pixels | None  # (H, W, 3) uint8; None where there is nothing to show
    alt: str
    label: str = ""  # which one of its stack it is


class Stack(NamedTuple):
    """Pictures that belong together, below one another."""

    name: str
    hint: str  # what a page says where a pointer rests
    pictures: list[Picture]


@dataclass(frozen=True, eq=False)
class Sheet:
    """Stacks side by side in rows."""

    name: str
    title: str
    caption: str
    stacks: list[Stack]
    of_codes: bool = False  # small and pixelated; else images

    def plot(self) -> Plot:
        """Draw the sheet as it stands in a file."""
        stacks = self.stacks[:_MOST_CODES] if self.of_codes else self.stacks
        across = 16 if self.of_codes else min(4, max(len(stacks), 2))
        side = WIDE / across - _GAP
        cell = max(len(stack.pictures) for stack in stacks) * (side + 2) + _WORDS + _GAP
        height = -(-len(stacks) // across) * cell
        figure = Figure(figsize=(WIDE / 72, height / 72))
        axes = figure.add_axes((0, 0, 1, 1))  # measured in pixels from the upper left corner of the figure
        axes.set_axis_off()
        axes.set(xlim=(0, WIDE), ylim=(height, 0))
        for index, stack in enumerate(stacks):
            left, top = index % across * (side + _GAP) + _GAP / 2, index // across * cell
            for picture in stack.pictures:
                if picture.pixels is not None:
                    smoothing = "nearest" if self.of_codes else "antialiased"
                    extent = (left, left + side, top + side, top)
                    axes.imshow(picture.pixels, extent=extent, interpolation=smoothing)
                top += side + 2
            name = shortened(stack.name, 28)
            axes.text(left + side / 2, top + 2, name, ha="center", va="top", color=SOFT, fontsize=10)
        return Plot(self.name, "visualisations", self.title, self.caption, figure)


def sheets_of_one(visualisations: Visualisations | None, num_codebooks: int) -> list[Sheet]:
    """Describe the reconstructions and the codes of one tokenizer, where there are any."""
    if visualisations is None:
        return []
    codes = [_code_sheet(visualisations, num_codebooks)] if len(visualisations.codes) else []
    return [*compared_sheets([("", visualisations)]), *codes]


def _code_sheet(visualisations: Visualisations, num_codebooks: int) -> Sheet:
    """Describe the decoded swatch of each code above its mean patch, the most used first."""
    title = "What codes look like"
    caption = (
        "Above, the centre of a decoded grid that holds one code everywhere. Below, the mean of the pixels where that "
        "code occurs, in the images or, where none are given, in decoded ones. The most used first."
    )
    if num_codebooks > 1:
        title, caption = f"{title}, first codebook", f"{caption} {FIRST_CODEBOOK}"
    if not all(visualisations.patch_counts):
        caption += " Hatched: nowhere in the images looked at."
    stacks = []
    for index, code in enumerate(visualisations.codes):
        patch = visualisations.patches[index] if visualisations.patch_counts[index] else None
        swatch = Picture(visualisations.swatches[index], f"swatch of code {code}")
        hint = f"code {code}, {number(int(visualisations.counts[index]))} times"
        stacks.append(Stack(str(code), hint, [swatch, Picture(patch, f"mean patch of code {code}")]))
    return Sheet("swatches", title, caption, stacks, of_codes=True)


def compared_sheets(named: Sequence[tuple[str, Visualisations]]) -> list[Sheet]:
    """Describe the reconstructions of several tokenizers: below one another where they are of the same images."""
    found = [(letter, each) for letter, each in named if len(each.decoded)]
    if len(found) > 1 and _same_images([each for _, each in found]):
        return [_image_sheet(found, "")]
    return [_image_sheet([("", each)], f" of {letter}" if letter else "") for letter, each in found]


def _image_sheet(named: Sequence[tuple[str, Visualisations]], of: str) -> Sheet:
    """An image in each stack: the original where there is one, then its reconstructions."""
    rows = [("original", each.originals) for _, each in named if each.originals is not None][:1]
    rows += [(letter, each.decoded) for letter, each in named]
    stacks = []
    for index, key in enumerate(named[0][1].keys):
        pictures = [Picture(images[index], f"{label or 'decoded'}: {key}", label) for label, images in rows]
        stacks.append(Stack(key, key, pictures))
    caption = "Originals above, where images are given, and below what their tokens decode to."
    return Sheet("reconstructions", f"Reconstructions{of}", caption, stacks)


def _same_images(several: Sequence[Visualisations]) -> bool:
    originals = [each.originals for each in several if each.originals is not None]
    alike = len({(each.keys, each.decoded.shape) for each in several}) == 1
    return alike and all(np.array_equal(originals[0], each) for each in originals)
