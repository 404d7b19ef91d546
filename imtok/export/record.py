"""The record of an export, and what lies beside its files until it is whole.

    imtok-export.json            written last: which token set, which options, and every file with its hash
    .imtok-export/begun.json     the same without files, while the export is unfinished
    .imtok-export/pieces/*.json  the files of a piece that is whole, written after them

A piece is kept by a resumed export where its list is there and its files have the sizes on it. Without a record a
folder is unfinished, whatever files it holds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from imtok.errors import TokensError
from imtok.export.file_runs import count_in, names_in
from imtok.export.format import ExportPlan, Format, Piece, Split
from imtok.export.options import ExportOptions
from imtok.export.sequences import SequenceLayout
from imtok.files import write_atomically
from imtok.records import Record
from imtok.tokens import TokenDataset, read_manifest
from imtok.tokens.folder import TokensInfo, read_tokenizer_config
from imtok.version import __version__

RECORD, WORK = "imtok-export.json", ".imtok-export"
_BEGUN, _PIECES = f"{WORK}/begun.json", f"{WORK}/pieces"


class ExportedFile(Record):
    """A file of an export as it lies on disk, or a run of small files whose bytes are taken one after the other."""

    path: str  # POSIX, below the export's folder; of a run as `imtok.export.file_runs` has it
    bytes: int = Field(ge=0)
    sha256: str

    def paths(self, folder: Path) -> Iterator[Path]:
        """Yield the paths of the files in an export's folder."""
        return (folder / name for name in names_in(self.path))


class ExportRecord(Record):
    """The content of imtok-export.json; all but `files` is known before the export begins."""

    format: Literal["imtok-export"] = "imtok-export"
    version: Literal[1] = 1
    imtok: str  # version
    to: str  # name of the format
    options: ExportOptions
    dataset_id: str  # SHA-256 of the manifest; of an incomplete set, of its record and the units that were there
    complete: bool  # the token set had all its units
    tokens: TokensInfo  # of the set
    origin: dict[str, Any] | None = None  # the published checkpoint that the tokenizer comes from
    dtype: str  # of the ids
    ids_per_image: int
    num_ids: int  # a trainer's vocabulary holds at least so many
    code_ids: tuple[int, int]  # first id of a code, and the first id above those of codes
    label_ids: tuple[int, int] | None  # the same of classes, where sequences hold a class id
    crops: int  # sequences of an image
    images: dict[Split, int]
    labelled: int  # images with a label
    class_names: tuple[str, ...]
    pieces: dict[Split, int]
    files: tuple[ExportedFile, ...] = ()

    @property
    def num_files(self) -> int:
        """How many files the export has beside the record."""
        return sum(count_in(file.path) for file in self.files)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()

    @property
    def plan(self) -> ExportPlan:
        """The facts of the export as its format reads them."""
        return ExportPlan(
            info=self.tokens,
            options=self.options,
            dtype=np.dtype(self.dtype).newbyteorder("<"),
            ids_per_image=self.ids_per_image,
            num_ids=self.num_ids,
            crops=self.crops,
            images=self.images,
            labelled=self.labelled,
            class_names=self.class_names,
        )


def make_record(
    tokens: TokenDataset, target: Format, plan: ExportPlan, layout: SequenceLayout, pieces: Sequence[Piece]
) -> ExportRecord:
    """Return the record of an export that has no files yet."""
    config = read_tokenizer_config(tokens.store)
    origin = None if config is None or config.origin is None else config.origin
    dataset_id, complete = name_token_set(tokens)
    return ExportRecord(
        imtok=__version__,
        to=target.name,
        options=plan.options,
        dataset_id=dataset_id,
        complete=complete,
        tokens=tokens.info,
        origin=None if origin is None else origin.model_dump(mode="json", exclude_defaults=True),
        dtype=plan.dtype.name,
        ids_per_image=plan.ids_per_image,
        num_ids=plan.num_ids,
        code_ids=(plan.options.offset, layout.code_end),
        label_ids=(layout.label_offset, layout.label_offset + layout.classes) if layout.has_label else None,
        crops=plan.crops,
        images=plan.images,
        labelled=plan.labelled,
        class_names=plan.class_names,
        pieces={split: sum(piece.split == split for piece in pieces) for split in plan.images},
    )


def name_token_set(tokens: TokenDataset) -> tuple[str, bool]:
    """Name a token set by a hash of what it holds, and say whether it is complete."""
    manifest = read_manifest(tokens.store)
    if manifest is not None and len(manifest.entries) == tokens.info.all_units == len(tokens.units):
        return manifest.dataset_id, True
    units = json.dumps([tokens.info.all_units, *tokens.units]).encode()
    return hashlib.sha256(tokens.info.to_bytes() + units).hexdigest(), False


def read_record(folder: Path) -> ExportRecord:
    """Read the record of a finished export; raises TokensError where there is none that this imtok reads."""
    record = _read(folder / RECORD)
    if record is None:
        begun = (folder / _BEGUN).is_file()
        none = f"no export, it has no {RECORD}; give a folder that `imtok export` wrote"
        found = "an unfinished export; run the same `imtok export` again" if begun else none
        raise TokensError(f"{folder}: {found}")
    return record


def find_export(folder: Path, record: ExportRecord) -> ExportRecord | None:
    """Return the record of the same export where it is finished in a folder; nothing is written.

    Raises TokensError where the folder holds another export, or anything else.
    """
    # A process that ends an export writes the record before it removes the other, so one of them is always found.
    begun, finished = _read(folder / _BEGUN), _read(folder / RECORD)
    found = finished or begun
    if found is None:
        if folder.exists() and any(path.name != WORK for path in folder.iterdir()):
            raise TokensError(f"{folder}: exists and holds no export of imtok; choose another -o")
        return None
    changes = _changes(found, record)
    if changes:
        what = "an export" if finished else "an unfinished export"
        raise TokensError(f"{folder}: {what} with {changes[0]}, this one has {changes[1]}; choose another -o")
    return finished


def begin(folder: Path, record: ExportRecord) -> None:
    """Note what the files of a folder are made from; the caller holds the folder."""
    write_atomically(folder / _BEGUN, record.to_bytes())


def finish(folder: Path, record: ExportRecord, files: Iterable[ExportedFile]) -> ExportRecord:
    """Write the record with its files, which ends the export, and remove what only an unfinished one needs."""
    record = record.model_copy(update={"files": tuple(sorted(files, key=lambda file: file.path))})
    write_atomically(folder / RECORD, record.to_bytes())
    clear(folder)
    return record


def clear(folder: Path) -> None:
    """Remove what only an unfinished export needs."""
    shutil.rmtree(folder / WORK, ignore_errors=True)


def piece_files(folder: Path, piece: Piece) -> tuple[ExportedFile, ...] | None:
    """Return the files of a piece that is whole, None where it has to be written."""
    try:
        files = _PieceFiles.model_validate_json((folder / _piece_path(piece)).read_bytes()).files
        whole = all(sum(path.stat().st_size for path in file.paths(folder)) == file.bytes for file in files)
    except (OSError, ValidationError):
        return None
    return files if whole else None


def save_piece(folder: Path, piece: Piece, files: Sequence[ExportedFile]) -> None:
    """Note that the files of a piece are whole."""
    write_atomically(folder / _piece_path(piece), _PieceFiles(files=tuple(files)).model_dump_json().encode())


class _PieceFiles(Record):
    files: tuple[ExportedFile, ...]


def _piece_path(piece: Piece) -> str:
    return f"{_PIECES}/{piece.split}-{piece.number}.json"


def _read(path: Path) -> ExportRecord | None:
    """Read a record, finished or not; None where there is none. Raises TokensError where it is damaged."""
    try:
        return ExportRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "content"
        folder = path.parent if path.name == RECORD else path.parent.parent
        raise TokensError(
            f"{path}: damaged, {field}: {problem['msg']}; remove {folder} and export the tokens again"
        ) from error


def wrong_fact(found: ExportRecord, expected: ExportRecord) -> str | None:
    """Name the first fact of a record that is not the expected one, with both values; files and version are left."""
    sides = [_flat(record.model_dump(mode="json", exclude={"files", "imtok"})) for record in (found, expected)]
    for name in sorted(sides[0].keys() | sides[1].keys()):
        values = [side.get(name, "missing") for side in sides]
        if values[0] != values[1]:
            return f"{name} is {values[0]}, expected {values[1]}"
    return None


def _flat(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested facts by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _changes(found: ExportRecord, record: ExportRecord) -> tuple[str, str] | None:
    """Name the first difference between two exports, as each of them has it."""
    sides = [_facts(each) for each in (found, record)]
    if found.files:  # finished: another version of imtok has nothing to write
        for side in sides:
            del side["imtok"], side["facts"]
    for name in sides[0]:
        if sides[0][name] != sides[1][name]:
            return f"{name} {sides[0][name]}", f"{sides[1][name]}"
    return None


def _facts(record: ExportRecord) -> dict[str, str]:
    """Return what decides the bytes of an export, under names for a person."""
    facts = {"--to": record.to, "token set": record.dataset_id[:12], "imtok": record.imtok}
    options = {f"--{name.replace('_', '-')}": str(value) for name, value in record.options}
    rest = record.model_dump_json(exclude={"files", "options", "dataset_id", "imtok", "to"})
    return facts | options | {"facts": hashlib.sha256(rest.encode()).hexdigest()[:12]}
