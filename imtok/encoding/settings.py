"""The options that decide the tokens: requested by the caller, recorded in the folder, or a default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, cast, get_args

import PIL
import torch

from imtok.data.augmentation import Augmentation, parse_augmentation
from imtok.data.images import Fit
from imtok.data.labels.origin import LabelChoice
from imtok.data.reading import MAX_PIXELS, RULES, Reading, Rules
from imtok.devices import BATCH_SIZE, Precision, resolve_device
from imtok.encoding.inputs import Plan, PlanPart
from imtok.errors import ConfigError, TokensError
from imtok.networks.record import NetworkRecord
from imtok.tokenizer import Tokenizer
from imtok.tokens.folder import TokensInfo
from imtok.tokens.plan import Extension, Numerics
from imtok.tokens.store import Store
from imtok.version import __version__

_T = TypeVar("_T")

_UNIT_SIZE = 2048


@dataclass(frozen=True, kw_only=True)
class Requested:
    """Options of a call; None adopts the value that the folder has recorded, or the default in a new folder."""

    size: int | None
    fit: Fit | None
    device: str | None
    precision: Precision | None
    batch_size: int | None
    unit_size: int | None
    labels: LabelChoice | None = None
    max_pixels: int | None = None
    salvage_images: bool | None = None
    rules: Rules | None = None
    augment: str | None = None  # as `parse_augmentation` takes it
    augment_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options with every choice made."""

    size: int
    fit: Fit
    device: torch.device
    precision: Precision
    batch_size: int
    unit_size: int
    labels: LabelChoice
    reading: Reading
    augmentation: Augmentation


def settle(requested: Requested, recorded: TokensInfo | None, tokenizer: Tokenizer, store: Store) -> Settings:
    """Decide every option.

    Raises TokensError where a requested option differs from the one that `folder` has recorded, ConfigError where an
    option cannot be met.
    """
    device = _device(requested, recorded, store)
    known = _as_requested(recorded)

    def choose(name: str, requested: _T | None, recorded: _T | None, default: _T) -> _T:
        if requested is not None and recorded is not None and requested != recorded:
            raise _differs(store, name, recorded, requested)
        return next(value for value in (requested, recorded, default) if value is not None)

    size = choose("--size", requested.size, known.size, tokenizer.config.size)
    check_size(size, tokenizer.config.network)
    fit: Fit = choose("--fit", requested.fit, known.fit, "crop")
    precision: Precision = choose("--precision", requested.precision, known.precision, "fp32")
    batch_size = choose("--batch-size", requested.batch_size, known.batch_size, BATCH_SIZE[device.type])
    unit_size = choose("--unit-size", requested.unit_size, known.unit_size, _UNIT_SIZE)
    check_values(fit, precision, batch_size, unit_size)
    asked = None if requested.augment is None else parse_augmentation(requested.augment).name
    augmentation = parse_augmentation(
        choose("--augment", asked, known.augment, "none"),
        choose("--augment-seed", requested.augment_seed, known.augment_seed, 0),
    )
    augmentation.check(size, fit)
    if augmentation.kind != "random-crops" and requested.augment_seed is not None:
        raise ConfigError(f"--augment-seed {requested.augment_seed}: only random-crops are drawn; leave it out")
    return Settings(
        size=size,
        fit=fit,
        device=device,
        precision=precision,
        batch_size=batch_size,
        unit_size=unit_size,
        labels=choose("--labels", None if requested.labels == "auto" else requested.labels, known.labels, "auto"),
        reading=Reading(
            rules=choose("--rules", requested.rules, _known_rules(recorded, store), RULES),
            max_pixels=choose("--max-pixels", requested.max_pixels, known.max_pixels, MAX_PIXELS),
            salvage_images=choose("--salvage-images", requested.salvage_images, known.salvage_images, False),
        ),
        augmentation=augmentation,
    )


def _known_rules(recorded: TokensInfo | None, store: Store) -> Rules | None:
    """Return the rules that a folder was begun with; raises TokensError where this imtok does not know them."""
    if recorded is None:
        return None
    for rules in get_args(Rules):
        if rules == recorded.rules:
            return cast(Rules, rules)
    raise TokensError(
        f"{store}: begun with rules {recorded.rules} for its images, this imtok knows 1 to {RULES}; update it"
    )


def describe(settings: Settings, tokenizer: Tokenizer, fingerprint: str, plan: Plan, plan_hash: str) -> TokensInfo:
    """Return the record of a job for imtok.json."""
    augmentation = settings.augmentation
    augmented = augmentation.kind != "none"
    return TokensInfo(
        version=3 if augmented else 2,
        rules=settings.reading.rules,
        fingerprint=fingerprint,
        codebook_size=tokenizer.num_codes,
        num_codebooks=tokenizer.num_codebooks,
        index_order=tokenizer.config.quantizer.index_order,
        grid=tokenizer.config.network.grid(settings.size, settings.size),
        downsample=tokenizer.downsample,
        size=settings.size,
        fit=settings.fit,
        numerics=_numerics(settings),
        units=len(plan),
        unit_size=settings.unit_size,
        images=len(plan.sources.files),
        tars=len(plan.sources.containers),
        labels=plan.labels.source,
        class_names=plan.labels.class_names,
        max_pixels=settings.reading.max_pixels,
        salvage_images=settings.reading.salvage_images,
        augment=augmentation.name if augmented else None,
        augment_seed=augmentation.seed,
        num_crops=augmentation.num_crops,
        plan=plan_hash,
    )


def describe_extension(settings: Settings, part: PlanPart, recorded: TokensInfo, plan: Plan) -> Extension:
    """Return the record of inputs that came later; its `entries` are left open."""
    known = recorded.all_class_names
    return Extension(
        number=len(recorded.extensions) + 1,
        first_unit=part.first_unit,
        units=len(part),
        images=len(part.files),
        tars=len(part.containers),
        class_names=plan.labels.class_names[len(known) :],
        rules=settings.reading.rules,
        numerics=_numerics(settings),
        entries="",
    )


def check_tokenizer(recorded: TokensInfo, fingerprint: str, store: Store) -> None:
    """Raise TokensError where another tokenizer, of other codes, began the folder."""
    if recorded.fingerprint != fingerprint:
        raise _differs(store, "tokenizer", recorded.fingerprint[:12], fingerprint[:12])


def check_machine(recorded: TokensInfo, parts: set[int], store: Store) -> None:
    """Raise TokensError where this machine would encode the rest of these parts with other last bits."""
    here = _versions()
    for part in sorted(parts):
        numerics = recorded.extensions[part - 1].numerics if part else recorded.numerics
        for name in ("torch", "pillow"):
            if (known := numerics.versions.get(name)) != here[name]:
                raise _differs(store, name, known, here[name])
        if numerics.device == "cuda" and not torch.cuda.is_available():
            raise _differs(store, "--device", "cuda", "no CUDA device")


def _as_requested(recorded: TokensInfo | None) -> Requested:
    if recorded is None:
        return Requested(size=None, fit=None, device=None, precision=None, batch_size=None, unit_size=None)
    numerics = recorded.numerics
    return Requested(
        size=recorded.size,
        fit=recorded.fit,
        device=numerics.device,
        precision=numerics.precision,
        batch_size=numerics.batch_size,
        unit_size=recorded.unit_size,
        labels=recorded.labels or _labels_of_version_1(recorded),
        max_pixels=recorded.max_pixels or MAX_PIXELS,
        salvage_images=recorded.salvage_images,
        augment=recorded.augment or "none",
        augment_seed=recorded.augment_seed,
    )


def _labels_of_version_1(recorded: TokensInfo) -> LabelChoice:
    if recorded.class_names:
        return "folders"
    return "cls" if recorded.tars else "none"


def _device(requested: Requested, recorded: TokensInfo | None, store: Store) -> torch.device:
    automatic = requested.device in (None, "auto")
    if recorded is None:
        return resolve_device("auto" if automatic else str(requested.device))
    if automatic:
        return torch.device(recorded.numerics.device)  # its presence matters only where work is left
    device = resolve_device(str(requested.device))
    if device.type != recorded.numerics.device:
        raise _differs(store, "--device", recorded.numerics.device, device.type)
    return device


def _numerics(settings: Settings) -> Numerics:
    return Numerics(
        device="cuda" if settings.device.type == "cuda" else "cpu",
        precision=settings.precision,
        batch_size=settings.batch_size,
        threads=1,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    return {"imtok": __version__, "torch": str(torch.__version__), "pillow": PIL.__version__}


def check_values(fit: str, precision: str, batch_size: int, unit_size: int) -> None:
    """Raise ConfigError on a value that no job can have."""
    for name, value, choices in (("--fit", fit, ("crop", "pad")), ("--precision", precision, ("fp32", "bf16"))):
        if value not in choices:
            raise ConfigError(f"{name} {value}: expected {' or '.join(choices)}")
    for name, number in (("--batch-size", batch_size), ("--unit-size", unit_size)):
        if number < 1:
            raise ConfigError(f"{name} {number}: expected 1 or more")


def check_size(size: int, network: NetworkRecord) -> None:
    """Raise ConfigError where the network takes no squares of `size` pixels."""
    downsample = network.downsample
    if downsample is None:
        if not network.takes(size, size):
            raise ConfigError(f"--size {size}: the tokenizer takes images of {network.sizes}; leave out --size")
    elif size < 1 or size % downsample:
        below, above = size // downsample * downsample, (size // downsample + 1) * downsample
        good = f"{below} or {above}" if below > 0 else str(above)
        raise ConfigError(f"--size {size}: no multiple of the tokenizer's downsampling {downsample}; take {good}")


def _differs(store: Store, name: str, known: object, requested: object) -> TokensError:
    return TokensError(
        f"{store}: begun with {name} {known}, this call has {requested}; repeat the options it was begun with, or "
        "encode into another folder"
    )
