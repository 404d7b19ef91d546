"""Plain NumPy arrays of token sets, read back by the format's reader and by NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exporting import check_equal, export_and_read, random_tokens

from imtok.errors import TokensError
from imtok.export.formats import FORMATS


@pytest.mark.parametrize("library", [False, True])
@pytest.mark.parametrize(
    ("grid", "codebooks", "crops"), [((2, 3), 1, 0), ((1, 5), 1, 2), ((2, 2), 3, 0), ((2, 2), 2, 3)]
)
def test_arrays_hold_every_image(
    tmp_path: Path, library: bool, grid: tuple[int, int], codebooks: int, crops: int
) -> None:
    tokens = random_tokens(tmp_path / "tokens", grid=grid, codebooks=codebooks, crops=crops, classes=5)
    *_, images = export_and_read(tokens, "npy", tmp_path, library=library, shard_size=4)
    check_equal(tokens, images)


def test_numpy_maps_the_array_of_a_whole_split(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", grid=(2, 3), codebook_size=60000)
    folder, *_, images = export_and_read(tokens, "npy", tmp_path)
    array = np.load(folder / "train.npy", mmap_mode="r")
    assert (array.shape, array.dtype) == ((9, 6), np.uint16)
    np.testing.assert_array_equal(array, np.stack([image.ids[0] for image in images]))


def test_arrays_cut_short_are_named(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens")
    folder, plan, pieces, _ = export_and_read(tokens, "npy", tmp_path)
    (folder / "train.npy").write_bytes((folder / "train.npy").read_bytes()[:-1])
    with pytest.raises(TokensError, match=r"train\.npy: 235 bytes, expected 236"):
        list(FORMATS["npy"]().read(pieces, plan, folder))
