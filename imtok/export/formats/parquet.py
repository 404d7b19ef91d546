"""Parquet files for `datasets`: a row an image, or a row a crop of a set with crops.

    data/train-00000-of-00002.parquet, data/validation-00000-of-00001.parquet
    README.md    names the files of each split, so that `load_dataset(OUT)` finds them

Columns: `key` string, `input_ids` list<int32>, `height` and `width` of the grid int32; where it has labels, `label`
int64, null where an image has none; of a set with crops also `crop` int32, its number, and `crop_box` list<int64>: top,
left, height, width, mirrored. The key `imtok` of the schema's metadata says what made the tokens.

No column but `label` holds nulls and the schema says so, which halves the time of writing. Ids lie as they are: a
dictionary would take twice as long to write.
"""

# Axes: n images of a block, A crops of an image, T ids of an image, r rows (n or n A).

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from imtok.errors import TokensError
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage, Split
from imtok.export.hashing import hashed_writer
from imtok.files import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

_SPLITS: dict[Split, str] = {"train": "train", "val": "validation"}  # names of `datasets`
_GROUP_IDS = 1 << 22  # ids of a row group
_CROP_FIELDS = 5
_README = "README.md"


class Parquet(Format):
    """Tables of keys, ids and labels."""

    name: ClassVar[str] = "parquet"
    dtypes: ClassVar[tuple[str, ...]] = ("int32", "int64")
    packages: ClassVar[tuple[str, ...]] = ("pyarrow",)
    extra: ClassVar[str] = "parquet"
    library: ClassVar[str | None] = "datasets"
    default_images: ClassVar[int | None] = 100_000  # a file of 100 MB for 256 ids an image

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the call that opens the data set, and the vocabulary."""
        return f'datasets.load_dataset("OUT"): input_ids holds {plan.ids_per_image} of {plan.num_ids} ids'

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write one file, in row groups of a fixed number of images wherever the blocks end."""
        import pyarrow.parquet

        name = _file_name(piece)
        schema = _schema(plan)
        rows = max(1, _GROUP_IDS // (plan.crops * plan.ids_per_image)) * plan.crops
        options: dict[str, Any] = {"compression": "snappy", "use_dictionary": False, "write_statistics": False}
        with (
            hashed_writer(folder / name) as file,
            pyarrow.parquet.ParquetWriter(file, schema, **options) as writer,
        ):
            for table in _groups((_table(block, plan, schema) for block in blocks), rows):
                writer.write_table(table, row_group_size=rows)
        return [name]

    def finish(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> list[str]:
        """Write the README that `load_dataset` and the Hub read."""
        del pieces
        write_atomically(folder / _README, _readme(plan).encode())
        return [_README]

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read the files by pyarrow."""
        import pyarrow
        import pyarrow.parquet

        for piece in pieces:
            path = folder / _file_name(piece)
            try:
                with pyarrow.parquet.ParquetFile(path) as file:
                    if file.metadata.num_rows != piece.images * plan.crops:
                        raise TokensError(
                            f"{path}: holds {file.metadata.num_rows} rows, expected {piece.images * plan.crops}; "
                            "export again"
                        )
                    for group in range(file.num_row_groups):
                        yield from _images(file.read_row_group(group).to_pylist(), piece.split, plan)
            except (OSError, KeyError, ValueError, pyarrow.ArrowException) as error:
                raise TokensError(f"{path}: cannot be read as Parquet ({error}); export again") from error

    def read_by_library(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read the files by `datasets`, which streams them rather than keep a copy in its cache."""
        from datasets import load_dataset

        for piece in pieces:
            files = [str(folder / _file_name(piece))]
            yield from _images(
                load_dataset("parquet", data_files=files, split="train", streaming=True), piece.split, plan
            )


def _file_name(piece: Piece) -> str:
    return f"data/{_SPLITS[piece.split]}-{piece.number:05}-of-{piece.pieces:05}.parquet"


def _schema(plan: ExportPlan) -> pa.Schema:
    import pyarrow as pa

    ids = pa.from_numpy_dtype(plan.dtype)
    fields = [("key", pa.string()), ("input_ids", _list(ids)), ("height", pa.int32()), ("width", pa.int32())]
    if plan.crops > 1:
        fields += [("crop", pa.int32()), ("crop_box", _list(pa.int64()))]
    columns = [pa.field(name, kind, nullable=False) for name, kind in fields]
    if plan.labelled:
        columns.append(pa.field("label", pa.int64()))
    return pa.schema(columns, metadata={"imtok": json.dumps(_facts(plan), sort_keys=True)})


def _list(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return pa.list_(pa.field("element", kind, nullable=False))


def _facts(plan: ExportPlan) -> dict[str, Any]:
    """Return what made the tokens and their ids."""
    info = plan.info
    return {
        "fingerprint": info.fingerprint,
        "plan": info.plan,  # hash of the list of inputs
        "codebook_size": info.codebook_size,
        "num_codebooks": info.num_codebooks,
        "grid": info.grid,
        "size": info.size,
        "fit": info.fit,
        "num_ids": plan.num_ids,
        "class_names": plan.class_names,
        "options": plan.options.model_dump(mode="json"),
    }


def _table(block: Block, plan: ExportPlan, schema: pa.Schema) -> pa.Table:
    """Return the rows of a block."""
    import pyarrow as pa

    rows = len(block) * plan.crops
    height, width = plan.info.grid
    columns = {
        "key": pa.array([key for key in block.keys for _ in range(plan.crops)], pa.string()),
        "input_ids": _lists(block.ids.reshape(rows, -1), schema.field("input_ids").type),
        "height": pa.array(np.full(rows, height, np.int32)),
        "width": pa.array(np.full(rows, width, np.int32)),
    }
    if plan.crops > 1:
        assert block.crops is not None
        columns["crop"] = pa.array(np.tile(np.arange(plan.crops, dtype=np.int32), len(block)))
        columns["crop_box"] = _lists(block.crops.reshape(rows, _CROP_FIELDS), schema.field("crop_box").type)
    if plan.labelled:
        labels = np.full(rows, -1) if block.labels is None else np.repeat(block.labels, plan.crops)
        columns["label"] = pa.array(labels, pa.int64(), mask=labels < 0)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _lists(rows: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return the rows of an array as lists: (r, L) -> r lists of L numbers."""
    import pyarrow as pa

    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(rows).reshape(-1)), type=kind)


def _groups(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut a stream of tables anew, into tables of so many rows and a last one with the rest."""
    import pyarrow as pa

    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= rows:
            joined = pa.concat_tables(held)
            whole = len(joined) // rows * rows
            yield from (joined.slice(start, rows) for start in range(0, whole, rows))
            held = [joined.slice(whole)]
    if held and (rest := pa.concat_tables(held)).num_rows:
        yield rest


def _images(rows: Iterable[dict[str, Any]], split: Split, plan: ExportPlan) -> Iterator[ReadImage]:
    """Join the rows of each image."""
    ids: list[list[int]] = []
    for row in rows:
        ids.append(row["input_ids"])
        if len(ids) == plan.crops:
            yield ReadImage(split=split, ids=np.array(ids, plan.dtype), key=row["key"], label=row.get("label"))
            ids = []


def _readme(plan: ExportPlan) -> str:
    """Return the README, whose front matter names the files of each split."""
    files = "".join(
        f"  - split: {_SPLITS[split]}\n    path: data/{_SPLITS[split]}-*.parquet\n" for split in plan.images
    )
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"
        f"Image tokens by imtok: {plan.total} images, {plan.ids_per_image} ids each, a vocabulary of {plan.num_ids}.\n"
    )
