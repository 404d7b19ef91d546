"""The search for the nearest code on a GPU: products and least scores in one Triton kernel, exact in float32.

Triton comes with torch where there are GPUs and is no dependency: without it, or where it fails, `search_on_gpu`
finds nothing and the caller searches by tiles.
"""

# Axes: N vectors, D dimensions, K codes.

from __future__ import annotations

import importlib
import threading
import warnings
from contextlib import nullcontext
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from imtok.errors import SlowerWarning

LEAST_WORK = 2**22  # in scores: below, tiles are done before a kernel would be compiled

_CHUNK = 2**21  # numbers in the centred codes that are held at a time for their norms: 8 MB
_ROWS = 64  # latents of a program, or about: how many programs there will be
_LEAST_SPAN = 1024  # codes that repay a program of its own


def search_on_gpu(rows: Tensor, table: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Return least scores and their codes, (N,) float32 and (N,) int64, or None where Triton is missing or has failed.

    `rows` (N, D) float32 are centred latents, `table` (K, D) the codes as they are, from which `centre` (D,) is
    still to be taken. A score is |e|^2 / 2 - z.e, without a centre -z.e. Equal scores go to the lower index; a NaN
    gives a score of -inf. Where Triton fails, a SlowerWarning says so once.
    """
    if torch.compiler.is_compiling():
        return None
    try:
        return search(rows, table, centre) if _triton.usable else None
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        _triton.give_up(error)
        return None


def search(rows: Tensor, table: Tensor, centre: Tensor | None, spans: int | None = None) -> tuple[Tensor, Tensor]:
    """Search as `search_on_gpu` does, with the codes cut into `spans` that run in parallel; None chooses the number."""
    count = len(rows)
    if count == 0:
        return rows.new_empty(0), torch.empty(0, dtype=torch.int64, device=rows.device)
    spans = spans or _spans(count, len(table), rows.device)
    best = rows.new_empty(spans, count)
    codes = torch.empty(spans, count, dtype=torch.int64, device=rows.device)
    _triton.launch(
        rows.contiguous(),
        table.contiguous(),
        table if centre is None else centre.contiguous(),
        _offsets(table, centre),
        best,
        codes,
        centred=centre is not None,
    )
    least = best.amin(dim=0)
    # The lowest of the codes with the least score, in whatever order the spans were done.
    return least, torch.where(best == least, codes, len(table)).amin(dim=0)


def _spans(count: int, num_codes: int, device: torch.device) -> int:
    """Return the number of spans of codes that keeps all processors busy; it changes no result."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    spans = 4 * processors // -(-count // _ROWS)
    return max(min(spans, num_codes // _LEAST_SPAN), 1)


def _offsets(table: Tensor, centre: Tensor | None) -> Tensor:
    """Return |e - centre|^2 / 2 of each code, zero without a centre: (K, D) -> (K,)."""
    if centre is None:
        return table.new_zeros(len(table))
    step = max(_CHUNK // max(table.shape[1], 1), 1)
    starts = range(0, len(table), step)
    return torch.cat([(table[start : start + step] - centre).square().sum(dim=1) / 2 for start in starts])


class _Triton:
    """The Triton kernel, and whether this process can use it, which the first search finds out."""

    def __init__(self) -> None:
        self.failed = False
        self._lock = threading.Lock()

    @cached_property
    def kernels(self) -> ModuleType | None:
        try:
            return importlib.import_module("imtok.kernels.nearest_triton")
        except ImportError:
            return None

    @cached_property
    def tuned(self) -> Any:
        assert self.kernels is not None
        return self.kernels.tuned()

    @property
    def usable(self) -> bool:
        return not self.failed and self.kernels is not None

    def launch(
        self,
        rows: Tensor,
        table: Tensor,
        centre: Tensor,
        offsets: Tensor,
        best: Tensor,
        codes: Tensor,
        *,
        centred: bool,
    ) -> None:
        """Fill `best` and `codes`, (spans, N); all tensors must be contiguous."""
        assert self.kernels is not None
        (spans, count), (num_codes, dim) = best.shape, table.shape
        sizes = count, num_codes, -(-num_codes // spans), (num_codes - 1).bit_length()
        # Products are fused multiply-adds anyway; Triton 3.9 warns where this is left open.
        constants = {"DIM": dim, "CENTRED": centred, "BLOCK_D": self.kernels.BLOCK_D, "enable_fp_fusion": True}
        if not rows.is_cuda:  # Triton's interpreter, with nothing to tune
            constants |= self.kernels.CONFIGS[-1].kwargs
        device = torch.cuda.device(rows.device) if rows.is_cuda else nullcontext()
        with self._lock, device:  # the tuner keeps a call's arguments in itself
            kernel = self.tuned if rows.is_cuda else self.kernels.nearest_in_span
            kernel[lambda meta: (-(-count // meta["BLOCK_N"]), spans)](
                rows, table, centre, offsets, best, codes, *sizes, **constants
            )

    def give_up(self, error: Exception) -> None:
        if not self.failed:
            self.failed = True
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(
                f"codes are searched in tiles, as exactly but slower: Triton failed ({reason}); "
                "it needs a GPU it knows and a C compiler, for instance gcc",
                SlowerWarning,
                stacklevel=3,
            )


_triton = _Triton()
