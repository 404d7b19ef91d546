"""From a conversion to a tokenizer: every tensor accounted for, by its published name, before any is used."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.family import Conversion, Family
from imtok.interop.skeleton import skeleton
from imtok.quantizers.base import FLAGS
from imtok.tokenizer import Tokenizer

_SHOWN = 4  # names in a message
_LONGEST = 160  # characters of each
# Parts of published checkpoints that serve training alone, by the first names of their tensors.
_EXTRAS = ("loss", "discriminator", "disc", "perceptual_loss", "lpips", "perceptual", "optimizer", "teacher_model")
_COUNTERS = ("num_batches_tracked", "codebook_used")  # of batch norms, and LlamaGen's record of used codes


def loaded(family: Family, checkpoint: Checkpoint, conversion: Conversion) -> Tokenizer:
    """Build the tokenizer of a conversion and load its weights, in eval mode.

    Raises TokenizerError, which names the tensors as they are published, where some are missing or left over, or where
    a shape or a value does not fit.
    """
    like = skeleton(conversion.config)
    _check_names(family, checkpoint, conversion, like)
    state = {}
    misfits = []
    for name, expected in like.items():
        published = conversion.published.get(name)
        if published is None:
            state[name] = conversion.made[name] if name in conversion.made else torch.ones(expected.shape)
            continue
        found = checkpoint.tensors[published]
        if _squeezed(found) != _squeezed(expected):
            misfits.append(f"{published} is {tuple(found.shape)}, expected {tuple(expected.shape)}")
        elif not misfits:
            state[name] = _cast(found, expected, f"{checkpoint.path}: {published}")
    if misfits:
        raise TokenizerError(
            f"{checkpoint.path}: {_listed(misfits, '; ')} by {_source(checkpoint)}; name its configuration by --config"
        )
    with torch.random.fork_rng(devices=[]):
        tokenizer = Tokenizer(conversion.config)
    try:
        tokenizer.load_state_dict(state)
    except RuntimeError as error:
        raise TokenizerError(f"{checkpoint.path}: {' '.join(str(error).split())[:300]}") from error
    return tokenizer.eval().requires_grad_(False)


def left_out(checkpoint: Checkpoint, conversion: Conversion) -> dict[str, int]:
    """Count the tensors that serve no tokenizer, by the part of the checkpoint that they belong to."""
    unused = set(checkpoint.tensors) - set(conversion.published.values()) - set(conversion.read)
    return dict(sorted(Counter(map(_part_of, unused)).items()))


def _part_of(name: str) -> str:
    first, last = name.partition(".")[0], name.rpartition(".")[2]
    if first in _EXTRAS:
        return f"{first}.*"
    return last if last in _COUNTERS else name[:_LONGEST]


def _check_names(family: Family, checkpoint: Checkpoint, conversion: Conversion, like: dict[str, Tensor]) -> None:
    missing = [name for name in dict.fromkeys(conversion.published.values()) if name not in checkpoint.tensors]
    if missing:
        raise TokenizerError(
            f"{checkpoint.path}: lacks {_listed(missing)}, which {family.label} has by {_source(checkpoint)}; name its "
            "configuration by --config, or download the file again"
        )
    known = {*conversion.published.values(), *conversion.skipped, *conversion.read}
    surplus = [name for name in checkpoint.tensors if name not in known and not _is_extra(name)]
    if surplus:
        raise TokenizerError(
            f"{checkpoint.path}: has {_listed(surplus)}, which {family.label} has not by {_source(checkpoint)}; name "
            "its configuration by --config"
        )
    unset = [name for name in like if name not in conversion.published and name not in conversion.made]
    unset = [name for name in unset if name.rpartition(".")[2] not in FLAGS]
    if unset:
        raise TokenizerError(
            f"{checkpoint.path}: has nothing for {_listed(unset)} of the network that {_source(checkpoint)} describes; "
            "name its configuration by --config"
        )


def _is_extra(name: str) -> bool:
    return name.partition(".")[0] in _EXTRAS or name.rpartition(".")[2] in _COUNTERS


def _source(checkpoint: Checkpoint) -> str:
    """Name what the shape of the network was read from."""
    return checkpoint.settings_path.name if checkpoint.settings_path is not None else "its other tensors"


def _squeezed(tensor: Tensor) -> list[int]:
    """Return the shape without axes of length 1: a linear layer is a convolution of 1 x 1."""
    return [length for length in tensor.shape if length != 1]


def _cast(found: Tensor, expected: Tensor, place: str) -> Tensor:
    if found.is_floating_point() != expected.is_floating_point():
        raise TokenizerError(f"{place} is {found.dtype}, expected {expected.dtype}; take the file in full precision")
    values = found.to(expected.dtype).reshape(expected.shape)
    if values.is_floating_point() and not math.isfinite(float(values.abs().max() if values.numel() else 0)):
        raise TokenizerError(f"{place} has values that are not finite; download the file again")
    return values


def _listed(names: Iterable[str], between: str = ", ") -> str:
    """Name the first few, and count the others; names of a stranger may be long."""
    every = [f"{name[:_LONGEST]}..." if len(name) > _LONGEST else name for name in names]
    others = f" and {len(every) - _SHOWN} others" if len(every) > _SHOWN else ""
    return between.join(every[:_SHOWN]) + others
