"""Where to compute, in what precision, on how many cores: `auto` made definite."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Literal

import torch

from imtok.errors import ConfigError

Precision = Literal["fp32", "bf16"]


# Images a batch in encoding and decoding, by type of device, where none is asked for.
BATCH_SIZE = {"cpu": 16, "cuda": 64}


def usable_cores() -> int:
    """CPU cores this process may use: its affinity, and no more than a container's quota (cgroup v2) grants."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or no quota: "max 100000"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def resolve_device(name: str) -> torch.device:
    """`auto` -> a GPU where there is one, else the CPU; raises ConfigError on a device that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name}: not a device; expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name}: not supported; expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name}: no CUDA device is usable here; leave --device out to use the CPU")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name}: this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    return device


def fast_precision(device: torch.device) -> Precision:
    """bf16 where the device multiplies it faster than fp32 (1.7 times on CPUs with AVX-512 BF16), else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """The autocast a precision stands for; fp32 switches any surrounding one off."""
    context: AbstractContextManager[None] = torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
    )
    return context


def repeatable(device: torch.device) -> AbstractContextManager[None]:
    """Within the block cuDNN repeats its results bit for bit, and fp32 is not quietly computed in TF32."""
    if device.type != "cuda":
        return nullcontext()
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return context
