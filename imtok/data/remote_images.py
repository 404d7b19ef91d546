"""Single images of other machines, fetched into memory: many at once, and ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Lock, Thread
from typing import NamedTuple

from imtok.data.addresses import is_remote, redacted
from imtok.data.archives.members import LARGEST_UNPACKED
from imtok.data.containers import UNKNOWN_SIZE, SourceImage, is_unsafe, unreadable
from imtok.data.remote import RemoteStorage
from imtok.data.remote_errors import RemoteError
from imtok.data.storage import storage_of
from imtok.data.streaming.transfers import Patience, patiently, receive
from imtok.errors import ImageError, Interrupted, SourceError

_THREADS = 32  # requests at one time: each waits for its answer nearly all of its time
_HELD_BYTES = 2**28  # fetched and not yet read
_LOOKS_EVERY = 0.1  # seconds between looks at `should_stop`


class Fetched(NamedTuple):
    """The bytes of an image, and the class number that was found beside it."""

    data: bytes
    label: int | None


class ImagePool:
    """Threads that fetch the images of several units, in their order."""

    def __init__(self, patience: Patience, should_stop: Callable[[], bool]) -> None:
        self.patience, self.should_stop = patience, should_stop
        self.lock = Lock()
        self.room = Condition(self.lock)  # for the threads: work is there, and room for what it brings
        self.news = Condition(self.lock)  # for readers: an image is there
        self.held = 0  # bytes
        self.waiting: deque[FetchedImages] = deque()
        self.ended = False
        self._threads = 0

    def begin(
        self, images: Sequence[SourceImage], label: Callable[[SourceImage], int | None], *, salvage: bool
    ) -> FetchedImages:
        """Begin to fetch the images of a unit, after those of the units before."""
        fetched = FetchedImages(self, images, label, salvage)
        with self.lock:
            self.waiting.append(fetched)
            while self._threads < _THREADS:
                self._threads += 1
                Thread(target=self._run, name="imtok-images", daemon=True).start()
            self.room.notify_all()
        return fetched

    def close(self) -> None:
        """Let the threads end, each after the request that it waits for."""
        with self.lock:
            self.ended = True
            self.room.notify_all()

    def stopped(self) -> bool:
        """Say whether nobody needs any more images."""
        return self.ended or self.should_stop()

    def _run(self) -> None:
        while True:
            with self.lock:
                while not self.ended and (work := self._next()) is None:
                    self.room.wait()
                if self.ended:
                    return
            assert work is not None
            fetched, position = work
            try:
                fetched.put(position, fetched.fetch(position))
            except Exception as error:  # whoever waits for the image raises it
                fetched.put(position, error)

    def _next(self) -> tuple[FetchedImages, int] | None:
        """Return the image to fetch next; None where none is left, or where too many bytes wait for their readers."""
        while self.waiting and self.held < _HELD_BYTES:
            position = self.waiting[0].next()
            if position is not None:
                return self.waiting[0], position
            self.waiting.popleft()
        return None


class FetchedImages:
    """The images of one unit; those of this machine are left to their own readers."""

    def __init__(
        self,
        pool: ImagePool,
        images: Sequence[SourceImage],
        label: Callable[[SourceImage], int | None],
        salvage: bool,
    ) -> None:
        self._pool, self._images, self._label, self._salvage = pool, images, label, salvage
        self._place = 0  # of the next image to fetch
        self._begun: set[int] = set()
        self._outcomes: dict[int, Fetched | ImageError] = {}
        self._failure: Exception | None = None  # of one image, and so of the unit

    def read(self, position: int) -> Fetched:
        """Wait for an image; raises ImageError to skip it, SourceError to fail its unit."""
        pool = self._pool
        with pool.lock:
            own = position not in self._begun  # it comes next, and the threads wait for room
            self._begun.add(position)
            while not own and self._failure is None and position not in self._outcomes:
                pool.news.wait(_LOOKS_EVERY)
                if pool.stopped():
                    raise Interrupted("stopped on request")
        if own and self._failure is None:
            self.put(position, self.fetch(position))
        with pool.lock:
            if self._failure is not None:
                raise self._failure
            outcome = self._outcomes.pop(position)
            if isinstance(outcome, ImageError):
                raise outcome
            pool.held -= len(outcome.data)
            pool.room.notify_all()
        return outcome

    def close(self) -> None:
        """Fetch no more images of this unit, and drop those that nobody read."""
        with self._pool.lock:
            self._drop()

    def next(self) -> int | None:
        """Return the position of the next image to fetch, None where there is none; the caller holds the lock."""
        while self._place < len(self._images):
            position = self._place
            self._place += 1
            image = self._images[position]
            if position not in self._begun and is_remote(image.address) and not is_unsafe(image.key):
                self._begun.add(position)
                return position
        return None

    def fetch(self, position: int) -> Fetched | ImageError | SourceError:
        """Fetch an image with the label beside it; return what it gives, or the error for its reader."""
        image, pool = self._images[position], self._pool
        try:
            return patiently(lambda: self._fetch_once(image), pool.patience, pool.stopped)
        except (ImageError, SourceError) as error:
            return error
        except RemoteError as error:
            if self._salvage:
                return ImageError("cannot be fetched", error.reason)
            return unreadable(image.address, error)

    def put(self, position: int, outcome: Fetched | Exception) -> None:
        """Keep what an image gave for its reader; an error other than ImageError fails the unit."""
        with self._pool.lock:
            if not isinstance(outcome, Fetched | ImageError):
                self._failure = outcome
                self._drop()
            elif self._place <= len(self._images):
                self._outcomes[position] = outcome
                self._pool.held += len(outcome.data) if isinstance(outcome, Fetched) else 0
            self._pool.news.notify_all()

    def _drop(self) -> None:
        self._place = len(self._images) + 1  # beyond its end
        for outcome in self._outcomes.values():
            self._pool.held -= len(outcome.data) if isinstance(outcome, Fetched) else 0
        self._outcomes.clear()
        self._pool.room.notify_all()

    def _fetch_once(self, image: SourceImage) -> Fetched:
        storage = storage_of(image.address)
        assert isinstance(storage, RemoteStorage)
        if image.size != UNKNOWN_SIZE:
            return Fetched(storage.read(image.address), self._label(image))
        data = bytearray()

        def take(chunk: bytes) -> None:
            data.extend(chunk)
            if len(data) > LARGEST_UNPACKED:
                raise ImageError("too large", f"{redacted(image.address)}: more than {LARGEST_UNPACKED} bytes")

        try:
            receive(storage, image.address, take, self._pool.stopped)
        except RemoteError as error:
            if error.missing:  # of a list, which nobody has looked at
                raise ImageError("does not exist", error.reason) from None
            raise
        if self._pool.stopped():
            raise Interrupted("stopped on request")
        return Fetched(bytes(data), self._label(image))
