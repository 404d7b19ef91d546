"""The check of an export: the hash of every file, and every image read back and compared with the token set."""

# Axes: n images of a block, A crops of an image, T ids of an image.

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from imtok.errors import ImtokError, TokensError
from imtok.export.blocks import BlockReader, CodeBlock
from imtok.export.format import Format, Piece, ReadImage
from imtok.export.formats import FORMATS
from imtok.export.hashing import hash_files
from imtok.export.planning import cut_pieces, make_layout, make_plan
from imtok.export.record import RECORD, ExportRecord, make_record, name_token_set, read_record, wrong_fact
from imtok.export.selection import Selection
from imtok.export.sequences import Ids
from imtok.tokens import TokenDataset, open_tokens
from imtok.tokens.shard import NO_LABEL

_MOST_NAMED = 20  # files of each kind, and images, whose problems are named; the others are counted


@dataclass
class ExportVerification:
    """The result of the check of an export."""

    record: ExportRecord
    reader: str  # the library that read the files, with its version
    images: int = 0  # read back
    compared: list[str] = field(default_factory=lambda: ["ids"])  # of each image: ids, and keys and labels if it has
    problems: list[str] = field(default_factory=list)  # one line each, naming a file or an image

    @property
    def ok(self) -> bool:
        """The export is whole, and equal to the token set."""
        return not self.problems


def verify_export(
    folder: str | Path,
    against: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ExportVerification:
    """Check an export file by file, and image by image against the token set that it was made from.

    The library that owns the format reads the images where it is installed, else imtok's own reader. `progress`
    receives images done and images in all. Raises TokensError where `folder` is no finished export or `against` is
    another token set, and Interrupted.
    """
    folder = Path(folder)
    record = read_record(folder)
    tokens = open_tokens(against, partial=not record.complete)
    _check_token_set(folder, record, tokens)
    if record.to not in FORMATS:
        raise TokensError(f"{folder}: an export to {record.to}, which this imtok does not know; update imtok")
    target = FORMATS[record.to]()
    reader, by_library = _choose_reader(target)
    result = ExportVerification(record, reader)
    check = _Check(folder, target, record, tokens, result, should_stop)
    wrong = wrong_fact(record, check.record())
    if wrong is not None:
        result.problems.append(f"{folder / RECORD}: {wrong}; the record was changed")
    missing = list(_first(_missing_files(folder, record)))
    changed = [] if missing else list(_first(_changed_files(folder, record)))
    result.problems += [*missing, *changed, *_first(_other_files(folder, record, target))]
    if missing or wrong is not None:  # a reader would say the same again, less clearly
        return result
    if changed:  # a library that meets damage may print traces of its own, or end the process
        result.reader, by_library = f"imtok's reader of {target.name}", False
    try:
        check.run(check.images(by_library), progress)
    except TokensError as error:
        result.problems.append(str(error))
    except ImtokError:
        raise
    except Exception as error:  # of a library that meets damage, each in its own way
        result.problems.append(f"{folder}: {reader} cannot read it: {type(error).__name__}: {error}".splitlines()[0])
    return result


def _check_token_set(folder: Path, record: ExportRecord, tokens: TokenDataset) -> None:
    found, _ = name_token_set(tokens)
    if found != record.dataset_id:
        raise TokensError(
            f"{folder}: made from token set {record.dataset_id[:12]}, {tokens.store} is {found[:12]}; compare it with "
            "the set that it was made from"
        )


def _choose_reader(target: Format) -> tuple[str, bool]:
    """Name the reader, and say whether it is the library that owns the format."""
    if target.library is None:
        return f"imtok's reader of {target.name}", False
    try:
        return f"{target.library} {version(target.library)}", True
    except PackageNotFoundError:
        return f"imtok's reader of {target.name} ({target.library} is not installed)", False


def _missing_files(folder: Path, record: ExportRecord) -> Iterator[str]:
    for listed in record.files:
        for path in listed.paths(folder):
            if not path.is_file():
                yield f"{path}: missing; export the tokens again"


def _changed_files(folder: Path, record: ExportRecord) -> Iterator[str]:
    for listed in record.files:
        size, digest = hash_files(listed.paths(folder))
        if digest != listed.sha256:
            yield (
                f"{folder / listed.path}: {size:,} bytes of hash {digest[:12]}, {RECORD} says {listed.bytes:,} of "
                f"{listed.sha256[:12]}; export the tokens again"
            )


def _other_files(folder: Path, record: ExportRecord, target: Format) -> Iterator[str]:
    """Name files that are not on record: a trainer that takes all files of a pattern would read them too."""
    if sum(1 for _ in _files_below(folder, target)) == record.num_files + 1:
        return  # the record is one of them; names of all files are held where some are wrong alone
    known = {folder / RECORD, *(path for listed in record.files for path in listed.paths(folder))}
    for path in sorted(path for path in _files_below(folder, target) if path not in known):
        yield f"{path}: {RECORD} does not list it, and a trainer may read it; move it elsewhere"


def _files_below(folder: Path, target: Format) -> Iterator[Path]:
    """Yield all files but hidden ones and those that the trainer made."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[0] == ".":
                continue
            if not entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)
            elif entry.name not in target.trainer_folders:
                yield from _files_below(Path(entry.path), target)


def _first(problems: Iterator[str]) -> Iterator[str]:
    """Yield the first problems of a kind, and the number of the others."""
    yield from itertools.islice(problems, _MOST_NAMED)
    if others := sum(1 for _ in problems):
        yield f"and {others:,} others of this kind"


class _Check:
    """The comparison of the images of an export with those of its token set."""

    def __init__(
        self,
        folder: Path,
        target: Format,
        record: ExportRecord,
        tokens: TokenDataset,
        result: ExportVerification,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._folder, self._target, self._result = folder, target, result
        self._selection = Selection(tokens, record.options, should_stop)
        self._plan = make_plan(tokens, target, record.options, self._selection)
        self._layout = make_layout(tokens, record.options, self._selection)
        self._pieces = cut_pieces(self._plan, target)
        self._tokens = tokens
        self._reader = BlockReader(self._selection, self._plan, should_stop)
        self._seen = {"keys": 0, "labels": 0}  # images that were read back with one
        self._wrong = 0  # images

    def record(self) -> ExportRecord:
        """Return the record of such an export of the token set, without files."""
        return make_record(self._tokens, self._target, self._plan, self._layout, self._pieces)

    def images(self, by_library: bool) -> Iterator[ReadImage]:
        """Read every image of the export back."""
        read = self._target.read_by_library if by_library else self._target.read
        return read(self._pieces, self._plan, self._folder)

    def run(self, images: Iterator[ReadImage], progress: Callable[[int, int], None] | None) -> None:
        """Compare block by block; problems of the first images that differ are named."""
        for piece in self._pieces:
            for first, block in self._reader.code_blocks(piece):
                read = list(itertools.islice(images, len(block.codes)))
                self._compare(piece, first, block, read)
                self._result.images += len(read)
                if len(read) < len(block.codes):
                    self._problem(f"{self._result.images:,} images, expected {self._plan.total:,}")
                    return
                if progress:
                    progress(self._result.images, self._plan.total)
        if extra := sum(1 for _ in images):
            self._problem(f"{self._result.images + extra:,} images, expected {self._plan.total:,}")
        self._note_compared()

    def _compare(self, piece: Piece, first: int, block: CodeBlock, images: Sequence[ReadImage]) -> None:
        """Compare the images read back with those of a block, which may be more."""
        labels = [None] * len(images) if block.labels is None else block.labels.tolist()
        differing = self._wrong_ids(block, images)
        for row, (image, key, label) in enumerate(zip(images, block.keys, labels, strict=False)):
            self._seen["keys"] += image.key is not None
            self._seen["labels"] += image.label is not None
            found = [differing[row]] if row in differing else []
            if image.split != piece.split:
                found.append(f"it is of split {image.split}")
            if image.key not in (None, key):
                found.append(f"its key is {image.key}")
            if image.label not in (None, label):
                found.append(f"its label is {image.label}, expected {'none' if label in (None, NO_LABEL) else label}")
            if found:
                self._problem(f"image {first + row} of {piece.split}, {key}: {', '.join(found)}")

    def _wrong_ids(self, block: CodeBlock, images: Sequence[ReadImage]) -> dict[int, str]:
        """Say by row what is wrong with the ids of images; those of a whole block are compared at once."""
        shape = (self._plan.crops, self._plan.ids_per_image)
        fitting = all(image.ids.shape == shape for image in images)
        if fitting and (not images or not self._finding(np.stack([image.ids for image in images]), block, 0)):
            return {}
        findings = {row: self._finding(image.ids[None], block, row) for row, image in enumerate(images)}
        return {row: finding for row, finding in findings.items() if finding}

    def _finding(self, ids: Ids, block: CodeBlock, row: int) -> str | None:
        """Say what is wrong with ids (n, A, T) of the images of a block from `row` on; None where they are right."""
        shape = (self._plan.crops, self._plan.ids_per_image)
        if ids.shape[1:] != shape:
            return f"its ids have the shape {ids.shape[1:]}, expected {shape}"
        rows = slice(row, row + len(ids))
        try:
            codes, labels = self._layout.codes(ids)
        except TokensError as error:
            return str(error)
        expected = block.codes[rows].reshape(codes.shape)
        if len(places := np.argwhere(codes != expected)):
            where = tuple(places[0].tolist())
            crop = f"crop {where[1]}, " if self._plan.crops > 1 else ""
            return f"code {codes[where]} at {crop}{where[2:]}, expected {expected[where]}"
        if labels is not None and block.labels is not None and (labels != block.labels[rows, None]).any():
            return f"its class id is that of label {labels.flat[0]}, expected {block.labels[row]}"
        return None

    def _problem(self, text: str) -> None:
        self._wrong += 1
        if self._wrong <= _MOST_NAMED:
            self._result.problems.append(text)

    def _note_compared(self) -> None:
        """Note whether the export holds keys and labels, which it does for all images or for none."""
        for name, expected in (("keys", self._plan.total), ("labels", self._plan.labelled)):
            if 0 < self._seen[name] != expected:
                self._problem(f"{name} of {self._seen[name]:,} images, expected {expected:,}")
            elif expected and self._seen[name]:
                self._result.compared.append(name)
        if self._wrong > _MOST_NAMED:
            self._result.problems.append(f"and {self._wrong - _MOST_NAMED:,} others")
