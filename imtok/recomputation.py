"""Gradient checkpointing (`torch.utils.checkpoint`): a forward that is computed again during the backward pass.

What learns in its forward must not learn again there, and the second pass must see the state that the first one saw,
or its gradient belongs to another function. A pass inside a backward pass is a recomputation. The first pass is one
that may be followed by such: it has no gradient (the reentrant kind), or hooks take its saved tensors (the other kind).
Ordinary training is neither, and keeps nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

_State = TypeVar("_State")

_MOST = 32  # first passes that wait for their recomputation, for each use of a module in a step
_SAMPLE = 1024  # numbers of the input by which a pass is recognised
_SAME = 0.02  # mean difference of equal inputs relative to their size: kernels of a GPU differ from call to call


def is_recomputed() -> bool:
    """Return whether this forward runs inside a backward pass, in this thread; never in a graph that is traced."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def may_be_recomputed() -> bool:
    """Return whether this forward, outside a backward pass, may be the first pass of a checkpointed function."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return False
    return not torch.is_grad_enabled() or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def random_state(device: torch.device) -> tuple[Tensor, ...]:
    """Return the state of the random numbers of the CPU and of a GPU."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return tuple(states)


def draw_again(device: torch.device, before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> None:
    """Go on from the random numbers `after` a first pass where its recomputation began with those `before` it.

    A recomputation that does not learn draws nothing; what comes later in it, dropout for instance, is to draw what it
    drew before. Where checkpointing did not restore the random numbers, they stay as they are.
    """
    if not all(map(torch.equal, random_state(device), before)):
        return
    torch.set_rng_state(after[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(after[1], device)


@dataclass
class _Pass(Generic[_State]):
    shape: torch.Size
    sample: Tensor
    state: _State
    used: bool = False


class FirstPasses(Generic[_State]):
    """What first passes of a module have seen, until they were recomputed; a copy of the module begins with none."""

    def __init__(self) -> None:
        self._passes: list[_Pass[_State]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def keep(self, key: Tensor, state: _State, uses: int = 1) -> None:
        """Keep the state of a pass with this input; passes that were recomputed before are dropped.

        `uses` is how often a step uses the module.
        """
        self._passes = [each for each in self._passes if not each.used][-_MOST * uses + 1 :]
        self._passes.append(_Pass(key.shape, _sample(key), state))

    def find(self, key: Tensor) -> _State | None:
        """Return the state of the first pass with this input, None with a warning where it is not known."""
        sample, best = _sample(key), None
        least = _SAME * float(sample.abs().mean()) if sample.numel() else 0.0
        # The last passes first: a backward pass goes from the end to the beginning.
        waiting, used = ([each for each in reversed(self._passes) if each.used == used] for used in (False, True))
        for each in waiting + used:
            if each.shape != key.shape:
                continue
            difference = float((each.sample - sample).abs().mean()) if sample.numel() else 0.0
            if difference < least or (best is None and difference == least):
                best, least = each, difference
        if best is None:
            warnings.warn(
                "a forward in training mode runs inside a backward pass, and its first pass is not known: nothing "
                "learns in it, and it reads the state of the module as it is now",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        best.used = True
        return best.state


def _sample(key: Tensor) -> Tensor:
    """Return some numbers of a tensor, evenly spaced, and the mean of all: (n,) float32, n at most 2 * 1024."""
    numbers = key.detach().reshape(-1)
    some = numbers[:: max(len(numbers) // _SAMPLE, 1)]
    return torch.cat([some, numbers.mean().view(1)]).to(torch.float32) if len(numbers) else numbers.to(torch.float32)
