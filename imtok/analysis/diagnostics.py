"""Diagnostics: findings about a codebook in plain words, each with its threshold, its number and a suggestion.

`findings` reads all statistics. `usage_findings` reads counts alone, as a training run has them, and finds the same in
them. A healthy codebook has no findings. docs/collapse.md has a heading for each finding, with the reason for its
threshold; "the study" is that of docs/quantizers.md.
"""

# Axes: K codes, Q codebooks.

from __future__ import annotations

import math
from collections.abc import Iterable

from imtok.analysis.statistics import Finding, Geometry, Statistics, TokenizerStatistics
from imtok.analysis.usage_diagnostics import (
    FEW_TOKENS,
    Diagnosis,
    findings_of_use,
    make_finding,
    suggest,
    worst_of_each,
)
from imtok.analysis.verdict import by_severity
from imtok.quantizers.record import QuantizerRecord
from imtok.usage import CodebookUsage

_IDLE = 0.1  # of the bits of a dimension: a binary one with that little has one value 99 times of 100
_SKIPPED = 0.01  # of the inputs: a broken file here and there is usual, more points to a fault of the source
_DUPLICATES = 0.05  # of the images: enough to change validation metrics, more than photographs have by chance
_DISTINCT_BITS = 5  # beyond log2 of the images: with fewer, more than 1 image in 64 shares its codes by chance
_COMPRESSIBLE = 0.6  # of log2 K; tokens of photographs need 0.84 and more, even when their neighbours are known
_NEAR_DUPLICATES = 0.05  # of the codes; learned codes hardly ever come within a hundredth of their spread
_LOW_RANK, _MANY_CHANNELS = 1 / 8, 16  # healthy codebooks of 32 channels have an effective rank of 7 and more
_UNSTABLE = 0.5  # trained tokenizers keep 0.7 to 0.93 of their codes, one stopped early 0.43
_SENSITIVE = {"shift": 0.95, "JPEG quality 95": 0.5}  # by the start of a name; trained ones change up to 0.8 and 0.2


def usage_findings(usage: CodebookUsage, config: QuantizerRecord | None) -> list[Finding]:
    """Return the findings from counts alone, worst first; empty for a healthy codebook.

    `config` is the quantizer's, so that suggestions name only settings it has; without it they are general.
    """
    return by_severity(findings_of_use(usage, config))


def findings(statistics: Statistics, usage: CodebookUsage, config: QuantizerRecord | None) -> list[Finding]:
    """Return the findings from all statistics, worst first; empty for a healthy codebook.

    `usage` has the counts behind the statistics; `config` is as in `usage_findings`.
    """
    of_use, record = findings_of_use(usage, config), config or QuantizerRecord()
    found = [*of_use, *_skipped(statistics)]
    if not any(finding.grade == "problem" for finding in of_use):  # a collapse explains all these by itself
        found += [*_idle_dimensions(statistics, record), *_duplicates(statistics)]
        if statistics.tokenizer is not None:
            found += _of_tokenizer(statistics.tokenizer, record)
    if not of_use:
        found += _compressible(statistics, record)
    return by_severity(found)


def _skipped(statistics: Statistics) -> Iterable[Finding]:
    inputs = statistics.images + statistics.skipped
    if statistics.skipped and statistics.skipped >= _SKIPPED * inputs:
        text = (
            f"{statistics.skipped} of {inputs} inputs could not be read (reported from {_SKIPPED:.0%}); `imtok info` "
            "on the token folder lists the reasons"
        )
        yield make_finding("skipped-inputs", "warning", text)


def _idle_dimensions(statistics: Statistics, record: QuantizerRecord) -> Iterable[Finding]:
    idle = [each for each in statistics.dimensions if each.entropy_bits <= _IDLE * each.max_bits]
    if idle and statistics.tokens >= FEW_TOKENS:
        worst = min(idle, key=lambda each: each.entropy_bits / each.max_bits)
        codebook = f" of codebook {worst.codebook + 1}" if statistics.num_codebooks > 1 else ""
        text = (
            f"{len(idle)} of {len(statistics.dimensions)} dimensions nearly constant: dimension {worst.dimension + 1}"
            f"{codebook} carries {worst.entropy_bits:.2f} of its {worst.max_bits:.2f} bits (reported at {_IDLE:.0%} or "
            f"less); {suggest('idle dimension', record)}"
        )
        yield make_finding("idle-dimension", "warning", text)


def _duplicates(statistics: Statistics) -> Iterable[Finding]:
    found, bits = statistics.duplicates, statistics.bits.coded_per_image
    distinct = statistics.images > 0 and bits >= math.log2(statistics.images) + _DISTINCT_BITS
    if distinct and found.duplicates and found.duplicates >= _DUPLICATES * found.images:
        text = (
            f"{found.duplicates} of {found.images} images have exactly the codes of an earlier one (reported from "
            f"{_DUPLICATES:.0%}): they are copies, or the tokenizer cannot tell them apart; compare a few, and keep "
            "copies of training images out of validation"
        )
        yield make_finding("duplicate-images", "warning", text)


def _compressible(statistics: Statistics, record: QuantizerRecord) -> Iterable[Finding]:
    bits = statistics.bits
    if statistics.tokens and bits.coded_per_token < _COMPRESSIBLE * bits.raw_per_token:
        text = (
            f"an adaptive coder stores these tokens in {bits.coded_per_token:.2f} of {bits.raw_per_token:.4g} bits "
            f"each (reported below {_COMPRESSIBLE:.0%}); a coarser grid or {record.base.fewer_codes(record.base_key)} "
            "would carry nearly as much"
        )
        yield make_finding("compressible-tokens", "hint", text)


def _of_tokenizer(tokenizer: TokenizerStatistics, record: QuantizerRecord) -> Iterable[Finding]:
    for worst, _ in worst_of_each(_of_geometry(each, record) for each in tokenizer.geometry):
        yield worst.finding()
    passes = tokenizer.idempotence.passes
    if passes and passes[0].same_as_first < _UNSTABLE:
        text = (
            f"after decoding and encoding again, only {passes[0].same_as_first:.1%} of the tokens are the same "
            f"(reported below {_UNSTABLE:.0%}); keep the tokens instead of encoding decoded images again, and train "
            "longer"
        )
        yield make_finding("unstable-tokens", "hint", text)
    sensitive = [
        (each, limit)
        for each in tokenizer.sensitivity.disturbances
        for start, limit in _SENSITIVE.items()
        if each.name.startswith(start) and each.changed > limit
    ]
    if sensitive:
        most, limit = max(sensitive, key=lambda pair: pair[0].changed / pair[1])
        text = (
            f"{most.name}: {most.changed:.1%} of the tokens change (reported above {limit:.0%}), so they depend on "
            "exact pixels more than on what the image shows; train longer, or with fewer codes"
        )
        yield make_finding("sensitive-tokens", "hint", text)


def _of_geometry(geometry: Geometry, record: QuantizerRecord) -> Iterable[Diagnosis]:
    if geometry.fixed:
        return
    if geometry.near_duplicates and geometry.near_duplicates >= _NEAR_DUPLICATES * geometry.codes:
        facts = (
            f"{geometry.near_duplicates} of {geometry.codes} codes nearly coincide with another code (closer than a "
            f"hundredth of the codebook's spread; {_NEAR_DUPLICATES:.0%} or more is waste) and decode to the same"
        )
        score = geometry.near_duplicates / geometry.codes
        yield Diagnosis("near-duplicate-codes", "warning", facts, suggest("unused codes", record), score)
    if geometry.dim >= _MANY_CHANNELS and geometry.effective_rank_used < _LOW_RANK * geometry.dim:
        enough = 2 ** math.ceil(math.log2(2 * max(1.0, geometry.effective_rank_used)))
        facts = (
            f"the codes have {geometry.dim} channels but an effective rank of only {geometry.effective_rank_used:.1f} "
            f"(reported below {_LOW_RANK * geometry.dim:g})"
        )
        fewer = record.base.fewer_channels(record.base_key, enough)
        suggestion = f"start a new run with {fewer}; it carries as much and makes the search faster"
        yield Diagnosis("low-rank-codebook", "hint", facts, suggestion, -geometry.effective_rank_used / geometry.dim)
