"""The part of a measurement that one unit gives for one entry under one protocol, and its form on disk.

Its bytes depend on the unit, the entry and the settings alone, so times are left to the caller. A part is one
safetensors file; nothing is pickled.
"""

# Axes: n images of a unit that can be read, C codes that occur in it.

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from imtok.errors import ConfigError
from imtok.evaluation.measuring import Batch
from imtok.evaluation.quality import Measurement

_HEADER = "imtok-evaluation"
_VERSION = 1


@dataclass
class Part:
    """Measurement of the images of a unit, or of several units in their order, with facts about these images."""

    measurement: Measurement
    inputs: int = 0  # unreadable images included
    listed: int = 0  # of these, those that the list names; the others a shard names but does not hold
    positions: list[int] = field(default_factory=list)  # (n,) of the readable images in their unit
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (n,) heights and widths before they became squares
    file_bytes: list[int] = field(default_factory=list)  # (n,) of a codec's files, none of a tokenizer
    digests: list[int] = field(default_factory=list)  # (n,) 8 bytes of the SHA-256 of each encoded image

    def add(self, batch: Batch, measurement: Measurement, file_bytes: Sequence[int] = ()) -> None:
        """Add a measured batch of the unit."""
        self.file_bytes += file_bytes
        self.measurement.merge(measurement)
        self.positions += batch.positions
        self.sizes += batch.sizes
        self.digests += batch.digests

    def merge(self, other: Part) -> None:
        """Append the part of the next unit; its positions count on from those before."""
        self.measurement.merge(other.measurement)
        self.positions += [self.listed + position for position in other.positions]
        self.sizes += other.sizes
        self.digests += other.digests
        self.file_bytes += other.file_bytes
        self.inputs += other.inputs
        self.listed += other.listed


def part_to_bytes(part: Part, unit: int) -> bytes:
    """Return the part of a unit as the bytes of its file."""
    measurement = part.measurement
    books, codes = np.nonzero(measurement.counts)
    tensors: dict[str, Tensor] = {
        "positions": torch.tensor(part.positions, dtype=torch.int64),
        "sizes": torch.tensor(part.sizes, dtype=torch.int32).reshape(-1, 2),
        "digests": torch.tensor(part.digests, dtype=torch.int64),
        "file_bytes": torch.tensor(part.file_bytes, dtype=torch.int64),
        "codes": torch.from_numpy(np.stack([books, codes]).astype(np.int64)),  # (2, C)
        "code_counts": torch.from_numpy(measurement.counts[books, codes]),  # (C,)
    }
    for metric in measurement.metrics:
        tensors |= {f"metrics/{metric.name}/{name}": rows.contiguous() for name, rows in metric.state().items()}
    header = {
        "version": _VERSION,
        "unit": unit,
        "inputs": part.inputs,
        "listed": part.listed,
        "images": measurement.images,
        "exact": measurement.exact,
        "codebooks": list(measurement.counts.shape),
        "metrics": [metric.name for metric in measurement.metrics],
    }
    return safetensors.torch.save(tensors, {_HEADER: json.dumps(header, sort_keys=True)})


def part_from_bytes(data: bytes, empty: Measurement, unit: int, path: Path | str) -> Part:
    """Read a part of `unit` back into an empty measurement; raises ConfigError where it is damaged or another's."""
    try:
        tensors = safetensors.torch.load(data)
        header: dict[str, Any] = json.loads(_metadata(data)[_HEADER])
        found = header["unit"], header["codebooks"], header["metrics"]
        if found != (unit, list(empty.counts.shape), [metric.name for metric in empty.metrics]):
            raise ValueError("of another unit, tokenizer or list of metrics")
        for metric in empty.metrics:
            start = f"metrics/{metric.name}/"
            metric.restore({name.removeprefix(start): rows for name, rows in tensors.items() if name.startswith(start)})
        books, codes = tensors["codes"].numpy()
        empty.counts[books, codes] = tensors["code_counts"].numpy()
        empty.images, empty.exact = header["images"], header["exact"]
        return Part(
            empty,
            inputs=header["inputs"],
            listed=header["listed"],
            positions=tensors["positions"].tolist(),
            sizes=[(height, width) for height, width in tensors["sizes"].tolist()],
            digests=tensors["digests"].tolist(),
            file_bytes=tensors["file_bytes"].tolist(),
        )
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: damaged ({reason}); delete it and run the same command again") from error


def listed_in(data: bytes) -> int:
    """Return the number of images that the list of a unit names, from the bytes of its part."""
    return int(json.loads(_metadata(data)[_HEADER])["listed"])


def _metadata(data: bytes) -> dict[str, str]:
    """Read the texts in the header of a safetensors file: 8 bytes of its length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata
