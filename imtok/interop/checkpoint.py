"""A published checkpoint as it was read: tensors under their published names, and the configuration beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds, before anything is known of its family."""

    path: Path
    tensors: Mapping[str, Tensor]  # by published name, without the names of containers such as `state_dict`
    settings: Mapping[str, Any] = field(default_factory=dict)  # its configuration file; empty where there is none
    entries: Mapping[str, Any] = field(default_factory=dict)  # other inert entries, such as LlamaGen's `args`
    sha256: str = ""
