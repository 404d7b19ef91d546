"""Configuration files of published checkpoints: YAML or JSON, named by the caller or found beside the weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from imtok.errors import TokenizerError

_SUFFIXES = (".yaml", ".yml", ".json")
_NAMES = ("config", "model")
_LONGEST_JSON = 2**24  # bytes; a whole model's configuration may hold its vocabulary
_LONGEST_YAML = 2**18  # bytes; some numbers of YAML take time that grows with the square of their length
_MOST_VALUES = 100_000  # names of YAML may stand for each other, so that a few lines become any number of values


def find_settings(path: Path) -> Path | None:
    """Return the configuration file of a checkpoint (a file, or the folder that holds it); None where there is none.

    It is `config.*`, `model.*` or named as the weights are, in YAML or JSON; else the only YAML file of the folder;
    else that of taming's folders, `../configs/model.yaml` or `../configs/*-project.yaml`.
    """
    folder = path if path.is_dir() else path.parent
    stems = _NAMES if path.is_dir() else (path.stem, *_NAMES)
    for stem in stems:
        for suffix in _SUFFIXES:
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    configs = folder.parent / "configs"
    return (
        _only([*folder.glob("*.yaml"), *folder.glob("*.yml")])
        or _only([configs / "model.yaml"])
        or _only(configs.glob("*project.yaml"))
    )


def _only(files: Iterable[Path]) -> Path | None:
    found = [file for file in files if file.is_file()]
    return found[0] if len(found) == 1 else None


def read_settings(path: Path) -> Mapping[str, Any]:
    """Read a configuration file as plain data; raises TokenizerError where it holds anything but names and values."""
    try:
        longest = _LONGEST_JSON if path.suffix == ".json" else _LONGEST_YAML
        with path.open("rb") as file:
            text = file.read(longest + 1)
    except OSError as error:
        raise TokenizerError(
            f"{path}: cannot be read ({error.strerror}); name the checkpoint's configuration"
        ) from error
    if len(text) > longest:
        raise TokenizerError(f"{path}: is longer than {longest:,} bytes, which no configuration is")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError, RecursionError) as error:
        first = " ".join(str(error).split())[:160]
        raise TokenizerError(f"{path}: is no configuration in YAML or JSON ({first}); copy it again") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise TokenizerError(f"{path}: holds no names with values; name the checkpoint's configuration by --config")
    if _is_too_long(content):
        raise TokenizerError(f"{path}: stands for more than {_MOST_VALUES:,} values, which no configuration does")
    return content


def _is_too_long(content: Any) -> bool:
    """Say whether a value holds more than `_MOST_VALUES`, those that occur several times counted each time."""
    waiting = [content]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return False
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
    return True
