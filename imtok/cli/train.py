"""`imtok train`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imtok.cli.console import err, escaped, launcher_number, print_line, say, stop_on_signals, tell
from imtok.errors import ConfigError

if TYPE_CHECKING:
    from imtok.analysis import CodebookUsage
    from imtok.config import TrainConfig
    from imtok.training import TrainProgress, TrainReport

_SECONDS_BETWEEN_LINES = 30.0


_GROUPS = {
    "cpu": "Minutes on two CPU cores",
    "gpu": "Adversarial recipes for photographs of 256 px, on a GPU",
    "quantizer": "One quantizer each, f8, for photographs, all else as in cpu-fsq-f8",
}


def _print_presets(wanted: bool) -> None:
    if not wanted:
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

            extra = [f"images={images}"] if images is not None else []
            extra += [f"device={device}"] if device is not None else []
            chosen = _configuration(sources, output, preset, config, [*(settings or []), *extra])
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
    sources: list[str], output: Path, preset: str | None, config: Path | None, settings: list[str]
) -> TrainConfig:
    """What the command asks for; for a run that exists, the run's own with what was typed laid over it."""
    from imtok import config as configs
    from imtok.tokenizer import check_quantizer

    typed = configs.parse_settings(settings)
    saved = output / "config.yaml"
    if saved.is_file() and not (preset or config):
        values = configs.read_config_file(saved)
    elif preset:
        values = configs.preset(preset)
    else:
        values = {} if config else _automatic(sources, str(typed.get("device", "auto")))
    if config:
        values = configs.merge(values, configs.lift(configs.read_config_file(config)))
    chosen = configs.load_train_config(configs.merge(values, typed), str(config) if config else "configuration")
    check_quantizer(chosen.tokenizer.quantizer)
    return chosen


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


def _print_report(report: TrainReport) -> None:
    figures = report.validation
    quality = (
        f"validation PSNR {figures['val/psnr']:.2f} dB, SSIM {figures['val/ssim']:.3f}, "
        f"{figures['val/usage']:.1%} of the codes used"
        if figures
        else "nothing was held out, so nothing was measured"
    )
    if report.already_done:
        say(f"{report.run}: this run is finished")
    else:
        now = f", {report.images - report.resumed_from} of them" if report.resumed_from else ""
        say(f"trained on {report.images} images{now} in {report.seconds:.0f} s")
    tell(quality)
    tell(f"tokenizer in {report.tokenizer}")


def _in_use(usage: CodebookUsage) -> str:
    """Of several codebooks also the one that is used least: together they may hide it."""
    text = f"{usage.used} of {usage.codebook_size} ({usage.usage:.1%})"
    if usage.by_codebook is None:
        return text
    least = min(each.usage for each in usage.codebooks)
    return f"{text}, in the least used of {len(usage.codebooks)} codebooks {least:.1%}"


class _Display:
    """On a terminal a bar and a line of figures below it; elsewhere a line now and then."""

    def __init__(self, config: TrainConfig) -> None:
        from rich.live import Live

        self.config = config
        self.console = err()
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)
        self.news: dict[str, str] = {}
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
            usage = progress.usage
            self.news |= {
                "loss": f"{progress.metrics['loss']:.4f}",
                "codes in use": _in_use(usage),
                "perplexity": f"{usage.perplexity:.0f}",
                "speed": f"{progress.images_per_second:.0f} images/s, {progress.data_wait:.1%} waiting for data",
            }
        if progress.validation is not None:
            quality = progress.validation
            line = (
                f"PSNR {quality.psnr:.2f} dB, SSIM {quality.ssim:.3f}, "
                f"{quality.usage.used} of {quality.usage.codebook_size} codes on {quality.images} held out"
            )
            self.news["validation"] = f"{line} (after {progress.seen})"
            self._line(progress)
        if progress.notice:
            print_line(self.console, f"[yellow]note:[/] {escaped(progress.notice)}")
        if self.console.is_terminal:
            self.live.update(self._render(progress))
        elif progress.metrics is not None and time.monotonic() - self.said > _SECONDS_BETWEEN_LINES:
            self._line(progress)

    def _line(self, progress: TrainProgress) -> None:
        """Where there is no terminal: all the figures on one line."""
        if not self.console.is_terminal:
            self.said = time.monotonic()
            figures = "; ".join(f"{name} {value}" for name, value in self.news.items())
            say(f"{progress.seen} of {progress.images}: {figures}")

    def _render(self, progress: TrainProgress) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        share = progress.seen / progress.images
        head = Table.grid(padding=(0, 1))
        head.add_row(
            "training",
            ProgressBar(total=1.0, completed=share, width=40),
            f"{share:.0%}",
            f"{progress.seen}/{progress.images} images",
        )
        body = Table.grid(padding=(0, 2))
        for name, value in self.news.items():
            body.add_row(f"[dim]{name}[/]", value)
        return Group(head, body)

    def _print_choice(self) -> None:
        tokenizer = self.config.tokenizer
        side = tokenizer.size // tokenizer.network.downsample
        each = len(tokenizer.quantizer.tables)
        grid = f"{side}x{side}" if each == 1 else f"{side}x{side}x{each}"
        say(
            f"{tokenizer.size} px to {grid} tokens, {tokenizer.quantizer.summary}; {self.config.images} training "
            f"images in batches of {self.config.batch_size}, crops of {self.config.data.crop} px"
        )
