"""A published checkpoint as it was read: tensors under their published names, and the configuration beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name, each read from its file whenever it is used: of a large model only a part is needed."""

    def __init__(self, readers: Mapping[str, Callable[[], Tensor]]) -> None:
        self.readers = dict(readers)

    def __getitem__(self, name: str) -> Tensor:
        return self.readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self.readers

    def __iter__(self) -> Iterator[str]:
        return iter(self.readers)

    def __len__(self) -> int:
        return len(self.readers)


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds, before anything is known of its family.

    Where the file has an exponential moving average of the weights (`ema` beside `model`, or `model_ema.*` among
    them), `tensors` are its values under the names of the weights, unless the caller requested the weights as trained.
    """

    path: Path
    tensors: Mapping[str, Tensor]  # by published name, without the names of containers such as `state_dict`
    settings: Mapping[str, Any] = field(default_factory=dict)  # its configuration file; empty where there is none
    entries: Mapping[str, Any] = field(default_factory=dict)  # other inert entries, such as LlamaGen's `args`
    sha256: str = ""
    source: str = ""  # name of the file, or the address on the Hub
    revision: str = ""  # commit on the Hub
    settings_path: Path | None = None  # the configuration file
    averaged: bool = False  # the tensors are the moving average
    set_aside: Mapping[str, int] = field(default_factory=dict)  # what of the file is no tokenizer: name, how many

    def below(self, prefix: str) -> Checkpoint:
        """Return the part whose names begin with `prefix`, without it; all others are set aside as one."""
        if not prefix:
            return self
        part = LazyTensors(
            {
                name.removeprefix(prefix): lambda name=name: self.tensors[name]  # type: ignore[misc]
                for name in self.tensors
                if name.startswith(prefix)
            }
        )
        others = len(self.tensors) - len(part)
        aside = {**self.set_aside, f"tensors outside {prefix}*": others} if others else self.set_aside
        return replace(self, tensors=part, set_aside=aside)

    def with_settings(self, settings: Mapping[str, Any]) -> Checkpoint:
        """Return the same tensors with other settings, such as a part of these."""
        return replace(self, settings=settings)
