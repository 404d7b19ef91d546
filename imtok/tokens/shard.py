"""One shard: the codes of one unit of inputs, and its skipped inputs, as a safetensors file.

`codes` [N,h,w] or [N,h,w,Q] u8, u16 or u32, whichever first holds the codebook; `key_bytes` u8, `key_offsets`
i64[N+1]; `index` i64[N], the position in the unit; `original_size` i32[N,2], height and width of the upright
picture; `labels` i64[N] where the input had them, -1 for none. Of the inputs that could not be read: `skip_index`,
`skip_key_*`, `skip_reason_*`. Together `index` and `skip_index` count 0 .. inputs-1, each once.

Version 2 holds an augmented unit, with A crops of each image: `codes` [N,A,h,w] or [N,A,h,w,Q], and `crops` i32[N,A,5]:
top, left, height and width in pixels of the upright picture, and 1 where the crop is mirrored, else 0. The order of
the five is that of ml-4m's crop settings (`fourm/data/image_augmenter.py`, `PreTokenizedImageAugmenter`).

One metadata key, `imtok`, holds the header as canonical JSON (with two, safetensors orders them at random): no
times, no host names, so the same unit gives the same bytes wherever it is encoded.
"""

# Axes: N images, A crops of an image, h x w latent grid, Q codebooks, S skipped inputs.

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imtok.errors import TokensError
from imtok.packed_strings import PackedStrings
from imtok.tokens.memory_mapped import map_arrays
from imtok.tokens.store import StoredFile

Codes = npt.NDArray[np.unsignedinteger[Any]]

NO_LABEL = -1

_HINT = "delete it and run the same `imtok encode` again"


class ShardHeader(BaseModel):
    """The header of a shard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["imtok-shard"] = "imtok-shard"
    version: Literal[1, 2] = 1  # 2 where the unit is augmented
    unit: int = Field(ge=0)
    inputs: int = Field(ge=0)  # images and skipped inputs together
    fingerprint: str  # of the tokenizer
    codebook_size: int = Field(ge=1)
    salvaged: str | None = None  # the damage of a tar that was taken as far as it could be read
    renamed: int = Field(0, ge=0)  # keys that occurred before in their tar and got a suffix


@dataclass(frozen=True, eq=False)
class Shard:
    """The codes of a unit, and the inputs it had to skip."""

    header: ShardHeader
    codes: Codes  # (N, h, w) or (N, h, w, Q); of an augmented unit those of the first crops
    keys: PackedStrings  # N
    index: npt.NDArray[np.int64]  # (N,) ascending
    original_size: npt.NDArray[np.int32]  # (N, 2) height, width
    labels: npt.NDArray[np.int64] | None  # (N,), NO_LABEL where one is missing
    skip_index: npt.NDArray[np.int64]  # (S,) ascending
    skip_keys: PackedStrings  # S
    skip_reasons: PackedStrings  # S
    crop_codes: Codes | None = None  # (N, A, h, w) or (N, A, h, w, Q) of an augmented unit
    crops: npt.NDArray[np.int32] | None = None  # (N, A, 5) of an augmented unit

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def all_codes(self) -> Codes:
        """The codes of every crop: (N, A, h, w) or (N, A, h, w, Q), A = 1 without augmentation."""
        return self.codes[:, None] if self.crop_codes is None else self.crop_codes

    @property
    def skipped(self) -> int:
        """Inputs without codes."""
        return len(self.skip_index)


def smallest_dtype(codebook_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the narrowest of u8, u16 and u32 that holds the codes 0 .. codebook_size-1."""
    return next(np.dtype(f"<u{width}") for width in (1, 2, 4) if codebook_size <= 256**width)


def shard_to_bytes(shard: Shard) -> bytes:
    """Return the file's bytes, the same for equal shards."""
    codes = shard.codes if shard.crop_codes is None else shard.crop_codes
    arrays: dict[str, npt.NDArray[Any]] = {
        "codes": codes.astype(smallest_dtype(shard.header.codebook_size), copy=False),
        "key_bytes": shard.keys.data,
        "key_offsets": shard.keys.offsets,
        "index": shard.index,
        "original_size": shard.original_size,
        "skip_index": shard.skip_index,
        "skip_key_bytes": shard.skip_keys.data,
        "skip_key_offsets": shard.skip_keys.offsets,
        "skip_reason_bytes": shard.skip_reasons.data,
        "skip_reason_offsets": shard.skip_reasons.offsets,
    }
    if shard.labels is not None:
        arrays["labels"] = shard.labels
    if shard.crops is not None:
        arrays["crops"] = shard.crops
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = json.dumps(shard.header.model_dump(), sort_keys=True, separators=(",", ":"))
    return safetensors.numpy.save(whole, metadata={"imtok": header})


def read_shard(path: StoredFile) -> Shard:
    """Read a shard, its arrays memory-mapped where it is a local file.

    Raises TokensError, naming the file, where it is damaged or foreign.
    """
    try:
        arrays, metadata = map_arrays(path)
        header = ShardHeader.model_validate_json(metadata.get("imtok", ""))
        augmented = header.version > 1
        shard = Shard(
            header=header,
            codes=_first_crops(arrays["codes"]) if augmented else arrays["codes"],
            keys=PackedStrings(_array(arrays, "key_bytes", "u1"), _array(arrays, "key_offsets", "<i8")),
            index=_array(arrays, "index", "<i8"),
            original_size=_array(arrays, "original_size", "<i4"),
            labels=_array(arrays, "labels", "<i8") if "labels" in arrays else None,
            skip_index=_array(arrays, "skip_index", "<i8"),
            skip_keys=PackedStrings(_array(arrays, "skip_key_bytes", "u1"), _array(arrays, "skip_key_offsets", "<i8")),
            skip_reasons=PackedStrings(
                _array(arrays, "skip_reason_bytes", "u1"), _array(arrays, "skip_reason_offsets", "<i8")
            ),
            crop_codes=arrays["codes"] if augmented else None,
            crops=_array(arrays, "crops", "<i4") if augmented else None,
        )
        _check_shapes(shard)
    except OSError as error:
        raise TokensError(f"{path}: cannot be read ({error.strerror or error}); run `imtok encode` again") from error
    except ValidationError as error:
        raise TokensError(f"{path}: not a shard that this imtok reads; expected a file of `imtok encode`") from error
    except KeyError as error:
        raise TokensError(f"{path}: damaged, its array {error} is missing; {_HINT}") from error
    except ValueError as error:
        raise TokensError(f"{path}: damaged ({error}); {_HINT}") from error
    return shard


def _first_crops(codes: Codes) -> Codes:
    """Return the codes of the first crops, (N, h, w) or (N, h, w, Q), as a view."""
    if codes.ndim < 4 or not codes.shape[1]:
        raise ValueError(f"codes are {codes.dtype}{list(codes.shape)}, without crops")
    return codes[:, 0]


def _array(arrays: dict[str, npt.NDArray[Any]], name: str, dtype: str) -> npt.NDArray[Any]:
    if arrays[name].dtype != np.dtype(dtype):
        raise ValueError(f"{name} is {arrays[name].dtype}, expected {np.dtype(dtype)}")
    return arrays[name]


def _check_shapes(shard: Shard) -> None:
    if shard.codes.dtype != smallest_dtype(shard.header.codebook_size) or shard.codes.ndim not in (3, 4):
        raise ValueError(f"codes are {shard.codes.dtype}{list(shard.codes.shape)}")
    images, skipped = len(shard.codes), len(shard.skip_index)
    _check_shape("index", shard.index, (images,))
    _check_shape("original_size", shard.original_size, (images, 2))
    _check_shape("skip_index", shard.skip_index, (skipped,))
    if images and int(shard.original_size.min()) < 1:
        raise ValueError("original_size holds a side below 1")
    if shard.labels is not None:
        _check_shape("labels", shard.labels, (images,))
    if shard.crops is not None:
        _check_shape("crops", shard.crops, (*shard.all_codes.shape[:2], 5))
    for name, strings, count in (
        ("keys", shard.keys, images),
        ("skipped keys", shard.skip_keys, skipped),
        ("skip reasons", shard.skip_reasons, skipped),
    ):
        _check_shape(f"the offsets of the {name}", strings.offsets, (count + 1,))
        if problem := strings.problem():
            raise ValueError(f"{name}: {problem}")


def _check_shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: shape {array.shape}, expected {shape}")
