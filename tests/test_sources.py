"""What the SOURCE arguments name, and under which keys."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from making import encoded, fill, picture, pictures_tar

from imtok.data.containers import LostImage
from imtok.data.reading import Reading
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
    with pytest.raises(SourceError, match="holds no images \\(1 file of another kind\\)"):
        find_sources([tmp_path])


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    fill(tmp_path, ["a/x.jpg"])
    (tmp_path / "a/again").symlink_to(tmp_path)
    assert keys(tmp_path)[0] == "a/x.jpg"
    assert len(keys(tmp_path)) <= 2


def test_what_bears_an_images_name_is_never_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, ["x.jpg"])
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = find_sources([tmp_path])
    assert {file.key: file.reason for file in found.files if isinstance(file, LostImage)} == {
        "gone.jpg": "link to nothing",
        "pipe.jpg": "not a file",
    }
    assert (len(found.files), found.ignored) == (3, 0)
    old = find_sources([tmp_path], Reading(rules=1))
    assert ([file.key for file in old.files], old.ignored) == (["x.jpg"], 2)


def test_a_link_to_nothing_does_not_hide_tars(tmp_path: Path) -> None:
    pictures_tar(tmp_path / "a.tar", ["x.jpg"])
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "thumbnail").write_bytes(encoded(picture(0)))
    found = find_sources([tmp_path])
    assert [file.key for file in found.files] == ["gone.jpg"]
    assert [container.name for container in found.containers] == ["a"]


def test_files_of_unknown_suffix_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    data = encoded(picture(0))
    images = ["1234", "x.jpg_large", "y.img", "z"]
    others = ["x.jpg_original", "x.jpg~", "x.dng", "x.jpg.part", "x.npy"]
    for name in [*images, *others]:
        (tmp_path / name).write_bytes(data)
    (tmp_path / "README").write_text("photos of mine")
    (tmp_path / "empty").write_bytes(b"")
    found = find_sources([tmp_path])
    assert [file.key for file in found.files] == images
    assert found.ignored == len(others) + 2
    assert keys(tmp_path / "1234") == ["1234"]
    with pytest.raises(SourceError, match="holds no images"):
        find_sources([tmp_path], Reading(rules=1))


def test_containers_are_told_by_their_first_bytes_where_named(tmp_path: Path) -> None:
    tar = pictures_tar(tmp_path / "x.tar", ["x.jpg"]).rename(tmp_path / "deadbeef")
    (container,) = find_sources([tar]).containers
    assert (container.name, container.kind) == ("deadbeef", ".tar")
    assert [image.key for image in container.open().images] == ["x.jpg"]


def test_a_source_is_named_by_the_path_that_was_given(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    for number in range(2):
        pictures_tar(tmp_path / f"blob{number}", ["x.jpg"])
        (tmp_path / f"snapshots/train-{number}.tar").symlink_to(tmp_path / f"blob{number}")
    names = [container.name for container in find_sources([tmp_path / "snapshots"]).containers]
    assert names == ["train-0", "train-1"]
    old = find_sources([tmp_path / "snapshots"], Reading(rules=1)).containers
    assert [container.name for container in old] == ["blob0", "blob1"]

    for name in ("f1", "f2"):
        fill(tmp_path / name, ["x.jpg"])
        (tmp_path / f"link-{name}").symlink_to(tmp_path / name)
    assert keys(tmp_path / "link-f1", tmp_path / "link-f2") == ["link-f1/x.jpg", "link-f2/x.jpg"]


def test_one_file_under_two_names_is_refused(tmp_path: Path) -> None:
    tar = pictures_tar(tmp_path / "x.tar", ["x.jpg"])
    (tmp_path / "y.tar").symlink_to(tar)
    with pytest.raises(SourceError, match=r"x\.tar and .*y\.tar are one file"):
        find_sources([tar, tmp_path / "y.tar"])
    fill(tmp_path / "f", ["x.jpg"])
    (tmp_path / "g").symlink_to(tmp_path / "f")
    with pytest.raises(SourceError, match="are one folder"):
        find_sources([tmp_path / "f", tmp_path / "g"])


def test_recorded_names_stay_when_sources_grow(tmp_path: Path) -> None:
    for number, folder in enumerate(("train", "val", "more")):
        (tmp_path / folder).mkdir()
        pictures_tar(tmp_path / folder / "0.tar", [f"{one}.jpg" for one in range(8 * number + 1)])
    first = find_sources([tmp_path / "train"]).containers[0]
    assert first.name == "0"
    grown = find_sources([tmp_path / name for name in ("more", "train", "val")], known={"0": first.size})
    assert [container.name for container in grown.containers] == ["more-0", "0", "val-0"]


def test_a_compressed_tar_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "shard.tar.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(SourceError, match=r"holds no images but shard\.tar\.gz: compressed with gzip.*gunzip"):
        find_sources([tmp_path])
    with pytest.raises(SourceError, match=r"shard\.tar\.gz: compressed with gzip.*gunzip"):
        find_sources([tmp_path / "shard.tar.gz"])
    pictures_tar(tmp_path / "a.tar", ["x.jpg"])
    assert "1 compressed archive, first shard.tar.gz: not read" in find_sources([tmp_path]).notes[0]


def test_tables_beside_shards_are_not_read(tmp_path: Path) -> None:
    pictures_tar(tmp_path / "00000.tar", ["x.jpg"])
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    found = find_sources([tmp_path])
    assert [container.name for container in found.containers] == ["00000"]
    assert "1 Parquet file" in found.notes[0]


def test_a_name_beyond_utf8_has_a_text_key(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert keys(tmp_path) == ["caf\\xe9.png"]
    assert find_sources([tmp_path]).files[0].read() == b"x"
