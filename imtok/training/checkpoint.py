"""Checkpoints as bytes: tensors and facts in one safetensors file that knows its own hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

_FACTS, _HASH = "imtok", "sha256"


def pack(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """The file: tensors by name, and facts that JSON can hold."""
    cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(facts, sort_keys=True)
    return safetensors.torch.save(cpu, {_FACTS: text, _HASH: _digest(cpu, text)})


def unpack(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `pack` was given; raises SafetensorError, ValueError or KeyError on bytes that are not what it wrote."""
    tensors = safetensors.torch.load(data)
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    if _digest(tensors, metadata[_FACTS]) != metadata[_HASH]:
        raise ValueError("its content does not have the hash it was written with")
    facts: dict[str, Any] = json.loads(metadata[_FACTS])
    return tensors, facts


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
