"""Single images of other machines: fetched many at once, within bounds, and given to their readers in any order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from servers import Web, served

from imtok.data import remote_images
from imtok.data.containers import UNKNOWN_SIZE, ImageFile, LostImage, SourceImage
from imtok.data.remote_images import FetchedImages, ImagePool
from imtok.data.streaming.source import never
from imtok.data.streaming.transfers import Patience
from imtok.errors import ImageError, Interrupted, SourceError

QUICK = Patience(first_wait=0.01)


@pytest.fixture
def web() -> Iterator[Web]:
    with served({f"/{number}.png": bytes([number]) * 1000 for number in range(60)}) as server:
        yield server


@contextmanager
def pool(should_stop: Callable[[], bool] = never) -> Iterator[ImagePool]:
    made = ImagePool(QUICK, should_stop)
    try:
        yield made
    finally:
        made.close()


def begin(
    made: ImagePool, web: Web, count: int = 60, *, salvage: bool = False, size: int = UNKNOWN_SIZE
) -> FetchedImages:
    images = [ImageFile(f"{number}.png", f"{web.url}/{number}.png", size) for number in range(count)]
    return made.begin(images, lambda image: len(image.key), salvage=salvage)


@pytest.mark.parametrize("size", [UNKNOWN_SIZE, 1000])
@pytest.mark.parametrize("room", [1, 10**9])
def test_images_come_with_their_labels_within_any_room(
    web: Web, size: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "_HELD_BYTES", room)
    with pool() as made, ThreadPoolExecutor(4) as readers:
        fetched = begin(made, web, size=size)
        found = list(readers.map(fetched.read, reversed(range(60))))
        assert [(image.data, image.label) for image in found] == [
            (bytes([number]) * 1000, len(f"{number}.png")) for number in reversed(range(60))
        ]
        assert made.held == 0
    assert len(web.requests) == 60


def test_little_is_fetched_where_nobody_reads(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "_HELD_BYTES", 3000)
    monkeypatch.setattr(remote_images, "_THREADS", 2)
    with pool() as made:
        fetched = begin(made, web)
        end = time.monotonic() + 5
        while made.held < 3000 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
        assert 3 <= len(web.requests) <= 5
        fetched.close()
        assert made.held == 0


def test_many_requests_wait_at_once(web: Web) -> None:
    web.faults = {f"/{number}.png": ["no answer"] for number in range(30)}
    with pool() as made:
        fetched = begin(made, web)
        end = time.monotonic() + 5
        while len(web.requests) < 32 and time.monotonic() < end:
            time.sleep(0.01)
        assert len(web.requests) >= 32  # thirty of them without an answer
        assert fetched.read(40).data == bytes([40]) * 1000
        web.release.set()


def test_a_failure_ends_the_requests_of_its_unit_alone(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "_THREADS", 1)
    web.faults = {"/2.png": ["status 403"] * 9}
    with pool() as made:
        first, second = begin(made, web), begin(made, web, 2)
        with pytest.raises(SourceError, match=r"2\.png: access is refused \(HTTP 403\), after 2 tries"):
            first.read(2)
        with pytest.raises(SourceError, match=r"2\.png: access is refused"):
            first.read(50)
        assert second.read(1).data == bytes([1]) * 1000
    assert len({path for _, path in web.requests}) < 10


def test_what_a_list_names_and_nobody_has_is_skipped(web: Web) -> None:
    web.faults = {"/1.png": ["status 403"] * 9}
    del web.files["/0.png"]
    with pool() as made:
        fetched = begin(made, web, 3, salvage=True)
        for position, reason in enumerate(["does not exist", "cannot be fetched"]):
            with pytest.raises(ImageError) as found:
                fetched.read(position)
            assert found.value.reason == reason
        assert fetched.read(2).label == 5
    assert [path for _, path in web.requests].count("/0.png") == 1


def test_an_endless_answer_is_no_image(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "LARGEST_UNPACKED", 999)
    with pool() as made, pytest.raises(ImageError, match=r"too large: .*0\.png: more than 999 bytes"):
        begin(made, web).read(0)


def test_images_of_this_machine_are_left_alone(web: Web) -> None:
    with pool() as made:
        images: list[SourceImage] = [LostImage("x", "/x", "y", "z"), ImageFile("1", f"{web.url}/1.png", 1000)]
        images.append(ImageFile("../x.png", f"{web.url}/2.png", 1000))
        fetched = made.begin(images, lambda _: None, salvage=False)
        assert fetched.read(1).data == bytes([1]) * 1000
    assert web.requests == [("GET", "/1.png")]


def test_a_reader_hears_of_a_stop(web: Web) -> None:
    web.faults = {"/0.png": ["no answer"]}
    asked = threading.Event()
    with pool(asked.is_set) as made:
        fetched = begin(made, web, 1)
        threading.Timer(0.2, asked.set).start()
        with pytest.raises(Interrupted):
            fetched.read(0)
        web.release.set()


def test_an_error_of_imtok_itself_reaches_the_reader(web: Web) -> None:
    def broken(_: SourceImage) -> int | None:
        raise KeyError("label")

    with pool() as made:
        fetched = made.begin([ImageFile("0", f"{web.url}/0.png", 1000)], broken, salvage=False)
        with pytest.raises(KeyError):
            fetched.read(0)
