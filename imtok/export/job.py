"""The export of a token set: plan and refuse, write piece by piece, and put the record beside the files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imtok.counted import counted
from imtok.errors import ImtokError, Interrupted, TokensError, disk_errors
from imtok.export import record as records
from imtok.export.blocks import BlockReader
from imtok.export.format import ExportPlan, Format, Piece
from imtok.export.hashing import describe_file
from imtok.export.options import ExportOptions
from imtok.export.planning import cut_pieces, find_format, make_layout, make_plan, refuse_options
from imtok.export.record import ExportedFile, ExportRecord
from imtok.export.selection import Selection
from imtok.export.sequences import SequenceLayout
from imtok.files import check_folder_target, claimed, sweep_temporaries
from imtok.tokens import TokenDataset, open_tokens
from imtok.tokens.folder import INFO

_LOCK = f"{records.WORK}/lock"


@dataclass(frozen=True)
class ExportReport:
    """The result of a call of `export_tokens`."""

    folder: Path
    record: ExportRecord
    plan: ExportPlan
    pieces: tuple[Piece, ...]
    trainer_note: str  # what the trainer must be told, one line
    existed: bool  # the same export was there before, and nothing was done
    images: int  # that this call wrote; those of pieces that were whole before are not among them
    seconds: float

    @property
    def ids_per_second(self) -> float:
        """Ids that this call wrote in a second."""
        return self.images * self.plan.crops * self.plan.ids_per_image / max(self.seconds, 1e-9)


def export_tokens(
    tokens: str | Path,
    output: str | Path,
    to: str,
    options: ExportOptions | None = None,
    *,
    partial: bool = False,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ExportReport:
    """Export a token folder to the new folder `output`, in the format that `imtok export --to` calls `to`.

    Memory does not grow with the number of images, but for one bit each where `val_fraction` is set. The same call
    resumes after a stop with the first piece that is not whole, and does nothing once all is written. `progress`
    receives images done and images in all.

    Raises ConfigError where the format is unknown or cannot hold the tokens, and for options that do not fit it or each
    other; TokensError where the token folder is incomplete and `partial` is False, is damaged or lacks labels, and
    where `output` holds anything else; all of this before anything is written. Later Interrupted and DiskError.
    """
    folder, options, started = Path(output), options or ExportOptions(), time.perf_counter()
    target = find_format(to)
    refuse_options(target, options)
    check_folder_target(folder)
    dataset = _open(tokens, to, partial)
    selection = Selection(dataset, options, should_stop)
    plan = make_plan(dataset, target, options, selection)
    pieces, layout = cut_pieces(plan, target), make_layout(dataset, options, selection)
    note = target.trainer_note(plan)
    begun = records.make_record(dataset, target, plan, layout, pieces)
    finished = records.find_export(folder, begun)
    writing = _Writing(folder, target, plan, pieces, progress)
    reader = BlockReader(selection, plan, should_stop)
    try:
        if finished is None:
            with disk_errors(folder), _held(folder):
                # Another process may have ended the same export since, or have begun a different one.
                finished = records.find_export(folder, begun)
                if finished is None:
                    records.begin(folder, begun)
                    sweep_temporaries(folder)
                    record = records.finish(folder, begun, writing.write(reader, layout))
    except BlockingIOError as error:
        raise TokensError(f"{folder}: another process exports into it; wait for it, or choose another -o") from error
    except (KeyboardInterrupt, Interrupted) as error:
        raise Interrupted(
            f"{folder}: stopped after {writing.done:,} of {counted(plan.total, 'image', form=',')}; run the same "
            "command again"
        ) from error
    if finished is not None:
        records.clear(folder)
        return ExportReport(folder, finished, plan, tuple(pieces), note, True, 0, time.perf_counter() - started)
    seconds = time.perf_counter() - started
    return ExportReport(folder, record, plan, tuple(pieces), note, False, writing.done - writing.before, seconds)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Make an output folder and hold it for this process; raises BlockingIOError while another one exports into it."""
    (folder / _LOCK).parent.mkdir(parents=True, exist_ok=True)
    with claimed(folder / _LOCK):
        yield


def _open(tokens: str | Path, to: str, partial: bool) -> TokenDataset:
    """Open the token folder; raises TokensError, which names the formats of tokenizers where `tokens` is one."""
    try:
        return open_tokens(tokens, partial=partial)
    except TokensError as error:
        if (Path(tokens) / INFO).exists() or not _is_tokenizer(tokens):
            raise
        from imtok.interop.exporting.job import FORMATS  # torch loads here

        raise TokensError(
            f"{tokens}: a tokenizer, whose formats are {', '.join(FORMATS)}; --to {to} takes a token folder, one of "
            "`imtok encode`"
        ) from error


def _is_tokenizer(path: str | Path) -> bool:
    from imtok.tokenizer import find_tokenizer  # torch loads here

    try:
        return "://" not in str(path) and find_tokenizer(path).exists()
    except ImtokError:
        return False


class _Writing:
    """The pieces of an export on their way into its folder."""

    def __init__(
        self,
        folder: Path,
        target: Format,
        plan: ExportPlan,
        pieces: list[Piece],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._folder, self._target, self._plan, self._pieces = folder, target, plan, pieces
        self._progress = progress
        self.done = self.before = 0  # images: in all, in pieces that an earlier call wrote

    def advance(self, images: int) -> None:
        """Count images that were written."""
        self.done += images
        if self._progress:
            self._progress(self.done, self._plan.total)

    def write(self, reader: BlockReader, layout: SequenceLayout) -> list[ExportedFile]:
        """Write the pieces that are not whole, then what stands beside them; return all files."""
        files: list[ExportedFile] = []
        for piece in self._pieces:
            known = records.piece_files(self._folder, piece)
            if known is None:
                blocks = reader.blocks(piece, layout, self.advance)
                paths = self._target.write(piece, blocks, self._plan, self._folder)
                known = tuple(describe_file(self._folder, path) for path in paths)
                records.save_piece(self._folder, piece, known)
            else:
                self.before += piece.images
                self.advance(piece.images)
            files += known
        beside = self._target.finish(self._pieces, self._plan, self._folder)
        return [*files, *(describe_file(self._folder, path) for path in beside)]
