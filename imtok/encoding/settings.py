"""The options that decide which tokens come out: asked for, recorded in the folder, or chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import PIL
import torch

from imtok.data.images import Fit
from imtok.devices import BATCH_SIZE, Precision, resolve_device
from imtok.encoding.inputs import Plan
from imtok.errors import ConfigError, TokensError
from imtok.tokenizer import Tokenizer
from imtok.tokens.folder import Numerics, TokensInfo
from imtok.version import __version__

_T = TypeVar("_T")

_UNIT_SIZE = 2048


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options as they were given; None adopts what the folder has recorded, or the default in a new one."""

    size: int | None
    fit: Fit | None
    device: str | None
    precision: Precision | None
    batch_size: int | None
    unit_size: int | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options made definite."""

    size: int
    fit: Fit
    device: torch.device
    precision: Precision
    batch_size: int
    unit_size: int


def settle(asked: Asked, recorded: TokensInfo | None, tokenizer: Tokenizer, folder: Path) -> Settings:
    """Decide every option.

    Raises TokensError where one was asked that differs from what `folder` has recorded, ConfigError where one cannot
    be met.
    """
    device = _device(asked, recorded, folder)
    known = _as_asked(recorded)

    def choose(name: str, wanted: _T | None, recorded: _T | None, default: _T) -> _T:
        if wanted is not None and recorded is not None and wanted != recorded:
            raise _differs(folder, name, recorded, wanted)
        return next(value for value in (wanted, recorded, default) if value is not None)

    size = choose("--size", asked.size, known.size, tokenizer.config.size)
    _check_size(size, tokenizer.downsample)
    fit: Fit = choose("--fit", asked.fit, known.fit, "crop")
    precision: Precision = choose("--precision", asked.precision, known.precision, "fp32")
    batch_size = choose("--batch-size", asked.batch_size, known.batch_size, BATCH_SIZE[device.type])
    unit_size = choose("--unit-size", asked.unit_size, known.unit_size, _UNIT_SIZE)
    _check_values(fit, precision, batch_size, unit_size)
    return Settings(size=size, fit=fit, device=device, precision=precision, batch_size=batch_size, unit_size=unit_size)


def describe(settings: Settings, tokenizer: Tokenizer, fingerprint: str, plan: Plan, plan_hash: str) -> TokensInfo:
    """What imtok.json records of a job."""
    side = settings.size // tokenizer.downsample
    return TokensInfo(
        fingerprint=fingerprint,
        codebook_size=tokenizer.num_codes,
        num_codebooks=tokenizer.num_codebooks,
        index_order=tokenizer.config.quantizer.index_order,
        grid=(side, side),
        downsample=tokenizer.downsample,
        size=settings.size,
        fit=settings.fit,
        numerics=Numerics(
            device="cuda" if settings.device.type == "cuda" else "cpu",
            precision=settings.precision,
            batch_size=settings.batch_size,
            threads=1,
            versions=_versions(),
        ),
        units=len(plan),
        unit_size=settings.unit_size,
        images=len(plan.sources.files),
        tars=len(plan.sources.containers),
        class_names=plan.class_names,
        plan=plan_hash,
    )


def check_tokenizer(recorded: TokensInfo, fingerprint: str, folder: Path) -> None:
    """Raise TokensError where the folder was begun with a tokenizer that makes other codes."""
    if recorded.fingerprint != fingerprint:
        raise _differs(folder, "tokenizer", recorded.fingerprint[:12], fingerprint[:12])


def check_machine(recorded: TokensInfo, folder: Path) -> None:
    """Raise TokensError where an unfinished folder cannot go on here as it was begun: the last bits would differ."""
    here = _versions()
    for name in ("torch", "pillow"):
        if (known := recorded.numerics.versions.get(name)) != here[name]:
            raise _differs(folder, name, known, here[name])
    if recorded.numerics.device == "cuda" and not torch.cuda.is_available():
        raise _differs(folder, "--device", "cuda", "no CUDA device")


def _as_asked(recorded: TokensInfo | None) -> Asked:
    if recorded is None:
        return Asked(size=None, fit=None, device=None, precision=None, batch_size=None, unit_size=None)
    numerics = recorded.numerics
    return Asked(
        size=recorded.size,
        fit=recorded.fit,
        device=numerics.device,
        precision=numerics.precision,
        batch_size=numerics.batch_size,
        unit_size=recorded.unit_size,
    )


def _device(asked: Asked, recorded: TokensInfo | None, folder: Path) -> torch.device:
    automatic = asked.device in (None, "auto")
    if recorded is None:
        return resolve_device("auto" if automatic else str(asked.device))
    if automatic:
        return torch.device(recorded.numerics.device)  # whether it is here matters only if there is work left
    device = resolve_device(str(asked.device))
    if device.type != recorded.numerics.device:
        raise _differs(folder, "--device", recorded.numerics.device, device.type)
    return device


def _versions() -> dict[str, str]:
    return {"imtok": __version__, "torch": str(torch.__version__), "pillow": PIL.__version__}


def _check_values(fit: str, precision: str, batch_size: int, unit_size: int) -> None:
    for name, value, choices in (("--fit", fit, ("crop", "pad")), ("--precision", precision, ("fp32", "bf16"))):
        if value not in choices:
            raise ConfigError(f"{name} {value}: expected {' or '.join(choices)}")
    for name, number in (("--batch-size", batch_size), ("--unit-size", unit_size)):
        if number < 1:
            raise ConfigError(f"{name} {number}: expected 1 or more")


def _check_size(size: int, downsample: int) -> None:
    if size < 1 or size % downsample:
        below, above = size // downsample * downsample, (size // downsample + 1) * downsample
        good = f"{below} or {above}" if below > 0 else str(above)
        raise ConfigError(f"--size {size}: no multiple of the tokenizer's downsampling {downsample}; take {good}")


def _differs(folder: Path, name: str, known: object, wanted: object) -> TokensError:
    return TokensError(
        f"{folder}: begun with {name} {known}, this call has {wanted}; go on with what it was begun with, or encode "
        "into another folder"
    )
