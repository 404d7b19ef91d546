"""Token folders of every shape, and exports of them that are read back, for the tests of formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from making import token_folder

from imtok.export.format import ExportPlan, Piece, ReadImage
from imtok.export.formats import FORMATS
from imtok.export.job import export_tokens
from imtok.export.options import ExportOptions
from imtok.tokens import TokenDataset, open_tokens


def random_tokens(
    path: Path,
    units: Sequence[int] = (3, 4, 2),
    grid: tuple[int, int] = (2, 3),
    codebooks: int = 1,
    codebook_size: int = 1000,
    *,
    classes: int = 0,
    crops: int = 0,
    seed: int = 0,
) -> Path:
    """A complete token folder of random codes, with the largest one first.

    `classes` above 0 gives labels, `crops` above 0 so many crops of each image.
    """
    draws = np.random.default_rng(seed)
    shape = (*([crops] if crops else []), *grid, *([codebooks] if codebooks > 1 else []))
    codes = [draws.integers(0, codebook_size, (images, *shape)) for images in units]
    codes[0].reshape(-1)[0] = codebook_size - 1
    labels = [draws.integers(0, classes, images) for images in units] if classes else None
    names = tuple(f"class {number}" for number in range(classes))
    boxes = [draws.integers(0, 64, (images, crops, 5)).astype(np.int32) for images in units] if crops else None
    return token_folder(path, codes, codebook_size, labels=labels, class_names=names, crops=boxes)


def export_and_read(
    tokens: Path, name: str, tmp_path: Path, *, library: bool = False, **options: Any
) -> tuple[Path, ExportPlan, tuple[Piece, ...], list[ReadImage]]:
    """Export a token folder to `tmp_path / name` and read it back, by the format's own reader or by its library."""
    report = export_tokens(tokens, tmp_path / name, name, ExportOptions(**options))
    target = FORMATS[name]()
    read = target.read_by_library if library else target.read
    return report.folder, report.plan, report.pieces, list(read(report.pieces, report.plan, report.folder))


def check_equal(tokens: Path, images: Sequence[ReadImage], *, keys: bool = True, labels: bool = True) -> None:
    """Check that images read back, of an export in the order of the inputs without other ids, are those of a set."""
    dataset = open_tokens(tokens)
    assert len(images) == len(dataset)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(image.ids.astype(np.int64), expected_ids(dataset, number))
        if keys:
            assert image.key == dataset.key(number)
        if labels:
            assert image.label == dataset.label(number)


def expected_ids(dataset: TokenDataset, number: int) -> npt.NDArray[np.int64]:
    """The codes of an image as ids (A, T), codebooks interleaved."""
    codes: npt.NDArray[np.int64] = dataset.all_codes(number).numpy()
    return codes.reshape(len(codes), -1)
