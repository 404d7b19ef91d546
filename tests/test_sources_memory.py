"""The memory that a list of sources takes, and its order, where there are very many of them."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from imtok.data.address_lists import AddressList
from imtok.data.containers import UNKNOWN_SIZE, ImageFile
from imtok.data.remote_files import RemoteFiles
from imtok.data.sources import find_sources
from imtok.data.storage import STORAGES, Entry, LocalStorage

COUNT = 30_000
SHUFFLED = [number * 7919 % COUNT for number in range(COUNT)]


class Flat(LocalStorage):
    """A storage of one folder, which is listed in an order of its own."""

    def kind(self, address: str) -> Literal["folder"]:  # noqa: ARG002
        return "folder"

    def list(self, folder: str) -> Iterator[Entry]:
        for number in SHUFFLED:
            name = f"an-image-of-the-camera-{number:08d}.jpg"
            yield Entry(name, f"{folder}/{name}", "file", number)

    def resolve(self, address: str) -> str:
        return address


def url(number: int) -> str:
    return f"https://images.example.org/a/set/of/many/{number:08d}.jpg"


def signed(number: int) -> str:
    return f"{url(number)}?X-Amz-Algorithm={'x' * 150}&X-Amz-Signature={hashlib.sha256(b'%d' % number).hexdigest()}"


def other_key(number: int) -> str:
    return f"{url(number)}\tclass-{number % 10}/{number:08d}"


def list_of(line: Callable[[int], str], *, shuffled: bool) -> AddressList:
    text = "\n".join(map(line, SHUFFLED if shuffled else range(COUNT))).encode()
    return AddressList("list", "", lambda: io.BytesIO(text))


@pytest.mark.parametrize(
    ("source", "most"),
    [
        ("flat://folder", 60),
        (list_of(url, shuffled=False), 60),
        (list_of(url, shuffled=True), 120),
        (list_of(signed, shuffled=False), 200),
        (list_of(other_key, shuffled=True), 250),
    ],
    ids=["folder", "urls", "shuffled", "signed", "keys"],
)
def test_images_take_few_bytes_each(source: str | AddressList, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STORAGES, "flat", Flat())
    monkeypatch.setattr("imtok.sorted_runs._RUN", 2**11)
    monkeypatch.setattr("imtok.sorted_runs._BLOCK", 2**5)
    with RemoteFiles() as remote:
        tracemalloc.start()
        try:
            files = find_sources([source], remote=remote).files
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(files) == COUNT
    assert peak < most * COUNT
    keys = [files[index].key for index in range(0, COUNT, 97)]
    assert keys == sorted(keys)


def test_signed_urls_in_any_order_keep_their_signatures() -> None:
    with RemoteFiles() as remote:
        files = find_sources([list_of(signed, shuffled=True)], remote=remote).files
    places = range(0, COUNT, 997)
    assert [files[number] for number in places] == [
        ImageFile(url(number).removeprefix("https://"), signed(number), UNKNOWN_SIZE) for number in places
    ]
