"""Some of the images of a packed list, by their positions in it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from imtok.data.chosen_images import choose, choose_marked, others
from imtok.data.containers import ImageFile, LostImage
from imtok.data.file_list import FileList, GrowingFileList, Place


def listed(count: int) -> FileList:
    files = GrowingFileList()
    for number in range(count):
        files.add(Place("", "/in/"), f"{number:06d}.jpg", f"/in/{number:06d}.jpg", number)
    files.add_object(LostImage("z.jpg", "/in/z.jpg", "link to nothing", ""))
    return files.sorted()


@pytest.mark.parametrize("positions", [[3, 1], [0, 9_000, 9_001, 2], [], [9_002]])
def test_chosen_images_are_those_at_their_positions(positions: list[int]) -> None:
    whole = listed(9_002)
    chosen = choose(whole, np.array(positions, np.uint32))
    assert list(chosen) == [whole[position] for position in positions]
    assert list(chosen.keys) == [whole.keys[position] for position in positions]
    blocks = list(chosen.blocks())
    assert [key for keys, _ in blocks for key in keys] == [whole.keys.encoded(position) for position in positions]
    assert [size for _, sizes in blocks for size in sizes] == whole.sizes[np.array(positions, int)].tolist()
    assert list(pickle.loads(pickle.dumps(chosen.keys))) == list(chosen.keys)


def test_all_images_in_order_are_the_list_itself() -> None:
    whole = listed(3)
    assert choose(whole, np.arange(4)) is whole
    assert [image.key for image in choose(whole, np.array([1, 0, 2, 3]))][:2] == ["000001.jpg", "000000.jpg"]


@pytest.mark.parametrize("positions", [[], [1, 3], [0, 1, 2, 3, 4]])
def test_others_are_the_rest_in_order(positions: list[int]) -> None:
    whole = listed(4)
    rest = [image for number, image in enumerate(whole) if number not in positions]
    assert list(others(whole, choose(whole, np.array(positions, np.uint32)))) == rest


def test_marks_beyond_one_chunk_choose_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imtok.data.chosen_images._CHUNK", 3)
    whole = listed(9)
    marks = np.zeros(10, bool)
    marks[[0, 2, 3, 8]] = True
    assert list(choose_marked(whole, marks)) == [
        ImageFile(f"{number:06d}.jpg", f"/in/{number:06d}.jpg", number) for number in (0, 2, 3, 8)
    ]
