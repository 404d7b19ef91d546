"""What the SOURCE arguments name, and under which keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from making import fill, pictures_tar

from imtok.data.sources import find_sources
from imtok.errors import SourceError


def keys(*arguments: str | Path) -> list[str]:
    return [file.key for file in find_sources(arguments).files]


def test_keys_are_relative_paths_with_their_suffix_sorted_by_bytes(tmp_path: Path) -> None:
    names = ["b.png", "B.PNG", "a/x.jpg", "a/x.png", "a.b.c.jpg", "ü.jpg", "名前 x.webp", "a/b/x.jpg"]
    fill(tmp_path, names)
    assert keys(tmp_path) == sorted(names, key=str.encode)


def test_hidden_files_are_ignored_and_others_counted(tmp_path: Path) -> None:
    fill(tmp_path, ["x.jpg", ".hidden.jpg", ".git/y.jpg", "notes.txt", "data.csv"])
    found = find_sources([tmp_path])
    assert [file.key for file in found.files] == ["x.jpg"]
    assert found.ignored == 2


def test_several_folders_lead_their_keys_with_their_names(tmp_path: Path) -> None:
    fill(tmp_path / "one", ["x.jpg"])
    fill(tmp_path / "two", ["x.jpg"])
    assert keys(tmp_path / "two", tmp_path / "one") == ["one/x.jpg", "two/x.jpg"]


def test_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "a/same", ["x.jpg"])
    fill(tmp_path / "b/same", ["y.jpg"])
    with pytest.raises(SourceError, match="called same"):
        find_sources([tmp_path / "a/same", tmp_path / "b/same"])


def test_single_images_of_one_name_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, ["a/x.jpg", "b/x.jpg"])
    with pytest.raises(SourceError, match=r"key x\.jpg"):
        find_sources([tmp_path / "a/x.jpg", tmp_path / "b/x.jpg"])


def test_a_folder_of_tars_is_a_list_of_shards(tmp_path: Path) -> None:
    for name in ("b", "a"):
        pictures_tar(tmp_path / f"{name}.tar", ["x.jpg"])
    found = find_sources([tmp_path])
    assert [tar.name for tar in found.containers] == ["a", "b"]
    assert found.containers[0].size == (tmp_path / "a.tar").stat().st_size


def test_tars_beside_images_are_other_files(tmp_path: Path) -> None:
    fill(tmp_path, ["x.jpg"])
    pictures_tar(tmp_path / "shard.tar", ["y.jpg"])
    found = find_sources([tmp_path])
    assert len(found.files) == 1
    assert found.containers == ()
    assert (found.ignored, found.ignored_containers) == (0, 1)


def test_tars_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        pictures_tar(tmp_path / folder / "0.tar", ["x.jpg"])
    found = find_sources([tmp_path / "train/0.tar", tmp_path / "val/0.tar"])
    assert [tar.name for tar in found.containers] == ["train-0", "val-0"]


def test_a_tar_given_twice_is_refused(tmp_path: Path) -> None:
    tar = pictures_tar(tmp_path / "x.tar", ["x.jpg"])
    with pytest.raises(SourceError, match="given 2 times"):
        find_sources([tar, tar])


def test_braces_name_a_range_of_tars(tmp_path: Path) -> None:
    for number in range(3):
        pictures_tar(tmp_path / f"t-{number:03d}.tar", ["x.jpg"])
    found = find_sources([f"{tmp_path}/t-{{000..002}}.tar"])
    assert [tar.name for tar in found.containers] == ["t-000", "t-001", "t-002"]
    with pytest.raises(SourceError, match=r"1 of 4 files do not exist, first .*t-003\.tar"):
        find_sources([f"{tmp_path}/t-{{000..003}}.tar"])


@pytest.mark.parametrize("argument", ["nowhere", "s3://bucket/x.tar", "pipe:cat x.tar", "t-{000..00"])
def test_what_cannot_be_used_is_named(argument: str) -> None:
    with pytest.raises(SourceError, match=r"^" + argument.replace("{", r"\{").replace(".", r"\.")):
        find_sources([argument])


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(SourceError, match="holds no images \\(1 files of other kinds\\)"):
        find_sources([tmp_path])


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    fill(tmp_path, ["a/x.jpg"])
    (tmp_path / "a/again").symlink_to(tmp_path)
    assert keys(tmp_path)[0] == "a/x.jpg"
    assert len(keys(tmp_path)) <= 2


def test_a_link_to_nothing_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, ["x.jpg"])
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert keys(tmp_path) == ["x.jpg"]


def test_a_name_beyond_utf8_has_a_text_key(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert keys(tmp_path) == ["caf\\xe9.png"]
    assert find_sources([tmp_path]).files[0].read() == b"x"
