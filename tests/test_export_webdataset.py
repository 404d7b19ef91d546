"""WebDataset tars, read back by webdataset, and the tars themselves against tarfile."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from export_pieces import Exporting
from exporting import check_equal, export_and_read, random_tokens

from imtok.errors import TokensError
from imtok.export import tar_writing
from imtok.export.formats.webdataset import WebDataset
from imtok.export.member_names import MemberNames, member_name
from imtok.export.npy_files import npy_files
from imtok.export.tar_writing import Member, TarWriter, read_members

# webdataset leaves its files open.
OPEN_FILES = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

EXPORT = Exporting(WebDataset(), "int16")


def test_samples_are_read_back_by_webdataset(tmp_path: Path) -> None:
    EXPORT.write(tmp_path)
    EXPORT.check(EXPORT.read_by_library(tmp_path))
    EXPORT.check(EXPORT.read(tmp_path))


@OPEN_FILES
def test_crops_are_rows_of_ids_and_lie_in_the_json(tmp_path: Path) -> None:
    export = EXPORT.but(crops=2, labelled=False)
    export.write(tmp_path)
    export.check(export.read_by_library(tmp_path))
    export.check(export.read(tmp_path))
    samples = webdataset.WebDataset([str(tmp_path / "train-00000.tar")], shardshuffle=False).decode()
    crops = export.block(0, 5).crops
    assert crops is not None
    assert [sample["json"]["crops"] for sample in samples] == crops.tolist()


@OPEN_FILES
def test_one_grid_an_image_is_one_row_without_an_axis(tmp_path: Path) -> None:
    EXPORT.write(tmp_path)
    sample = next(iter(webdataset.WebDataset([str(tmp_path / "train-00000.tar")], shardshuffle=False).decode()))
    assert sample["npy"].shape == (6,)
    assert sample["__key__"] == "n/0"  # the name that n/0.png has in a tar of pictures
    assert sample["json"] == {"key": "n/0.png", "height": 2, "width": 3}


def test_keys_with_dots_stay_apart_and_whole(tmp_path: Path) -> None:
    keys = ("img.1.jpg", "img.2.jpg", "img_1.png", "img_1.jpg", "__x__/a.png", ".png", "a.b/c", "bild ä.jpg")
    export = EXPORT.but(keys=keys)
    export.write(tmp_path)
    export.check(export.read_by_library(tmp_path))
    export.check(export.read(tmp_path))


def test_equal_keys_of_two_containers_stay_two_samples(tmp_path: Path) -> None:
    export = EXPORT.but(keys=("0.jpg",) * 5)
    export.write(tmp_path)
    export.check(export.read_by_library(tmp_path))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a/b.JPEG", "a/b"),
        ("img.1.jpg", "img_1"),
        ("a.b/c.png", "a_b/c"),
        ("clip.v2", "clip_v2"),
        (".png", "_png"),
        ("a/.png", "a/_png"),
        ("a", "a"),
        ("__x__/a.png", "_x__/a"),
    ],
)
def test_names_are_keys_without_suffix_and_dots(key: str, name: str) -> None:
    assert member_name(key) == name


def test_names_repeat_neither_each_other_nor_their_numbers() -> None:
    assert MemberNames().take(["a.jpg", "a-1.jpg", "a.png", "a.jpg"]) == ["a", "a-1", "a-2", "a-3"]


def tar_by_tarfile(members: list[Member]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.size = len(member.data)
            tar.addfile(info, io.BytesIO(member.data))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "text"),
    [("b/c", b"12"), ("d" * 96, b"1"), ("d" * 97, b"1"), ("grün", b"1"), ("e", b""), ("e", bytes(513)), ("e", None)],
)
def test_tars_are_those_of_tarfile_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: bytes | None
) -> None:
    monkeypatch.setattr(tar_writing, "_CHUNK", 3)
    names = ["a", name, *(f"f/{number}" for number in range(5))]
    texts = [b"0", text, *(b"%d" % number for number in range(5))]
    arrays = np.arange(7 * 600, dtype=np.uint32).view(np.uint8).reshape(7, -1)
    members = []
    for stem, array, data in zip(names, arrays, texts, strict=True):
        members.append(Member(f"{stem}.npy", array.tobytes()))
        members += [Member(f"{stem}.txt", data)] if data is not None else []
    with (tmp_path / "a.tar").open("wb") as file:
        writer = TarWriter(file)
        writer.write_samples(names, {"npy": arrays, "txt": texts})
        writer.close()
    assert (tmp_path / "a.tar").read_bytes() == tar_by_tarfile(members)
    assert list(read_members(tmp_path / "a.tar")) == members


@pytest.mark.parametrize("shape", [(3, 5), (2, 1, 4, 6)])
def test_npy_files_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    arrays = np.random.default_rng(0).integers(0, 99, shape, np.int16)
    for array, found in zip(arrays, npy_files(arrays), strict=True):
        file = io.BytesIO()
        np.save(file, array)
        assert found.tobytes() == file.getvalue()


def test_tars_do_not_depend_on_blocks_or_on_when(tmp_path: Path) -> None:
    EXPORT.write(tmp_path / "a")
    EXPORT.write(tmp_path / "b")
    one = EXPORT.but(shard_size=None)
    one.write(tmp_path / "one")
    assert (tmp_path / "a/train-00000.tar").read_bytes() == (tmp_path / "b/train-00000.tar").read_bytes()
    one.check(one.read(tmp_path / "one"))


def test_a_tar_cut_between_members_is_found(tmp_path: Path) -> None:
    EXPORT.write(tmp_path)
    path = tmp_path / "train-00000.tar"
    path.write_bytes(path.read_bytes()[: 4 * 3 * 1024])  # four whole samples; tarfile sees no damage
    with pytest.raises(TokensError, match="holds 4 images, expected 5"):
        EXPORT.read(tmp_path)


def test_a_tar_cut_within_a_member_is_found(tmp_path: Path) -> None:
    EXPORT.write(tmp_path)
    path = tmp_path / "train-00001.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(TokensError, match=r"train-00001\.tar"):
        EXPORT.read(tmp_path)


def test_types_are_those_that_torch_embeds() -> None:
    import torch

    for dtype in WebDataset.dtypes:
        ids = torch.from_numpy(np.arange(4).astype(dtype))
        assert int((ids + 1).max()) == 4  # of uint16 torch refuses both


@OPEN_FILES
@pytest.mark.parametrize("crops", [0, 3])
def test_a_token_set_goes_through_tars_unharmed(tmp_path: Path, crops: int) -> None:
    tokens = random_tokens(tmp_path / "tokens", classes=5, crops=crops)
    for library in (False, True):
        images = export_and_read(tokens, "webdataset", tmp_path, library=library, shard_size=4)[3]
        check_equal(tokens, images)
