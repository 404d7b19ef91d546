"""`imtok train`."""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imtok.cli.console import (
    SEVERITY_STYLES,
    err,
    escaped,
    launcher_number,
    out,
    print_line,
    say,
    stop_on_signals,
    tell,
)
from imtok.errors import ConfigError

if TYPE_CHECKING:
    from imtok.analysis import CodebookUsage
    from imtok.config import TrainConfig
    from imtok.evaluation import Quality
    from imtok.training import TrainProgress, TrainReport
    from imtok.training.plan import TrainPlan

_SECONDS_BETWEEN_LINES = 30.0
_NAMES = 13  # width of the names of figures
_CURVE, _COLUMNS = "use by rank", 32


_GROUPS = {
    "cpu": "Minutes on two CPU cores",
    "gpu": "Adversarial recipes for photographs of 256 px, on a GPU",
    "quantizer": "One quantizer each, f8, for photographs, all else as in cpu-fsq-f8",
}


def _print_presets(requested: bool) -> None:
    if not requested:
        return
    from imtok.config import load_train_config, preset, preset_about, preset_groups

    for group, names in preset_groups().items():
        tell(f"{_GROUPS[group]}:")
        for name in names:
            needs_vgg = load_train_config(preset(name), name).loss.perceptual > 0
            tell(f"  {name + ('*' if needs_vgg else ''):19} {preset_about(name)}")
    tell("f8: a token is 8 pixels a side")
    tell("* needs VGG16's weights: fetched once, or from --set loss.perceptual_weights=FILE")
    raise typer.Exit


def train(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Folders of images, .tar files, or train-{000..099}.tar.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="Folder for the run.")],
    preset: Annotated[str | None, typer.Option(help="A ready configuration; --list-presets names them.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file, laid over the preset.", exists=True, dir_okay=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, laid over all else: quantizer.levels=[8,5,5,5]"),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Length of the run in training images; short for --set images=N.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; a GPU is taken where there is one.")] = None,
    val: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Images for validation; without it a part of SOURCE is held out."),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(metavar="TOKENIZER", help="Begin with the weights of this one; short for --set start_from=…"),
    ] = None,
    freeze_codes: Annotated[
        bool, typer.Option("--freeze-codes", help="Train the decoder alone, so that tokens stay valid.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print configuration, sizes, steps and memory; train and write nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Insist that there is a checkpoint to go on from.")] = False,
    list_presets: Annotated[  # noqa: ARG001  (its callback does the work)
        bool, typer.Option("--list-presets", callback=_print_presets, is_eager=True, help="Name the presets and exit.")
    ] = False,
) -> None:
    """Train a tokenizer on images.

    With no configuration it looks at the images, chooses one, and says so. The same command again goes on where a
    stopped run was, to the same result bit for bit on a CPU.
    """
    _refuse_launcher()
    with stop_on_signals() as should_stop:
        with err().status("looking at the images"):
            import imtok.training
            import imtok.training.run
            from imtok.config import merge, parse_settings

            short = {"images": images, "device": device, "start_from": start_from, "freeze_codes": freeze_codes or None}
            typed = parse_settings(settings or [])
            typed = merge(typed, {key: value for key, value in short.items() if value is not None})
            saved = imtok.training.run.RunFolder(output).saved_config()  # an output that cannot be is told first
            chosen = imtok.training.resolve(_configuration(sources, output, preset, config, typed), saved)
        if dry_run:
            from imtok.training.plan import plan

            _print_plan(plan(chosen, sources, val or (), run=output, resume=resume))
            return
        with _Display(chosen) as display:
            report = imtok.training.train(
                sources,
                output,
                chosen,
                val=val or (),
                resume=resume,
                progress=display.update,
                should_stop=should_stop,
            )
    _print_report(report)


def _configuration(
    sources: list[str], output: Path, preset: str | None, config: Path | None, typed: dict[str, Any]
) -> TrainConfig:
    """What the command asks for; for a run that exists, the run's own with what was typed laid over it."""
    from imtok import config as configs
    from imtok.tokenizer import check_quantizer

    saved = output / "config.yaml"
    if saved.is_file() and not (preset or config):
        values = configs.read_config_file(saved)
    elif preset:
        values = configs.preset(preset)
    elif start := typed.get("start_from", configs.read_config_file(config).get("start_from") if config else None):
        values = _as_trained(str(start))
    elif config:
        values = {}
    else:
        values = _automatic(sources, str(typed.get("device", "auto")))
    if config:
        values = configs.merge(values, configs.lift(configs.read_config_file(config)))
    chosen = configs.load_train_config(configs.merge(values, typed), str(config) if config else "configuration")
    check_quantizer(chosen.tokenizer.quantizer)
    return chosen


def _as_trained(start: str) -> dict[str, Any]:
    """A configuration for going on from a tokenizer: its own networks and size, and crops that suit them."""
    from imtok.tokenizer import load

    tokenizer = load(start).config
    downsample = tokenizer.network.downsample
    crop = min(tokenizer.size, max(downsample, 96 // downsample * downsample))
    say(f"{start}: its networks, quantizer and size {tokenizer.size} are taken")
    values: dict[str, Any] = {"tokenizer": tokenizer.model_dump(mode="json"), "data": {"crop": crop}}
    values["optimizer"] = {"learning_rate": 3e-4}  # of weights that are good already
    return values | {"batch_size": 64} if tokenizer.size <= 64 else values


def _automatic(sources: list[str], device: str) -> dict[str, Any]:
    from imtok.data.collection import ImageCollection
    from imtok.devices import resolve_device
    from imtok.training import choose

    choice = choose(ImageCollection.open(sources), gpu=resolve_device(device).type == "cuda")
    say(choice.reason)
    return choice.values


def _refuse_launcher() -> None:
    if launcher_number("WORLD_SIZE", 1) > 1:
        raise ConfigError(
            "training over several processes is not supported yet; start imtok train once, without torchrun"
        )


def _print_plan(plan: TrainPlan) -> None:
    """The configuration as YAML, and what follows from it as its comments."""
    from imtok.training.codebook_diagnosis import steps_before_restart

    config, memory = plan.config, plan.memory
    tokenizer, batch = config.tokenizer, config.batch_size
    part = batch // config.accumulate
    bits = f"{plan.bits:.0f} bits, {plan.bits_per_pixel:.3f} a pixel"
    rows = {
        "parameters": ", ".join(f"{name} {_short(count)}" for name, count in plan.parameters.items()),
        "an image": f"{tokenizer.size} px to {'x'.join(map(str, plan.grid))} = {plan.tokens} tokens of "
        f"{plan.num_codes} codes: {bits}",
        "training": f"{_images(plan.training_images)}, each seen {plan.epochs:.1f} times: {config.images} in "
        f"{plan.steps} steps of {batch}",
        "validation": f"{_images(plan.validation_images)}, after every {config.validation_interval} training images"
        if plan.validation_images
        else "nothing is held out",
    }
    if first := steps_before_restart(config):
        rows["dead codes"] = f"restart from step {first} on at the earliest: codes that are not used stay so until then"
    if plan.discriminator_active is not None:
        rows["discriminator"] = (
            f"learns after {plan.discriminator_learns} images, is active in the generator's loss after "
            f"{plan.discriminator_active}, with its full weight after {plan.discriminator_full}"
        )
    rows |= plan.requirements
    rows["memory"] = (
        f"about {_bytes(memory.device)} on {config.device}: weights {_bytes(memory.weights)}, their EMA "
        f"{_bytes(memory.ema)}, gradients {_bytes(memory.gradients)}, optimizer {_bytes(memory.optimizer_state)}, "
        f"activations of {_images(part)} {_bytes(memory.activations)}"
    )
    rows["and besides"] = f"pictures kept decoded {_bytes(memory.pictures)}, the libraries, what single layers take"
    tell(config.to_yaml().rstrip())
    for name, value in rows.items():
        for line in textwrap.wrap(f"{name:15}{value}", 98, subsequent_indent=" " * 15):
            tell(f"# {line}")


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _short(count: int) -> str:
    """47824579 -> 47.8 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _print_report(report: TrainReport) -> None:
    if report.already_done:
        say(f"{report.run}: this run is finished")
    else:
        now = f", {report.images - report.resumed_from} of them" if report.resumed_from else ""
        speed = f"{report.images_per_second:.0f} images/s, {report.data_wait:.1%} waiting for data"
        say(f"trained on {report.images} images{now} in {report.seconds:.0f} s ({speed})")
        if report.skipped_steps:
            say(f"{report.skipped_steps} steps were skipped, whose loss or gradient was not finite")
    figures = report.validation
    if figures:
        tell(f"validation {_quality(figures)}, {figures['val/usage']:.1%} of the codes used")
    else:
        tell("nothing was held out, so nothing was measured")
    tell(f"tokenizer in {report.tokenizer}")
    if (report.run / "previews").is_dir():
        tell(f"originals above reconstructions in {report.run / 'previews'}")
    if report.best_tokenizer is not None and report.best.get("images", report.images) < report.images:
        after = f"after {report.best['images']} images"
        tell(f"the best was {after} ({_quality(report.best)}): {report.best_tokenizer}")
    for finding in report.findings:
        text = f"{escaped(finding.text)} [dim]({escaped(finding.page)})[/]"
        print_line(out(), f"[{SEVERITY_STYLES[finding.grade]}]{finding.grade}[/] {text}")


def _quality(figures: Mapping[str, Any]) -> str:
    """Format the metrics of a validation, those whose keys are `val/` and a name of the list."""
    from imtok.evaluation import METRICS

    found = [(metric, figures[f"val/{name}"]) for name, metric in METRICS.items() if f"val/{name}" in figures]
    return ", ".join(f"{metric.label} {metric.format_briefly(value)}" for metric, value in found)


class _Display:
    """On a terminal a bar and lines of figures below it; elsewhere a line now and then."""

    def __init__(self, config: TrainConfig) -> None:
        from rich.live import Live

        self.config = config
        self.console = err()
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)
        self.figures: dict[str, str] = {}  # of the last line of the log
        self.quality: dict[str, str] = {}  # of the last validation, and of the best so far
        self.images_per_second = 0.0
        self.said = time.monotonic()

    def __enter__(self) -> _Display:
        self._print_choice()
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def update(self, progress: TrainProgress) -> None:
        """Take in one piece of news."""
        if progress.metrics is not None and progress.usage is not None:
            self.images_per_second = progress.images_per_second
            self.figures = {
                **_losses(progress.metrics),
                "codes in use": _in_use(progress.usage),
                "dead codes": f"{progress.usage.dead}, Gini {progress.usage.gini:.2f}",
                _CURVE: _use_by_rank(progress.usage),
                **_discriminator_figures(progress.metrics),
                "speed": f"{progress.images_per_second:.0f} images/s, {progress.data_wait:.1%} waiting for data",
                **_trouble(progress.metrics),
            }
        if progress.validation is not None:
            self._take_in(progress.validation, progress.best, progress)
            self._line(progress)
        for note in progress.notes:
            print_line(self.console, f"[yellow]note:[/] {escaped(note)}")
        if self.console.is_terminal:
            self.live.update(self.render(progress))
        elif progress.metrics is not None and time.monotonic() - self.said > _SECONDS_BETWEEN_LINES:
            self._line(progress)

    def render(self, progress: TrainProgress) -> Any:
        """What the terminal shows: the bar, and a figure a line with its name before it."""
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
        for name, value in (self.figures | self.quality).items():
            body.add_row(f"[dim]{name}[/]", value)
        return Group(head, body)

    def _take_in(self, quality: Quality, best: Mapping[str, Any], progress: TrainProgress) -> None:
        line = _quality({f"val/{name}": value for name, value in quality.values.items()})
        used = f"{quality.usage.used} of {quality.usage.codebook_size} codes"
        self.quality["validation"] = f"{line}, {used} (after {progress.seen})"
        self.quality["best so far"] = f"{_quality(best)} (after {min(best['images'], progress.images)})"

    def _line(self, progress: TrainProgress) -> None:
        """Where there is no terminal: all the figures on one line."""
        if not self.console.is_terminal:
            self.said = time.monotonic()
            figures = {name: value for name, value in (self.figures | self.quality).items() if name != _CURVE}
            line = "; ".join(f"{name} {value}" for name, value in figures.items())
            say(f"{progress.seen} of {progress.images}: {line}")

    def _time_left(self, progress: TrainProgress) -> str:
        if self.images_per_second <= 0:
            return ""
        seconds = round(max(0, progress.images - progress.seen) / self.images_per_second)
        hours, minutes = seconds // 3600, seconds // 60 % 60
        return f"{hours} h {minutes:02} min left" if hours else f"{minutes}:{seconds % 60:02} left"

    def _print_choice(self) -> None:
        tokenizer = self.config.tokenizer
        side = tokenizer.size // tokenizer.network.downsample
        each = len(tokenizer.quantizer.codebook_ids)
        grid = f"{side}x{side}" if each == 1 else f"{side}x{side}x{each}"
        say(
            f"{tokenizer.size} px to {grid} tokens, {tokenizer.quantizer.summary}; {self.config.images} training "
            f"images in batches of {self.config.batch_size}, crops of {self.config.data.crop} px, in "
            f"{self.config.precision}"
        )


def _losses(metrics: Mapping[str, float]) -> dict[str, str]:
    """The loss, and what it is made of before weighing."""
    parts = {name.removeprefix("loss/"): value for name, value in metrics.items() if name.startswith("loss/")}
    named = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
    if "loss" not in metrics:
        return {"loss": "none, as every step was skipped"}
    return {"loss": f"{metrics['loss']:.4f} of {named}" if parts else f"{metrics['loss']:.4f}"}


def _discriminator_figures(metrics: Mapping[str, float]) -> dict[str, str]:
    """Which side is ahead, and what the generator hears of it; nothing where there is no discriminator yet."""
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


def _trouble(metrics: Mapping[str, float]) -> dict[str, str]:
    """Steps that changed nothing, where there are any."""
    skipped = metrics.get("skipped_steps", 0)
    return {"skipped steps": f"{skipped:.0f}, whose loss or gradient was not finite"} if skipped > 0 else {}


def _in_use(usage: CodebookUsage) -> str:
    """Of several codebooks also the one that is used least: together they may hide it."""
    text = (
        f"{usage.used} of {usage.codebook_size} ({usage.usage:.1%}), perplexity {usage.perplexity:.0f}, entropy "
        f"{usage.entropy_bits:.3g} of {usage.max_bits:.3g} bits"
    )
    if usage.by_codebook is None:
        return text
    least = min(each.usage for each in usage.codebooks)
    return f"{text}, in the least used of {len(usage.codebooks)} codebooks {least:.1%}"


def _use_by_rank(usage: CodebookUsage) -> str:
    """The codes from the most used to the least in columns: an eighth lower is half as often, an empty one never."""
    import numpy as np

    from imtok.cli.stats_charts import sparkline

    ranked = np.sort(usage.counts)[::-1]
    shares = [float(column.mean()) for column in np.array_split(ranked, min(_COLUMNS, len(ranked)))]
    heights = [max(1 + math.log2(share / shares[0]) / 8, 1 / 8) if share else 0.0 for share in shares]
    return f"|{sparkline(heights)}|"
