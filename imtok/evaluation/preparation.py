"""The preparation of an evaluation: its options made definite, its folder created or found to be of the same job."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from imtok.cores import usable_cores
from imtok.devices import resolve_device
from imtok.errors import ConfigError
from imtok.evaluation.cells import UnitMeasurer
from imtok.evaluation.codecs import available_codecs
from imtok.evaluation.comparison import Comparison
from imtok.evaluation.entries import Entry, NamedCodec, NamedTokenizer
from imtok.evaluation.folder import Cell, EvaluationFolder, Parts, PartsInMemory
from imtok.evaluation.metric import Metric
from imtok.evaluation.metrics import METRICS, OpenedMetrics, build_metrics, empty_copies, open_available
from imtok.evaluation.outputs import Output, Samples
from imtok.evaluation.protocols import DEFAULT_PROTOCOL, Protocol, find_protocol
from imtok.evaluation.settings import (
    Options,
    Settings,
    check_size,
    default_unit_size,
    difference,
    first_given,
    needed_size,
    reading_of,
    size_of,
    versions,
)
from imtok.evaluation.units import Units, is_streamed, units_of
from imtok.processes import Processes
from imtok.tokenizer import load


@dataclass(frozen=True)
class Job:
    """Everything decided before the first image is read."""

    settings: Settings
    units: Units
    entries: Sequence[Entry]  # tokenizers, then codecs
    device: torch.device
    outputs: Mapping[Cell, Sequence[Output]]
    protocols: Sequence[Protocol]
    measurers: Sequence[UnitMeasurer]  # one for each protocol
    parts: Parts
    allowed_failures: int  # shards of a stream
    ranks: int  # processes that the protocols stand for
    missing: dict[str, str]  # requested metrics that cannot be measured here, and why

    def lacks(self, protocol: Protocol, entry: Entry, unit: int) -> bool:
        """Say whether a unit is still to be measured, or to be written by an output."""
        written = all(output.has(unit) for output in self.outputs[entry.cell(protocol)])
        return not (written and self.parts.has(entry.cell(protocol), unit))


def prepare(
    tokenizers: Sequence[str | Path], sources: Sequence[str | Path], options: Options, processes: Processes
) -> Job:
    """Load the tokenizers, cut the sources into units, and create or adopt the folder; all processes call.

    Raises ConfigError, SourceError or TokenizerError on all of them, before an image is measured.
    """
    protocols = [find_protocol(name) for name in dict.fromkeys(options.get("protocols") or (DEFAULT_PROTOCOL,))]
    output = options.get("output")
    if processes.several and output is None:
        raise ConfigError("several processes share an evaluation by a folder that all of them reach; name it by -o")
    folder = None if output is None else EvaluationFolder(Path(output))
    known = processes.by_first(lambda: _recorded(folder))
    recorded = None if known is None else Settings.model_validate(known)
    with processes.together():
        device = _device(options.get("device"), recorded, processes)
        loaded = _loaded(tokenizers, device)
        with processes.first_of_machine_first():
            opened = _opened(options, recorded, protocols, loaded, device)
        metrics = opened.metrics
        settings, units = _settled(options, recorded, sources, loaded, opened.weights, one_core=folder is not None)
        check_size(settings.size, [each.tokenizer for each in loaded], [each for some in metrics for each in some])
    _check_alike(settings, processes)
    if folder is not None:
        processes.by_first(lambda: folder.begin(settings))
    workers = max(1, usable_cores() // processes.local_ranks)
    entries: list[Entry] = [*loaded]
    if options.get("codecs"):
        allowed = loaded[0].bytes_of_codes(settings.size)
        entries += [NamedCodec(codec, allowed) for codec in available_codecs()]
    return Job(
        settings,
        units,
        entries,
        device,
        _outputs(options, entries, protocols, settings),
        protocols,
        [
            UnitMeasurer(protocol, some, settings, workers=workers)
            for protocol, some in zip(protocols, metrics, strict=True)
        ],
        folder or PartsInMemory(),
        options.get("max_shard_failures", 0),
        options.get("ranks", 1),
        opened.missing,
    )


def _outputs(
    options: Options, entries: Sequence[Entry], protocols: Sequence[Protocol], settings: Settings
) -> dict[Cell, list[Output]]:
    """Return the images that are written for each protocol and entry; several have a name of their own each.

    Raises ConfigError where a name is taken by something else.
    """
    outputs: dict[Cell, list[Output]] = {}
    several = len(entries) * len(protocols) > 1
    for protocol in protocols:
        for number, entry in enumerate(entries, start=1):
            part = f"{protocol.name}-{number}-{re.sub('[^A-Za-z0-9.]+', '_', Path(entry.name).name)}"
            cell = entry.cell(protocol)
            identity = hashlib.sha256(f"{cell} {settings.model_dump_json()}".encode()).hexdigest()[:12]
            found = outputs[cell] = list[Output]()
            if (folder := options.get("images_out")) is not None:
                target = Path(folder) / part if several else Path(folder)
                title = f"{entry.name}, {protocol.name}, {settings.size} px"
                found.append(Comparison(target, title, identity=identity))
            if (file := options.get("samples")) is not None:
                target = Path(file)
                target = target.with_name(f"{target.stem}-{part}.npz") if several else target
                found.append(Samples(target, settings.size, identity))
    return outputs


def _recorded(folder: EvaluationFolder | None) -> object:
    """Return the settings that a folder has recorded, as JSON."""
    recorded = folder.recorded() if folder else None
    return None if recorded is None else recorded.model_dump(mode="json")


def _device(requested: str | None, recorded: Settings | None, processes: Processes) -> torch.device:
    """Return the device of this process: under torchrun each has a GPU of its own."""
    name = requested if requested not in (None, "auto") else recorded.device if recorded else "auto"
    device = resolve_device(str(name))
    if device.type == "cuda" and device.index is None and processes.several:
        return resolve_device(f"cuda:{processes.local_rank}")
    return device


def _loaded(paths: Sequence[str | Path], device: torch.device) -> list[NamedTokenizer]:
    """Load tokenizers; raises ConfigError where two are the same."""
    loaded = [NamedTokenizer.of(str(path), load(path).to(device)) for path in paths]
    by_digest: dict[str, str] = {}
    for each in loaded:
        if each.files_sha256 in by_digest:
            raise ConfigError(f"{each.name}: the same tokenizer as {by_digest[each.files_sha256]}; give each once")
        by_digest[each.files_sha256] = each.name
    return loaded


@dataclass(frozen=True)
class _Opened:
    """The metrics of each protocol, empty, and what is known of their networks."""

    metrics: list[list[Metric]]
    weights: dict[str, str]  # SHA-256 of the weights by name of the metric, empty for one without a network
    missing: dict[str, str]  # why others cannot be measured here, by name


def _opened(
    options: Options,
    recorded: Settings | None,
    protocols: Sequence[Protocol],
    tokenizers: Sequence[NamedTokenizer],
    device: torch.device,
) -> _Opened:
    """Open the metrics with their networks on the device; each network is opened once.

    Raises ConfigError where none is named or can be measured, and where one that the folder has recorded cannot.
    """
    names, too_large = options.get("metrics"), dict[str, str]()
    if names is None:
        names = list(recorded.metrics) if recorded else [metric.name for metric in build_metrics()]
    elif "all" in names:
        names, too_large = _fitting(_size(options, recorded, tokenizers))
    if not names:
        raise ConfigError("--metrics: names none; leave it out for PSNR and SSIM")
    kinds = {protocol.name: [protocol.metric(name) for name in dict.fromkeys(names)] for protocol in protocols}
    all_kinds = list(dict.fromkeys(kind for some in kinds.values() for kind in some))
    if options.get("fetch", True) or options.get("weights"):
        opened = open_available(all_kinds, device, weights=options.get("weights"))
    else:
        opened = _open_present(all_kinds, device)
    needed = recorded.metrics if recorded else names if len(opened.missing) == len(set(names)) else ()
    for name in filter(opened.missing.__contains__, needed):
        raise ConfigError(f"metric {name}: {opened.missing[name]}")
    templates = {type(metric): metric for metric in opened.metrics}
    metrics = [empty_copies([templates[kind] for kind in some if kind in templates]) for some in kinds.values()]
    found = {metric.name: metric.weights for metric in metrics[0]}
    weights = {name: opened.weights[key].sha256 if key in opened.weights else "" for name, key in found.items()}
    return _Opened(metrics, weights, too_large | opened.missing)


def _fitting(size: int) -> tuple[list[str], dict[str, str]]:
    """List all metrics that take squares of this size, and say of the others why they do not."""
    too_large = {
        name: f"{needed_size(metric)}, and these images have {size}"
        for name, metric in METRICS.items()
        if size < metric.smallest
    }
    return [name for name in METRICS if name not in too_large], too_large


def _size(options: Options, recorded: Settings | None, tokenizers: Sequence[NamedTokenizer]) -> int:
    """Return the side of the squares; raises ConfigError where it has to be given."""
    requested = options.get("size") or (recorded.size if recorded else None)
    return size_of([each.tokenizer for each in tokenizers], [each.name for each in tokenizers], requested)


def _open_present(kinds: Sequence[type[Metric]], device: torch.device) -> OpenedMetrics:
    """Open metrics whose networks are on this machine."""
    opened, networks = OpenedMetrics([]), dict[str, nn.Module | None]()
    for kind in kinds:
        if reason := kind.unavailable():
            opened.missing[kind.name] = reason
            continue
        if kind.needs not in networks:
            network = kind.open_network()
            networks[kind.needs] = network.to(device) if network is not None else None
        opened.metrics.append(kind(networks[kind.needs]))
    return opened


def _settled(
    options: Options,
    recorded: Settings | None,
    sources: Sequence[str | Path],
    tokenizers: Sequence[NamedTokenizer],
    weights: dict[str, str],
    *,
    one_core: bool,
) -> tuple[Settings, Units]:
    """Decide every option and cut the sources into units."""
    known = recorded.model_dump() if recorded else {}
    batch_size = first_given(options.get("batch_size"), known.get("batch_size"), 16)
    unit_size = first_given(options.get("unit_size"), known.get("unit_size"), default_unit_size(batch_size))
    for name, number in (("--batch-size", batch_size), ("--unit-size", unit_size)):
        if number < 1:
            raise ConfigError(f"{name} {number}: expected 1 or more")
    reading = reading_of(options.get("reading"), recorded)
    limit = options.get("limit") if options.get("limit") is not None else known.get("limit")
    stream = options.get("stream", False)
    units = units_of(
        sources,
        reading=reading,
        stream=stream,
        unit_size=unit_size,
        limit=limit,
        failures=options.get("max_shard_failures", 0),
    )
    settings = Settings(
        size=_size(options, recorded, tokenizers),
        precision=first_given(options.get("precision"), known.get("precision"), "fp32"),
        device="cuda" if tokenizers[0].tokenizer.device.type == "cuda" else "cpu",
        batch_size=batch_size,
        one_core=one_core,
        unit_size=unit_size,
        limit=limit,
        streamed=is_streamed(sources, stream),
        images=units.fingerprint,
        rules=reading.rules,
        max_pixels=reading.max_pixels,
        salvage_images=reading.salvage_images,
        metrics=weights,
        versions=versions(),
    )
    return settings, units


def _check_alike(settings: Settings, processes: Processes) -> None:
    """Raise ConfigError on all processes where one would measure something else than the first."""
    all_settings = [Settings.model_validate(each) for each in processes.gather(settings.model_dump(mode="json"))]
    for rank, theirs in enumerate(all_settings):
        if found := difference(all_settings[0], theirs):
            error = ConfigError(f"rank 0 has {found.replace('this call', f'rank {rank}')}; give all the same")
            error.reported = not processes.first
            raise error
