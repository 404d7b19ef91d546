"""Images of each split, in input order or shuffled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exporting import random_tokens

from imtok.errors import Interrupted
from imtok.export.format import Split
from imtok.export.options import ExportOptions
from imtok.export.selection import Selection, held_out_keys
from imtok.packed_strings import PackedStrings
from imtok.tokens import open_tokens


def places(selection: Selection, split: Split) -> list[tuple[int, int]]:
    found = selection.find(split, 0, selection.images[split])
    return list(zip(*(array.tolist() for array in found), strict=True))


@pytest.mark.parametrize("shuffle", [None, 0, 7])
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_every_image_is_in_one_split_once(tmp_path: Path, shuffle: int | None, fraction: float) -> None:
    tokens = open_tokens(random_tokens(tmp_path, units=(5, 0, 17, 1, 40), grid=(1, 1)))
    selection = Selection(tokens, ExportOptions(shuffle=shuffle, val_fraction=fraction), None)
    found = [place for split in selection.images for place in places(selection, split)]
    everything = [(unit, row) for unit, shard in enumerate(tokens.shards()) for row in range(len(shard))]
    assert sorted(found) == everything
    in_order = all(places(selection, split) == sorted(places(selection, split)) for split in selection.images)
    assert in_order == (shuffle is None)


def test_a_run_of_the_order_begins_anywhere(tmp_path: Path) -> None:
    tokens = open_tokens(random_tokens(tmp_path, units=(5, 17, 40), grid=(1, 1)))
    selection = Selection(tokens, ExportOptions(shuffle=3, val_fraction=0.4), None)
    whole = selection.find("train", 0, selection.images["train"])
    for part, expected in zip(selection.find("train", 7, 11), whole, strict=True):
        np.testing.assert_array_equal(part, expected[7:18])


def test_images_are_together_up_to_the_end_of_their_unit(tmp_path: Path) -> None:
    tokens = open_tokens(random_tokens(tmp_path, units=(5, 0, 3), grid=(1, 1)))
    selection = Selection(tokens, ExportOptions(), None)
    assert [selection.together("train", first) for first in range(8)] == [5, 4, 3, 2, 1, 3, 2, 1]


def test_a_key_keeps_its_split_when_the_fraction_stays() -> None:
    keys = [f"folder/{number}.jpg" for number in range(2000)]
    chosen = held_out_keys(PackedStrings.pack(keys), 0.1)
    assert 150 < int(chosen.sum()) < 250
    np.testing.assert_array_equal(held_out_keys(PackedStrings.pack(keys[500:]), 0.1), chosen[500:])
    assert [keys[row] for row in np.flatnonzero(chosen)[:3]] == [f"folder/{each}.jpg" for each in (0, 16, 17)]
    more = held_out_keys(PackedStrings.pack(keys), 0.2)
    assert (more >= chosen).all()


def test_the_split_is_the_same_in_every_order(tmp_path: Path) -> None:
    tokens = open_tokens(random_tokens(tmp_path, units=(50,), grid=(1, 1)))
    sides = [Selection(tokens, ExportOptions(shuffle=seed, val_fraction=0.4), None) for seed in (1, 2)]
    assert set(places(sides[0], "val")) == set(places(sides[1], "val"))
    assert places(sides[0], "val") != places(sides[1], "val")


def test_labels_are_counted(tmp_path: Path) -> None:
    facts = Selection(open_tokens(random_tokens(tmp_path / "a", classes=4)), ExportOptions(), None).labels
    assert (facts.labelled, facts.unlabelled_key) == (9, None)
    assert 0 <= facts.largest < 4
    facts = Selection(open_tokens(random_tokens(tmp_path / "b")), ExportOptions(), None).labels
    assert (facts.labelled, facts.largest, facts.unlabelled_key) == (0, -1, "0/0")


def test_the_scan_stops_on_request(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        Selection(open_tokens(random_tokens(tmp_path)), ExportOptions(), lambda: True)
