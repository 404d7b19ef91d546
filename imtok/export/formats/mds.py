"""MDS, the shards of MosaicML streaming, with the column `tokens` that llm-foundry's `StreamingTextDataset` reads.

    shard.NUMBER.mds  uint32 N samples, uint32[N + 1] offsets in bytes, JSON about the columns, then the samples
    index.json        version 2: for each shard that JSON again, its samples and its bytes

A sample has the sizes of its columns of no fixed size, uint32, then the columns by name: `key`, `label` where the
set has labels (-1 where an image has none), `tokens`. These are declared `ndarray:int32`, so that a reader needs no
type from elsewhere; a value holds its number of axes, its shape and its ids. Each crop is a sample of its own.
"""

# Axes: n images of a block, A crops of an image, T ids of an image, N = n A samples.

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from imtok.errors import ConfigError, TokensError
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage, Split
from imtok.export.limits import check_capacity
from imtok.export.paths import make_target
from imtok.export.rows import check_equal, check_size, rows_in, whole_blocks
from imtok.files import atomic_writer, write_atomically

INDEX = "index.json"
MOST_BYTES = 2**32 - 1  # of a shard: its offsets are uint32
_KEY_BYTES = 4096  # more than the keys of a shard have on average
_SIZES = struct.Struct("<II")  # bytes of key and ids of a sample, the columns without a fixed size


class Mds(Format):
    """MosaicML streaming's MDS, a data set for each split."""

    name: ClassVar[str] = "mds"
    dtypes: ClassVar[tuple[str, ...]] = ("int32", "int64")
    library: ClassVar[str | None] = "mosaicml-streaming"
    default_images: ClassVar[int | None] = 1 << 16

    def check(self, plan: ExportPlan) -> None:
        """Raise ConfigError where a shard may have more bytes than its offsets can count."""
        row = 4 + 8 + _KEY_BYTES + 8 + len(_prefix(plan)) + plan.ids_per_image * plan.dtype.itemsize
        each, header = plan.crops * row, 8 + len(_config_bytes(plan))
        what = f"bytes with keys of {_KEY_BYTES:,} bytes"
        check_capacity(self, plan, what, each=each, most=MOST_BYTES, other="parquet", beside=header)

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the length that cuts no image."""
        return (
            f'StreamingTextDataset(local="OUT", split="train", max_seq_len={plan.ids_per_image}): a sample is an image'
        )

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the shard of a piece: the samples first, as their sizes are known when they are written."""
        path, config = f"{piece.split}/{_basename(piece)}", _config_bytes(plan)
        start = 4 + 4 * (rows_in(piece, plan) + 1) + len(config)
        sizes = [np.array([start], np.int64)]
        with atomic_writer(make_target(folder, path)) as file:
            file.seek(start)
            for block in whole_blocks(piece, blocks):
                samples, lengths = _samples(block, plan)
                file.write(samples)
                sizes.append(lengths)
            offsets = np.concatenate(sizes).cumsum()  # N + 1
            if offsets[-1] > MOST_BYTES:
                raise ConfigError(
                    f"{path}: {offsets[-1]:,} bytes, and a shard of mds has at most {MOST_BYTES:,}; export into a new "
                    "folder with a smaller --shard-size"
                )
            file.seek(0)
            file.write(np.uint32(rows_in(piece, plan)).tobytes() + offsets.astype("<u4").tobytes() + config)
        return [path]

    def finish(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the index of each split."""
        paths = []
        for split in plan.images:
            text = json.dumps(_index(pieces, plan, split, folder), sort_keys=True)
            write_atomically(folder / split / INDEX, text.encode())
            paths.append(f"{split}/{INDEX}")
        return paths

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back; index, counts and columns are compared with what the plan says."""
        for split in plan.images:
            path = folder / split / INDEX
            try:
                index, expected = json.loads(path.read_bytes()), _index(pieces, plan, split, folder)
            except (FileNotFoundError, ValueError) as error:
                raise TokensError(f"{path}: cannot be read ({error}); export again") from error
            check_equal(path, "content", index, expected)
        for piece in pieces:
            yield from _read_shard(folder / piece.split / _basename(piece), piece, plan)

    def read_by_library(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read every image back by `StreamingDataset`, by number: its own order is made for training."""
        from streaming import StreamingDataset

        del pieces
        for split in plan.images:
            samples = StreamingDataset(local=str(folder), split=split, batch_size=1)
            for first in range(0, samples.size, plan.crops):
                yield _image(split, [samples[first + crop] for crop in range(plan.crops)])


def _basename(piece: Piece) -> str:
    return f"shard.{piece.number:05d}.mds"


def _columns(plan: ExportPlan) -> dict[str, tuple[str, int | None]]:
    """Return type and fixed size of each column, by name."""
    tokens = {"tokens": (f"ndarray:{plan.dtype.name}", None)}
    labels = {"label": ("int64", 8)} if plan.labelled else {}
    return {"key": ("str", None), **labels, **tokens}


def _config(plan: ExportPlan) -> dict[str, object]:
    columns = _columns(plan)
    return {
        "column_encodings": [encoding for encoding, _ in columns.values()],
        "column_names": list(columns),
        "column_sizes": [size for _, size in columns.values()],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
        "version": 2,
    }


def _config_bytes(plan: ExportPlan) -> bytes:
    return json.dumps(_config(plan), sort_keys=True).encode()


def _index(pieces: Sequence[Piece], plan: ExportPlan, split: Split, folder: Path) -> dict[str, object]:
    """Return the content of `index.json`; the bytes of a shard depend on its keys, so they are those on disk."""
    shards = []
    for piece in pieces:
        if piece.split == split:
            name = _basename(piece)
            raw = {"basename": name, "bytes": (folder / split / name).stat().st_size, "hashes": {}}
            shards.append({**_config(plan), "raw_data": raw, "samples": rows_in(piece, plan), "zip_data": None})
    return {"shards": shards, "version": 2}


def _prefix(plan: ExportPlan) -> bytes:
    """Return what stands before the ids of a sample: number of axes and type of the shape in one byte, the shape."""
    width = next(width for width in range(4) if plan.ids_per_image < 256 ** (1 << width))  # uint8, 16, 32, 64
    return bytes([1 << 2 | width]) + plan.ids_per_image.to_bytes(1 << width, "little")


def _samples(block: Block, plan: ExportPlan) -> tuple[bytes, npt.NDArray[np.int64]]:
    """Return the samples of a block, in the order of its images and their crops, and the bytes of each."""
    prefix, (images, crops, length) = _prefix(plan), block.ids.shape
    label = plan.labelled > 0
    ids_bytes = len(prefix) + length * plan.dtype.itemsize
    fields = [("label", "<i8", (int(label),)), ("prefix", "u1", (len(prefix),)), ("ids", plan.dtype, (length,))]
    rows = np.zeros((images, crops), fields)  # what follows the key
    if label:
        rows["label"] = -1 if block.labels is None else block.labels[:, None, None]
    rows["prefix"] = np.frombuffer(prefix, np.uint8)
    rows["ids"] = block.ids.astype(plan.dtype, casting="equiv", copy=False)
    bodies = rows.reshape(-1).view(f"V{rows.itemsize}").tolist()  # bytes of each row
    keys = [key for key in map(str.encode, block.keys) for _ in range(crops)]
    heads = map(_SIZES.pack, map(len, keys), repeat(ids_bytes))
    lengths = np.fromiter(map(len, keys), np.int64, len(keys)) + (_SIZES.size + rows.itemsize)
    return b"".join(chain.from_iterable(zip(heads, keys, bodies, strict=True))), lengths


def _read_shard(path: Path, piece: Piece, plan: ExportPlan) -> Iterator[ReadImage]:
    rows, config = rows_in(piece, plan), _config_bytes(plan)
    start = 4 + 4 * (rows + 1) + len(config)
    with path.open("rb") as file:
        header = file.read(start)
        if len(header) != start:
            raise TokensError(f"{path}: {len(header):,} bytes, expected a header of {start:,}; the file was cut off")
        offsets = np.frombuffer(header, "<u4", rows + 2).astype(np.int64)
        check_equal(path, "number of samples", int(offsets[0]), rows)
        check_equal(path, "description of columns", header[-len(config) :], config)
        check_equal(path, "offset of the first sample", int(offsets[1]), start)
        check_size(path, int(offsets[-1]))
        sizes = np.diff(offsets[1:]).tolist()
        for first in range(0, rows, plan.crops):
            samples = [_parse(path, file.read(max(size, 0)), plan) for size in sizes[first : first + plan.crops]]
            yield _image(piece.split, samples)


def _parse(path: Path, sample: bytes, plan: ExportPlan) -> dict[str, Any]:
    """Return the columns of a sample; raises TokensError unless its sizes and the shape of its ids are right."""
    prefix, label = _prefix(plan), 8 if plan.labelled else 0
    key_bytes, tokens_bytes = _SIZES.unpack(sample[:8].ljust(8, b"\0"))
    tokens = sample[8 + key_bytes + label :]
    expected = len(prefix) + plan.ids_per_image * plan.dtype.itemsize
    if not len(tokens) == tokens_bytes == expected or not tokens.startswith(prefix):
        raise TokensError(f"{path}: a sample has {tokens_bytes} bytes of ids, expected {expected}; the file is damaged")
    values: npt.NDArray[np.integer[Any]] = np.frombuffer(tokens, plan.dtype, offset=len(prefix))
    columns: dict[str, Any] = {"key": sample[8 : 8 + key_bytes].decode(errors="replace"), "tokens": values}
    if label:
        columns["label"] = int.from_bytes(sample[8 + key_bytes : 16 + key_bytes], "little", signed=True)
    return columns


def _image(split: Split, samples: Sequence[dict[str, Any]]) -> ReadImage:
    """Return the image whose crops are these samples."""
    label = int(samples[0].get("label", -1))
    ids = np.array([sample["tokens"] for sample in samples])
    return ReadImage(split, ids, key=samples[0]["key"], label=None if label < 0 else label)
