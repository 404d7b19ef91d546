"""Findings from code counts alone: collapsed codebooks, dead codes, and a few codes that make up most tokens.

A codebook that several stages share is diagnosed on the counts of all of them, because each may well use a part of it.
Where a set is too small to tell a dead code from one not seen yet, the finding says that.
"""

# Axes: K codes, Q codebooks.

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from imtok.analysis.statistics import Finding, Severity
from imtok.quantizers.record import Problem, QuantizerRecord
from imtok.usage import CodebookUsage

FEW_TOKENS = 100  # fewer are too few for a diagnosis: a single image may well be of one colour
_COLLAPSED_BITS = 0.1  # of the bits a token could have: 1 bit of 10 is what 2 of 1024 codes can say
_ENOUGH = 10  # tokens per code: in even use, chance then leaves out 1 code in 22,000
_DOMINANT, _DOMINANT_EVEN = 0.2, 5  # share of the tokens; in small codebooks, multiples of the even share 1 / K
_UNEVEN = 0.1  # perplexity / codes in use; 0.2 to 0.9 in the study, less only for LFQ and Gumbel
_SUGGESTIONS = 3  # named at once; the others are for when these have been tried


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


def findings_of_use(usage: CodebookUsage, config: QuantizerRecord | None, *, instead: str = "") -> list[Finding]:
    """Return one finding of each name: on the worst codebook, with the number of codebooks it occurs in.

    `config` is the quantizer's; without it the suggestions are general. `instead` replaces every suggestion, where the
    caller knows the reason.
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
        found.append((replace(worst, suggestion=instead) if instead else worst).finding())
    return found


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
            facts = f"{use.tokens} tokens are too few to judge a codebook"
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
            f"{use.nearly_dead} of {use.codebook_size} codes are nearly dead: each has less than a hundredth of an "
            f"even share of the tokens ({limit:.0%} or more is waste)"
        )
        yield Diagnosis("nearly-dead-codes", "hint", facts, unused, use.nearly_dead)
    yield from _uneven(use, f"unless the images have large plain areas, {suggest('uneven use', record)}")


def _collapse(use: CodebookUsage, limit: float) -> str:
    """Describe a collapse; empty where there is none."""
    possible = min(use.codebook_size, use.tokens)
    if use.used <= limit * possible:
        return (
            f"collapsed to {use.used} of {use.codebook_size} codes in use ({limit:.0%} or less counts as collapse), "
            f"perplexity {use.perplexity:.1f}"
        )
    if use.entropy_corrected_bits <= _COLLAPSED_BITS * math.log2(possible):
        return (
            f"collapsed to {use.entropy_bits:.2f} of {use.max_bits:.4g} bits per token ({_COLLAPSED_BITS:.0%} or less "
            f"counts as collapse), perplexity {use.perplexity:.1f}, although {use.used} codes occur"
        )
    return ""


def _dead(use: CodebookUsage, limit: float, suggestion: str) -> Iterable[Diagnosis]:
    size, per_code = use.codebook_size, use.tokens / use.codebook_size
    if per_code < _ENOUGH and use.dead >= limit * size:
        facts = (
            f"{use.dead} of {size} codes are never used, but {per_code:.2g} tokens per code are too few to tell dead "
            "codes from codes that have not come up yet"
        )
        images = f"about {math.ceil(use.images * _ENOUGH / per_code)}" if use.images else "more"
        more = f"count {images} images, for {_ENOUGH} tokens per code"
        yield Diagnosis("too-few-tokens", "hint", facts, more, 1 / per_code)
    elif per_code >= _ENOUGH and size - use.expected_used >= limit * size:
        added = use.expected_used - use.used
        facts = (
            f"{use.dead} of {size} codes are never used at {per_code:.0f} tokens per code ({limit:.0%} or more is "
            f"waste), and more images would add {f'about {added:.0f}' if added >= 0.5 else 'none'}"
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
            f"{use.used} codes are in use, but so unevenly that the perplexity is only {use.perplexity:.1f} "
            f"(reported below {_UNEVEN:.0%} of the codes in use)"
        )
        yield Diagnosis("uneven-use", "warning", facts, suggestion, use.used / use.perplexity)
