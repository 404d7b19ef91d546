"""Advice: findings about a codebook in plain words, each with its threshold, its number and what to do.

`findings` reads all figures; `usage_findings` reads counts alone, as a trainer has them, and finds the same in them. A
healthy codebook has no findings. Each finding has a heading of its name in docs/collapse.md, which gives the reason
for its threshold; "the study" is that of docs/quantizers.md.
"""

# Axes: K codes, Q codebooks.

from __future__ import annotations

import math
from collections.abc import Iterable

import imtok.analysis.suggestions as suggestions
from imtok.analysis.statistics import Finding, Geometry, Statistics
from imtok.analysis.usage_diagnostics import (
    FEW_TOKENS,
    Verdict,
    as_finding,
    findings_of_use,
    made_finding,
    worst_of_each,
)
from imtok.analysis.verdict import by_severity
from imtok.quantizers.record import QuantizerRecord
from imtok.usage import CodebookUsage

_IDLE = 0.1  # of a dimension's bits: a binary one with that little has one value 99 times of 100
_SKIPPED = 0.01  # of the inputs: a broken file here and there is usual, more points to a fault of the source
_DUPLICATES = 0.05  # of the images: enough to move validation figures, more than sets of photographs have by chance
_BITS_TO_TELL_APART = 5  # beyond log2 of the images: with fewer, more than 1 image in 64 shares its codes by chance
_COMPRESSIBLE = 0.6  # of log2 K; photographs' tokens need 0.84 and more, even when their neighbours are known
_TWINS = 0.05  # of the codes; learned codes hardly ever come within a hundredth of their spread
_LOW_RANK, _MANY_CHANNELS = 1 / 8, 16  # healthy codebooks of 32 channels have an effective rank of 7 and more
_UNSTABLE = 0.5  # trained tokenizers give 0.7 to 0.93 of their own codes back, one stopped early 0.43
_UNSTEADY = {"shift": 0.95, "JPEG quality 95": 0.5}  # by how a name begins; trained ones change up to 0.8 and 0.2


def usage_findings(usage: CodebookUsage, config: QuantizerRecord | None) -> list[Finding]:
    """What counts alone show, worst first; empty for a healthy codebook.

    `config` is the quantizer's, so that only settings it has are named; without it advice is general.
    """
    return by_severity(findings_of_use(usage, config))


def findings(statistics: Statistics, usage: CodebookUsage, config: QuantizerRecord | None) -> list[Finding]:
    """What all figures show, worst first; empty for a healthy codebook.

    `usage` has the counts behind the figures; `config` is as in `usage_findings`.
    """
    of_use = findings_of_use(usage, config)
    found = [*of_use, *_skipped(statistics)]
    if not any(finding.grade == "problem" for finding in of_use):  # a collapse explains all these by itself
        found += [*_idle_dimensions(statistics, config), *_duplicates(statistics), *_of_tokenizer(statistics, config)]
    if not of_use:
        found += _compressible(statistics, config)
    return by_severity(found)


def _skipped(statistics: Statistics) -> Iterable[Finding]:
    inputs = statistics.images + statistics.skipped
    if statistics.skipped and statistics.skipped >= _SKIPPED * inputs:
        text = (
            f"{statistics.skipped} of {inputs} inputs could not be read (reported from {_SKIPPED:.0%}); `imtok info` "
            "on the token folder lists the reasons"
        )
        yield made_finding("skipped-inputs", "warning", text)


def _idle_dimensions(statistics: Statistics, config: QuantizerRecord | None) -> Iterable[Finding]:
    idle = [each for each in statistics.dimensions if each.entropy_bits <= _IDLE * each.max_bits]
    if idle and statistics.tokens >= FEW_TOKENS:
        worst = min(idle, key=lambda each: each.entropy_bits / each.max_bits)
        codebook = f" of codebook {worst.codebook + 1}" if statistics.num_codebooks > 1 else ""
        text = (
            f"{len(idle)} of {len(statistics.dimensions)} dimensions nearly constant: dimension {worst.dimension + 1}"
            f"{codebook} carries {worst.entropy_bits:.2f} of its {worst.max_bits:.2f} bits (reported at {_IDLE:.0%} or "
            f"less); {suggestions.against('idle dimension', config)}"
        )
        yield made_finding("idle-dimension", "warning", text)


def _duplicates(statistics: Statistics) -> Iterable[Finding]:
    found, bits = statistics.duplicates, statistics.bits.coded_per_image
    told_apart = statistics.images > 0 and bits >= math.log2(statistics.images) + _BITS_TO_TELL_APART
    if told_apart and found.duplicates and found.duplicates >= _DUPLICATES * found.images:
        text = (
            f"{found.duplicates} of {found.images} images have exactly the codes of an earlier one (reported from "
            f"{_DUPLICATES:.0%}): they are copies, or the tokenizer cannot tell them apart; compare a few, and keep "
            "copies of training images out of validation"
        )
        yield made_finding("duplicate-images", "warning", text)


def _compressible(statistics: Statistics, config: QuantizerRecord | None) -> Iterable[Finding]:
    bits = statistics.bits
    if statistics.tokens and bits.coded_per_token < _COMPRESSIBLE * bits.raw_per_token:
        text = (
            f"an adaptive coder stores these tokens in {bits.coded_per_token:.2f} of {bits.raw_per_token:.4g} bits "
            f"each (reported below {_COMPRESSIBLE:.0%}); a coarser grid or {suggestions.fewer_codes(config)} would "
            "carry nearly as much"
        )
        yield made_finding("compressible-tokens", "hint", text)


def _of_tokenizer(statistics: Statistics, config: QuantizerRecord | None) -> Iterable[Finding]:
    if statistics.tokenizer is not None:
        for worst, _ in worst_of_each(_of_geometry(each, config) for each in statistics.tokenizer.geometry):
            yield as_finding(worst)
        yield from _instability(statistics)
        yield from _unsteadiness(statistics)


def _of_geometry(geometry: Geometry, config: QuantizerRecord | None) -> Iterable[Verdict]:
    if geometry.fixed:
        return
    if geometry.near_duplicates and geometry.near_duplicates >= _TWINS * geometry.codes:
        facts = (
            f"{geometry.near_duplicates} of {geometry.codes} codes nearly coincide with another code (closer than a "
            f"hundredth of the codebook's spread; {_TWINS:.0%} or more is waste) and decode to the same"
        )
        badness = geometry.near_duplicates / geometry.codes
        yield Verdict("near-duplicate-codes", "warning", facts, suggestions.against("unused codes", config), badness)
    if geometry.dim >= _MANY_CHANNELS and geometry.effective_rank_used < _LOW_RANK * geometry.dim:
        enough = 2 ** math.ceil(math.log2(2 * max(1.0, geometry.effective_rank_used)))
        facts = (
            f"the codes have {geometry.dim} channels but an effective rank of only {geometry.effective_rank_used:.1f} "
            f"(reported below {_LOW_RANK * geometry.dim:g})"
        )
        suggestion = (
            f"start a new run with {suggestions.fewer_channels(config, enough)}; it carries as much and makes the "
            "search faster"
        )
        yield Verdict("low-rank-codebook", "hint", facts, suggestion, -geometry.effective_rank_used / geometry.dim)


def _instability(statistics: Statistics) -> Iterable[Finding]:
    passes = statistics.tokenizer.idempotence.passes if statistics.tokenizer else []
    if passes and passes[0].same_as_first < _UNSTABLE:
        text = (
            f"after decoding and encoding again, only {passes[0].same_as_first:.1%} of the tokens are the same "
            f"(reported below {_UNSTABLE:.0%}); keep the tokens instead of encoding decoded images again, and train "
            "longer"
        )
        yield made_finding("unstable-tokens", "hint", text)


def _unsteadiness(statistics: Statistics) -> Iterable[Finding]:
    disturbances = statistics.tokenizer.sensitivity.disturbances if statistics.tokenizer else []
    past = [
        (each, limit)
        for each in disturbances
        for beginning, limit in _UNSTEADY.items()
        if each.name.startswith(beginning) and each.changed > limit
    ]
    if past:
        worst, limit = max(past, key=lambda pair: pair[0].changed / pair[1])
        text = (
            f"{worst.name}: {worst.changed:.1%} of the tokens change (reported above {limit:.0%}), so they depend on "
            "exact pixels more than on what the image shows; train longer, or with fewer codes"
        )
        yield made_finding("sensitive-tokens", "hint", text)
