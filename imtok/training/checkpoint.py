"""Checkpoints: what has state says how it is saved and restored, and all of it is one safetensors file with a hash.

Tensors keep their names in the file; numbers and texts become JSON beside them, in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor

_FACTS, _HASH = "imtok", "sha256"


class Stateful(Protocol):
    """Anything that must survive a restart; every `nn.Module` is one."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return everything by name: tensors, and values that JSON can hold."""

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any:
        """Go back to what `state_dict` returned; raises KeyError or RuntimeError on other names or shapes."""


class RandomState:
    """The state of torch's random generators: the CPU's, and the GPU's where the run is on one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def state_dict(self) -> dict[str, Tensor]:
        """Return the states by device."""
        states = {"cpu": torch.get_rng_state()}
        return states | {"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else states

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Set the generators."""
        torch.set_rng_state(state_dict["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state_dict["cuda"], self.device)


def collect(parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """Join the states of all parts; each name begins with its part's and a dot."""
    return {f"{part}.{name}": value for part, owner in parts.items() for name, value in owner.state_dict().items()}


def distribute(state: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
    """Give each part back what `collect` took from it, in the order of `parts`."""
    for part, owner in parts.items():
        owner.load_state_dict(under(state, f"{part}."))


def under(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the values whose names begin with `prefix`, named without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def pack(state: Mapping[str, Any]) -> bytes:
    """Write tensors, and values that JSON can hold, as one file."""
    cpu = {name: value.detach().cpu().contiguous() for name, value in state.items() if isinstance(value, Tensor)}
    text = json.dumps({name: value for name, value in state.items() if name not in cpu}, sort_keys=True)
    return safetensors.torch.save(cpu, {_FACTS: text, _HASH: _digest(cpu, text)})


def unpack(data: bytes) -> dict[str, Any]:
    """Read what `pack` wrote; raises SafetensorError, ValueError or KeyError on any other bytes."""
    tensors = safetensors.torch.load(data)
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    if _digest(tensors, metadata[_FACTS]) != metadata[_HASH]:
        raise ValueError("its content does not have the hash it was written with")
    facts: dict[str, Any] = json.loads(metadata[_FACTS])
    return tensors | facts


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
