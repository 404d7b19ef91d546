"""All statistics of `imtok stats` as records, with their names, definitions and sources.

The definitions are the descriptions of the fields, so that report and JSON schema agree. Entropies are in bits. N is a
number of tokens, n_k how many of them are code k, p_k = n_k / N.
"""

# Axes: K codes, Q codebooks, h x w grid of the codes of an image, D latent channels.

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from imtok.config.origin import Origin
from imtok.evaluation import METRICS, PSNR, SSIM
from imtok.records import Record
from imtok.usage import Span, Use

Severity = Literal["problem", "warning", "hint"]  # the worst first


class Runs(Record):
    """Usage by runs of 256 images."""

    images: int = Field(256, description="images of a run: consecutive ones of a unit")
    runs: int = Field(description="whole runs there are")
    usage: float = Field(
        description="used / K by the 256 images of a run, mean over codebooks and runs (see Zhu et al., 2024)"
    )
    least: float = Field(description="usage of the run that uses fewest codes")
    most: float = Field(description="usage of the run that uses most codes")


class Bits(Record):
    """Bits that the tokens take."""

    raw_per_token: float = Field(description="log2 K")
    raw_per_image: float = Field(description="h w Q log2 K")
    raw_per_pixel: float = Field(description="bits per image / pixels of the square that was encoded")
    coded_per_token: float = Field(
        description="bits a token of an adaptive coder, learning included: the least of three coders, without context, "
        "with the left neighbour, and with the neighbour above (MacKay & Peto, 1995)"
    )
    coded_per_image: float = Field(description="h w Q times the bits coded per token")
    coded_per_pixel: float = Field(description="bits coded per image / pixels")
    coder: Literal["fixed", "frequencies", "left neighbour", "neighbour above"] = Field(
        description="coder that needs the fewest bits; fixed: none needs less than log2 K"
    )


class PositionMap(Record):
    """Entropy and surprisal at each position of the grid."""

    images: int = Field(description="images it was measured on: all, or evenly spaced ones")
    entropy_bits: list[list[float]] = Field(
        description="(h, w): entropy of the codes at each position, over images, its bias corrected (Miller, 1955); "
        "mean over codebooks"
    )
    limit_bits: float = Field(
        description="log2 of K or of the number of images, whichever is less: the highest entropy that a position can "
        "have here; where all come near it, there are too few images to compare positions by entropy"
    )
    surprisal_bits: list[list[float]] = Field(
        description="(h, w): mean of -log2 p_k over the codes at each position, with p_k of the whole set: high where "
        "codes are rare; needs few images; mean over codebooks"
    )


class Neighbours(Record):
    """Information between a code and the next one, mean over codebooks."""

    images: int = Field(description="images whose pairs were counted: all, or evenly spaced ones")
    pairs: int = Field(description="pairs of neighbours counted")
    distinct: int = Field(description="different pairs among them")
    contexts_share: float = Field(
        description="share of the occurring codes whose pairs were counted, chosen by hash; 1: all"
    )
    mutual_information_bits: float = Field(
        description="H(X) + H(Y) - H(X, Y) of neighbours X, Y (Shannon, 1948); high where pairs are few a code"
    )
    mutual_information_corrected_bits: float = Field(
        description="the same with the first term of the small-sample bias of each entropy undone, at least 0 "
        "(Miller, 1955)"
    )
    conditional_entropy_bits: float = Field(description="H(Y | X) = H(Y) - mutual information: bits left of a token")
    conditional_entropy_corrected_bits: float = Field(description="the same from the corrected entropies")
    coded_bits: float = Field(
        description="bits a token of an adaptive coder that knows the neighbour, learning included; where all pairs "
        "are counted, it can be reached to within some bits for the whole set (MacKay & Peto, 1995)"
    )


class Dimension(Record):
    """One dimension of FSQ, LFQ or BSQ."""

    codebook: int = Field(description="its codebook, from 0")
    dimension: int = Field(description="from 0")
    shares: list[float] = Field(description="share of the tokens at each level")
    entropy_bits: float = Field(description="entropy of the levels, at most log2 of their number")
    max_bits: float = Field(description="log2 of the number of levels")


class ClassUse(Record):
    """The codes of one class of images."""

    label: int = Field(description="as the shards have it")
    name: str = Field(description="of its folder, or the label where there is none")
    images: int = Field(description="images of the class that were counted: all, or evenly spaced ones")
    tokens: int = Field(description="codes of these images")
    used: int = Field(description="codes that occur in them")
    perplexity: float = Field(description="2^entropy of their codes")
    divergence_bits: float = Field(
        description="Kullback-Leibler divergence of the code shares of the class from those of all classes, bits a "
        "token, the first term of its bias undone (Kullback & Leibler, 1951)"
    )
    own: list[tuple[int, float]] = Field(
        description="codes most typical of the class, as (code, share in the class / share in all)"
    )


class Duplicates(Record):
    """Images with the same codes at every position."""

    images: int = Field(description="images compared: all, or a share chosen by hash")
    duplicates: int = Field(description="images with exactly the codes of an earlier image")
    groups: int = Field(description="different grids of codes that occur more than once")
    largest: list[list[str]] = Field(description="keys of the largest groups, five groups of five keys at most")


class Histogram(Record):
    """Counts between edges."""

    edges: list[float] = Field(description="n + 1 edges")
    counts: list[int] = Field(description="n counts")


class Geometry(Record):
    """Positions of the codes of one codebook in the space of the latents."""

    codebook: int = Field(description="from 0")
    fixed: bool = Field(description="the method fixes the codes (FSQ, LFQ, BSQ), and nothing is learned")
    codes: int = Field(description="codes whose nearest other code was searched: all, or evenly spaced ones")
    dim: int = Field(description="D, channels of a code")
    mean_norm: float = Field(description="mean length of the codes")
    norms: Histogram = Field(description="lengths of the codes")
    median_distance: float = Field(description="median distance of a code to its nearest other")
    distances: Histogram = Field(description="distances to the nearest other code")
    near_duplicates: int = Field(
        description="codes of those whose distance to another code is at most a hundredth of the root mean square "
        "distance of all codes from their mean"
    )
    effective_rank: float = Field(
        description="exp of the entropy of the codes' normalised singular values about their mean, at most D "
        "(Roy & Vetterli, 2007)"
    )
    effective_rank_used: float = Field(description="the same with each code weighted by how often it is used")
    points: list[tuple[float, float]] = Field(description="codes on their two main axes (Pearson, 1901), 2048 at most")
    point_codes: list[int] = Field(description="the code of each point")
    point_counts: list[int] = Field(description="how often the code of each point occurs")


class CodeShare(Record):
    """A share of the tokens of one code."""

    code: int = Field(description="code of the first codebook")
    share: float = Field(description="share of the tokens of the code that changed")
    tokens: int = Field(description="how many tokens it was measured on")


class ErrorByCode(Record):
    """Quantization error: the distance of latents z to the codes q that stand for them, in the space of the codes.

    z is bounded for FSQ, of unit length for BSQ and cosine, and otherwise the output of the encoder. q is the sum of
    all stages of a residual quantizer.
    """

    mean: float = Field(description="mean of |z - q|^2 / D over tokens")
    relative: float = Field(description="mean of |z - q|^2 over mean of |z|^2")
    codes: list[int] = Field(description="codes of the first codebook that occurred, at most the 2048 most frequent")
    errors: list[float] = Field(description="mean of |z - q|^2 / D of each code")
    tokens: list[int] = Field(description="tokens of each code")


class Pass(Record):
    """One pass of decode, round to uint8, encode."""

    same_as_first: float = Field(description="share of the tokens equal to the first tokens")
    same_as_last: float = Field(description="share of the tokens equal to the tokens before this pass")
    psnr: float | None = Field(
        description="dB: images decoded from the codes of this pass against images decoded from the first codes; mean "
        "over the images that differ, null where none does"
    )


class Idempotence(Record):
    """encode(decode(t)) against t, pass after pass (of codecs: Kim et al., 2020)."""

    images: int = Field(description="images it was measured on")
    passes: list[Pass] = Field(description="one after the other")
    least_stable: list[CodeShare] = Field(description="codes most often changed by the first pass")


class Perturbation(Record):
    """Codes under a small change of the image."""

    name: str = Field(description="the change: a shift by one pixel, or JPEG of some quality")
    changed: float = Field(description="share of the tokens that changed")
    psnr: float | None = Field(
        description="dB: the changed image against the original, mean over the images that differ; null where none does"
    )
    most_changed: list[CodeShare] = Field(description="codes that changed most often, of those seen often enough")
    least_changed: list[CodeShare] = Field(description="codes that changed least often, of those seen often enough")


class Sensitivity(Record):
    """Sensitivity of codes to small changes of the image (of shifts: Zhang, 2019)."""

    images: int = Field(description="images it was measured on")
    of_decoded: bool = Field(description="measured on images decoded from the tokens, because no images were given")
    disturbances: list[Perturbation] = Field(description="one for each kind of change")


class Reconstruction(Record):
    """Quality of reconstructions."""

    model_config = ConfigDict(extra="allow")  # so that a further metric of `imtok.evaluation` needs no field
    __pydantic_extra__: dict[str, float | None] = Field(init=False)

    images: int = Field(description="images it was measured on")
    size: int = Field(description="side of the square, pixels")
    psnr: float | None = Field(description=PSNR.description)
    ssim: float = Field(description=SSIM.description)
    protocol: str = Field(description="how images were prepared and compared")

    @property
    def metrics(self) -> dict[str, float | None]:
        """The metrics by name, in the order of their list; None in place of an infinite value."""
        return {name: getattr(self, name) for name in METRICS if hasattr(self, name)}


class TokenizerStatistics(Record):
    """Statistics of the tokenizer itself."""

    name: str = Field(description="name of the tokenizer folder")
    quantizer: str = Field(description="the quantizer and its main settings")
    geometry: list[Geometry] = Field(description="one for each codebook; a shared one counts once")
    idempotence: Idempotence = Field(description="codes that are decoded and encoded again")
    sensitivity: Sensitivity = Field(description="codes under small changes of the image")
    error: ErrorByCode | None = Field(description="where images were given and latents and codes share a space")
    reconstruction: Reconstruction | None = Field(description="where images were given")


class Finding(Record):
    """A finding with its suggestion."""

    name: str = Field(description="a short stable name, such as dead-codes")
    grade: Severity = Field(
        description="severity: problem: tokens of little worth; warning: something is wasted; hint: worth knowing"
    )
    text: str = Field(description="the fact, the threshold it passed, and a suggestion")
    page: str = Field(description="page with more about it, such as docs/collapse.md#dead-codes")


class TokenSet(Record):
    """The token set that the statistics describe."""

    format: Literal["imtok-stats"] = Field("imtok-stats", description="kind of this JSON")
    version: Literal[1] = Field(1, description="goes up where names or meanings change")
    name: str = Field(description="name of the token folder")
    fingerprint: str = Field(description="fingerprint of the tokenizer that made the tokens")
    quantizer: str | None = Field(description="the quantizer and its main settings, where the folder has its tokenizer")
    origin: Origin | None = Field(None, description="published checkpoint that the tokenizer's weights come from")
    images: int = Field(description="images with tokens; skipped ones do not count")
    skipped: int = Field(description="inputs that could not be read")
    size: int = Field(description="side of the square that was encoded, pixels")
    grid: tuple[int, int] = Field(description="(h, w): codes down and across")
    codebook_size: int = Field(description="K")
    num_codebooks: int = Field(description="Q")
    max_bits: float = Field(description="log2 K")


class Statistics(Use, TokenSet):  # in this order the fields of TokenSet come first
    """All statistics of a token set: `imtok stats --json`."""

    codebooks: list[Use] = Field(description="each codebook alone: the stages of a residual quantizer in their order")
    per_256_images: Runs | None = Field(description="null where no unit has 256 images")
    top: list[tuple[int, int]] = Field(description="the codes used most, as (code, occurrences)")
    frequency: list[Span] = Field(description="codes by how often they occur: never, once, then in powers of ten")
    rank_frequency: list[tuple[int, int]] = Field(description="(rank, occurrences) at ranks spaced in the logarithm")
    growth: list[tuple[int, int]] = Field(
        description="(images seen, codes used by then), in the order of the folder (of words: Heaps, 1978)"
    )
    bits: Bits = Field(description="bits of the tokens, raw and entropy-coded")
    positions: PositionMap | None = Field(description="null where there are no images")
    horizontal: Neighbours | None = Field(description="a code and the one to its right; null for grids one wide")
    vertical: Neighbours | None = Field(description="a code and the one below it; null for grids one high")
    dimensions: list[Dimension] = Field(description="by dimension, for FSQ, LFQ and BSQ; empty for others")
    classes: list[ClassUse] = Field(description="by class, where there are labels; the most frequent 100")
    num_classes: int = Field(0, ge=0, description="classes of the labels of all images")
    duplicates: Duplicates = Field(description="images with the same codes at every position")
    tokenizer: TokenizerStatistics | None = Field(description="where the tokenizer was analyzed too")
    findings: list[Finding] = Field(description="findings with suggestions; empty for a healthy codebook")

    @property
    def own_entropy_bits(self) -> float:
        """The corrected entropy of a codebook alone, mean over codebooks, to compare with neighbours."""
        return sum(each.entropy_corrected_bits for each in self.codebooks) / len(self.codebooks)


class Comparison(Record):
    """Several token sets: `imtok stats --compare --json`."""

    format: Literal["imtok-comparison"] = Field("imtok-comparison", description="kind of this JSON")
    version: Literal[1] = Field(1, description="goes up where names or meanings change")
    tokenizers: list[Statistics] = Field(description="all statistics of each, in the given order")


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the output of `imtok stats --json`, of one token set or several."""
    schema = TypeAdapter(Statistics | Comparison).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "imtok stats --json",
        "description": "The statistics of one token set, or with --compare of several.",
        **schema,
    }


def definition(record: type[Record], name: str) -> str:
    """Return the definition of a statistic."""
    if record is Reconstruction and name not in record.model_fields:
        return METRICS[name].description
    return record.model_fields[name].description or ""
