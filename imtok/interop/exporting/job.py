"""Export a tokenizer: write its files, run them by the library that owns the format, and put a description beside."""

# Axes: B batch, H x W image, h x w latent grid with h = H / downsample, Q codebooks.

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imtok.config.origin import warn_of_gray_images
from imtok.errors import ImtokError, TokenizerError
from imtok.files import atomic_folder, check_folder_target
from imtok.interop.exporting.diffusers_model import DiffusersModel
from imtok.interop.exporting.format import Format, Layout, Runtime
from imtok.interop.exporting.onnx import ONNX
from imtok.interop.exporting.torch_export import TorchExport
from imtok.tokenizer import Tokenizer, load
from imtok.version import __version__

FORMATS: dict[str, Format] = {found.name: found for found in (TorchExport(), ONNX(), DiffusersModel())}
DESCRIPTION = "imtok.json"
_VERSION = 1
# Rounding turns a token that lies between two codes. More than this share is no rounding.
_MOST_DIFFERENT = 0.01

Progress = Callable[[str], None]


@dataclass(frozen=True)
class ExportCheck:
    """How the exported files compare with the tokenizer, on images that are made for it."""

    runtime: str  # name and version
    codes: int  # compared
    different_codes: int
    image_difference: float  # largest of a value in [-1, 1], decoded from the same codes


@dataclass(frozen=True)
class ExportReport:
    """The result of an export."""

    folder: Path
    sizes: dict[str, int]  # bytes of each file by its name
    layout: Layout
    num_codes: int
    license: str  # empty: not known
    check: ExportCheck
    existed: bool  # the same export was there before, and nothing was done


def export_tokenizer(
    path: str | Path, output: str | Path, to: str, *, progress: Progress | None = None
) -> ExportReport:
    """Export the tokenizer that `imtok.load(path)` finds to the new folder `output`, in the format named `to`.

    The folder appears whole or not at all, after its files have given the tokenizer's own codes. Where it holds the
    same export already, nothing is done. `progress` receives a line at each step.

    Raises ImtokError on an unknown format, a package that is missing and a folder that holds anything else,
    TokenizerError where the format cannot hold the tokenizer.
    """
    report, output = progress or (lambda _: None), Path(output)
    if to not in FORMATS:
        raise ImtokError(f"--to {to}: no such format; known are {', '.join(FORMATS)}")
    target = FORMATS[to]
    versions = target.versions()
    check_folder_target(output)
    tokenizer = load(path)
    if misfit := target.misfit(tokenizer):
        raise TokenizerError(f"{path}: {misfit}; export it to {' or '.join(name for name in FORMATS if name != to)}")
    warn_of_gray_images(tokenizer.config.origin, path)
    content = _content(tokenizer, to)
    if output.is_dir() and any(output.iterdir()):
        return _existing(output, content, path)
    with atomic_folder(output) as folder:
        report("tracing and writing")
        layout = target.write(tokenizer, folder)
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        report("comparing codes and images")
        check = compare(tokenizer, target.read(folder), layout, f"{target.runtime} {versions[target.runtime]}")
        if check.different_codes > _MOST_DIFFERENT * check.codes:
            raise TokenizerError(
                f"{path}: as {to}, {check.different_codes} of {check.codes} codes are others than imtok's under "
                f"{check.runtime}; nothing is written, please report it"
            )
        files = {name: _sha256(folder / name) for name in sizes}
        text = json.dumps(content | _facts(tokenizer, layout, versions, files, check), indent=2) + "\n"
        (folder / DESCRIPTION).write_text(text)
    return _report(output, sizes, layout, tokenizer, check, existed=False)


def compare(tokenizer: Tokenizer, runtime: Runtime, layout: Layout, name: str) -> ExportCheck:
    """Compare codes and images of exported files with those of the tokenizer, on images of noise of two sizes."""
    codes = different = 0
    difference = 0.0
    for images in _images(tokenizer, layout):
        expected = tokenizer.encode(images)
        codes += expected.numel()
        different += int((runtime.encode(images) != expected).sum())
        difference = max(difference, float((runtime.decode(expected) - tokenizer.decode(expected)).abs().max()))
    return ExportCheck(name, codes, different, difference)


def _images(tokenizer: Tokenizer, layout: Layout) -> Iterable[Tensor]:
    """Yield batches (B, 3, H, W) in [-1, 1]: coarse and fine noise, so that many codes occur."""
    size, factor = tokenizer.config.size, tokenizer.downsample or 1
    shapes = [(1, size, size), (2, 4 * factor, 6 * factor) if layout.free_size else (2, size, size)]
    random = torch.Generator().manual_seed(0)
    for batch, height, width in shapes:
        layers = [
            torch.rand(batch, 3, max(height // cell, 1), max(width // cell, 1), generator=random) for cell in (1, 4, 16)
        ]
        spread = [F.interpolate(layer, size=(height, width), mode="nearest") for layer in layers]
        yield sum(spread, torch.zeros(())) / len(spread) * 2 - 1


def _content(tokenizer: Tokenizer, to: str) -> dict[str, Any]:
    """Return what makes one export the same as another: the format, and the tokenizer with its decoder."""
    origin = tokenizer.config.origin
    digest = hashlib.sha256()
    for name, data in sorted(tokenizer.files().items()):
        digest.update(name.encode() + data)
    return {
        "format": "imtok-export",
        "version": _VERSION,
        "to": to,
        "fingerprint": tokenizer.fingerprint,
        "tokenizer_sha256": digest.hexdigest(),
        "origin": None if origin is None else origin.model_dump(mode="json"),
        "license": "" if origin is None else origin.license,
    }


def _facts(
    tokenizer: Tokenizer, layout: Layout, versions: dict[str, str], files: dict[str, str], check: ExportCheck
) -> dict[str, Any]:
    """Return the rest of the description: what the files take and give, and what was found when they were made."""
    return {
        "images": {
            "shape": list(layout.images),
            "dtype": "float32",
            "range": [-1, 1],
            "least_side": layout.least_grid * (tokenizer.downsample or 1) if layout.free_size else None,
        },
        "codes": {"shape": list(layout.codes), "dtype": "int64", "num_codes": tokenizer.num_codes},
        "size": tokenizer.config.size,
        "downsample": tokenizer.downsample,
        "files": files,
        "made_with": {"imtok": __version__, **versions},
        "check": {
            "runtime": check.runtime,
            "codes": check.codes,
            "different_codes": check.different_codes,
            "image_difference": check.image_difference,
        },
        "tokenizer": tokenizer.config.model_dump(mode="json"),
    }


def _existing(output: Path, content: dict[str, Any], path: str | Path) -> ExportReport:
    """Return the report of an export that is there; raises ImtokError where it is damaged, or is another."""
    try:
        found = json.loads((output / DESCRIPTION).read_bytes())
        same = all(found.get(key) == value for key, value in content.items())
    except (OSError, ValueError, AttributeError):
        raise ImtokError(f"{output}: holds other files; give a new name") from None
    if not same:
        raise ImtokError(f"{output}: holds another export than that of {path} to {content['to']}; give a new name")
    try:
        return _described(output, found, content["license"])
    except (LookupError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        raise ImtokError(f"{output / DESCRIPTION}: damaged; remove {output} and export again") from error


def _described(output: Path, found: dict[str, Any], license_name: str) -> ExportReport:
    """Return the report of an export by its description; raises ImtokError where one of its files is damaged."""
    damaged = [name for name, sha256 in found["files"].items() if not _is_file(output / name, sha256)]
    if damaged:
        raise ImtokError(f"{output / damaged[0]}: missing or damaged; remove {output} and export again")
    images, codes = found["images"], found["codes"]
    least = (images["least_side"] or 0) // (found["downsample"] or 1) or 1
    return ExportReport(
        folder=output,
        sizes={name: (output / name).stat().st_size for name in found["files"]},
        layout=Layout(tuple(images["shape"]), tuple(codes["shape"]), least),
        num_codes=codes["num_codes"],
        license=license_name,
        check=ExportCheck(**found["check"]),
        existed=True,
    )


def _report(
    output: Path, sizes: dict[str, int], layout: Layout, tokenizer: Tokenizer, check: ExportCheck, *, existed: bool
) -> ExportReport:
    origin = tokenizer.config.origin
    license_name = "" if origin is None else origin.license
    return ExportReport(output, sizes, layout, tokenizer.num_codes, license_name, check, existed)


def _is_file(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256(path) == sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
