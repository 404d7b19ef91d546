"""Small things that many tests are made of: pictures, folders and tars of them, a tiny tokenizer."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from imtok.config import NetworkConfig, TokenizerConfig
from imtok.data.containers import Container
from imtok.errors import ImageError
from imtok.quantizer_config import (
    BSQConfig,
    FSQConfig,
    GumbelConfig,
    LFQConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    VQConfig,
)
from imtok.tokenizer import Tokenizer
from imtok.tokens import Numerics, PackedStrings, Shard, ShardHeader, TokensInfo, shard_to_bytes
from imtok.tokens.folder import (
    INFO,
    MANIFEST,
    manifest_entry,
    manifest_to_bytes,
    shard_path,
)
from imtok.tokens.plan import PlanEntry, plan_path, plan_to_bytes
from imtok.tokens.shard import smallest_dtype

# A small one of each kind, and of each way a codebook learns.
QUANTIZERS: dict[str, QuantizerConfig] = {
    "fsq": FSQConfig(levels=(7, 5, 5)),
    "vq": VQConfig(dim=4, num_codes=32, estimator="rotation"),
    "cosine": VQConfig(dim=4, num_codes=32, metric="cosine", codebook_update="gradient"),
    "simvq": VQConfig(dim=4, num_codes=32, codebook_update="projection", projection_bias=True),
    "frozen": VQConfig(dim=4, num_codes=32, codebook_update="frozen"),
    "clustering": VQConfig(dim=4, num_codes=32, online_clustering=True),
    "ibq": VQConfig(dim=4, num_codes=32, estimator="index_propagation", entropy_weight=0.05),
    "lfq": LFQConfig(dim=6),
    "bsq": BSQConfig(dim=6, entropy_group=3),
    "gumbel": GumbelConfig(dim=4, num_codes=32, code_dim=6),
    "residual": ResidualConfig(part=VQConfig(dim=4, num_codes=32), depth=3, quantizer_dropout=0.5),
    "residual-shared": ResidualConfig(part=VQConfig(dim=4, num_codes=32), depth=2, shared=True, scales=(1.0, 0.5)),
    "residual-fsq": ResidualConfig(part=FSQConfig(levels=(5, 3)), depth=2),
    "product": ProductConfig(part=VQConfig(dim=3, num_codes=32, codebook_update="gradient"), heads=2),
    "product-shared": ProductConfig(part=LFQConfig(dim=4), heads=2, shared=True),
    "product-of-residuals": ProductConfig(part=ResidualConfig(part=BSQConfig(dim=4), depth=2), heads=2),
}


def picture(seed: int, width: int = 40, height: int = 48) -> Image.Image:
    """A smooth coloured picture, another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def fill(folder: Path, keys: Iterable[str]) -> Path:
    """Write a picture of its own under each key."""
    for seed, key in enumerate(keys):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(seed)))
    return folder


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar with these members, in this order."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pictures_tar(path: Path, names: Iterable[str]) -> Path:
    """A tar with a picture of its own under each name."""
    return write_tar(path, [(name, encoded(picture(seed))) for seed, name in enumerate(names)])


def tiny(seed: int = 0, quantizer: QuantizerConfig = FSQConfig(levels=(5, 5, 5))) -> Tokenizer:  # noqa: B008  (frozen)
    """An untrained tokenizer for 32 x 32 images, on a 4 x 4 grid, of 125 codes unless told otherwise."""
    torch.manual_seed(seed)
    network = NetworkConfig(fold=4, channels=(8, 16), blocks=1)
    return Tokenizer(TokenizerConfig(network=network, quantizer=quantizer, size=32))


def tiny_tokenizer(folder: Path, seed: int = 0) -> Path:
    """The folder of such a tokenizer."""
    tiny(seed).save(folder)
    return folder


def token_folder(
    path: Path,
    units: Sequence[npt.NDArray[np.integer[Any]]],
    codebook_size: int,
    *,
    labels: Sequence[npt.NDArray[np.int64]] | None = None,
    class_names: tuple[str, ...] = (),
    crops: Sequence[npt.NDArray[np.int32]] | None = None,
) -> Path:
    """A complete token folder of given codes, each unit (N, h, w) or (N, h, w, Q); image i of unit u is `u/i`.

    With `crops`, (N, A, 5) for each unit, the folder is augmented, and its units have A after N.
    """
    num_crops = 1 if crops is None else crops[0].shape[1]
    shape = units[0].shape[1 if crops is None else 2 :]
    plan = plan_to_bytes(
        PlanEntry(unit=u, key=f"{u}/{i}", bytes=9) for u, unit in enumerate(units) for i in range(len(unit))
    )
    info = TokensInfo(
        version=2 if crops is None else 3,
        augment=None if crops is None else f"random-crops={num_crops}",
        num_crops=num_crops,
        fingerprint="f" * 64,
        codebook_size=codebook_size,
        num_codebooks=shape[2] if len(shape) == 3 else 1,
        index_order=None,
        grid=shape[:2],
        downsample=8,
        size=8 * shape[1],
        fit="crop",
        numerics=Numerics(device="cpu", precision="fp32", batch_size=16, threads=1, versions={"imtok": "1"}),
        units=len(units),
        unit_size=1,
        images=sum(map(len, units)),
        tars=0,
        class_names=class_names,
        plan=hashlib.sha256(plan).hexdigest(),
    )
    made = [
        _shard(unit, codes, codebook_size, labels[unit] if labels else None, crops[unit] if crops else None)
        for unit, codes in enumerate(units)
    ]
    shards = [shard_to_bytes(shard) for shard in made]
    entries = [manifest_entry(shard, data) for shard, data in zip(made, shards, strict=True)]
    files = {INFO: info.to_bytes(), plan_path(): plan, MANIFEST: manifest_to_bytes(entries)}
    files |= {shard_path(unit): data for unit, data in enumerate(shards)}
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def _shard(
    unit: int,
    codes: npt.NDArray[np.integer[Any]],
    codebook_size: int,
    labels: npt.NDArray[np.int64] | None,
    crops: npt.NDArray[np.int32] | None,
) -> Shard:
    smallest = codes.astype(smallest_dtype(codebook_size))
    return Shard(
        header=ShardHeader(
            version=1 if crops is None else 2,
            unit=unit,
            inputs=len(codes),
            fingerprint="f" * 64,
            codebook_size=codebook_size,
        ),
        codes=smallest if crops is None else smallest[:, 0],
        keys=PackedStrings.pack(f"{unit}/{number}" for number in range(len(codes))),
        index=np.arange(len(codes)),
        original_size=np.full((len(codes), 2), 64, np.int32),
        labels=labels,
        skip_index=np.empty(0, np.int64),
        skip_keys=PackedStrings.pack([]),
        skip_reasons=PackedStrings.pack([]),
        crop_codes=None if crops is None else smallest,
        crops=crops,
    )


def outcomes(container: Container) -> dict[str, bytes | str]:
    """What each image gives: its bytes, or the reason why it has none."""
    found: dict[str, bytes | str] = {}
    for image in container.images:
        try:
            found[image.key] = image.read()
        except ImageError as error:
            found[image.key] = error.reason
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a token folder outside its journal."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if "journal" not in path.parts}


def fill_split(folder: Path, *, train: int, val: int) -> Path:
    """Write tars of pictures of 32 px for training and of others held out, and return the folder."""
    for name, seeds in (("train", range(train)), ("val", range(train, train + val))):
        members = [(f"{seed}.png", encoded(picture(seed, 32, 32))) for seed in seeds]
        write_tar(folder / f"{name}-00000.tar", members)
    return folder
