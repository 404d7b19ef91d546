"""The words around each plot: its section, its title, and a sentence or two how to read it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Section = Literal["use", "context", "codes", "firmness", "pictures"]


class Words(NamedTuple):
    """Those of one plot."""

    section: Section
    title: str
    text: str  # how to read it


WORDS = {
    "frequency": Words(
        "use",
        "How often codes occur",
        "Each bar counts the codes that occur so often. A healthy codebook has few at never or once.",
    ),
    "rank-frequency": Words(
        "use",
        "Rank and frequency",
        "Occurrences of the codes, the most used first, both axes in powers of ten. Flat along the dashed line is"
        " even use; a steep fall means that few codes carry most tokens.",
    ),
    "growth": Words(
        "use",
        "Growth of the codes used",
        "Codes used after so many images, in the order of the folder. Where the curve lies flat, more images "
        "bring no new codes.",
    ),
    "codebooks": Words(
        "use",
        "Use by codebook",
        "Bar and first figure: share of the codebook's codes that occur. Stroke and second figure: perplexity, "
        "the stroke as a share of K.",
    ),
    "levels": Words(
        "use",
        "Levels by dimension",
        "Share of the tokens at each level of a dimension. The dashed line or stroke is even use; a single tall "
        "bar is a dimension that says nothing.",
    ),
    "entropy-map": Words(
        "context",
        "Entropy by place",
        "Entropy of the codes at each place of the grid, over images. Dark places say much the same in every image.",
    ),
    "surprisal-map": Words(
        "context",
        "Surprise by place",
        "How unusual the codes at each place are in the whole set: dark places hold the everyday codes, pale ones the "
        "rare.",
    ),
    "neighbours": Words(
        "context",
        "Bits a token",
        "What is left of log2 K when frequencies, then a neighbour are known: from the estimate, too low where pairs "
        "are few, to what a coder really needs. Last, the coder that needs least, learning included.",
    ),
    "classes": Words(
        "context",
        "Codes by class",
        "Perplexity of a class (bar), codes used in it (stroke), and how far its code shares lie from those of "
        "all images; the most different first.",
    ),
    "norms": Words(
        "codes",
        "Lengths of the codes",
        "How many codes have which length. A second heap is often of codes that were never trained.",
    ),
    "distances": Words(
        "codes",
        "Distances of the codes",
        "Distance of each code to its nearest other. A heap at zero is of codes that stand for the same.",
    ),
    "code-map": Words(
        "codes",
        "Map of the codes",
        "Codes on their two main axes, larger and stronger the more they are used. Orange ones never occur.",
    ),
    "error": Words(
        "codes",
        "Quantization error by code",
        "How far latents lie from the code that stands for them, each dot a code. Dots high at the right are "
        "codes that stand for too much.",
    ),
    "idempotence": Words(
        "firmness",
        "Decoded and encoded again",
        "Share of the tokens that stay the same when images are decoded, rounded to bytes and encoded again, pass"
        " after pass.",
    ),
    "sensitivity": Words(
        "firmness",
        "Small changes of the picture",
        "Share of the tokens that change, and the PSNR of the changed picture: how small the change was.",
    ),
    "swatches": Words(
        "pictures",
        "What codes look like",
        "Above, the middle of what a grid full of one code decodes to. Below, the mean of the pixels in its places, "
        "from the images or, where none are given, from decoded ones. The most used first.",
    ),
    "reconstructions": Words(
        "pictures",
        "What comes back",
        "Originals above, where images are given, and below what their tokens decode to.",
    ),
}
