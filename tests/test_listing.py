"""The packed listing of one folder."""

from __future__ import annotations

from imtok.data.listing import Entry, Listing


def test_folders_sort_as_their_names_with_a_slash() -> None:
    entries = [Entry("a", "/in/a", "folder"), Entry("a.jpg", "/in/a.jpg", "file"), Entry("a-b", "/in/a-b", "folder")]
    assert [entry.name for entry in Listing.of("/in", entries)] == ["a-b", "a.jpg", "a"]


def test_entries_come_back_as_they_were() -> None:
    entries = [
        Entry("a", "store://in/a?part", "file", 3),
        Entry("b", "store://in/b", "other"),
        Entry("c", "store://in/c", "folder"),
        Entry("d", "store://in/d", "file", 0),
    ]
    listing = Listing.of("store://in", entries)
    assert list(listing) == entries
    assert listing[1:3] == entries[1:3]
    assert listing[-1] == entries[-1]


def test_sizes_follow_their_names() -> None:
    entries = [Entry(name, f"/{name}", "file", size) for size, name in enumerate("dacb")]
    assert [(entry.name, entry.size) for entry in Listing.of("/", entries)] == [("a", 1), ("b", 3), ("c", 2), ("d", 0)]


def test_a_listing_knows_which_names_it_holds() -> None:
    listing = Listing.of("/in", [Entry("a", "/in/a", "folder"), Entry("b", "/in/b", "file")])
    assert listing.holds("a")
    assert listing.holds("b")
    assert not listing.holds("c")
    assert not listing.holds("")
