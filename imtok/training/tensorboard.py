"""The TensorBoard writer of a run, where TensorBoard is installed; a full disk ends its events, and never the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardWriter:
    """The events of one call of `train`, none without a folder; an error of the disk is reported by `notice`, once."""

    def __init__(self, folder: Path | None, seen: int, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._writer: SummaryWriter | None = None
        with self._guarded():
            self._writer = _open_writer(folder, seen) if folder else None

    def add(self, metrics: Mapping[str, float | None], seen: int) -> None:
        """Write metrics after `seen` training images; those that are None are left out."""
        with self._guarded():
            for name, value in metrics.items():
                if self._writer and value is not None:
                    self._writer.add_scalar(name, value, seen)

    def close(self) -> None:
        """Write the events that still wait."""
        with self._guarded():
            if self._writer:
                self._writer.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeError) as error:  # also an earlier error of the writer's thread
            self._writer = None
            reason = error.strerror if isinstance(error, OSError) else "it cannot write a path that is not UTF-8 text"
            self._notice(f"TensorBoard's events end here ({reason or error})")


def _open_writer(folder: Path, seen: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: SummaryWriter = SummaryWriter(str(folder), purge_step=seen or None)
    return writer
