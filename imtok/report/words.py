"""The words around each plot: its section, its title, and a sentence or two how to read it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Section = Literal["use", "context", "codes", "robustness", "pictures"]


class Words(NamedTuple):
    """Those of one plot."""

    section: Section
    title: str
    text: str  # how to read it


def of_first_codebook(words: Words, num_codebooks: int) -> Words:
    """The words of what shows single codes: with several codebooks they are those of the first one."""
    if num_codebooks == 1:
        return words
    return words._replace(title=f"{words.title}, first codebook", text=f"{words.text} {_FIRST}")


_FIRST = "Codes of the first codebook; in a residual quantizer, its first stage alone."
WORDS = {
    "frequency": Words(
        "use",
        "How often codes occur",
        "Codes by their number of occurrences. In a healthy codebook few codes occur never or once.",
    ),
    "rank-frequency": Words(
        "use",
        "Rank and frequency",
        "Occurrences of each code, the most used first, both axes logarithmic. A flat curve along the dashed line is "
        "even use; a steep fall means that few codes make up most tokens.",
    ),
    "growth": Words(
        "use",
        "Growth of the codes used",
        "Codes used after a number of images, in the order of the folder. Where the curve is flat, more images "
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
        "bar means a dimension that carries no information.",
    ),
    "entropy-map": Words(
        "context",
        "Entropy by place",
        "Entropy of the codes at each place of the grid, over images. Dark places have much the same "
        "codes in every image.",
    ),
    "surprisal-map": Words(
        "context",
        "Surprisal by place",
        "How rare the codes at each place are in the whole set: dark places hold common codes, pale ones rare codes.",
    ),
    "neighbours": Words(
        "context",
        "Bits a token",
        "The bits left of log2 K once code frequencies, then a neighbour are known. A range goes from the estimate, "
        "too low where pairs are few, to what an adaptive entropy coder needs. Coded: the coder that needs least, "
        "learning included.",
    ),
    "classes": Words(
        "context",
        "Codes by class",
        "Perplexity of a class (bar), codes used in it (stroke), and the Kullback-Leibler divergence of its "
        "codes from those of all images; the most different first.",
    ),
    "norms": Words(
        "codes",
        "Norms of the codes",
        "Distribution of the norms of the codes. A second peak often means codes that were never trained.",
    ),
    "distances": Words(
        "codes",
        "Distances of the codes",
        "Distance of each code to its nearest other. A peak near zero means codes that duplicate each other.",
    ),
    "code-map": Words(
        "codes",
        "Map of the codes",
        "Codes on their two principal axes, larger and darker the more they are used. Orange ones never occur.",
    ),
    "error": Words(
        "codes",
        "Quantization error",
        "Mean squared distance of latents from their code, each dot a code. Dots high at the right are codes that "
        "stand for too many different latents.",
    ),
    "idempotence": Words(
        "robustness",
        "Decoded and encoded again",
        "Share of the tokens that stay the same when images are decoded, rounded to bytes and encoded again, "
        "pass after pass.",
    ),
    "sensitivity": Words(
        "robustness",
        "Small changes to the picture",
        "Share of the tokens that change, beside the PSNR of the changed picture, which tells how small the change is.",
    ),
    "swatches": Words(
        "pictures",
        "What codes look like",
        "Above, the centre of a decoded grid that holds one code everywhere. Below, the mean of the pixels where that "
        "code occurs, in the images or, where none are given, in decoded ones. The most used first.",
    ),
    "reconstructions": Words(
        "pictures",
        "Reconstructions",
        "Originals above, where images are given, and below what their tokens decode to.",
    ),
}
