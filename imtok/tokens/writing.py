"""A token folder from codes that were made elsewhere: by a tokenizer in Python, or by a model that generates tokens."""

# Axes: N images, h x w latent grid, Q codebooks.

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from imtok.errors import TokensError
from imtok.files import write_atomically
from imtok.packed_strings import PackedStrings
from imtok.tokens.dataset import TokenDataset, open_tokens
from imtok.tokens.folder import INFO, MANIFEST, TOKENIZER, TokensInfo, manifest_entry, manifest_to_bytes, shard_path
from imtok.tokens.plan import Numerics, PlanEntry, plan_path, plan_to_bytes
from imtok.tokens.shard import NO_LABEL, Shard, ShardHeader, shard_to_bytes, smallest_dtype
from imtok.version import __version__

if TYPE_CHECKING:
    from imtok.tokenizer import Tokenizer

_UNIT_SIZE = 2048  # images a shard, as `imtok encode` has it


def write_tokens(
    folder: str | Path,
    keys: Sequence[str],
    codes: npt.ArrayLike,
    *,
    tokenizer: Tokenizer | str | Path,
    labels: Sequence[int | None] | None = None,
    class_names: Sequence[str] = (),
) -> TokenDataset:
    """Write codes made elsewhere as a token folder, which opens, verifies and decodes as one of `imtok encode`.

    `codes` are integers in [0, K), (N, h, h) or (N, h, h, Q), or (N, 1, n) of a tokenizer of sequences, as NumPy array
    or tensor. `keys` name the N images. The
    folder receives a copy of `tokenizer`, an object, a folder or `imtok-f8`. `labels` are class numbers, None for an
    image without; `class_names` give them names.

    Raises TokensError, before anything is written, where `folder` exists and is not empty, codes are out of range or
    of a wrong shape or type, keys occur twice or are no relative paths, or labels do not fit.
    """
    from imtok.tokenizer import load  # torch loads here; readers of tokens do without it

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TokensError(f"{folder}: exists and is not empty; choose another folder")
    model = load(tokenizer) if isinstance(tokenizer, str | Path) else tokenizer
    array = _checked_codes(codes, model)
    _check_keys(keys, len(array))
    numbers = None if labels is None else _checked_labels(labels, len(array), len(class_names))
    units = [slice(start, start + _UNIT_SIZE) for start in range(0, len(array), _UNIT_SIZE)]
    plan = plan_to_bytes(PlanEntry(unit=row // _UNIT_SIZE, key=key, bytes=0) for row, key in enumerate(keys))
    info = _describe(model, array, len(units), tuple(class_names), hashlib.sha256(plan).hexdigest())
    for name, data in model.files().items():
        write_atomically(folder / TOKENIZER / name, data)
    write_atomically(folder / plan_path(), plan)
    write_atomically(folder / INFO, info.to_bytes())
    entries = []
    for unit, rows in enumerate(units):
        shard = _shard(unit, info, keys[rows], array[rows], None if numbers is None else numbers[rows])
        data = shard_to_bytes(shard)
        write_atomically(folder / shard_path(unit), data)
        entries.append(manifest_entry(shard, data))
    write_atomically(folder / MANIFEST, manifest_to_bytes(entries))
    return open_tokens(folder)


def _checked_codes(codes: Any, tokenizer: Tokenizer) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return the codes in the smallest type that holds them."""
    array = np.asarray(codes.detach().cpu() if hasattr(codes, "detach") else codes)
    if not np.issubdtype(array.dtype, np.integer):
        raise TokensError(f"codes are {array.dtype}, expected integers")
    books = tokenizer.num_codebooks
    network = tokenizer.config.network
    grid = "h, h" if network.only_size is None else "{}, {}".format(*network.grid(network.only_size, network.only_size))
    expected = f"(N, {grid})" if books == 1 else f"(N, {grid}, {books})"
    if network.only_size is None:
        fits = array.ndim >= 3 and array.shape[1] == array.shape[2] > 0
    else:
        fits = array.shape[1:3] == network.grid(network.only_size, network.only_size)
    if not fits or array.shape[3:] != ((books,) if books > 1 else ()):
        raise TokensError(f"codes have the shape {array.shape}, this tokenizer needs {expected}")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= tokenizer.num_codes):
        raise TokensError(f"codes span [{array.min()}, {array.max()}], expected [0, {tokenizer.num_codes})")
    return array.astype(smallest_dtype(tokenizer.num_codes))


def _check_keys(keys: Sequence[str], images: int) -> None:
    if len(keys) != images:
        raise TokensError(f"{len(keys)} keys for the codes of {images} images; give one each")
    seen: set[str] = set()
    for key in keys:
        path = PurePosixPath(key)
        if not path.name or path.is_absolute() or ".." in path.parts or "\0" in key:
            raise TokensError(f"key {key!r}: expected a relative path, under which `imtok decode` may write the image")
        if key in seen:
            raise TokensError(f"key {key!r} occurs twice; each image needs its own")
        seen.add(key)


def _checked_labels(labels: Sequence[int | None], images: int, names: int) -> npt.NDArray[np.int64]:
    if len(labels) != images:
        raise TokensError(f"{len(labels)} labels for the codes of {images} images; give one each, or None")
    numbers = np.array([NO_LABEL if label is None else int(label) for label in labels], np.int64)
    if images and int(numbers.min()) < NO_LABEL:
        raise TokensError(f"label {numbers.min()}: expected 0 or more, or None")
    if names and images and int(numbers.max()) >= names:
        raise TokensError(f"label {numbers.max()}: there are only {names} class names")
    return numbers


def _describe(
    tokenizer: Tokenizer, codes: npt.NDArray[Any], units: int, class_names: tuple[str, ...], plan: str
) -> TokensInfo:
    grid = (int(codes.shape[1]), int(codes.shape[2]))
    return TokensInfo(
        rules=2,
        fingerprint=tokenizer.fingerprint,
        codebook_size=tokenizer.num_codes,
        num_codebooks=tokenizer.num_codebooks,
        index_order=tokenizer.config.quantizer.index_order,
        grid=grid,
        downsample=tokenizer.downsample,
        size=tokenizer.config.network.only_size or grid[0] * (tokenizer.downsample or 1),
        fit="crop",
        numerics=Numerics(device="cpu", precision="fp32", batch_size=1, threads=1, versions={"imtok": __version__}),
        units=units,
        unit_size=_UNIT_SIZE,
        images=len(codes),
        tars=0,
        class_names=class_names,
        plan=plan,
    )


def _shard(
    unit: int,
    info: TokensInfo,
    keys: Sequence[str],
    codes: npt.NDArray[np.unsignedinteger[Any]],
    labels: npt.NDArray[np.int64] | None,
) -> Shard:
    count = len(codes)
    return Shard(
        header=ShardHeader(unit=unit, inputs=count, fingerprint=info.fingerprint, codebook_size=info.codebook_size),
        codes=codes,
        keys=PackedStrings.pack(keys),
        index=np.arange(count),
        original_size=np.full((count, 2), info.size, np.int32),
        labels=labels,
        skip_index=np.empty(0, np.int64),
        skip_keys=PackedStrings.pack([]),
        skip_reasons=PackedStrings.pack([]),
    )
