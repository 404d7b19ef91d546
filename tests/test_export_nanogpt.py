"""nanoGPT's files, read as its train.py reads them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from exporting import check_equal, export_and_read, random_tokens

from imtok.errors import ConfigError, TokensError
from imtok.export import ExportOptions, export_tokens
from imtok.export.formats import FORMATS


@pytest.mark.parametrize(("crops", "codebooks", "size"), [(0, 1, 65536), (2, 1, 1000), (0, 3, 1000)])
def test_a_split_is_the_ids_of_its_images(tmp_path: Path, crops: int, codebooks: int, size: int) -> None:
    tokens = random_tokens(tmp_path / "tokens", crops=crops, codebooks=codebooks, codebook_size=size)
    folder, _, _, images = export_and_read(tokens, "nanogpt", tmp_path)
    check_equal(tokens, images, keys=False, labels=False)
    data = np.memmap(folder / "train.bin", dtype=np.uint16, mode="r")  # as get_batch of train.py
    np.testing.assert_array_equal(data, np.concatenate([image.ids.reshape(-1) for image in images]))


def test_meta_holds_the_vocabulary(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens")
    folder, *_ = export_and_read(tokens, "nanogpt", tmp_path, boi=1002, val_fraction=0.4)
    assert pickle.loads((folder / "meta.pkl").read_bytes()) == {"vocab_size": 1003}
    assert json.loads((folder / "meta.json").read_bytes()) == {"vocab_size": 1003, "ids_per_image": 7}
    assert {path.name for path in folder.glob("*.bin")} == {"train.bin", "val.bin"}


@pytest.mark.parametrize("options", [ExportOptions(eod=65536), ExportOptions(offset=64537)])
def test_ids_above_uint16_are_refused_with_formats_that_hold_them(tmp_path: Path, options: ExportOptions) -> None:
    tokens = random_tokens(tmp_path / "tokens")
    message = r"65,537 ids, the largest 65,536: nanogpt .* up to 65,535; export to .*llmc, npy, .* \(uint32\), or"
    with pytest.raises(ConfigError, match=message):
        export_tokens(tokens, tmp_path / "out", "nanogpt", options)
    assert not (tmp_path / "out").exists()


def test_several_files_a_split_are_refused(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens")
    with pytest.raises(ConfigError, match="--shard-size: means nothing in nanogpt"):
        export_tokens(tokens, tmp_path / "out", "nanogpt", ExportOptions(shard_size=3))


def test_the_note_says_when_val_is_missing(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens")
    assert "--val-fraction" in export_tokens(tokens, tmp_path / "a", "nanogpt").trainer_note
    note = export_tokens(tokens, tmp_path / "b", "nanogpt", ExportOptions(val_fraction=0.4)).trainer_note
    assert note == "vocab_size 1000 in meta.pkl; --block_size=6 is one image"


def test_a_pickle_that_was_changed_is_not_run(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens")
    folder, plan, pieces, _ = export_and_read(tokens, "nanogpt", tmp_path)
    (folder / "meta.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(TokensError, match=r"meta\.pkl: content"):
        list(FORMATS["nanogpt"]().read(pieces, plan, folder))
