"""The listing of one folder, in pieces and in order."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from imtok.data.listing import Entry, Files, Listing


def listed(folder: str, entries: Iterable[Entry]) -> list[Entry]:
    return [entry for part in Listing(folder, entries) for entry in (part if isinstance(part, Files) else [part])]


def test_folders_sort_as_their_names_with_a_slash() -> None:
    entries = [Entry("a", "/in/a", "folder"), Entry("a.jpg", "/in/a.jpg", "file"), Entry("a-b", "/in/a-b", "folder")]
    assert [entry.name for entry in listed("/in", entries)] == ["a-b", "a.jpg", "a"]


def test_entries_come_back_as_they_were() -> None:
    entries = [
        Entry("a", "store://in/a?part", "file", 3),
        Entry("b", "store://in/b", "other"),
        Entry("c", "store://in/c", "folder"),
        Entry("d", "store://in/d", "file", 0),
    ]
    assert listed("store://in", entries) == entries
    first, *_ = Listing("store://in", entries)
    assert isinstance(first, Files)
    assert (list(first[:1]), first[-1]) == (entries[:1], entries[1])


def test_sizes_follow_their_names() -> None:
    entries = [Entry(name, f"/{name}", "file", size) for size, name in enumerate("dacb")]
    assert [(entry.name, entry.size) for entry in listed("/", entries)] == [("a", 1), ("b", 3), ("c", 2), ("d", 0)]


def test_a_listing_knows_which_watched_names_are_there() -> None:
    entries = [Entry("a", "/in/a", "folder"), Entry("b", "/in/b", "file"), Entry("c", "/in/c", "file")]
    assert Listing("/in", entries, {"a", "b", "d"}).names == {"a", "b"}


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_a_long_listing_in_any_order_comes_sorted(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imtok.data.listing._PIECE", piece)
    monkeypatch.setattr("imtok.sorted_runs._RUN", 32)
    monkeypatch.setattr("imtok.sorted_runs._BLOCK", 4)
    names = [f"{number}{ending}" for number in range(300) for ending in ("", "-\udcff", ".jpg", "/", "ü", "\U0001f600")]
    random.Random(0).shuffle(names)
    entries = [
        Entry(name.rstrip("/"), f"/in/{name.rstrip('/')}", "folder" if name.endswith("/") else "file", size)
        for size, name in enumerate(names)
    ]
    expected = sorted(entries, key=lambda entry: entry.name + "/" * (entry.kind == "folder"))
    assert listed("/in", entries) == expected
