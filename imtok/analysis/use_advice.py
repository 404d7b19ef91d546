"""Findings about how codes are used: which codebooks collapsed, which codes are dead, and whether a few codes rule.

A table of codes that several codebooks share is judged on all of them together, as each may well use a part of it.
A set too small to tell a dead code from one not seen yet is not scolded for dead codes.
"""

# Axes: K codes, Q codebooks.

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

import imtok.analysis.remedies as remedies
from imtok.analysis.figures import Figures, Finding, Grade, Use
from imtok.analysis.usage import CodebookUsage
from imtok.quantizer_config import QuantizerConfig

FEW_TOKENS = 100  # of which nothing is told: one picture may well be one colour
# Share of the codes that could be in use at or below which a codebook is called collapsed. In the study VQ without
# k-means start and revival is there from 2^10 codes on. Codes of FSQ, LFQ and BSQ come into use by themselves in a
# young run; where next to nothing is in use their encoder gives the same for everything.
_COLLAPSED = {"vq": 0.1, "gumbel": 0.1, "fsq": 0.01, "lfq": 0.01, "bsq": 0.01, "unknown": 0.1}
_BARREN = 0.1  # of the bits a token could have: 1 bit of 10 is 2 codes of 1024, whatever else occurs now and then
_ENOUGH = 10  # tokens a code: a code of even share that is missing among that many is so 1 time in 22,000
# Share of the codes that are dead for good. Revival leaves 5 % at 2^14 codes and less below, so a tenth is waste. The
# corners of a grid are rarely reached: a healthy FSQ of 2^12 leaves 27 %, LFQ of 2^12, not healthy, 60 %.
_DEAD = {"vq": 0.1, "gumbel": 0.1, "fsq": 0.5, "lfq": 0.5, "bsq": 0.5, "unknown": 0.5}
_RULING, _RULING_EVEN = 0.2, 5  # share of the tokens, and in codebooks of few codes so many even shares
_UNEVEN = 0.1  # perplexity of the codes in use; in the study 0.2 to 0.9, less only for LFQ and Gumbel


@dataclass(frozen=True)
class Table:
    """How one table of codes is used, by all the codebooks that share it."""

    number: int  # from 1
    size: int  # K
    use: Use
    top: tuple[int, int] | None  # the most used code and its occurrences, where they are known

    @property
    def possible(self) -> int:
        """Codes that could be in use: so many tokens can show."""
        return min(self.size, self.use.tokens)


@dataclass(frozen=True)
class _Verdict:
    """Something found in one table."""

    name: str
    grade: Grade
    facts: str
    remedy: str
    badness: float  # to compare tables by


def tables_of_counts(usage: CodebookUsage, config: QuantizerConfig | None) -> list[Table]:
    """The tables behind counted codebooks; without a configuration each codebook is taken to have its own."""
    numbers = np.array(_numbers(len(usage.codebooks), config))  # (Q,)
    counts = np.stack([each.counts for each in usage.codebooks])  # (Q, K)
    tables = [CodebookUsage(counts[numbers == number].sum(axis=0), usage.images) for number in np.unique(numbers)]
    return [
        Table(place, each.codebook_size, each.as_use(), next(iter(each.top(1)), None))
        for place, each in enumerate(tables, 1)
    ]


def tables_of_figures(figures: Figures, config: QuantizerConfig | None) -> list[Table]:
    """The same from figures, which keep no counts: of a table that some codebooks share, the best it could be, and of
    one of several no most used code."""
    numbers = _numbers(figures.num_codebooks, config)
    if len(set(numbers)) == 1:
        return [Table(1, figures.codebook_size, figures, next(iter(figures.top), None))]
    tables = []
    for place, number in enumerate(sorted(set(numbers)), 1):
        uses = [use for use, own in zip(figures.codebooks, numbers, strict=True) if own == number]
        tables.append(Table(place, figures.codebook_size, _at_best(uses, figures.codebook_size), None))
    return tables


def _numbers(codebooks: int, config: QuantizerConfig | None) -> tuple[int, ...]:
    return config.tables if config is not None else tuple(range(codebooks))


def _at_best(uses: Sequence[Use], size: int) -> Use:
    """What codebooks may use together, were all their codes different: nobody is scolded who may be healthy."""
    fullest = max(uses, key=lambda use: use.entropy_bits)
    used = min(size, sum(use.used for use in uses))
    expected = min(float(size), sum(use.expected_used for use in uses))
    return fullest.model_copy(update={"used": used, "dead": size - used, "expected_used": expected})


def findings_of_tables(tables: Sequence[Table], images: int, config: QuantizerConfig | None) -> list[Finding]:
    """One finding of each name, about the worst table, saying how many there are."""
    verdicts = [(table, verdict) for table in tables for verdict in _judge(table, images, config)]
    collapsed = [table.number for table, verdict in verdicts if verdict.name == "collapsed-codebook"]
    found = []
    for name in dict.fromkeys(verdict.name for _, verdict in verdicts):
        alike = [(table, verdict) for table, verdict in verdicts if verdict.name == name]
        table, worst = max(alike, key=lambda pair: pair[1].badness)
        remedy = worst.remedy
        if name == "collapsed-codebook" and len(collapsed) < len(tables):
            name, remedy = "collapsed-stage", remedies.against_unused_stage(config)
        text = f"{_where(table, len(alike), len(tables))}{worst.facts}; {remedy}"
        found.append(Finding(name=name, grade=worst.grade, text=text, page=f"docs/collapse.md#{name}"))
    return found


def _where(worst: Table, alike: int, tables: int) -> str:
    if tables == 1:
        return ""
    if alike == 1:
        return f"codebook {worst.number} of {tables}: "
    return f"{alike} of {tables} codebooks, worst in number {worst.number}: "


def _judge(table: Table, images: int, config: QuantizerConfig | None) -> Iterable[_Verdict]:
    if table.use.tokens < FEW_TOKENS:
        return
    collapse = _collapse(table, config)
    if collapse is not None:
        yield collapse
        return
    yield from _dead(table, images, config)
    yield from _ruling(table, config)


def _collapse(table: Table, config: QuantizerConfig | None) -> _Verdict | None:
    use, limit = table.use, _COLLAPSED[_kind(config)]
    if use.used <= limit * table.possible:
        limit_text = f"{limit:.0%} and less of those that could be is collapse"
        facts = f"collapsed to {use.used} of {table.size} codes in use ({limit_text}), perplexity {use.perplexity:.1f}"
    elif use.entropy_corrected_bits <= _BARREN * math.log2(table.possible):
        facts = (
            f"collapsed to {use.entropy_bits:.2f} of {math.log2(table.size):.4g} bits a token ({_BARREN:.0%} and less "
            f"of what could be is collapse), perplexity {use.perplexity:.1f}, though {use.used} codes occur"
        )
    else:
        return None
    return _Verdict("collapsed-codebook", "problem", facts, remedies.against_unused(config), -use.perplexity)


def _dead(table: Table, images: int, config: QuantizerConfig | None) -> Iterable[_Verdict]:
    use, limit = table.use, _DEAD[_kind(config)]
    each = use.tokens / table.size
    remedy = remedies.against_unused(config)
    if each < _ENOUGH and use.dead >= limit * table.size:
        facts = (
            f"{use.dead} of {table.size} codes never used, but {each:.2g} tokens a code are too few to tell dead codes "
            "from codes not seen yet"
        )
        more = f"about {math.ceil(images * _ENOUGH / each)} images" if images else "more images"
        yield _Verdict("too-few-tokens", "hint", facts, f"{more} would tell ({_ENOUGH} tokens a code)", 1 / each)
    elif each >= _ENOUGH and table.size - use.expected_used >= limit * table.size:
        added = use.expected_used - use.used
        facts = (
            f"{use.dead} of {table.size} codes never used ({limit:.0%} and more is waste), where {each:.0f} a code "
            f"were seen and more images would add {f'about {added:.0f}' if added >= 0.5 else 'none'}"
        )
        yield _Verdict("dead-codes", "warning", facts, remedy, use.dead)
    if use.nearly_dead >= limit * table.size:
        facts = (
            f"{use.nearly_dead} of {table.size} codes occur less than a hundredth as often as if all were equal "
            f"({limit:.0%} and more is told)"
        )
        yield _Verdict("nearly-dead-codes", "hint", facts, remedy, use.nearly_dead)


def _ruling(table: Table, config: QuantizerConfig | None) -> Iterable[_Verdict]:
    use, remedy = table.use, remedies.against_unevenness(config)
    plain = "unless the pictures have large plain areas, "
    limit = max(_RULING, _RULING_EVEN / table.size)
    share = table.top[1] / use.tokens if table.top else 0.0
    if table.top and share > limit:
        facts = f"code {table.top[0]} alone is {share:.1%} of the tokens (more than {limit:.0%})"
        yield _Verdict("ruling-code", "warning", facts, plain + remedy, share)
    elif use.perplexity < _UNEVEN * use.used:
        facts = (
            f"{use.used} codes are in use, but so unevenly that {use.perplexity:.1f} equal ones would say as much "
            f"(less than {_UNEVEN:.0%} of them)"
        )
        yield _Verdict("uneven-use", "warning", facts, plain + remedy, use.used / use.perplexity)


def _kind(config: QuantizerConfig | None) -> str:
    return config.leaf.kind if config is not None else "unknown"
