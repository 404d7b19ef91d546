"""The charts of a token set and of its tokenizer in a terminal, each under its title."""

# Axes: K codes, Q codebooks, h x w grid of an image's codes, D latent channels.

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from imtok.analysis import formatting
from imtok.analysis.formatting import several, together
from imtok.analysis.statistics import CodeShare, Geometry, Histogram, PositionMap, Statistics, TokenizerStatistics
from imtok.cli.stats_charts import Bar, bars, grid, heat_map, plain, resampled, sparkline
from imtok.evaluation import METRICS

_GAP = 4  # between maps
_RANKS_HEIGHT, _LEVELS, _FEWEST_BINS = 5, 16, 8
_ROWS, _DIMENSIONS, _GEOMETRIES = 10, 24, 4  # listed at most


def token_panels(statistics: Statistics, width: int, *, colours: bool) -> Iterator[RenderableType]:
    """Draw the charts of a token set, each at most `width` across."""
    merged = together(statistics)
    rows = [
        Bar(formatting.span_name(span), span.codes, "green" if span.high else "red", f"{span.codes:,}")
        for span in statistics.frequency
    ]
    yield _panel(f"codes by how often they occur{merged}", bars(rows, width))
    if len(statistics.rank_frequency) > 1:
        yield _panel(f"occurrences by rank, both logarithmic{merged}", *_ranks(statistics.rank_frequency, width))
    if len(statistics.growth) > 1:
        yield _panel(f"codes used by images seen{merged}", *_growth(statistics.growth, width))
    if statistics.positions:
        yield _panel("bits by place in the grid", *_maps(statistics.positions, width, colours=colours))
    yield _panel("bits a token", *_bits(statistics, width))
    if several(statistics):
        yield _panel("by codebook", *_codebooks(statistics, width))


def wide_panels(statistics: Statistics) -> Iterator[RenderableType]:
    """Draw the charts and tables that take the whole width."""
    if statistics.dimensions:
        yield _panel("by dimension: how its levels are used, and their bits", *_dimensions(statistics))
    if statistics.classes:
        yield _panel(f"by class{together(statistics)}", *_classes(statistics))
    if statistics.duplicates.duplicates:
        equal = Text(" = ", "dim", no_wrap=True, overflow="ellipsis")
        lines = [equal.join(plain(key, 30) for key in keys) for keys in statistics.duplicates.largest]
        more = _more(statistics.duplicates.groups, "such groups", len(lines))
        yield _panel("images with the same codes", *lines, *more)


def tokenizer_panels(found: TokenizerStatistics, of_set: Statistics, width: int) -> Iterator[RenderableType]:
    """Draw the tokenizer diagnostics, each at most `width` across; single codes are those of the first codebook."""
    first = ", first codebook" if several(of_set) else ""
    if shown := found.reconstruction:
        bits = f"{of_set.bits.raw_per_image:,.0f} an image, {of_set.bits.coded_per_image:,.0f} coded"
        facts = [(METRICS[name].label, METRICS[name].format(value)) for name, value in shown.metrics.items()]
        facts += [("bits", bits), ("images", f"{shown.images:,} at {shown.size} pixels")]
        yield _panel("reconstruction", grid(facts, "dim", ""), Text(f"protocol: {shown.protocol}", "dim"))
    rows = []
    for number, each in enumerate(found.idempotence.passes, 1):
        psnr = "" if each.psnr is None else f"  {each.psnr:.1f} dB"
        rows.append(Bar(f"pass {number}", each.same_as_first, "green", f"{each.same_as_first:.1%}{psnr}"))
    if rows:
        title = f"same codes after a pass, {found.idempotence.images:,} images"
        yield _panel(title, bars(rows, width, 1.0), *_codes(f"least stable{first}", found.idempotence.least_stable))
    if changes := found.sensitivity.disturbances:
        rows = [Bar(each.name, each.changed, "yellow", f"{each.changed:.1%}") for each in changes]
        largest = max(changes, key=lambda each: each.changed)
        title = f"codes changed, {found.sensitivity.images:,} {'decoded ' * found.sensitivity.of_decoded}images"
        yield _panel(title, bars(rows, width, 1.0), *_codes(f"changed most{first}", largest.most_changed))
    if error := found.error:
        facts = [("mean", f"{error.mean:.4g} a channel, squared")]
        facts += [("relative", f"{error.relative:.1%} of the latents' power")]
        facts += [("by code", f"{min(error.errors):.2g} to {max(error.errors):.2g}{first}")]
        yield _panel("quantization error", grid(facts, "dim", ""))
    for geometry in found.geometry[:_GEOMETRIES]:
        of = f" of codebook {geometry.codebook + 1}" if len(found.geometry) > 1 else ""
        yield _panel(f"geometry{of}", _geometry(geometry, width - 17))
    yield from _more(len(found.geometry), "codebooks", _GEOMETRIES)


def _panel(title: str, *parts: RenderableType) -> Group:
    return Group("", Text(title, "bold"), *parts)


def _more(there: int, noun: str, listed: int = _ROWS) -> list[Text]:
    """Say how many are not listed, where some are not."""
    return [Text(f"and {there - listed:,} more {noun}", "dim")] if there > listed else []


def _ranks(points: Sequence[tuple[int, int]], width: int) -> list[Text]:
    """Draw columns over the ranks that occur; the lowest column is one occurrence."""
    most, last = f"{points[0][1]:,}", f"{points[-1][0]:,}"
    across = max(10, width - len(most) - 1)
    heights = resampled([(math.log(rank), math.log(max(count, 1))) for rank, count in points], across)
    lines = sparkline((heights / (math.log(points[0][1]) or 1.0)).clip(0.01), _RANKS_HEIGHT).splitlines()
    names = [f"{name:>{len(most)}} " for name in (most, *[""] * (_RANKS_HEIGHT - 2), "1")]
    chart = [Text.assemble((name, "dim"), (line, "cyan")) for name, line in zip(names, lines, strict=True)]
    return [*chart, Text(" " * len(names[0]) + "rank 1" + last.rjust(across - 6), "dim")]


def _growth(points: Sequence[tuple[int, int]], width: int) -> list[Text]:
    images, used = points[-1]
    heights = resampled([(seen, codes / max(used, 1)) for seen, codes in points], width)
    half, most = (next(seen for seen, codes in points if codes >= share * used) for share in (0.5, 0.9))
    note = f"{used:,} by {images:,}; half by {half:,}, 90% by {most:,}"
    return [Text(sparkline(heights), "cyan"), Text(note, "dim")]


def _maps(positions: PositionMap, width: int, *, colours: bool) -> list[RenderableType]:
    """Draw maps of surprisal and, unless the images are too few for it, of entropy, each over its own scale."""
    maps = {"entropy": positions.entropy_bits, "surprisal": positions.surprisal_bits}
    note = f"{positions.images:,} images show {positions.limit_bits:.2f} at most"
    if not formatting.tells_places_apart(positions):
        del maps["entropy"]
        note = f"entropy left out: {positions.images:,} images are too few"
    drawn = []
    for name, bits in maps.items():
        lines = heat_map(bits, *formatting.map_range(bits), width, colours=colours)
        drawn.append(Group(Text(name, "dim"), *lines))
    return [Columns(drawn, padding=(0, _GAP)), Text(note, "dim")]


def _bits(statistics: Statistics, width: int) -> list[RenderableType]:
    """Draw the bits a token; given a neighbour they lie between an estimate, too low, and what a coder needs."""
    rows, styles = [], {"log2 K": "dim", "coded": "cyan"}
    for each in formatting.token_bits(statistics):
        upto = "" if each.high is None else f" to {each.high:.2f}"
        style = styles.get(each.name, "green")
        rows.append(Bar(each.name, each.low, style, f"{each.low:.2f}{upto}", each.high or 0.0))
    share = formatting.contexts_share(statistics)
    notes = [Text(f"neighbours of {share:.1%} of the codes", "dim")] if share < 1 else []
    return [bars(rows, width), *notes]


def _codebooks(statistics: Statistics, width: int) -> list[RenderableType]:
    rows = [Bar("", 0.0, "", "used perplexity  bits")]
    for number, use in enumerate(statistics.codebooks[:_ROWS], 1):
        values = f"{use.used:,} {use.perplexity:10,.1f} {use.entropy_corrected_bits:5.2f}"
        rows.append(Bar(f"{number}", use.usage, "green", values))
    return [bars(rows, width, 1.0), *_more(len(statistics.codebooks), "codebooks")]


def _dimensions(statistics: Statistics) -> list[RenderableType]:
    cells, numbered = [], any(each.codebook for each in statistics.dimensions)
    for each in statistics.dimensions[:_DIMENSIONS]:
        name = f"{each.codebook + 1}.{each.dimension + 1}".rjust(5) if numbered else f"{each.dimension + 1:2}"
        bits = f" {each.entropy_bits:.2f} of {each.max_bits:.2f}"
        cells.append(Text.assemble((f"{name} ", "dim"), (_profile(each.shares, _LEVELS), "green"), bits))
    return [Columns(cells, padding=(0, 3)), *_more(len(statistics.dimensions), "dimensions", _DIMENSIONS)]


def _classes(statistics: Statistics) -> list[RenderableType]:
    own_codes = "own codes" if any(each.own for each in statistics.classes) else ""
    names = "", "images", "codes used", "perplexity", "KL, bits", own_codes
    rows: list[list[RenderableType]] = [[Text(name, "dim", no_wrap=True, overflow="ellipsis") for name in names]]
    for each in statistics.classes[:_ROWS]:
        own = ", ".join(f"{code} ({times:.1f}x)" for code, times in each.own[:3])
        values = f"{each.images:,}", f"{each.used:,}", f"{each.perplexity:,.1f}", f"{each.divergence_bits:.2f}"
        rows.append([plain(each.name, 20), *values, Text(own, no_wrap=True, overflow="ellipsis")])
    return [
        grid(rows, "", ">", ">", ">", ">", ""),
        *_more(max(statistics.num_classes, len(statistics.classes)), "classes"),
    ]


def _geometry(found: Geometry, width: int) -> Table:
    facts: dict[str, RenderableType] = {
        "codes": f"{found.codes:,}, {'fixed' if found.fixed else 'learned'}",
        "effective rank": f"{found.effective_rank:.1f} of {found.dim} ({found.effective_rank_used:.1f} used)",
        "near duplicates": f"{found.near_duplicates:,}",
        "mean norm": f"{found.mean_norm:.3g}",
        "norms": _shape(found.norms, width),
        "median distance": f"{found.median_distance:.3g} to the nearest",
        "distances": _shape(found.distances, width),
    }
    return grid(facts.items(), "dim", "")


def _codes(name: str, codes: Sequence[CodeShare]) -> list[Text]:
    listed = ", ".join(f"{each.code} ({each.share:.0%})" for each in codes[:2])
    return [Text(f"{name}: {listed}", "dim")] if listed else []


def _shape(histogram: Histogram, width: int) -> Text:
    """Draw a histogram in one line, between its ends."""
    low, high = f"{histogram.edges[0]:.2g} ", f" {histogram.edges[-1]:.2g}"
    line = _profile(histogram.counts, max(_FEWEST_BINS, width - len(low) - len(high)))
    return Text.assemble(low, (line, "cyan"), high)


def _profile(values: Sequence[float], width: int) -> str:
    """Draw values in one line, at most `width` across, relative to the largest."""
    drawn = resampled(list(enumerate(values)), width).tolist() if len(values) > width else values
    return sparkline([value / (max(drawn) or 1.0) for value in drawn])
