"""Which folders are classes."""

from __future__ import annotations

import pytest

from imtok.data.labels.folders import FolderTally


def classes_of(*keys: str) -> dict[str, str | None] | None:
    """The classes of keys, None where there are no class folders."""
    classes, _ = FolderTally().add(keys).find_classes()
    return {key: classes.class_of(key) for key in keys} if classes else None


def notes_of(*keys: str) -> str:
    """All that is said about the folders of keys."""
    classes, notes = FolderTally().add(keys).find_classes()
    return "; ".join(classes.notes if classes else notes)


@pytest.mark.parametrize("splits", [("train", "val"), ("Training", "test"), ("train2017", "valid_set")])
def test_below_splits_the_second_level_names_the_classes(splits: tuple[str, str]) -> None:
    one, other = splits
    keys = f"{one}/cat/1.jpg", f"{one}/dog/a/2.jpg", f"{other}/eel/3.jpg"
    assert classes_of(*keys) == dict(zip(keys, ("cat", "dog", "eel"), strict=True))
    assert "splits" in notes_of(*keys)


def test_a_single_split_has_classes() -> None:
    assert classes_of("train/cat/1.jpg", "train/dog/2.jpg") == {"train/cat/1.jpg": "cat", "train/dog/2.jpg": "dog"}


def test_flat_images_and_lone_folders_of_splits_have_no_class() -> None:
    keys = "train/cat/1.jpg", "train/dog/2.jpg", "val/3.jpg", "test/images/4.jpg"
    assert classes_of(*keys) == dict(zip(keys, ("cat", "dog", None, None), strict=True))
    assert "1 image of test/images in no class folder" in notes_of(*keys)


def test_splits_without_folders_are_no_classes() -> None:
    assert classes_of("train2017/1.jpg", "val2017/2.jpg") is None
    assert "splits" in notes_of("train2017/1.jpg", "val2017/2.jpg")


def test_a_class_may_bear_the_name_of_a_split() -> None:
    assert classes_of("train/1.jpg", "bus/2.jpg") == {"train/1.jpg": "train", "bus/2.jpg": "bus"}


@pytest.mark.parametrize(
    "keys",
    [
        ("00000/000000000.jpg", "00001/000010007.jpg"),
        ("00000/img00000000.png", "00001/img00001000.png"),
        ("00000/00999.png", "01000/01000.png"),
        ("train/00000/000000000.jpg", "train/00001/000010007.jpg"),
    ],
)
def test_shard_folders_are_no_classes(keys: tuple[str, ...]) -> None:
    assert classes_of(*keys) is None
    assert "shards" in notes_of(*keys)


@pytest.mark.parametrize(
    "keys",
    [
        ("0/00123.png", "9/00007.png"),
        ("00000/00000_00003.ppm", "00042/00001_00000.ppm"),
        ("2019/20190304.jpg", "2020/holiday.jpg"),
    ],
)
def test_classes_may_be_numbers(keys: tuple[str, ...]) -> None:
    assert classes_of(*keys) == {key: key.split("/")[0] for key in keys}


def test_a_stray_image_is_named_and_drops_no_label() -> None:
    keys = "cat/1.jpg", "dog/2.jpg", "stray.jpg"
    assert classes_of(*keys) == dict(zip(keys, ("cat", "dog", None), strict=True))
    assert "stray.jpg" in notes_of(*keys)


def test_folders_beside_mostly_flat_images_are_no_classes() -> None:
    assert classes_of("1.jpg", "2.jpg", "3.jpg", "old/4.jpg", "raw/5.jpg") is None


def test_names_that_differ_in_case_are_two_classes_and_said() -> None:
    keys = "Cat/1.jpg", "cat/2.jpg", "Ärger/3.jpg"
    assert classes_of(*keys) == dict(zip(keys, ("Cat", "cat", "Ärger"), strict=True))
    assert "Cat, cat differ" in notes_of(*keys)


def test_folders_in_the_only_folder_are_pointed_to() -> None:
    assert "give that folder itself" in notes_of("wrapped/cat/1.jpg", "wrapped/dog/2.jpg")
