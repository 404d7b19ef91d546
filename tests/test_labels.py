"""Where labels come from."""

from __future__ import annotations

from pathlib import Path

from making import fill

from imtok.data.labels import find_labels
from imtok.data.sources import find_sources


def test_top_folders_are_classes_where_every_image_lies_in_one(tmp_path: Path) -> None:
    fill(tmp_path, ["dog/x.jpg", "cat/y.jpg", "cat/deep/z.jpg"])
    assert find_labels(find_sources([tmp_path])).class_names == ("cat", "dog")


def test_one_top_folder_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, ["all/x.jpg", "all/y.jpg"])
    assert find_labels(find_sources([tmp_path])).class_names == ()


def test_recorded_classes_keep_their_numbers(tmp_path: Path) -> None:
    fill(tmp_path, ["dog/x.jpg", "cat/y.jpg", "ape/z.jpg"])
    labels = find_labels(find_sources([tmp_path]), known=("cat", "dog"))
    assert labels.class_names == ("cat", "dog", "ape")
