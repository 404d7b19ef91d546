"""Diagnostics: findings about a codebook in plain words, each with its threshold, its number and a suggestion.

`findings` reads all statistics. `usage_findings` reads counts alone, as a training run has them, and finds the same in
them. A healthy codebook has no findings. docs/collapse.md has a heading for each finding, with the reason for its
threshold; "the study" is that of docs/quantizers.md. A codebook that several stages share is diagnosed on the counts of
all of them, because each may well use a part of it. Where a set is too small to tell a dead code from one not seen yet,
the finding says that.
"""

# Axes: K codes, Q codebooks.

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from imtok.analysis.statistics import Finding, Geometry, Severity, Statistics, TokenizerStatistics
from imtok.counted import counted
from imtok.quantizers.record import Problem, QuantizerRecord
from imtok.usage import CodebookUsage

FEW_TOKENS = 100  # fewer are too few for a diagnosis: a single image may well be of one colour
_COLLAPSED_BITS = 0.1  # of the bits a token could have: 1 bit of 10 is what 2 of 1024 codes can say
_ENOUGH = 10  # tokens per code: in even use, chance then leaves out 1 code in 22,000
_DOMINANT, _DOMINANT_EVEN = 0.2, 5  # share of the tokens; in small codebooks, multiples of the even share 1 / K
_UNEVEN = 0.1  # perplexity / codes in use; 0.2 to 0.9 in the study, less only for LFQ and Gumbel
_MANY_UNUSED = 0.05  # of the codes: from here on a healthy verdict says why they may stay unused
_SUGGESTIONS = 3  # named at once; the others are for when these have been tried
_IDLE = 0.1  # of the bits of a dimension: a binary one with that little has one value 99 times of 100
_SKIPPED = 0.01  # of the inputs: a broken file here and there is usual, more points to a fault of the source
_DUPLICATES = 0.05  # of the images: enough to change validation metrics, more than photographs have by chance
_DISTINCT_BITS = 5  # beyond log2 of the images: with fewer, more than 1 image in 64 shares its codes by chance
_COMPRESSIBLE = 0.6  # of log2 K; tokens of photographs need 0.84 and more, even when their neighbours are known
_NEAR_DUPLICATES = 0.05  # of the codes; learned codes hardly ever come within a hundredth of their spread
_LOW_RANK, _MANY_CHANNELS = 1 / 8, 16  # healthy codebooks of 32 channels have an effective rank of 7 and more
_UNSTABLE = 0.5  # trained tokenizers keep 0.7 to 0.93 of their codes, one stopped early 0.43
_SENSITIVE = {"shift": 0.95, "JPEG quality 95": 0.5}  # by the start of a name; trained ones change up to 0.8 and 0.2


@dataclass(frozen=True)
class Verdict:
    """The health of a codebook in a word and a sentence."""

    grade: str  # the severity of the worst finding, or healthy
    word: str
    text: str
    finding: Finding | None = None  # the worst one, unless healthy


def verdict(statistics: Statistics) -> Verdict:
    """Return the worst finding; a codebook with hints alone is healthy, unless the set is too small to tell."""
    if not statistics.tokens:
        return Verdict("hint", "No tokens", "nothing was counted, so there is nothing to assess")
    worst = next(iter(by_severity(statistics.findings)), None)
    if worst is None or worst.grade == "hint":
        few = next((finding for finding in statistics.findings if finding.name == "too-few-tokens"), None)
        if few is not None:
            return Verdict("hint", "Undecided", few.text, few)
        unused = _unused(statistics)
        return Verdict("healthy", "Healthy", f"no statistic passes the threshold of a warning{unused}")
    return Verdict(worst.grade, worst.grade.capitalize(), worst.text, worst)


def _unused(statistics: Statistics) -> str:
    """Say why many codes that never occur do not count as waste; empty where few do."""
    dead, size = statistics.dead, statistics.codebook_size
    if dead < _MANY_UNUSED * size:
        return ""
    text = f"; {dead:,} of {size:,} codes never occur"
    if few_tokens_a_code(statistics):
        return f"{text}, some of them as there are only {statistics.tokens / size:.2g} tokens per code"
    if statistics.dimensions:
        return f"{text}, as the corners of a fixed grid are rarely reached"
    return f"{text}, fewer than are reported as waste"


def few_tokens_a_code(statistics: Statistics) -> bool:
    """Return whether there are too few tokens to tell a dead code from one that has not occurred yet."""
    return statistics.tokens < _ENOUGH * statistics.codebook_size * statistics.num_codebooks


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings, the worst first."""
    return sorted(findings, key=lambda finding: get_args(Severity).index(finding.grade))


def findings(statistics: Statistics, usage: CodebookUsage, config: QuantizerRecord | None) -> list[Finding]:
    """Return the findings from all statistics, worst first; empty for a healthy codebook.

    `usage` has the counts behind the statistics; `config` is as in `usage_findings`.
    """
    of_use, record = usage_findings(usage, config), config or QuantizerRecord()
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
            f"{statistics.skipped:,} of {inputs:,} inputs could not be read (reported from {_SKIPPED:.0%}); "
            "`imtok info` on the token folder lists the reasons"
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
            f"{found.duplicates:,} of {found.images:,} images have exactly the codes of an earlier one (reported from "
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
            f"{geometry.near_duplicates:,} of {geometry.codes:,} codes nearly coincide with another code (closer than "
            f"a hundredth of the codebook's spread; {_NEAR_DUPLICATES:.0%} or more is waste) and decode to the same"
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


@dataclass(frozen=True)
class Diagnosis:
    """A problem of one codebook."""

    name: str
    severity: Severity
    facts: str
    suggestion: str
    score: float  # the greater, the worse the codebook

    def finding(self) -> Finding:
        """Return the finding for a person."""
        return make_finding(self.name, self.severity, f"{self.facts}; {self.suggestion}")


def make_finding(name: str, severity: Severity, text: str) -> Finding:
    """Make a finding, whose heading in docs/collapse.md is its name."""
    return Finding(name=name, grade=severity, text=text, page=f"docs/collapse.md#{name}")


def suggest(problem: Problem, record: QuantizerRecord) -> str:
    """Suggest settings of a new run, because no setting mends a codebook afterwards."""
    suggestions = record.base.suggestions(problem, record.base_key)
    return f"start a new run with {'; or with '.join(suggestions[:_SUGGESTIONS])}"


def usage_findings(usage: CodebookUsage, config: QuantizerRecord | None) -> list[Finding]:
    """Return the findings from counts alone, worst first; empty for a healthy codebook.

    Each name occurs once: for the worst codebook, with the number of codebooks it occurs in. `config` is the
    quantizer's, so that suggestions name only settings it has; without it they are general.
    """
    record = config or QuantizerRecord()
    counts = np.stack([each.counts for each in usage.codebooks])  # (Q, K)
    ids = np.array(record.codebook_ids if config else range(len(counts)))  # (Q,) shared codebooks have one id
    codebooks = [CodebookUsage(counts[ids == each].sum(axis=0), usage.images) for each in np.unique(ids)]
    found = []
    for worst, alike in worst_of_each(_diagnose(codebook, record) for codebook in codebooks):
        if worst.name == "collapsed-codebook" and alike < len(codebooks):
            fewer = f"; or with {record.fewer_parts}" if record.fewer_parts else ""
            worst = replace(worst, name="collapsed-stage", suggestion=suggest("unused codes", record) + fewer)
        found.append(worst.finding())
    return by_severity(found)


def worst_of_each(by_codebook: Iterable[Iterable[Diagnosis]]) -> Iterator[tuple[Diagnosis, int]]:
    """Yield the worst diagnosis of each name, which says its codebook, and the number of codebooks with that name."""
    codebooks = [list(diagnoses) for diagnoses in by_codebook]
    numbered = [(number, each) for number, diagnoses in enumerate(codebooks, 1) for each in diagnoses]
    for name in dict.fromkeys(each.name for _, each in numbered):
        alike = [(number, each) for number, each in numbered if each.name == name]
        number, worst = max(alike, key=lambda pair: pair[1].score)
        where = f"codebook {number} of {len(codebooks)}: "
        if len(alike) > 1:
            where = f"{len(alike)} of {len(codebooks)} codebooks, worst in codebook {number}: "
        yield replace(worst, facts=(where if len(codebooks) > 1 else "") + worst.facts), len(alike)


def _diagnose(use: CodebookUsage, record: QuantizerRecord) -> Iterable[Diagnosis]:
    if use.tokens < FEW_TOKENS:
        if use.tokens:
            facts = f"{counted(use.tokens, 'token is', 'tokens are')} too few to assess a codebook"
            yield Diagnosis("too-few-tokens", "hint", facts, f"{FEW_TOKENS} are needed", 1 / use.tokens)
        return
    unused = suggest("unused codes", record)
    facts = _collapse(use, record.base.collapsed_share)
    if facts:
        yield Diagnosis("collapsed-codebook", "problem", facts, unused, -use.perplexity)
        return
    limit = record.base.dead_share
    yield from _dead(use, limit, unused)
    if use.nearly_dead >= limit * use.codebook_size:
        facts = (
            f"{use.nearly_dead:,} of {use.codebook_size:,} codes are nearly dead: each has less than a hundredth of an "
            f"even share of the tokens ({limit:.0%} or more is waste)"
        )
        yield Diagnosis("nearly-dead-codes", "hint", facts, unused, use.nearly_dead)
    yield from _uneven(use, f"unless the images have large plain areas, {suggest('uneven use', record)}")


def _collapse(use: CodebookUsage, limit: float) -> str:
    """Describe a collapse; empty where there is none."""
    possible = min(use.codebook_size, use.tokens)
    if use.used <= limit * possible:
        return (
            f"collapsed to {use.used:,} of {use.codebook_size:,} codes in use ({limit:.0%} or less counts as "
            f"collapse), perplexity {use.perplexity:.1f}"
        )
    if use.entropy_corrected_bits <= _COLLAPSED_BITS * math.log2(possible):
        return (
            f"collapsed to {use.entropy_bits:.2f} of {use.max_bits:.4g} bits per token ({_COLLAPSED_BITS:.0%} or less "
            f"counts as collapse), perplexity {use.perplexity:.1f}, although {use.used:,} codes occur"
        )
    return ""


def _dead(use: CodebookUsage, limit: float, suggestion: str) -> Iterable[Diagnosis]:
    size, per_code = use.codebook_size, use.tokens / use.codebook_size
    if per_code < _ENOUGH and use.dead >= limit * size:
        facts = (
            f"{use.dead:,} of {size:,} codes are never used, but {per_code:.2g} tokens per code are too few to tell "
            "dead codes from codes that have not come up yet"
        )
        images = f"about {math.ceil(use.images * _ENOUGH / per_code):,}" if use.images else "more"
        more = f"count {images} images, for {_ENOUGH} tokens per code"
        yield Diagnosis("too-few-tokens", "hint", facts, more, 1 / per_code)
    elif per_code >= _ENOUGH and size - use.expected_used >= limit * size:
        added = use.expected_used - use.used
        facts = (
            f"{use.dead:,} of {size:,} codes are never used at {per_code:,.0f} tokens per code ({limit:.0%} or more is "
            f"waste), and more images would add {f'about {added:,.0f}' if added >= 0.5 else 'none'}"
        )
        yield Diagnosis("dead-codes", "warning", facts, suggestion, use.dead)


def _uneven(use: CodebookUsage, suggestion: str) -> Iterable[Diagnosis]:
    limit = max(_DOMINANT, _DOMINANT_EVEN / use.codebook_size)
    ((code, occurrences),) = use.top(1)
    share = occurrences / use.tokens
    if share > limit:
        facts = f"code {code} alone makes up {share:.1%} of the tokens (reported above {limit:.0%})"
        yield Diagnosis("dominant-code", "warning", facts, suggestion, share)
    elif use.perplexity < _UNEVEN * use.used:
        facts = (
            f"{use.used:,} codes are in use, but so unevenly that the perplexity is only {use.perplexity:.1f} "
            f"(reported below {_UNEVEN:.0%} of the codes in use)"
        )
        yield Diagnosis("uneven-use", "warning", facts, suggestion, use.used / use.perplexity)
