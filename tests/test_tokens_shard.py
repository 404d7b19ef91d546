"""Shards of augmented units, and the data set over them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making import token_folder

from imtok.errors import TokensError
from imtok.tokens import TokensInfo, open_tokens, read_shard, shard_to_bytes, verify_tokens
from imtok.tokens.folder import INFO, shard_path

CENTRAL, MIRRORED = (8, 8, 40, 48, 0), (0, 4, 64, 60, 1)


def augmented(path: Path, crops: tuple[tuple[int, ...], ...] = (CENTRAL, MIRRORED)) -> tuple[Path, np.ndarray]:
    """A token folder of two units of three images with two crops, and its codes (2, 3, 2, 2, 3)."""
    codes = np.random.default_rng(0).integers(0, 300, (2, 3, 2, 2, 3))
    settings = np.tile(np.array(crops, np.int32), (3, 1, 1))
    return token_folder(path, list(codes), 300, crops=[settings, settings]), codes


def test_the_first_crop_stands_for_its_image(tmp_path: Path) -> None:
    folder, codes = augmented(tmp_path / "t")
    tokens = open_tokens(folder)
    assert (len(tokens), tokens.num_crops) == (6, 2)
    assert [codes.tolist() for _, codes in tokens] == codes[:, :, 0].reshape(6, 2, 3).tolist()
    assert tokens[4][1].tolist() == codes[1, 1, 0].tolist()


def test_every_crop_is_read_with_its_place(tmp_path: Path) -> None:
    folder, codes = augmented(tmp_path / "t")
    tokens = open_tokens(folder)
    all_codes, crops = tokens.all_codes(4), tokens.crops(4)
    assert crops is not None
    assert (all_codes.dtype, crops.dtype) == (torch.int64, torch.int64)
    assert all_codes.tolist() == codes[1, 1].tolist()
    assert crops.tolist() == [list(CENTRAL), list(MIRRORED)]


def test_a_set_without_augmentation_has_one_crop(tmp_path: Path) -> None:
    codes = np.arange(12).reshape(2, 2, 3)
    tokens = open_tokens(token_folder(tmp_path / "t", [codes], 300))
    assert (tokens.num_crops, tokens.crops(1)) == (1, None)
    assert tokens.all_codes(1).tolist() == [codes[1].tolist()]
    assert next(tokens.shards()).all_codes.shape == (2, 1, 2, 3)


def test_an_augmented_shard_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder, _ = augmented(tmp_path / "t")
    path = folder / shard_path(1)
    shard = read_shard(path)
    assert (shard.header.version, shard.codes.shape, shard.all_codes.shape) == (2, (3, 2, 3), (3, 2, 2, 3))
    assert shard.all_codes.dtype == np.uint16
    assert shard_to_bytes(shard) == path.read_bytes()


def test_crops_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder, _ = augmented(tmp_path / "t")
    path = folder / shard_path(0)
    shard = read_shard(path)
    assert shard.crops is not None
    path.write_bytes(shard_to_bytes(replace(shard, crops=shard.crops[:, :1])))
    with pytest.raises(TokensError, match=r"crops: shape \(3, 1, 5\), expected \(3, 2, 5\)"):
        read_shard(path)


def test_an_augmented_shard_without_crops_is_refused(tmp_path: Path) -> None:
    folder, _ = augmented(tmp_path / "t")
    path = folder / shard_path(0)
    shard = read_shard(path)
    path.write_bytes(shard_to_bytes(replace(shard, crops=None)))
    with pytest.raises(TokensError, match="its array 'crops' is missing"):
        read_shard(path)
    path.write_bytes(shard_to_bytes(replace(shard, crop_codes=None)))
    with pytest.raises(TokensError, match=r"codes are uint16\[3, 2, 3\], without crops"):
        read_shard(path)


def test_a_shard_of_another_number_of_crops_is_foreign(tmp_path: Path) -> None:
    folder, _ = augmented(tmp_path / "t")
    other, _ = augmented(tmp_path / "other", (CENTRAL, MIRRORED, CENTRAL)[:1] * 2)
    path = folder / shard_path(0)
    shard = read_shard(other / shard_path(0))
    assert shard.crops is not None
    assert shard.crop_codes is not None
    path.write_bytes(shard_to_bytes(replace(shard, crops=shard.crops[:, :1], crop_codes=shard.crop_codes[:, :1])))
    with pytest.raises(TokensError, match="the number of crops is 1, expected 2"):
        open_tokens(folder)[0]


@pytest.mark.parametrize("crop", [(30, 0, 40, 48, 0), (0, -1, 40, 48, 0), (0, 0, 0, 48, 0), (0, 0, 40, 48, 2)])
def test_a_crop_outside_its_picture_is_found(tmp_path: Path, crop: tuple[int, ...]) -> None:
    folder, _ = augmented(tmp_path / "t", (CENTRAL, crop))
    problems = verify_tokens(folder).problems
    assert sum("a crop of 0/0 is not inside its picture" in problem for problem in problems) == 1
    assert not any("a crop of" in problem for problem in verify_tokens(augmented(tmp_path / "good")[0]).problems)


def test_a_code_of_any_crop_out_of_range_is_found(tmp_path: Path) -> None:
    folder, _ = augmented(tmp_path / "t")
    path = folder / shard_path(0)
    shard = read_shard(path)
    codes = shard.all_codes.copy()
    codes[2, 1, 0, 0] = 301
    path.write_bytes(shard_to_bytes(replace(shard, crop_codes=codes)))
    assert any("code 301 is outside [0, 300)" in problem for problem in verify_tokens(folder).problems)


def test_only_augmented_sets_have_version_3(tmp_path: Path) -> None:
    folder, _ = augmented(tmp_path / "t")
    info = open_tokens(folder).info
    assert (info.version, info.augment, info.num_crops) == (3, "random-crops=2", 2)
    assert TokensInfo.model_validate_json((folder / INFO).read_bytes()) == info
    plain = open_tokens(token_folder(tmp_path / "p", [np.zeros((1, 2, 2), int)], 4)).info
    assert (plain.version, plain.num_crops) == (2, 1)
    assert b"crop" not in plain.to_bytes().replace(b'"fit": "crop"', b"")
    assert b"augment" not in plain.to_bytes()
    with pytest.raises(ValueError, match="version 3 holds augmented sets"):
        TokensInfo.model_validate(info.model_dump() | {"version": 2})


def test_the_bytes_of_an_augmented_set_do_not_change(tmp_path: Path) -> None:
    folder, _ = augmented(tmp_path / "t")
    digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16] for name in (INFO, shard_path(1))]
    assert digests == ["dd6ff3469dbedb29", "bb1a2d3d572775b8"]
