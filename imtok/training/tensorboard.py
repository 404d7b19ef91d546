"""A run's figures for TensorBoard, where it is installed; a disk that refuses them ends them, and never the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Board:
    """The events of one call of `train`; what the disk says is told through `notice`, once."""

    def __init__(self, folder: Path, seen: int, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._writer: SummaryWriter | None = None
        with self._guarded():
            self._writer = _open_writer(folder, seen)

    def add(self, figures: Mapping[str, float | None], seen: int) -> None:
        """Plot figures after `seen` training images; those that are None are left out."""
        with self._guarded():
            for name, value in figures.items():
                if self._writer and value is not None:
                    self._writer.add_scalar(name, value, seen)

    def close(self) -> None:
        """Write what is still on its way."""
        with self._guarded():
            if self._writer:
                self._writer.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # also what the writer's thread ran into some lines ago
            self._writer = None
            self._notice(f"TensorBoard's events end here ({error.strerror or error})")


def _open_writer(folder: Path, seen: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: SummaryWriter = SummaryWriter(str(folder), purge_step=seen or None)
    return writer
