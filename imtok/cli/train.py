"""`imtok train`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imtok.cli.console import ending_at_once, err, one_voice, out, print_result, say, stop_on_signals
from imtok.cli.options import AnySources, Stream
from imtok.cli.train_display import TrainDisplay, print_report

if TYPE_CHECKING:
    from imtok.config import TrainConfig
    from imtok.processes import Processes

_NAMES = 22  # columns before what a preset is about
_GROUPS = {
    "cpu": "Minutes on two CPU cores, at most about 25",
    "cpu-long": "An hour or more on two CPU cores",
    "gpu": "Adversarial recipes for photographs of 256 px, on a GPU",
    "quantizer": "One quantizer each, f8, for photographs, all else as in cpu-fsq-f8",
}


def _print_presets(requested: bool) -> None:
    if not requested:
        return
    from imtok.config import load_train_config, preset, preset_about, preset_groups

    width = out().width if out().is_terminal else None
    for group, names in preset_groups().items():
        print_result(f"{_GROUPS[group]}:")
        for name in names:
            needs_vgg = load_train_config(preset(name), name).loss.perceptual > 0
            for line in preset_lines(name + ("*" if needs_vgg else ""), preset_about(name), width):
                print_result(line)
    print_result("f8: a token is 8 pixels a side")
    print_result("* needs VGG16's weights: fetched once, or from --set loss.perceptual_weights=FILE")
    raise typer.Exit


def preset_lines(name: str, about: str, width: int | None) -> list[str]:
    """Lay out a preset in one line, or in several of `width` columns, the later ones below what it is about."""
    first, *others = textwrap.wrap(about, max(width - _NAMES, _NAMES)) if width else [about]
    return [f"  {name:{_NAMES - 3}} {first}", *(" " * _NAMES + line for line in others)]


def train(
    sources: AnySources,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="Folder for the run.")],
    preset: Annotated[str | None, typer.Option(help="A ready configuration; --list-presets names them.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file, whose settings override the preset.", exists=True, dir_okay=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting, which overrides all else: quantizer.levels=[8,5,5,5]. It may be given several times.",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Length of the run in training images; short for --set images=N.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. (default: a GPU where there is one)")] = None,
    val: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Images for validation. (default: a part of SOURCE, held out)"),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(metavar="TOKENIZER", help="Begin with the weights of this one, also hf://ORG/NAME."),
    ] = None,
    freeze_codes: Annotated[
        bool, typer.Option("--freeze-codes", help="Train the decoder alone, so that tokens stay valid.")
    ] = False,
    stream: Stream = False,
    max_shard_failures: Annotated[
        int | None,
        typer.Option(
            min=0, help="End the run where more shards of a stream fail. (default: a tenth of them, 8 at most)"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print configuration, sizes, steps and memory; train and write nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Fail unless there is a checkpoint to resume from.")] = False,
    list_presets: Annotated[  # noqa: ARG001  (its callback does the work)
        bool, typer.Option("--list-presets", callback=_print_presets, is_eager=True, help="Name the presets and exit.")
    ] = False,
) -> None:
    """Train a tokenizer on images.

    Without a configuration it inspects the images and chooses one. The same command resumes a stopped run; on a CPU
    the result is the same bit for bit.
    """
    short: dict[str, Any] = {
        "images": images,
        "device": device,
        "start_from": start_from,
        "freeze_codes": freeze_codes or None,
    }
    data = _given({"stream": stream or None, "max_shard_failures": max_shard_failures})
    short = _given(short | {"data": data or None})

    def chosen_config() -> dict[str, Any]:
        from imtok.config import merge, parse_settings
        from imtok.training import resolve
        from imtok.training.resolve import pinned_start
        from imtok.training.run import RunFolder

        typed = merge(parse_settings(settings or []), short)
        saved = RunFolder(output).saved_config()  # reports an impossible output first
        if "start_from" in typed:  # before its configuration is read, so that both are of one commit
            typed["start_from"] = pinned_start(str(typed["start_from"]), saved)
        requested = _configuration(sources, output, preset, config, typed)
        return resolve(requested, saved, sources).model_dump(mode="json")

    with stop_on_signals() as should_stop, one_voice() as processes:
        with ending_at_once(should_stop), err().status("inspecting the images") if processes.first else nullcontext():
            import imtok.training
            from imtok.config import TrainConfig

            chosen = TrainConfig.model_validate(processes.by_first(chosen_config))
        if dry_run:
            with ending_at_once(should_stop):
                processes.by_first(lambda: _print_plan(chosen, sources, val or (), output, resume, processes))
            return
        with TrainDisplay(chosen, processes.ranks) if processes.first else nullcontext() as display:
            report = imtok.training.train(
                sources,
                output,
                chosen,
                val=val or (),
                resume=resume,
                progress=display.update if display else None,
                should_stop=should_stop,
            )
    if processes.first:
        print_report(report)


def _print_plan(
    config: TrainConfig, sources: list[str], val: Sequence[str], run: Path, resume: bool, processes: Processes
) -> None:
    from imtok.cli.train_plan import print_plan
    from imtok.training.plan import plan

    print_plan(plan(config, sources, val, run=run, resume=resume, ranks=processes.ranks))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _configuration(
    sources: list[str], output: Path, preset: str | None, config: Path | None, typed: dict[str, Any]
) -> TrainConfig:
    """Build the requested configuration; for a run that exists its own, with the typed settings laid over it."""
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
        values = _automatic(sources, typed)
        if isinstance(size := typed.get("tokenizer", {}).get("size"), int):
            values["data"]["crop"] = min(values["data"]["crop"], size)  # or the requested size would be refused
    if config:
        values = configs.merge(values, configs.lift(configs.read_config_file(config)))
    chosen = configs.load_train_config(configs.merge(values, typed), str(config) if config else "configuration")
    check_quantizer(chosen.tokenizer.quantizer)
    return chosen


def _as_trained(start: str) -> dict[str, Any]:
    """Build a configuration that starts from a tokenizer: its networks and size, and crops that suit them."""
    from imtok.tokenizer import load

    tokenizer = load(start).config
    downsample = tokenizer.network.downsample or tokenizer.size
    crop = min(tokenizer.size, max(downsample, 96 // downsample * downsample))
    say(f"{start}: its networks, quantizer and size {tokenizer.size} are taken")
    values: dict[str, Any] = {"tokenizer": tokenizer.model_dump(mode="json"), "data": {"crop": crop}}
    values["optimizer"] = {"learning_rate": 3e-4}  # of weights that are good already
    return values | {"batch_size": 64} if tokenizer.size <= 64 else values


def _automatic(sources: list[str], typed: dict[str, Any]) -> dict[str, Any]:
    """Choose a configuration from the images; of a stream from those of the first shard."""
    from imtok.config import load_train_config
    from imtok.data.collection import ImageCollection
    from imtok.devices import resolve_device
    from imtok.training import choose, resolve
    from imtok.training.streamed_images import look_at_shards

    gpu = resolve_device(str(typed.get("device", "auto"))).type == "cuda"
    given = typed.get("data", {})
    about_stream = {name: value for name, value in given.items() if name in ("stream", "shard_cache", "shard_cache_gb")}
    data = resolve(load_train_config({"data": about_stream}), None, sources).data
    images = look_at_shards(sources, data) if data.stream else ImageCollection.open(sources)
    choice = choose(images, gpu=gpu, of_first_shard=bool(data.stream))
    say(choice.facts)  # what settings leave of the choice is printed with the configuration
    return choice.values
