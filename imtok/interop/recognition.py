"""Recognition: the family that a checkpoint belongs to, from its keys and its configuration."""

from __future__ import annotations

from collections.abc import Sequence

from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.family import Family

# Names before those of the tokenizer, where a file holds more than it: wrappers of training, and whole models.
_PREFIXES = (
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "model.vqmodel.",
    "vqmodel.",
    "vq_model.",
    "vqvae.",
    "first_stage_model.",
    "gen_vision_model.",
)
_PARTS = ("vq_config", "vqvae_config")  # of a whole model's configuration
_SHOWN = 4  # keys in a message


def recognised(
    checkpoint: Checkpoint, families: Sequence[Family], name: str | None = None
) -> tuple[Family, Checkpoint]:
    """Return the family of a checkpoint, and the part of the checkpoint that is a tokenizer.

    `name` is the family that the caller takes it for. Raises TokenizerError where it is unknown, is another than the
    keys say, or where no family or more than one has such keys.
    """
    by_name = {family.name: family for family in families}
    known = ", ".join(by_name)
    if name is not None and name not in by_name:
        raise TokenizerError(f"{name}: no family of that name; the families are {known}")
    parts = [part for prefix in _PREFIXES if (part := _part(checkpoint, prefix)).tensors]
    if name is not None:
        for part in parts:
            if by_name[name].fits(part):
                return by_name[name], part
    for part in parts:
        found = [family for family in families if family.recognises(part)]
        if len(found) > 1:
            names = " and ".join(family.name for family in found)
            raise TokenizerError(f"{checkpoint.path}: its keys are those of {names}; name one of them by --family")
        if found and name is not None:
            raise TokenizerError(
                f"{checkpoint.path}: its keys are not those of {by_name[name].label} ({name}), they look like "
                f"{found[0].label}; leave out --family, or type --family {found[0].name}"
            )
        if found:
            return found[0], part
    keys = ", ".join(name[:80] for name in list(checkpoint.tensors)[:_SHOWN])
    raise TokenizerError(
        f"{checkpoint.path}: its {len(checkpoint.tensors)} tensors ({keys}, ...) are those of no family; imtok imports "
        f"{known}"
    )


def _part(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """Return the checkpoint below a prefix, with the tokenizer's part of a whole model's configuration."""
    part = checkpoint.below(prefix)
    for name in _PARTS:
        settings = part.settings.get(name)
        if prefix and isinstance(settings, dict):
            return part.with_settings(settings)
    return part
