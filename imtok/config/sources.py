"""Presets, YAML files and `--set` as nested mappings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from imtok.config.errors import did_you_mean
from imtok.config.loading import full_key, merge
from imtok.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Reads 1e5 as a number; YAML 1.1 takes it for text, as it has no dot."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


_EXAMPLE = "keys such as `images: 100000` and `quantizer: {kind: fsq, levels: [8,5,5,5]}`, each on its line"


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def preset_names() -> list[str]:
    """List the names that `--preset` takes; files that begin with `_` are bases of presets, and no presets."""
    files = (resources.files("imtok") / "presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if re.fullmatch(r"[^_].*\.yaml", file.name))


def preset_groups() -> dict[str, list[str]]:
    """Group the names by purpose.

    `cpu` trains in minutes on a CPU, `cpu-long` in an hour or more, `gpu` are published recipes, `quantizer` one each.
    """
    groups: dict[str, list[str]] = {"cpu": [], "cpu-long": [], "gpu": [], "quantizer": []}
    for name in preset_names():
        groups[_preset_file(name)["group"]].append(name)
    return groups


def preset(name: str) -> dict[str, Any]:
    """Return the mapping a preset stands for; raises ConfigError on an unknown name."""
    names = preset_names()
    if name not in names:
        raise ConfigError(f"--preset {name}: unknown, expected one of {', '.join(names)}{did_you_mean(name, names)}")
    return {key: value for key, value in _preset_file(name).items() if key not in ("about", "group")}


def preset_about(name: str) -> str:
    """Return the sentence that says what a preset is for."""
    return str(_preset_file(name)["about"])


def read_config_file(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file; raises ConfigError where there is none."""
    try:
        content = _read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); give a YAML file") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        place = f" at line {where.line + 1}, column {where.column + 1}" if where is not None else ""
        problem = getattr(error, "problem", None)
        found = f" ({problem})" if problem else ""
        raise ConfigError(f"{path}: not valid YAML{place}{found}; expected {_EXAMPLE}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds a {type(content).__name__}, expected {_EXAMPLE}")
    return content


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Parse `["tokenizer.quantizer.levels=[8,5,5,5]", …]` into the nested mapping it stands for.

    `quantizer.…`, `network.…` and `size` may leave out the leading `tokenizer.`.
    """
    result: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {setting}: expected key=value, for instance quantizer.levels=[8,5,5,5]")
        try:
            value = _read_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: the value is not valid YAML; quote it for the shell") from error
        for part in reversed(full_key(name.strip())):
            value = {part: value}
        result = merge(result, value, partial=True)
    return result


def _preset_file(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a preset's file, laid over the file that its `base` names, and so on."""
    assert name not in above, f"preset {name} has itself for a base"
    text = (resources.files("imtok") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    values = dict(_read_yaml(text))
    base = values.pop("base", None)
    return merge(_preset_file(base, (*above, name)), values) if base else values
