"""Compilation of kernels: once per shape family, when the work repays it, with the plain code as a fallback.

A kernel is a pure function of tensors. `Kernel` runs it plainly, or compiled by `torch.compile`, which fuses it into
few passes over memory. The first call of a family costs seconds, so small calls stay uncompiled. The choice depends on
the shapes alone, never on earlier calls, so that a repeated run gives the same bits.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any

import torch

from imtok.errors import SlowerWarning

# Inductor would otherwise write long expressions to memory half way, and keep a product and its sum apart.
_OPTIONS: dict[str, Any] = {
    "realize_reads_threshold": 1000,
    "realize_acc_reads_threshold": 1000,
    "realize_opcount_threshold": 100_000,
    "cpp.enable_floating_point_contract_flag": "fast",
}


class Kernel:
    """A pure tensor function and its compiled forms, one for each shape family; the caller differentiates it.

    least_work
        Calls with less work than this run uncompiled.
    lengths
        Axes of the tensors that may have any length: one compiled form serves all lengths. A length of 1 may need a
        form of its own. Other sizes are part of the family.
    plain
        The function that runs uncompiled; by default the same function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        least_work: int,
        lengths: tuple[int, ...] = (0,),
        plain: Callable[..., Any] | None = None,
    ) -> None:
        self.function, self.plain = function, plain or function
        self.least_work, self.lengths = least_work, lengths
        self._compiled: dict[Hashable, Callable[..., Any]] = {}
        self._lock = threading.Lock()

    def __call__(self, *args: Any, family: Hashable, work: int) -> Any:
        """Call the function on `args`; `family` names what the generated code depends on: dtypes, sizes, constants."""
        with torch.no_grad():
            if torch.compiler.is_compiling() or work < self.least_work or not _compiling.enabled:
                return self.plain(*args)
            # Detached: torch warns of a view whose base has a gradient to come.
            args = tuple(arg.detach() if isinstance(arg, torch.Tensor) else arg for arg in args)
            family = (family, torch.get_num_threads())  # which torch would count as a recompilation
            try:
                with self._lock:
                    if family not in self._compiled:  # compiled by its first call, which others wait for
                        compiled = self._compile()
                        self._mark(args)
                        result = compiled(*args)
                        self._compiled[family] = compiled
                        return result
                return self._compiled[family](*args)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                _compiling.give_up(error)
                return self.plain(*args)

    def _compile(self) -> Callable[..., Any]:
        # A copy of the code object: torch counts recompilations per code object, and after eight gives up.
        source = self.function
        assert isinstance(source, FunctionType)
        copy = FunctionType(source.__code__.replace(), source.__globals__, source.__name__, source.__defaults__)
        return torch.compile(copy, fullgraph=True, dynamic=None if self.lengths else False, options=dict(_OPTIONS))

    def _mark(self, args: tuple[Any, ...]) -> None:
        """Mark the axes whose length will change."""
        for arg in args:
            if isinstance(arg, torch.Tensor):
                for axis in self.lengths:
                    if axis < arg.ndim:
                        torch._dynamo.maybe_mark_dynamic(arg, axis)


class _Compiling:
    """The switch of compilation in this process; the first failure turns it off."""

    def __init__(self) -> None:
        self.enabled = True

    def give_up(self, error: Exception) -> None:
        if self.enabled:
            self.enabled = False
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            hint = "; install a C++ compiler, for instance g++" if "compiler" in reason.lower() else ""
            warnings.warn(
                f"kernels run uncompiled, with the same results but slower: torch.compile failed ({reason}){hint}",
                SlowerWarning,
                stacklevel=2,
            )


_compiling = _Compiling()
