"""Findings about how codes are used: which codebooks collapsed, which codes are dead, and whether a few codes rule.

A table of codes that several codebooks share is judged on all of them together, as each may well use a part of it.
Where a set is too small to tell a dead code from one not seen yet, the finding says so instead of calling it dead.
"""

# Axes: K codes, Q codebooks.

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

import imtok.analysis.suggestions as suggestions
from imtok.analysis.statistics import Finding, Severity
from imtok.quantizers.record import QuantizerRecord
from imtok.usage import CodebookUsage

FEW_TOKENS = 100  # fewer are too few to judge: a single picture may well be of one colour
_COLLAPSED_BITS = 0.1  # of the bits a token could have: 1 bit of 10 is what 2 of 1024 codes can say
_ENOUGH = 10  # tokens per code: in even use, chance then leaves out 1 code in 22,000
_RULING, _RULING_EVEN = 0.2, 5  # share of the tokens; in small codebooks, multiples of the even share 1 / K
_UNEVEN = 0.1  # perplexity / codes in use; 0.2 to 0.9 in the study, less only for LFQ and Gumbel


@dataclass(frozen=True)
class Verdict:
    """Something found in one table of codes."""

    name: str
    grade: Severity
    facts: str
    suggestion: str
    badness: float  # to find the worst codebook


def findings_of_use(usage: CodebookUsage, config: QuantizerRecord | None, *, instead: str = "") -> list[Finding]:
    """One finding of each name: about the worst codebook, and in how many codebooks it occurs.

    `instead` is told in place of every remedy, where the caller knows better what the reason is.
    """
    tables = _tables(usage, config)
    found = []
    for worst, alike in worst_of_each(_judge(table, config) for table in tables):
        if worst.name == "collapsed-codebook" and alike < len(tables):
            worst = replace(worst, name="collapsed-stage", suggestion=suggestions.against_unused_stage(config))
        found.append(as_finding(replace(worst, suggestion=instead) if instead else worst))
    return found


def worst_of_each(judged: Iterable[Iterable[Verdict]]) -> Iterator[tuple[Verdict, int]]:
    """Of the verdicts on every table the worst of each name, led by where it stands, and in how many tables it does."""
    tables = [list(verdicts) for verdicts in judged]
    verdicts = [(number, verdict) for number, table in enumerate(tables, 1) for verdict in table]
    for name in dict.fromkeys(verdict.name for _, verdict in verdicts):
        alike = [(number, verdict) for number, verdict in verdicts if verdict.name == name]
        number, worst = max(alike, key=lambda pair: pair[1].badness)
        yield replace(worst, facts=f"{_where(number, len(alike), len(tables))}{worst.facts}"), len(alike)


def as_finding(verdict: Verdict) -> Finding:
    """What is told of it."""
    return made_finding(verdict.name, verdict.grade, f"{verdict.facts}; {verdict.suggestion}")


def made_finding(name: str, grade: Severity, text: str) -> Finding:
    """A finding with its heading in docs/collapse.md."""
    return Finding(name=name, grade=grade, text=text, page=f"docs/collapse.md#{name}")


def _tables(usage: CodebookUsage, config: QuantizerRecord | None) -> list[CodebookUsage]:
    """The use of each table of codes; without a configuration each codebook is taken to have its own."""
    counts = np.stack([each.counts for each in usage.codebooks])  # (Q, K)
    numbers = np.array(config.codebook_ids if config is not None else range(len(counts)))  # (Q,)
    return [CodebookUsage(counts[numbers == number].sum(axis=0), usage.images) for number in np.unique(numbers)]


def _where(worst: int, alike: int, tables: int) -> str:
    if tables == 1:
        return ""
    if alike == 1:
        return f"codebook {worst} of {tables}: "
    return f"{alike} of {tables} codebooks, worst in codebook {worst}: "


def _judge(table: CodebookUsage, config: QuantizerRecord | None) -> Iterable[Verdict]:
    if table.tokens < FEW_TOKENS:
        if table.tokens:
            facts = f"{table.tokens} tokens are too few to judge a codebook"
            yield Verdict("too-few-tokens", "hint", facts, f"{FEW_TOKENS} are needed", 1 / table.tokens)
        return
    collapse = _collapse(table, config)
    if collapse is not None:
        yield collapse
        return
    yield from _dead(table, config)
    yield from _nearly_dead(table, config)
    yield from _uneven(table, config)


def _collapse(table: CodebookUsage, config: QuantizerRecord | None) -> Verdict | None:
    limit, possible = _health(config).collapsed_share, min(table.codebook_size, table.tokens)
    if table.used <= limit * possible:
        facts = (
            f"collapsed to {table.used} of {table.codebook_size} codes in use ({limit:.0%} or less counts as "
            f"collapse), perplexity {table.perplexity:.1f}"
        )
    elif table.entropy_corrected_bits <= _COLLAPSED_BITS * math.log2(possible):
        facts = (
            f"collapsed to {table.entropy_bits:.2f} of {table.max_bits:.4g} bits per token ({_COLLAPSED_BITS:.0%} or "
            f"less counts as collapse), perplexity {table.perplexity:.1f}, although {table.used} codes occur"
        )
    else:
        return None
    suggestion = suggestions.against("unused codes", config)
    return Verdict("collapsed-codebook", "problem", facts, suggestion, -table.perplexity)


def _dead(table: CodebookUsage, config: QuantizerRecord | None) -> Iterable[Verdict]:
    size, limit = table.codebook_size, _health(config).dead_share
    per_code = table.tokens / size
    if per_code < _ENOUGH and table.dead >= limit * size:
        facts = (
            f"{table.dead} of {size} codes are never used, but {per_code:.2g} tokens per code are too few to tell dead "
            "codes from codes that have not come up yet"
        )
        images = f"about {math.ceil(table.images * _ENOUGH / per_code)}" if table.images else "more"
        suggestion = f"count {images} images, for {_ENOUGH} tokens per code"
        yield Verdict("too-few-tokens", "hint", facts, suggestion, 1 / per_code)
    elif per_code >= _ENOUGH and size - table.expected_used >= limit * size:
        added = table.expected_used - table.used
        facts = (
            f"{table.dead} of {size} codes are never used at {per_code:.0f} tokens per code ({limit:.0%} or more is "
            f"waste), and more images would add {f'about {added:.0f}' if added >= 0.5 else 'none'}"
        )
        yield Verdict("dead-codes", "warning", facts, suggestions.against("unused codes", config), table.dead)


def _nearly_dead(table: CodebookUsage, config: QuantizerRecord | None) -> Iterable[Verdict]:
    limit = _health(config).dead_share
    if table.nearly_dead >= limit * table.codebook_size:
        facts = (
            f"{table.nearly_dead} of {table.codebook_size} codes are nearly dead: each has less than a hundredth of an "
            f"even share of the tokens ({limit:.0%} or more is waste)"
        )
        suggestion = suggestions.against("unused codes", config)
        yield Verdict("nearly-dead-codes", "hint", facts, suggestion, table.nearly_dead)


def _uneven(table: CodebookUsage, config: QuantizerRecord | None) -> Iterable[Verdict]:
    suggestion = f"unless the images have large plain areas, {suggestions.against('uneven use', config)}"
    limit = max(_RULING, _RULING_EVEN / table.codebook_size)
    ((code, occurrences),) = table.top(1)
    share = occurrences / table.tokens
    if share > limit:
        facts = f"code {code} alone makes up {share:.1%} of the tokens (reported above {limit:.0%})"
        yield Verdict("dominant-code", "warning", facts, suggestion, share)
    elif table.perplexity < _UNEVEN * table.used:
        facts = (
            f"{table.used} codes are in use, but so unevenly that the perplexity is only {table.perplexity:.1f} "
            f"(reported below {_UNEVEN:.0%} of the codes in use)"
        )
        yield Verdict("uneven-use", "warning", facts, suggestion, table.used / table.perplexity)


def _health(config: QuantizerRecord | None) -> QuantizerRecord:
    """The record whose limits count: of the base quantizer, or the general ones where none is known."""
    return config.base if config is not None else QuantizerRecord()
