"""The reader of Parquet files with a column of encoded images, as the Hub of Hugging Face has them.

The column holds structs of `bytes` and `path`, or plain bytes. Rows are read a row group at a time; large row groups
are streamed. The two row groups used last stay in memory, so images are best read in their order.
"""

# Axes: R rows of the file.

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from imtok.data.containers import UNKNOWN_SIZE, Container, as_text, is_unsafe
from imtok.data.packed_images import PackedImages
from imtok.data.reading import DEFAULT_READING, Reading
from imtok.data.storage import storage_of
from imtok.errors import ImageError, SourceError
from imtok.packed_strings import PackedStrings

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_NAMES = ("image", "images", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "bytes", "image_bytes", "data")
_LABELS = ("label", "labels", "cls", "class", "class_id", "class_label", "target", "category")
_ROWS_AT_ONCE = 32  # of a row group that is streamed
_GROUP_BYTES = 2**28  # of images; a larger row group is streamed
_GROUPS_KEPT = 2
_KEY_DIGITS = 8


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """One row of a Parquet file; its bytes are counted when they are read."""

    key: str
    table: Table
    row: int
    label: str | None = None
    size: int = UNKNOWN_SIZE

    @property
    def address(self) -> str:
        """The Parquet file."""
        return self.table.address

    def read(self) -> bytes:
        """Read its bytes; raises ImageError where the row holds none, SourceError where the file cannot be read."""
        return self.table.read(self.row)

    def beside(self, suffix: str) -> bytes | None:
        """Return the value of the label's column as text for `.cls`; None where there is none."""
        return self.label.encode() if suffix == ".cls" and self.label is not None else None


class ParquetRows(PackedImages[ParquetImage]):
    """The images of one file by row: `labels` R texts, None where no column holds labels."""

    def __init__(self, keys: PackedStrings, table: Table, labels: Sequence[str | None] | None) -> None:
        super().__init__(keys, np.full(len(keys), UNKNOWN_SIZE, np.int64))
        self._table, self._labels = table, labels

    def image(self, index: int) -> ParquetImage:
        """Make the image of this row."""
        return ParquetImage(self.keys[index], self._table, index, self._labels[index] if self._labels else None)


@dataclass
class Table:
    """The images of one file, by row; threads may read them at the same time."""

    address: str
    size: int  # bytes of the file
    column: str
    in_struct: bool
    starts: Sequence[int]  # the first row of each row group, and R
    _kept: OrderedDict[int, Any] = field(default_factory=OrderedDict, repr=False, compare=False)
    _stream: _Stream | None = field(default=None, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Table, (self.address, self.size, self.column, self.in_struct, self.starts)

    def read(self, row: int) -> bytes:
        """Read the bytes of one row."""
        import pyarrow as pa

        group = bisect_right(self.starts, row) - 1
        try:
            with self._lock:
                value = self._value(group, row - self.starts[group])
        except (pa.ArrowException, OSError) as error:
            if storage_of(self.address).size(self.address) != self.size:
                raise SourceError(f"{self.address}: the file changed while it was read") from error
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ImageError("corrupt", f"row group {group} is damaged ({str(error).splitlines()[0]})") from error
        if self.in_struct and value is not None:
            value = value["bytes"]
        if value is None:
            raise ImageError("no bytes", "the row holds no bytes, perhaps a path or an address alone")
        return bytes(value)

    def _value(self, group: int, row: int) -> Any:
        """Return one value of a row group, which stays in memory or is streamed."""
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group][row].as_py()
        if self._stream is not None and self._stream.reaches(group, row):
            return self._stream.value(row)
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        with _opened(self.address) as file:
            if _column_bytes(file, group, self.column) > _GROUP_BYTES:
                self._stream = _Stream(self.address, group, self.column)
                return self._stream.value(row)
            values = file.read_row_group(group, columns=[self.column], use_threads=False).column(0)
        self._kept[group] = values
        while len(self._kept) > _GROUPS_KEPT:
            self._kept.popitem(last=False)
        return values[row].as_py()


class _Stream:
    """One row group from front to back; a few batches behind the place stay, for threads that are late."""

    def __init__(self, address: str, group: int, column: str) -> None:
        self._group = group
        self._open = ExitStack()
        file = self._open.enter_context(_opened(address))
        self._batches = file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column], use_threads=False)
        self._last: OrderedDict[int, Any] = OrderedDict()  # by the first row
        self._next = 0

    def reaches(self, group: int, row: int) -> bool:
        """Return whether a row is kept or still ahead."""
        return group == self._group and (row >= self._next or self._batch_of(row) is not None)

    def value(self, row: int) -> Any:
        while row >= self._next:
            values = next(self._batches).column(0)
            self._last[self._next] = values
            self._next += len(values)
            while len(self._last) > 4:
                self._last.popitem(last=False)
        start = self._batch_of(row)
        assert start is not None
        return self._last[start][row - start].as_py()

    def _batch_of(self, row: int) -> int | None:
        return next((start for start, values in self._last.items() if start <= row < start + len(values)), None)

    def close(self) -> None:
        self._open.close()

    def __del__(self) -> None:
        self.close()


def require_pyarrow(address: str) -> None:
    """Raise SourceError where pyarrow is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise SourceError(
            f"{address}: Parquet files are read by pyarrow; install it with `pip install 'imtok[parquet]'`"
        )


def open_parquet(address: str, reading: Reading = DEFAULT_READING) -> Container:  # noqa: ARG001
    """Read the schema, names and labels of a Parquet file; `problem` reports damage, or that no column has images.

    Raises OSError where the file cannot be read, SourceError where pyarrow is missing.
    """
    require_pyarrow(address)
    import pyarrow as pa

    size = storage_of(address).size(address)
    if size == 0:
        return Container(0, (), "the file is empty (0 bytes)", salvageable=False)
    try:
        with _opened(address) as file:
            features = _features(file.schema_arrow)
            column = _image_column(file.schema_arrow, features)
            images = _images(file, Table(address, size, *column, _starts(file)), features)
            names = _class_names(features, _label_column(file.schema_arrow, features))
    except _NoColumnError as error:
        return Container(size, (), str(error), salvageable=False)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return Container(size, (), f"no whole Parquet file ({str(error).splitlines()[0]})", salvageable=False)
    return Container(size, images, None, class_names=names)


@contextmanager
def _opened(address: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; raises OSError or pyarrow's ArrowException."""
    import pyarrow.parquet as pq

    with storage_of(address).open(address) as file, pq.ParquetFile(file) as parquet:
        yield parquet


class _NoColumnError(Exception):
    """No column, or more than one, holds images."""


def _image_column(schema: pa.Schema, features: dict[str, Any]) -> tuple[str, bool]:
    """Find the column of images and whether it holds structs; raises _NoColumnError, naming the columns."""
    import pyarrow as pa

    def is_binary(kind: pa.DataType) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))

    kinds = {entry.name: entry.type for entry in schema}
    structs = [
        name
        for name, kind in kinds.items()
        if pa.types.is_struct(kind) and any(one.name == "bytes" and is_binary(one.type) for one in kind)
    ]
    plain = [name for name, kind in kinds.items() if is_binary(kind)]
    declared = [name for name in structs + plain if _type_of(features, name) == "Image"]
    named = [name for name in plain if name.lower() in _NAMES]
    for found in (declared, structs, named):
        if len(found) > 1:
            raise _NoColumnError(f"{len(found)} columns hold images ({', '.join(found)}); write one of them to a file")
        if found:
            return found[0], found[0] in structs
    raise _NoColumnError(f"no column holds encoded images; its columns are {', '.join(kinds)}")


def _images(file: pq.ParquetFile, table: Table, features: dict[str, Any]) -> ParquetRows:
    rows = table.starts[-1]
    keys = _keys(_paths(file, table), rows)
    label = _label_column(file.schema_arrow, features)
    labels = file.read(columns=[label], use_threads=False).column(0).to_pylist() if label else [None] * rows
    # The Hub writes -1 for an image without a class.
    no_class = (None, -1) if label and _type_of(features, label) == "ClassLabel" else (None,)
    texts = [None if value in no_class else sys.intern(str(value)) for value in labels]
    return ParquetRows(PackedStrings.pack(keys), table, texts if label else None)


def _paths(file: pq.ParquetFile, table: Table) -> list[str | None]:
    """Read the path of each row, None where it has none, without the bytes beside them."""
    kind = file.schema_arrow.field(table.column).type
    if not table.in_struct or kind.get_field_index("path") < 0:
        return []
    values = file.read(columns=[f"{table.column}.path"], use_threads=False).column(0).to_pylist()
    return [None if value is None else value["path"] for value in values]


def _keys(paths: Sequence[str | None], rows: int) -> Iterator[str]:
    """Name rows by their path where no other row has it and it is a safe name, else by their number."""
    times = Counter(paths)
    numbers = [f"{row:0{_KEY_DIGITS}d}" for row in range(rows)]
    for number, path in zip(numbers, paths or [None] * rows, strict=True):
        good = path and times[path] == 1 and not is_unsafe(path)
        yield as_text(path) if path and good else number


def _label_column(schema: pa.Schema, features: dict[str, Any]) -> str | None:
    """Find the column of labels: one of the usual names, else the only one that is declared as such."""
    import pyarrow as pa

    def is_label(name: str) -> bool:
        kind = schema.field(name).type
        return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))

    usual: list[str] = [name for wish in _LABELS for name in schema.names if name.lower() == wish and is_label(name)]
    declared: list[str] = [name for name in schema.names if _type_of(features, name) == "ClassLabel"]
    if usual:
        return usual[0]
    return declared[0] if len(declared) == 1 else None


def _class_names(features: dict[str, Any], label: str | None) -> tuple[str, ...]:
    names = features.get(label, {}).get("names") if label and _type_of(features, label) == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return what the `datasets` library recorded of the columns, nothing where it did not or in another form."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _type_of(features: dict[str, Any], name: str) -> str | None:
    feature = features.get(name)
    return str(feature["_type"]) if isinstance(feature, dict) and "_type" in feature else None


def _starts(file: pq.ParquetFile) -> tuple[int, ...]:
    starts = [0]
    for group in range(file.metadata.num_row_groups):
        starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
    return tuple(starts)


def _column_bytes(file: pq.ParquetFile, group: int, column: str) -> int:
    """Bytes of a column in a row group, unpacked."""
    parts = file.metadata.row_group(group)
    columns = [parts.column(number) for number in range(parts.num_columns)]
    return sum(one.total_uncompressed_size for one in columns if one.path_in_schema.split(".")[0] == column)
