"""Single images of a large shard on an object store, read by ranges instead of the whole shard."""

# Axes: N images of a shard, M bytes of its keys.

from __future__ import annotations

import math
from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from imtok.errors import TokensError
from imtok.packed_strings import PackedStrings
from imtok.tokens.memory_mapped import DTYPES, parse_header
from imtok.tokens.object_store import ObjectFile
from imtok.tokens.shard import Shard, ShardHeader

WHOLE_BYTES = 2**22  # a shard of at most so many is better fetched by one request
_BLOCK_BYTES = 2**20  # of one request
_BLOCKS = 64  # kept, of all shards together


class RangedReader:
    """Rows of shards, by the blocks of their objects that were read last."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = Lock()

    def read_row(self, file: ObjectFile, row: int) -> tuple[Shard, int]:
        """Read an image as a shard of its own, N = 1, and the number of images in its shard.

        Raises TokensError, naming the file, where what is read of it is damaged.
        """
        try:
            return self._read_row(file, row)
        except OSError as error:
            raise TokensError(f"{file}: cannot be read ({error.strerror}); run `imtok encode` again") from error
        except (ValidationError, ValueError, KeyError, TypeError, IndexError) as error:
            raise TokensError(f"{file}: damaged; delete it and run the same `imtok encode` again") from error

    def _read_row(self, file: ObjectFile, row: int) -> tuple[Shard, int]:
        start = 8 + int.from_bytes(self._bytes(file, 0, 8), "little")
        entries = parse_header(self._bytes(file, 8, start - 8))
        header = ShardHeader.model_validate_json(entries["__metadata__"]["imtok"])

        def rows(name: str, first: int = row, count: int = 1) -> npt.NDArray[Any]:
            """Read some rows of an array."""
            dtype, shape = DTYPES[entries[name]["dtype"]], entries[name]["shape"]
            each = dtype.itemsize * math.prod(shape[1:])
            place = start + entries[name]["data_offsets"][0] + first * each
            return np.frombuffer(self._bytes(file, place, count * each), dtype).reshape(count, *shape[1:])

        images = entries["codes"]["shape"][0]
        if not 0 <= row < images:
            raise IndexError(row)
        begin, end = rows("key_offsets", count=2).tolist()
        codes, nothing = rows("codes"), PackedStrings.pack([])
        augmented = header.version > 1
        shard = Shard(
            header=header,
            codes=codes[:, 0] if augmented else codes,
            keys=PackedStrings(rows("key_bytes", begin, end - begin), np.array([0, end - begin], np.int64)),
            index=rows("index"),
            original_size=rows("original_size"),
            labels=rows("labels") if "labels" in entries else None,
            skip_index=np.empty(0, np.int64),
            skip_keys=nothing,
            skip_reasons=nothing,
            crop_codes=codes if augmented else None,
            crops=rows("crops") if augmented else None,
        )
        return shard, images

    def _bytes(self, file: ObjectFile, start: int, size: int) -> bytes:
        if size < 0 or size > 2**30:
            raise ValueError(f"{size} bytes")
        first, last = start // _BLOCK_BYTES, (start + max(size, 1) - 1) // _BLOCK_BYTES
        data = b"".join(self._block(file, number) for number in range(first, last + 1))
        data = data[start - first * _BLOCK_BYTES :][:size]
        if len(data) != size:
            raise ValueError("cut short")
        return data

    def _block(self, file: ObjectFile, number: int) -> bytes:
        key = file.address, number
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        data = file.range(number * _BLOCK_BYTES, _BLOCK_BYTES)
        with self._lock:
            self._blocks[key] = data
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        return data

    def __reduce__(self) -> tuple[Any, ...]:
        return RangedReader, ()  # another process reads for itself
