"""The folder of an evaluation: its settings, the parts that have been measured, and the results.

evaluation.json                    the settings, written once
PROTOCOL/TOKENIZER/00012.safetensors    the part of unit 12; TOKENIZER begins the SHA-256 of its files
PROTOCOL/TOKENIZER/00012.json      its times, on which nothing relies
results.json                       the results, written when no unit is missing

Files are the truth: a unit is done when its part is there, and each file appears whole or not at all. So processes can
share a folder, and a call that was killed goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from imtok.errors import ConfigError, disk_errors
from imtok.evaluation.result import RESULTS, Result, read_results, results_to_bytes
from imtok.evaluation.settings import Settings, difference
from imtok.files import check_locks, publish_once, sweep_temporaries, write_atomically

SETTINGS = "evaluation.json"
_FORMAT, _VERSION = "imtok-evaluation", 1


class Cell(NamedTuple):
    """One tokenizer under one protocol."""

    protocol: str
    tokenizer: str  # SHA-256 of its files


class Times(NamedTuple):
    """Seconds that the networks computed, summed over the batches that ran beside each other."""

    encode: float = 0.0
    decode: float = 0.0
    images: int = 0
    beside: int = 1  # batches that ran beside each other

    def plus(self, other: Times) -> Times:
        """Add the seconds and images of `other`."""
        return Times(self.encode + other.encode, self.decode + other.decode, self.images + other.images, other.beside)


class PartsInMemory:
    """The parts of an evaluation that saves nothing."""

    def __init__(self) -> None:
        self._parts: dict[tuple[Cell, int], bytes] = {}
        self._times: dict[tuple[Cell, int], Times] = {}

    def name(self, cell: Cell, unit: int) -> str:
        """Name a part for a person."""
        return f"unit {unit} of {cell.protocol}"

    def has(self, cell: Cell, unit: int) -> bool:
        """Say whether a unit has been measured."""
        return (cell, unit) in self._parts

    def put(self, cell: Cell, unit: int, data: bytes, times: Times) -> None:
        """Keep the part of a unit."""
        self._parts[cell, unit], self._times[cell, unit] = data, times

    def get(self, cell: Cell, unit: int) -> bytes:
        """Return the part of a unit."""
        return self._parts[cell, unit]

    def times(self, cell: Cell, unit: int) -> Times:
        """Return the times of a unit."""
        return self._times[cell, unit]


class EvaluationFolder:
    """The parts of an evaluation in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def recorded(self) -> Settings | None:
        """Read the settings, None where the folder is still to be made.

        Raises ConfigError where the folder holds other files or its settings cannot be read.
        """
        file = self.path / SETTINGS
        if not file.exists():
            if self.path.exists() and not self.path.is_dir():
                raise ConfigError(f"{self.path}: a file, expected a folder for the evaluation; give another name")
            if self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
                raise ConfigError(f"{self.path}: holds files and is no evaluation; give an empty or a new folder")
            return None
        try:
            content = json.loads(file.read_bytes())
            if (content.pop("format"), content.pop("version")) != (_FORMAT, _VERSION):
                raise ValueError("of another format or version")
            return Settings.model_validate(content)
        except (ValueError, KeyError, AttributeError, TypeError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{file}: cannot be read ({reason}); give a new folder") from error

    def begin(self, settings: Settings) -> None:
        """Record the settings; raises ConfigError, naming both sides, where the folder was begun with others."""
        check_locks()
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        content = {"format": _FORMAT, "version": _VERSION, **settings.model_dump(mode="json")}
        if publish_once(self.path / SETTINGS, (json.dumps(content, indent=2) + "\n").encode()):
            return
        recorded = self.recorded()
        if recorded is not None and (found := difference(recorded, settings)):
            raise ConfigError(f"{self.path}: begun with {found}; repeat the options, or evaluate into another folder")
        sweep_temporaries(self.path)

    def name(self, cell: Cell, unit: int) -> str:
        """Name a part for a person."""
        return str(self._path(cell, unit))

    def has(self, cell: Cell, unit: int) -> bool:
        """Say whether a unit has been measured."""
        return self._path(cell, unit).exists()

    def put(self, cell: Cell, unit: int, data: bytes, times: Times) -> None:
        """Save the part of a unit whole; where another process was first, its part stands."""
        path = self._path(cell, unit)
        if publish_once(path, data):
            write_atomically(path.with_suffix(".json"), json.dumps(times._asdict()).encode(), durable=False)

    def get(self, cell: Cell, unit: int) -> bytes:
        """Read the part of a unit."""
        return self._path(cell, unit).read_bytes()

    def times(self, cell: Cell, unit: int) -> Times:
        """Read the times of a unit; none where a kill came before they were written."""
        try:
            return Times(**json.loads(self._path(cell, unit).with_suffix(".json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return Times()

    def write_results(self, results: Sequence[Result]) -> None:
        """Write results, in place of earlier ones of the same tokenizers and protocols."""
        path = self.path / RESULTS
        earlier = read_results(path) if path.exists() else []
        new = {(result.protocol_name, result.files_sha256): result for result in results}
        kept = {(result.protocol_name, result.files_sha256): result for result in earlier} | new
        write_atomically(path, results_to_bytes(list(kept.values())))

    def _path(self, cell: Cell, unit: int) -> Path:
        return self.path / cell.protocol / cell.tokenizer[:16] / f"{unit:05d}.safetensors"


Parts = PartsInMemory | EvaluationFolder
