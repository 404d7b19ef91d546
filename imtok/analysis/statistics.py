"""Every figure that `imtok stats` tells, as records: names, definitions and sources, in one place.

The definitions stand in the fields' descriptions, so that help, report and JSON schema say the same. Entropies are in
bits. N is a number of tokens, n_k how many of them are code k, p_k = n_k / N.
"""

# Axes: K codes, Q codebooks, h x w grid of an image's codes, D latent channels.

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from imtok.evaluation import METRICS, PSNR, SSIM
from imtok.records import Record
from imtok.usage import Span, Use

Severity = Literal["problem", "warning", "hint"]


class Runs(Record):
    """Usage by runs of 256 images."""

    images: int = Field(256, description="images of a run: consecutive ones of a unit")
    runs: int = Field(description="whole runs there are")
    usage: float = Field(
        description="used / K by the 256 images of a run, mean over codebooks and runs (see Zhu et al., 2024)"
    )
    least: float = Field(description="that of the run that uses fewest")
    most: float = Field(description="that of the run that uses most")


class Bits(Record):
    """What the tokens take up."""

    raw_per_token: float = Field(description="log2 K")
    raw_per_image: float = Field(description="h w Q log2 K")
    raw_per_pixel: float = Field(description="bits per image / pixels of the square that was encoded")
    coded_per_token: float = Field(
        description="bits a token that an adaptive coder needs, learning included: the least of those without context, "
        "knowing the left neighbour, and knowing the one above (MacKay & Peto, 1995)"
    )
    coded_per_image: float = Field(description="h w Q times that")
    coded_per_pixel: float = Field(description="bits coded per image / pixels")
    coder: Literal["fixed", "frequencies", "left neighbour", "neighbour above"] = Field(
        description="which coder needs least; fixed: none beats log2 K"
    )


class PositionMap(Record):
    """What each place of the grid says."""

    images: int = Field(description="images it was measured on: all, or evenly spaced ones")
    entropy_bits: list[list[float]] = Field(
        description="(h, w): entropy of the codes at each place, over images, its bias corrected (Miller, 1955); mean "
        "over codebooks"
    )
    limit_bits: float = Field(
        description="log2 of the lesser of K and the images: no place can show more, so where all come near it there "
        "are too few images to tell places apart by their entropy"
    )
    surprisal_bits: list[list[float]] = Field(
        description="(h, w): mean of -log2 p_k over the codes at each place, p_k being that of the whole set: how "
        "unusual its codes are, which few images tell too; mean over codebooks"
    )


class Neighbours(Record):
    """What a code tells of the next one, mean over codebooks."""

    images: int = Field(description="images whose pairs were counted: all, or evenly spaced ones")
    pairs: int = Field(description="pairs of neighbours counted")
    distinct: int = Field(description="different pairs among them")
    contexts_share: float = Field(
        description="share of the codes that occur whose pairs were counted, chosen by hash; 1: all"
    )
    mutual_information_bits: float = Field(
        description="H(X) + H(Y) - H(X, Y) of neighbours X, Y (Shannon, 1948); high where pairs are few a code"
    )
    mutual_information_corrected_bits: float = Field(
        description="that with the first term of each entropy's small-sample bias undone, at least 0 (Miller, 1955)"
    )
    conditional_entropy_bits: float = Field(description="H(Y | X) = H(Y) - mutual information: bits left of a token")
    conditional_entropy_corrected_bits: float = Field(description="that of the corrected figures")
    coded_bits: float = Field(
        description="bits a token that an adaptive coder knowing the neighbour needs, learning included: to be "
        "had, where all pairs are counted, to within some bits of the whole set (MacKay & Peto, 1995)"
    )


class Dimension(Record):
    """One dimension of FSQ, LFQ or BSQ."""

    codebook: int = Field(description="of which codebook, from 0")
    dimension: int = Field(description="from 0")
    shares: list[float] = Field(description="share of the tokens at each of its levels")
    entropy_bits: float = Field(description="entropy of the levels, at most log2 of their number")
    max_bits: float = Field(description="log2 of the number of levels")


class ClassUse(Record):
    """The codes of one class of images."""

    label: int = Field(description="as the shards have it")
    name: str = Field(description="of its folder, or the label where there is none")
    images: int = Field(description="images of the class looked at: all, or evenly spaced ones")
    tokens: int = Field(description="their codes")
    used: int = Field(description="codes that occur in them")
    perplexity: float = Field(description="2^entropy of their codes")
    divergence_bits: float = Field(
        description="Kullback-Leibler divergence of its code shares from those of all classes, bits a token, the first "
        "term of its bias undone (Kullback & Leibler, 1951)"
    )
    own: list[tuple[int, float]] = Field(description="codes most its own, as (code, share in the class / share in all)")


class Duplicates(Record):
    """Images with the same codes at every place."""

    images: int = Field(description="images compared: all, or those whose hash falls in a share")
    duplicates: int = Field(description="images whose codes an earlier image already had")
    groups: int = Field(description="different grids of codes that occur more than once")
    largest: list[list[str]] = Field(description="keys of the largest groups, five groups of five keys at most")


class Histogram(Record):
    """Counts between edges."""

    edges: list[float] = Field(description="n + 1 edges")
    counts: list[int] = Field(description="n counts")


class Geometry(Record):
    """How the codes of one codebook lie in the space of the latents."""

    codebook: int = Field(description="from 0")
    fixed: bool = Field(description="the codes lie where the method puts them (FSQ, LFQ, BSQ), nothing is learned")
    codes: int = Field(description="codes whose nearest other was sought: all, or evenly spaced ones")
    dim: int = Field(description="D, channels of a code")
    mean_norm: float = Field(description="mean length of the codes")
    norms: Histogram = Field(description="lengths of the codes")
    median_distance: float = Field(description="median distance of a code to its nearest other")
    distances: Histogram = Field(description="distances to the nearest other code")
    near_duplicates: int = Field(
        description="codes of those at most as far from another as a hundredth of the root mean square distance of all "
        "from their mean"
    )
    effective_rank: float = Field(
        description="exp of the entropy of the codes' normalised singular values about their mean, at most D "
        "(Roy & Vetterli, 2007)"
    )
    effective_rank_used: float = Field(description="the same with each code weighted by how often it is used")
    points: list[tuple[float, float]] = Field(description="codes on their two main axes (Pearson, 1901), 2048 at most")
    point_codes: list[int] = Field(description="which code each point is")
    point_counts: list[int] = Field(description="how often that code occurs")


class CodeShare(Record):
    """A figure of one code."""

    code: int = Field(description="of the first codebook")
    share: float = Field(description="of the tokens of that code, those that changed")
    tokens: int = Field(description="how many tokens it was measured on")


class ErrorByCode(Record):
    """Quantization error: how far latents z lie from the codes q that stand for them, in the space of the codes.

    That is z bounded for FSQ, at unit length for BSQ and cosine, and otherwise as the encoder gives it; q is the sum of
    all stages of a residual quantizer.
    """

    mean: float = Field(description="mean of |z - q|^2 / D over tokens")
    relative: float = Field(description="mean of |z - q|^2 over mean of |z|^2")
    codes: list[int] = Field(description="codes of the first codebook that occurred, the most frequent 2048 at most")
    errors: list[float] = Field(description="mean of |z - q|^2 / D of each")
    tokens: list[int] = Field(description="how many tokens each had")


class Pass(Record):
    """One pass of decode, round to uint8, encode."""

    same_as_first: float = Field(description="share of the tokens equal to those at the start")
    same_as_last: float = Field(description="share of the tokens equal to those before this pass")
    psnr: float | None = Field(
        description="dB: what the codes of this pass decode to against what those at the start did; mean over the "
        "images that differ, null where none does"
    )


class Idempotence(Record):
    """encode(decode(t)) against t, pass after pass (of codecs: Kim et al., 2020)."""

    images: int = Field(description="images it was measured on")
    passes: list[Pass] = Field(description="one after the other")
    least_stable: list[CodeShare] = Field(description="codes most often changed by the first pass")


class Perturbation(Record):
    """What a small change of the picture does to its codes."""

    name: str = Field(description="what was done: a shift by one pixel, JPEG of some quality")
    changed: float = Field(description="share of the tokens that changed")
    psnr: float | None = Field(
        description="dB: the disturbed picture against the original, mean over the images that differ; null where none "
        "does"
    )
    most_changed: list[CodeShare] = Field(description="codes that changed most often, of those seen often enough")
    least_changed: list[CodeShare] = Field(description="codes that changed least often, of those seen often enough")


class Sensitivity(Record):
    """How codes bear small changes of the picture (of shifts: Zhang, 2019)."""

    images: int = Field(description="images it was measured on")
    of_decoded: bool = Field(description="measured on pictures decoded from the tokens, as no images were given")
    disturbances: list[Perturbation] = Field(description="one for each kind of change")


class Reconstruction(Record):
    """What comes back of the images."""

    model_config = ConfigDict(extra="allow")  # a metric of `imtok.evaluation` needs no field here
    __pydantic_extra__: dict[str, float | None] = Field(init=False)

    images: int = Field(description="images it was measured on")
    size: int = Field(description="side of the square, pixels")
    psnr: float | None = Field(description=PSNR.description)
    ssim: float = Field(description=SSIM.description)
    protocol: str = Field(description="how pictures were prepared and compared")

    @property
    def metrics(self) -> dict[str, float | None]:
        """The metrics by name, in the order of their list; None in place of an infinite value."""
        return {name: getattr(self, name) for name in METRICS if hasattr(self, name)}


class TokenizerStatistics(Record):
    """What the tokenizer itself shows."""

    name: str = Field(description="the tokenizer folder as it was named")
    quantizer: str = Field(description="which quantizer")
    geometry: list[Geometry] = Field(description="one for each table of codes")
    idempotence: Idempotence = Field(description="what becomes of codes that are decoded and encoded again")
    sensitivity: Sensitivity = Field(description="what becomes of codes when the picture changes a little")
    error: ErrorByCode | None = Field(description="where images were given and latents and codes share a space")
    reconstruction: Reconstruction | None = Field(description="where images were given")


class Finding(Record):
    """One sentence of advice."""

    name: str = Field(description="a short stable name, such as dead-codes")
    grade: Severity = Field(
        description="problem: tokens of little worth; warning: something is wasted; hint: worth knowing"
    )
    text: str = Field(description="what was found, the threshold it passed, and what to do")
    page: str = Field(description="where more is said, such as docs/collapse.md#dead-codes")


class TokenSet(Record):
    """Which tokens the figures are of."""

    format: Literal["imtok-stats"] = Field("imtok-stats", description="what kind of JSON this is")
    version: Literal[1] = Field(1, description="goes up where names or meanings change")
    name: str = Field(description="the token folder as it was named")
    fingerprint: str = Field(description="of the tokenizer that made the tokens")
    quantizer: str | None = Field(description="which quantizer, where the folder has its tokenizer")
    images: int = Field(description="images with tokens; skipped ones do not count")
    skipped: int = Field(description="inputs that could not be read")
    size: int = Field(description="side of the square that was encoded, pixels")
    grid: tuple[int, int] = Field(description="(h, w): codes down and across")
    codebook_size: int = Field(description="K")
    num_codebooks: int = Field(description="Q")
    max_bits: float = Field(description="log2 K")


class Statistics(Use, TokenSet):  # in this order the fields of TokenSet come first
    """All of it: `imtok stats --json`."""

    codebooks: list[Use] = Field(description="each codebook alone: the stages of a residual quantizer in their order")
    per_256_images: Runs | None = Field(description="null where no unit has 256 images")
    top: list[tuple[int, int]] = Field(description="the codes used most, as (code, occurrences)")
    frequency: list[Span] = Field(description="codes by how often they occur: never, once, then in powers of ten")
    rank_frequency: list[tuple[int, int]] = Field(description="(rank, occurrences) at ranks spaced in the logarithm")
    growth: list[tuple[int, int]] = Field(
        description="(images seen, codes used by then), in the order of the folder (of words: Heaps, 1978)"
    )
    bits: Bits = Field(description="what the tokens take up, as they are and entropy-coded")
    positions: PositionMap | None = Field(description="null where there are no images")
    horizontal: Neighbours | None = Field(description="a code and the one to its right; null for grids one wide")
    vertical: Neighbours | None = Field(description="a code and the one below it; null for grids one high")
    dimensions: list[Dimension] = Field(description="by dimension, for FSQ, LFQ and BSQ; empty for others")
    classes: list[ClassUse] = Field(description="by class, where there are labels; the most frequent 100")
    duplicates: Duplicates = Field(description="images with the same codes at every place")
    tokenizer: TokenizerStatistics | None = Field(description="where the tokenizer was looked at too")
    findings: list[Finding] = Field(description="advice; empty for a healthy codebook")

    @property
    def own_entropy_bits(self) -> float:
        """The corrected entropy of a codebook alone, mean over codebooks: what neighbours' figures compare with."""
        return sum(each.entropy_corrected_bits for each in self.codebooks) / len(self.codebooks)


class Comparison(Record):
    """Several token sets: `imtok stats --compare --json`."""

    format: Literal["imtok-comparison"] = Field("imtok-comparison", description="what kind of JSON this is")
    version: Literal[1] = Field(1, description="goes up where names or meanings change")
    tokenizers: list[Statistics] = Field(description="all figures of each, in the order they were named")


def json_schema() -> dict[str, Any]:
    """The JSON schema of what `imtok stats --json` prints, of one token set or several."""
    schema = TypeAdapter(Statistics | Comparison).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "imtok stats --json",
        "description": "The figures of one token set, or with --compare of several.",
        **schema,
    }


def definition(record: type[Record], name: str) -> str:
    """The sentence that defines a figure."""
    if record is Reconstruction and name not in record.model_fields:
        return METRICS[name].description
    return record.model_fields[name].description or ""
