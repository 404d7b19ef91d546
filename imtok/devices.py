"""Devices and precision: `auto` made definite, autocast, and deterministic results."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Literal

import torch
import torch.nn.functional as F

from imtok.errors import ConfigError
from imtok.kernels.nearest_coarse import bf16_products_decided

Precision = Literal["fp32", "bf16"]

_GAIN = 0.85  # share of the time in fp32 below which bf16 repays its rounding

# Images a batch in encoding and decoding by type of device, unless a size is given.
BATCH_SIZE = {"cpu": 16, "cuda": 64}


def resolve_device(name: str) -> torch.device:
    """Return the device of a name, for `auto` a GPU where there is one; raises ConfigError on a missing device."""
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
    """Choose bf16 on GPUs that have it and on CPUs where a residual block learns faster in it, else fp32.

    The instructions say little: with the same AVX-512 BF16 one processor trains 1.7 times as fast and another at 0.7 of
    the speed. So the CPU is timed, for a quarter of a second.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if not torch.cpu._is_avx512_bf16_supported():
        return "fp32"
    # Both are timed in turn, as other processes may compute too.
    bf16, fp32 = zip(*((_block_seconds("bf16"), _block_seconds("fp32")) for _ in range(8)), strict=True)
    return "bf16" if min(bf16) < _GAIN * min(fp32) else "fp32"


def _block_seconds(precision: Precision) -> float:
    """Time the forward and backward pass of a residual block on the CPU, in seconds."""
    values = torch.linspace(-1, 1, 8 * 64 * 24 * 24).sin().view(8, 64, 24, 24)  # no random numbers are drawn
    weight = torch.linspace(-0.04, 0.04, 64 * 64 * 9).view(64, 64, 3, 3).requires_grad_()
    start = time.perf_counter()
    with autocast(torch.device("cpu"), precision):
        hidden = F.silu(F.group_norm(F.conv2d(values, weight, padding=1), 16))
        loss = F.conv2d(hidden, weight, padding=1).float().mean()
    torch.autograd.grad(loss, weight)
    return time.perf_counter() - start


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Return the autocast of a precision; fp32 switches a surrounding one off."""
    context: AbstractContextManager[None] = torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
    )
    return context


def deterministic(device: torch.device, precision: Precision = "fp32") -> AbstractContextManager[None]:
    """Make results repeat bit for bit within the block, and compute fp32 on a GPU without TF32.

    On a CPU the search for codes uses bf16 products in the precision bf16 alone, and no timing decides it: a job that
    resumes another day must find the same codes.
    """
    if device.type != "cuda":
        return bf16_products_decided(precision == "bf16")
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return context
