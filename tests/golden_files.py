"""Files of golden numbers: how they are read, and how near each tensor must be met."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from imtok.quantizers import Quantizer

GOLDENS = Path(__file__).parent / "goldens"


@dataclass(frozen=True)
class Golden:
    """One file: tensors by name, the peer's configuration, and how near each tensor must be met."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    tolerance: dict[str, str]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def check(self, name: str, actual: Tensor) -> None:
        """`actual` is the tensor called `name`, within the file's own tolerance."""
        expected, stated = self.tensors[name], self.tolerance[name]
        if stated.startswith("exact"):
            assert torch.equal(actual.to(expected.dtype), expected), name
            return
        bounds = {key: float(value) for key, value in re.findall(r"(atol|rtol) ([\de.-]+)", stated.split("(")[0])[:2]}
        torch.testing.assert_close(
            actual,
            expected,
            atol=bounds.get("atol", 0.0),
            rtol=bounds.get("rtol", 0.0),
            msg=lambda text: f"{name}: {text}",
        )


def load(name: str, folder: str = "quantizers") -> Golden:
    """The file of that name in `folder` of `tests/goldens`: `quantizers` or `losses`."""
    with safe_open(GOLDENS / folder / f"{name}.safetensors", "pt") as file:
        about = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    return Golden(tensors, json.loads(about["config"]), json.loads(about["tolerance"]))


@dataclass(frozen=True)
class Step:
    """One forward and backward of J = loss + sum(grad * latents)."""

    latents: Tensor
    codes: Tensor
    losses: dict[str, Tensor]
    loss: Tensor
    grad_latents: Tensor
    grad_codebook: Tensor | None


def run(quantizer: Quantizer, latents: Tensor, grad: Tensor) -> Step:
    latents = latents.clone().requires_grad_()
    out = quantizer(latents)
    (out.loss + (grad * out.latents).sum()).backward()
    assert latents.grad is not None
    parameters = dict(quantizer.named_parameters())
    grad_codebook = parameters["codebook"].grad if parameters else None
    return Step(out.latents.detach(), out.codes, out.losses, out.loss.detach(), latents.grad, grad_codebook)


def as_grid(rows: Tensor) -> Tensor:
    """(B, N, D) -> (B, D, 1, N)."""
    return rows.transpose(1, 2).unsqueeze(2)


def as_rows(latents: Tensor) -> Tensor:
    """(B, D, 1, N) -> (B, N, D)."""
    return latents.squeeze(2).transpose(1, 2)
