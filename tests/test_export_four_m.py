"""ml-4m's tars, read back by webdataset with ml-4m's rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from export_pieces import INFO, Exporting
from exporting import check_equal, export_and_read, random_tokens

from imtok.errors import ConfigError, TokensError
from imtok.export.formats.four_m import FourM
from imtok.export.npy_files import npy_files
from imtok.export.tar_writing import Member, TarWriter

# webdataset leaves its files open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

EXPORT = Exporting(FourM(), "int16")
TOKENS, CROPS = "tok_rgb@16", "crop_settings"


def samples(root: Path, shard: str) -> Iterator[dict[str, Any]]:
    """Join the tars of two modalities as ml-4m's multi_tarfile_samples, decoder and filters do."""
    tars = [webdataset.tariterators.tarfile_samples([{"url": str(root / name / shard)}]) for name in (TOKENS, CROPS)]
    for parts in zip(*tars, strict=False):
        assert len({part["__key__"] for part in parts}) == 1, "Divergence detected"
        sample: dict[str, Any] = {"name": parts[0]["__key__"]}
        for modality, part in zip((TOKENS, CROPS), parts, strict=True):
            for suffix, value in part.items():
                if not suffix.startswith("__"):
                    whole = suffix if suffix.count(".") == 1 else f"{modality}.{suffix}"
                    array = webdataset.autodecode.npy_loads(value)
                    sample[whole.rpartition(".")[0]] = array.astype("int64") if "tok_" in whole else array
        yield sample


def test_shards_are_joined_by_the_rules_of_the_trainer(tmp_path: Path) -> None:
    export = EXPORT.but(crops=3)
    export.write(tmp_path)
    found = [*samples(tmp_path / "train", "shard-00000.tar"), *samples(tmp_path / "train", "shard-00001.tar")]
    block = export.block(0, 8)
    assert block.crops is not None
    assert [sample["name"] for sample in found] == [f"n/{number}" for number in range(8)]
    for number, sample in enumerate(found):
        np.testing.assert_array_equal(sample[TOKENS], block.ids[number])
        np.testing.assert_array_equal(sample[CROPS], block.crops[number])


@pytest.mark.parametrize("crops", [1, 3])
def test_images_are_read_back(tmp_path: Path, crops: int) -> None:
    export = EXPORT.but(crops=crops, split="val")
    paths = export.write(tmp_path)
    assert paths[:2] == ["val/tok_rgb@16/shard-00000.tar", "val/crop_settings/shard-00000.tar"]
    export.check(export.read(tmp_path), keys=False, labels=False)


def test_keys_with_dots_give_names_with_none(tmp_path: Path) -> None:
    export = EXPORT.but(keys=("img.1.jpg", "img.2.jpg", "img_1.jpg", "img_1.png"))
    export.write(tmp_path)
    found = list(samples(tmp_path / "train", "shard-00000.tar"))
    assert [sample["name"] for sample in found] == ["img_1", "img_2", "img_1-1", "img_1-2", "n/4"]
    assert all(set(sample) == {"name", TOKENS, CROPS} for sample in found)


def test_a_second_dot_would_lose_the_modality(tmp_path: Path) -> None:
    (data,) = npy_files(np.zeros((1, 2, 6), "<i2"))
    for name in (TOKENS, CROPS):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "shard-00000.tar").open("wb") as file:
            tar = TarWriter(file)
            tar.write([Member("img.jpg.npy", data.tobytes())])
            tar.close()
    assert set(next(samples(tmp_path, "shard-00000.tar"))) == {"name", "jpg"}


@pytest.mark.parametrize(
    ("fit", "size", "crop"),
    [
        ("crop", (48, 40), [4, 0, 40, 40, 0]),
        ("crop", (40, 51), [0, 5, 40, 40, 0]),
        ("pad", (40, 51), [-5, 0, 51, 51, 0]),
        ("pad", (40, 40), [0, 0, 40, 40, 0]),
    ],
)
def test_sets_without_crops_get_that_of_their_fit(
    tmp_path: Path, fit: str, size: tuple[int, int], crop: list[int]
) -> None:
    EXPORT.but(sizes=size, info=INFO.model_copy(update={"fit": fit})).write(tmp_path)
    sample = next(samples(tmp_path / "train", "shard-00000.tar"))
    assert sample[CROPS].tolist() == [crop]


def test_more_codes_than_int16_holds_are_refused(tmp_path: Path) -> None:
    small = random_tokens(tmp_path / "small", codebook_size=32_768)
    check_equal(small, export_and_read(small, "4m", tmp_path)[3], keys=False, labels=False)
    large = random_tokens(tmp_path / "large", codebook_size=32_769)
    with pytest.raises(ConfigError, match=r"32,769 ids.*up to 32,767.*parquet"):
        export_and_read(large, "4m", tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_a_token_set_with_crops_goes_through_shards_unharmed(tmp_path: Path) -> None:
    tokens = random_tokens(tmp_path / "tokens", crops=2)
    check_equal(tokens, export_and_read(tokens, "4m", tmp_path, shard_size=4)[3], keys=False, labels=False)


@pytest.mark.parametrize("damaged", [TOKENS, CROPS])
def test_tars_that_do_not_match_are_found(tmp_path: Path, damaged: str) -> None:
    EXPORT.write(tmp_path)
    path = tmp_path / "train" / damaged / "shard-00000.tar"
    path.write_bytes(path.read_bytes()[: 2 * 1024])
    with pytest.raises(TokensError, match="crop_settings"):
        EXPORT.read(tmp_path)
