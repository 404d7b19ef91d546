"""A training run in the terminal: a bar with metrics below it while it runs, and a few lines at its end."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from imtok.cli.console import SECONDS_BETWEEN_LINES, SEVERITY_STYLES, err, escaped, out, print_line, print_result, say
from imtok.counted import counted

if TYPE_CHECKING:
    from imtok.analysis import CodebookUsage
    from imtok.config import TrainConfig
    from imtok.evaluation import Quality
    from imtok.training import TrainProgress, TrainReport

_NAMES = 13  # width of the names of metrics
_CURVE, _COLUMNS = "use by rank", 32


class TrainDisplay:
    """A bar and lines of metrics on a terminal; elsewhere a line twice a minute."""

    def __init__(self, config: TrainConfig, ranks: int = 1) -> None:
        from rich.live import Live

        self.config, self.ranks = config, ranks
        self.console = err()
        to_bar = bool(sys.stdout and sys.stdout.isatty())
        self.live = Live(console=self.console, refresh_per_second=4, transient=True, redirect_stdout=to_bar)
        self.metrics: dict[str, str] = {}  # of the last line of the log
        self.quality: dict[str, str] = {}  # of the last validation, and of the best so far
        self.images_per_second = 0.0
        self.printed_at = time.monotonic()
        self._begun = False  # with the first step

    def __enter__(self) -> TrainDisplay:
        self._print_choice()
        if self.console.is_terminal:
            self.live.start()
            self.live.update(self._preparing())
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def update(self, progress: TrainProgress) -> None:
        """Show the metrics, validation and notes of one report of progress."""
        if progress.metrics is not None and progress.usage is not None:
            self.images_per_second = progress.images_per_second
            self.metrics = {
                **_losses(progress.metrics),
                "codes in use": _in_use(progress.usage),
                "dead codes": f"{progress.usage.dead}, Gini {progress.usage.gini:.2f}",
                _CURVE: _use_by_rank(progress.usage),
                **_discriminator(progress.metrics),
                "speed": f"{progress.images_per_second:.0f} images/s, {progress.data_wait:.1%} waiting for data",
                **_skipped(progress.metrics),
            }
        if progress.validation is not None:
            self._set_quality(progress.validation, progress.best, progress)
            self._line(progress)
        for note in progress.notes:
            print_line(self.console, f"[yellow]note:[/] {escaped(note)}")
        self._begun |= not progress.notes
        if self.console.is_terminal:
            if self._begun:
                self.live.update(self.render(progress))
        elif progress.metrics is not None and time.monotonic() - self.printed_at > SECONDS_BETWEEN_LINES:
            self._line(progress)

    def render(self, progress: TrainProgress) -> Any:
        """Lay out the bar, and below it one metric a line."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        seen = min(progress.seen, progress.images)
        head = Table.grid(padding=(0, 1))
        head.add_row(
            f"{'training':{_NAMES}}",
            ProgressBar(total=progress.images, completed=seen, width=20),
            f"{seen / progress.images:4.0%}",
            f"{seen} of {progress.images}",
            self._time_left(progress),
        )
        body = Table.grid(padding=(0, 1))
        body.add_column(min_width=_NAMES, no_wrap=True)
        for name, value in (self.metrics | self.quality).items():
            body.add_row(f"[dim]{name}[/]", value)
        return Group(head, body)

    def _preparing(self) -> Any:
        """Lay out the line before the first step, which may be long in coming where shards are fetched."""
        from rich.spinner import Spinner

        return Spinner("dots", "fetching the first shards" if self.config.data.stream is True else "preparing the run")

    def _set_quality(self, quality: Quality, best: Mapping[str, Any], progress: TrainProgress) -> None:
        line = _quality({f"val/{name}": value for name, value in quality.values.items()})
        used = f"{quality.usage.used} of {quality.usage.codebook_size} codes"
        self.quality["validation"] = f"{line}, {used} (after {progress.seen})"
        self.quality["best so far"] = f"{_quality(best)} (after {min(best['images'], progress.images)})"

    def _line(self, progress: TrainProgress) -> None:
        """Print all metrics on one line where there is no terminal."""
        if not self.console.is_terminal:
            self.printed_at = time.monotonic()
            metrics = {name: value for name, value in (self.metrics | self.quality).items() if name != _CURVE}
            line = "; ".join(f"{name} {value}" for name, value in metrics.items())
            say(f"{progress.seen} of {progress.images}: {line}")

    def _time_left(self, progress: TrainProgress) -> str:
        if self.images_per_second <= 0:
            return ""
        seconds = round(max(0, progress.images - progress.seen) / self.images_per_second)
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return f"{hours} h {minutes:02} min left" if hours else f"{minutes}:{seconds % 60:02} left"

    def _print_choice(self) -> None:
        tokenizer = self.config.tokenizer
        height, width = tokenizer.network.grid(tokenizer.size, tokenizer.size)
        each = len(tokenizer.quantizer.codebook_ids)
        grid = f"{height}x{width}" if each == 1 else f"{height}x{width}x{each}"
        say(
            f"{tokenizer.size} px to {grid} tokens, {tokenizer.quantizer.summary}; "
            f"{counted(self.config.images, 'training image')} in batches of {self.config.batch_size}, "
            f"crops of {self.config.data.crop} px, in {self.config.precision}"
            + (f", on {self.ranks} processes" if self.ranks > 1 else "")
        )


def _losses(metrics: Mapping[str, float]) -> dict[str, str]:
    """Name the loss and its terms before weighting."""
    parts = {name.removeprefix("loss/"): value for name, value in metrics.items() if name.startswith("loss/")}
    named = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
    if "loss" not in metrics:
        return {"loss": "none, as no step changed the tokenizer"}
    return {"loss": f"{metrics['loss']:.4f} of {named}" if parts else f"{metrics['loss']:.4f}"}


def _discriminator(metrics: Mapping[str, float]) -> dict[str, str]:
    """Say which side is ahead, and the weight of the generator's loss; nothing where no discriminator learns yet."""
    found = {name.removeprefix("adversarial/"): value for name, value in metrics.items()}
    lines = {}
    if "accuracy" in found:
        lines["discriminator"] = f"tells {found['accuracy']:.0%} right" + (
            f", logits {found['logits_real']:+.2f} (images), {found['logits_fake']:+.2f} (reconstructions)"
            if {"logits_real", "logits_fake"} <= found.keys()
            else ""
        )
    if "weight" in found:
        ratio = f" (ratio of gradients {found['adaptive']:.3g})" if "adaptive" in found else ""
        lines["its weight"] = f"{found['weight']:.3g}{ratio}"
    return lines


def _skipped(metrics: Mapping[str, float]) -> dict[str, str]:
    """Count the steps that changed nothing, where there are any."""
    skipped = metrics.get("skipped_steps", 0)
    return {"skipped steps": f"{skipped:.0f}, whose loss or gradient was not finite"} if skipped > 0 else {}


def _in_use(usage: CodebookUsage) -> str:
    """Describe the use of the codes; of several codebooks also the least used, which the others may hide."""
    text = (
        f"{usage.used} of {usage.codebook_size} ({usage.usage:.1%}), perplexity {usage.perplexity:.0f}, entropy "
        f"{usage.entropy_bits:.3g} of {usage.max_bits:.3g} bits"
    )
    if usage.by_codebook is None:
        return text
    least = min(each.usage for each in usage.codebooks)
    return f"{text}, in the least used of {len(usage.codebooks)} codebooks {least:.1%}"


def _use_by_rank(usage: CodebookUsage) -> str:
    """Draw the use of codes by rank: an eighth lower is half as often, an empty column never."""
    import numpy as np

    from imtok.cli.stats_charts import sparkline

    ranked = np.sort(usage.counts)[::-1]
    shares = [float(column.mean()) for column in np.array_split(ranked, min(_COLUMNS, len(ranked)))]
    heights = [max(1 + math.log2(share / shares[0]) / 8, 1 / 8) if share else 0.0 for share in shares]
    return f"|{sparkline(heights)}|"


def print_report(report: TrainReport) -> None:
    """Print how the run ended: what was measured, where the tokenizer is, and what to change."""
    if report.already_done:
        say(f"{report.run}: this run is finished")
    else:
        now = f", {report.images - report.resumed_from} of them" if report.resumed_from else ""
        speed = f"{report.images_per_second:.0f} images/s, {report.data_wait:.1%} waiting for data"
        say(f"trained on {counted(report.images, 'image')}{now} in {report.seconds:.0f} s ({speed})")
        if report.skipped_steps:
            steps = counted(report.skipped_steps, "step was", "steps were")
            say(f"{steps} skipped, whose loss or gradient was not finite")
    metrics = report.validation
    if metrics:
        shared = metrics.get("val/also_trained_on")
        caution = f", where {counted(shared, 'image was', 'images were')} also trained on" if shared else ""
        print_result(f"validation {_quality(metrics)}, {metrics['val/usage']:.1%} of the codes used{caution}")
    else:
        print_result("nothing was held out, so nothing was measured")
    print_result(f"tokenizer in {report.tokenizer}")
    if (report.run / "previews").is_dir():
        print_result(f"originals above reconstructions in {report.run / 'previews'}")
    if report.best_tokenizer is not None and report.best.get("images", report.images) < report.images:
        after = f"after {counted(report.best['images'], 'image')}"
        print_result(f"the best was {after} ({_quality(report.best)}): {report.best_tokenizer}")
    for finding in report.findings:
        text = f"{escaped(finding.text)} [dim]({escaped(finding.name)})[/]"
        print_line(out(), f"[{SEVERITY_STYLES[finding.grade]}]{finding.grade}[/] {text}")


def _quality(metrics: Mapping[str, Any]) -> str:
    """Format the metrics of a validation, those whose keys are `val/` and a name of the list."""
    from imtok.evaluation import METRICS

    found = [(metric, metrics[f"val/{name}"]) for name, metric in METRICS.items() if f"val/{name}" in metrics]
    return ", ".join(f"{metric.label} {metric.format_briefly(value)}" for metric, value in found)
