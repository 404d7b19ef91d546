"""The import job: from a published checkpoint to a tokenizer folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imtok.config.origin import Origin
from imtok.errors import TokenizerError
from imtok.files import check_folder_target, sweep_temporaries, write_atomically
from imtok.interop.checkpoint import Checkpoint, LazyTensors
from imtok.interop.families import FAMILIES
from imtok.interop.family import Conversion, Family
from imtok.interop.fetching import fetched
from imtok.interop.loading import left_out, loaded
from imtok.interop.recognition import recognised
from imtok.interop.settings import find_settings, read_settings
from imtok.interop.weights import read_weights, sha256_of, weight_files
from imtok.tokenizer import Tokenizer

Progress = Callable[[int, int | None], None]  # MiB hashed, of how many


@dataclass(frozen=True)
class ImportReport:
    """The outcome of an import."""

    output: Path
    origin: Origin
    label: str  # of the family, as a person knows it
    tokenizer: Tokenizer
    settings_path: Path | None  # the configuration that was read; None where there is none
    averaged: bool  # the weights are an exponential moving average
    left_out: Mapping[str, int]  # what of the file serves no tokenizer, and how many tensors or entries of it
    assumed: tuple[str, ...]  # what no configuration says, a sentence each
    existed: bool  # the output held this tokenizer already


def import_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    *,
    config: str | Path | None = None,
    family: str | None = None,
    license: str = "",  # noqa: A002  (the name of the field, and of the option)
    ema: bool = True,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a published checkpoint, a file, a folder or an address of the Hub, as the tokenizer folder `output`.

    `config` is its configuration file, which is otherwise looked for beside it; `family` names the published family,
    otherwise recognised by the keys; `license` is recorded. `ema` takes the moving average of the weights where
    the file has one. Nothing in the file is run. Raises TokenizerError, in one line, where the file cannot be read,
    belongs to no family or does not fit its configuration, and where `output` holds anything else; HubError where an
    address cannot be fetched.
    """
    output = Path(output)
    check_output(output)
    read = read_checkpoint(checkpoint, config=config, ema=ema, progress=progress)
    chosen, part = recognised(read, FAMILIES, family)
    conversion = _converted(chosen, part)
    origin = Origin(
        family=chosen.name,
        source=read.source,
        revision=read.revision,
        sha256=read.sha256,
        license=license,
        no_decoder=conversion.no_decoder,
    )
    tokenizer = loaded(chosen, part, conversion)
    tokenizer.config = conversion.config.model_copy(update={"origin": origin})
    existed = write_tokenizer(tokenizer, output)
    return ImportReport(
        output=output,
        origin=origin,
        label=chosen.label,
        tokenizer=tokenizer,
        settings_path=part.settings_path,
        averaged=part.averaged,
        left_out={**part.set_aside, **left_out(part, conversion)},
        assumed=conversion.assumed,
        existed=existed,
    )


def read_checkpoint(
    checkpoint: str | Path,
    *,
    config: str | Path | None = None,
    ema: bool = True,
    progress: Progress | None = None,
) -> Checkpoint:
    """Read a published checkpoint, a file, a folder or an address, with the configuration named or found beside it.

    Tensors are read from the file when they are first used. Raises TokenizerError as `import_checkpoint` does.
    """
    found = fetched(checkpoint)
    path = found.path
    files = weight_files(path)
    weights = read_weights(files, ema=ema)
    settings_path = find_settings(path) if config is None else Path(config)
    settings = {} if settings_path is None else read_settings(settings_path)
    if settings.get("format") == "imtok-tokenizer":
        raise TokenizerError(f"{path}: is a tokenizer of imtok already; use it as it is, for instance by -t {path}")
    return Checkpoint(
        path=path,
        tensors=LazyTensors(weights.readers),
        settings=settings,
        entries=weights.entries,
        sha256=sha256_of(files, progress),
        source=found.source,
        revision=found.revision,
        settings_path=settings_path,
        averaged=weights.averaged,
        set_aside=weights.set_aside,
    )


def _converted(family: Family, checkpoint: Checkpoint) -> Conversion:
    """Convert a checkpoint; whatever its shapes or settings break in a family is a finding about the checkpoint."""
    try:
        return family.convert(checkpoint)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        found = f"{type(error).__name__}: {error}"[:200]
        raise TokenizerError(
            f"{checkpoint.path}: its tensors or settings are not those of {family.label} ({' '.join(found.split())}); "
            "name its configuration by --config"
        ) from error


def check_output(output: Path) -> None:
    """Raise TokenizerError or OSError where no tokenizer could be written to `output`; nothing is made."""
    check_folder_target(output)
    others = _entries(output) - set(_FILES)
    if others:
        raise TokenizerError(f"{output}: holds {min(others)}, expected a new folder; give another name")


def write_tokenizer(tokenizer: Tokenizer, output: Path) -> bool:
    """Write a tokenizer folder; True where `output` holds the same tokenizer already.

    The configuration comes last, so that a folder is a tokenizer when it is whole. Raises TokenizerError where
    `output` holds another tokenizer.
    """
    check_output(output)
    files = tokenizer.files()
    if output.is_dir():
        sweep_temporaries(output)
    there = _entries(output)
    for name in sorted(there):
        if (output / name).read_bytes() != files[name]:
            raise TokenizerError(f"{output}: holds another tokenizer ({name} differs); give another name")
    for name in _FILES:
        if name not in there:
            write_atomically(output / name, files[name])
    return there == set(_FILES)


_FILES = ("model.safetensors", "config.json")  # in the order in which they are written


def _entries(folder: Path) -> set[str]:
    """The names in a folder but for temporaries; none where there is no folder."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".tmp-")} if folder.is_dir() else set()
