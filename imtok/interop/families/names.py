"""Names and shapes of published tensors, as several families need them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from imtok.errors import TokenizerError
from imtok.quantizers.base import FLAGS


def renamed(ours: Iterable[str], rules: Mapping[str, str]) -> dict[str, str]:
    """Return the published name of each of our tensors: every rule that matches a whole name rewrites it, in order.

    Flags, which no other project has, are left out.
    """
    compiled = [(re.compile(pattern), template) for pattern, template in rules.items()]
    published = {}
    for name in ours:
        if name.rpartition(".")[2] in FLAGS:
            continue
        theirs = name
        for pattern, template in compiled:
            if match := pattern.fullmatch(theirs):
                theirs = match.expand(template)
        published[name] = theirs
    return published


def count(names: Iterable[str], prefix: str) -> int:
    """Count the numbered parts `prefix.0`, `prefix.1`, ... that have tensors."""
    numbers = {name[len(prefix) + 1 :].partition(".")[0] for name in names if name.startswith(f"{prefix}.")}
    return next(number for number in range(len(numbers) + 1) if str(number) not in numbers)


def stage_widths(tensors: Mapping[str, Tensor], stages: str, middle: str) -> tuple[tuple[int, ...], int, int]:
    """Return the width of each stage, and how many residual blocks a stage and the middle have.

    Raises TokenizerError, which names the tensor, where there is no such stage.
    """
    number, blocks = count(tensors, stages), count(tensors, f"{stages}.0.block")
    widths = [f"{stages}.{stage}.block.0.conv1.weight" for stage in range(number)]
    missing = [name for name in widths or [f"{stages}.0.block.0.conv1.weight"] if name not in tensors]
    if missing:
        raise TokenizerError(f"lacks {missing[0]}, so its stages are not known; download the file again")
    return tuple(tensors[name].shape[0] for name in widths), blocks, count(tensors, middle)
