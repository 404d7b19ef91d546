"""What the tokenizer itself shows, in a terminal: reconstruction, idempotence, sensitivity, error and geometry."""

# Axes: D latent channels.

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from imtok.analysis.formatting import several
from imtok.analysis.statistics import (
    Bits,
    CodeShare,
    ErrorByCode,
    Geometry,
    Histogram,
    Idempotence,
    Reconstruction,
    Sensitivity,
    Statistics,
    TokenizerStatistics,
)
from imtok.cli.stats_blocks import Block, more
from imtok.cli.stats_charts import Bar, bars, resampled, sparkline
from imtok.evaluation import METRICS

_MOST_TABLES = 4
_TOP = 2
_FEWEST_BINS = 8


def tokenizer_blocks(of_set: Statistics, statistics: TokenizerStatistics, width: int) -> Iterator[Block]:
    """Those that the figures have something for, each at most `width` across.

    With several codebooks, what is told of single codes is of the first one, and says so.
    """
    bits, first = of_set.bits, ", first codebook" if several(of_set) else ""
    if statistics.reconstruction:
        yield Block("reconstruction", _reconstruction(statistics.reconstruction, bits))
    if statistics.idempotence.passes:
        title = f"same codes after a pass, {statistics.idempotence.images:,} images"
        yield Block(title, _idempotence(statistics.idempotence, width, first))
    if statistics.sensitivity.disturbances:
        yield Block(
            f"codes changed, {_looked_at(statistics.sensitivity)}", _sensitivity(statistics.sensitivity, width, first)
        )
    if statistics.error:
        yield Block("quantization error", _error(statistics.error, first))
    for geometry in statistics.geometry[:_MOST_TABLES]:
        number = f" of codebook {geometry.codebook + 1}" if len(statistics.geometry) > 1 else ""
        yield Block(f"geometry{number}", _geometry(geometry, width))
    if len(statistics.geometry) > _MOST_TABLES:
        yield Block("", more(_MOST_TABLES, len(statistics.geometry), "codebooks")[0])


def _facts(rows: dict[str, str | Text]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _reconstruction(found: Reconstruction, bits: Bits) -> Group:
    first, *others = [(METRICS[name].label, METRICS[name].format(value)) for name, value in found.metrics.items()]
    facts = _facts(
        {
            first[0]: f"{first[1]} at {bits.raw_per_image:,.0f} bits",
            **dict(others),
            "bits": f"{bits.raw_per_image:,.0f} an image, {bits.coded_per_image:,.0f} coded",
            "images": f"{found.images:,} at {found.size} pixels",
        }
    )
    return Group(facts, Text(f"protocol: {found.protocol}", "dim"))


def _idempotence(found: Idempotence, width: int, first: str) -> Group:
    rows = [
        Bar(f"pass {number}", each.same_as_first, "green", f"{each.same_as_first:.1%}{_decibels(each.psnr)}")
        for number, each in enumerate(found.passes, 1)
    ]
    return Group(bars(rows, width), *_codes(f"least stable{first}", found.least_stable))


def _sensitivity(found: Sensitivity, width: int, first: str) -> Group:
    rows = [Bar(each.name, each.changed, "yellow", f"{each.changed:.1%}") for each in found.disturbances]
    worst = max(found.disturbances, key=lambda each: each.changed)
    return Group(bars(rows, width), *_codes(f"changed most{first}", worst.most_changed))


def _looked_at(found: Sensitivity) -> str:
    return f"{found.images:,} {'decoded images' if found.of_decoded else 'images'}"


def _codes(name: str, codes: Sequence[CodeShare]) -> list[Text]:
    listed = ", ".join(f"{each.code} ({each.share:.0%})" for each in codes[:_TOP])
    return [Text(f"{name}: {listed}", "dim")] if listed else []


def _decibels(psnr: float | None) -> str:
    return "" if psnr is None else f"  {psnr:.1f} dB"


def _error(found: ErrorByCode, first: str) -> Table:
    return _facts(
        {
            "mean": f"{found.mean:.4g} a channel, squared",
            "relative": f"{found.relative:.1%} of the latents' power",
            "by code": f"{min(found.errors):.2g} to {max(found.errors):.2g}{first}",
        }
    )


def _geometry(found: Geometry, width: int) -> Table:
    rows: dict[str, str | Text] = {
        "codes": f"{found.codes:,}, {'fixed' if found.fixed else 'learned'}",
        "effective rank": f"{found.effective_rank:.1f} of {found.dim} ({found.effective_rank_used:.1f} used)",
        "near duplicates": f"{found.near_duplicates:,}",
        "mean norm": f"{found.mean_norm:.3g}",
        "norms": _shape(found.norms, width - 17),
        "median distance": f"{found.median_distance:.3g} to the nearest",
        "distances": _shape(found.distances, width - 17),
    }
    return _facts(rows)


def _shape(histogram: Histogram, width: int) -> Text:
    """A histogram in one line, between its ends."""
    low, high = f"{histogram.edges[0]:.2g} ", f" {histogram.edges[-1]:.2g}"
    counts: list[float] = list(histogram.counts)
    if len(counts) > (room := max(_FEWEST_BINS, width - len(low) - len(high))):
        counts = resampled(list(enumerate(counts)), room).tolist()
    line = sparkline([count / (max(counts) or 1.0) for count in counts])
    return Text.assemble(low, (line, "cyan"), high)
