"""Weights of a golden checkpoint that are not stored: every tensor is drawn from its name."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

_CHECKPOINTS = Path(__file__).parent / "goldens" / "checkpoints"


@dataclass(frozen=True)
class Golden:
    """What the published code returned for weights by the recipe."""

    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    config: dict[str, Any]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


def golden(name: str) -> Golden:
    """Return a file of `tests/goldens/checkpoints`, its weights rebuilt and their sum checked."""
    with safe_open(_CHECKPOINTS / f"{name}.safetensors", "pt") as file:
        about = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    weights = by_recipe(json.loads(about["shapes"]), json.loads(about["scales"]))
    total = sum(value.double().sum() for value in weights.values())
    torch.testing.assert_close(torch.as_tensor(total), tensors["check.sum"], rtol=1e-6, atol=1e-6)
    return Golden(weights, tensors, json.loads(about["config"]))


def by_recipe(shapes: dict[str, list[int]], scales: dict[str, float]) -> dict[str, Tensor]:
    """Draw each tensor from NumPy's generator seeded by the CRC of its name.

    Matrices are N(0, 1.3 / fan-in), weights of norms 1 + N(0, 0.15^2), running variances 1 + |N(0, 0.3^2)|, others
    N(0, 0.1^2). `scales` are standard deviations of tensors by name that say otherwise.
    """
    tensors = {}
    for name, shape in shapes.items():
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        if name in scales:
            values = values * scales[name]
        elif name.endswith("running_var"):
            values = 1 + abs(values) * 0.3
        elif len(shape) > 1:
            values = values * (1.3 / np.prod(shape[1:])) ** 0.5
        elif name.endswith(".weight"):
            values = 1 + values * 0.15
        else:
            values = values * 0.1
        tensors[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return tensors
