"""The surroundings of an encode that `benchmarks/chaos.py` disturbs: its inputs, its disk, and links to its servers."""

from __future__ import annotations

import io
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

Undo = Callable[[], None]

UNIT_SIZE = 2  # images of the folder in a unit
_MOST_FREE = 65536  # bytes of a disk that has been filled
SMALL_FILE = 500  # bytes: the largest file that a process may write, where no disk can be filled


# Inputs


def draw_inputs(folder: Path, scale: int) -> tuple[int, int]:
    """Draw pictures, tars, a zip, and tars for two servers; return how many inputs and how many broken ones."""
    inputs = broken = 0
    for number in range(12 * scale):
        path = folder / "photos" / f"{number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = _picture(number)
        if number % 20 == 7:
            data, broken = data[: len(data) // 2], broken + 1
        path.write_bytes(data)
        inputs += 1
    for place, count in (("tars", 2 * scale), ("served", scale), ("objects", scale)):
        (folder / place).mkdir()
        for number in range(count):
            size = 0 if number == 3 else 1 + 3 * number % 5
            inputs += _tar(folder / place / f"{place}-{number:02}.tar", f"{place}{number}", size)
    with zipfile.ZipFile(folder / "tars" / "more.zip", "w") as archive:
        for number in range(5):
            archive.writestr(f"z{number}.png", _picture(9000 + number))
    return inputs + 5, broken


def _tar(path: Path, name: str, pictures: int) -> int:
    with tarfile.open(path, "w") as tar:
        for number in range(pictures):
            data = _picture(sum(map(ord, name)) * 50 + number)
            info = tarfile.TarInfo(f"{name}-{number}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if not pictures:
            tar.addfile(tarfile.TarInfo("notes.txt"), io.BytesIO())
    return pictures


def _picture(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((40, 48), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def damage(folder: Path, draw: random.Random, *, planned: bool, committed: set[int]) -> tuple[str, Path, Undo]:
    """Damage one input in a way that shows in its size; return the kind, the file, and the function that mends it.

    Some damage would rightly be recorded, and is left out. Bytes that change while the size stays are another picture.
    A new plan holds whatever is there, so before there is one only an archive is cut. A picture that has changed
    replaces the planned one as long as its unit is not `committed`.
    """
    archives = sorted(path for place in ("tars", "served") for path in (folder / place).iterdir())
    tars = [path for path in archives if path.suffix == ".tar"]
    photos = sorted((folder / "photos").rglob("*.png"), key=lambda path: path.as_posix().encode())
    settled = [path for position, path in enumerate(photos) if position // UNIT_SIZE in committed]
    kind = draw.choice(["input cut", "input removed", "input changed"]) if planned else "input cut"
    choices = {"input cut": archives, "input removed": [*archives, *photos], "input changed": [*tars, *settled]}
    path = draw.choice(choices[kind])
    whole = path.read_bytes()
    if kind == "input removed":
        path.unlink()
    else:
        cut = draw.randrange(len(whole.rstrip(b"\0")))  # zeros at the end of a tar are no loss
        _replace(path, whole[:cut] if kind == "input cut" else whole + b"more")
    return kind, path, lambda: _replace(path, whole)


def _replace(path: Path, data: bytes) -> None:
    other = path.with_name(f".{path.name}.new")
    other.write_bytes(data)
    other.replace(path)


# The disk


class Disk:
    """A small disk in memory; a folder of another disk where none can be mounted or `megabytes` is None."""

    def __init__(self, folder: Path, megabytes: int | None) -> None:
        folder.mkdir()
        self.folder, self.mounted = folder, False
        if megabytes is None:
            return
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,nr_inodes=4000", "tmpfs", str(folder)]
        self.mounted = subprocess.run(mount, capture_output=True).returncode == 0

    def may_fill(self) -> bool:
        """Return whether this is a disk of its own that is not full."""
        return self.mounted and not (self.folder / "filler").exists()

    def fill(self, draw: random.Random) -> tuple[str, Undo]:
        """Take all bytes but a few, or all inodes; return the kind of event and the function that makes room."""
        filler = self.folder / "filler"
        if draw.random() < 0.25:
            filler.mkdir()
            with suppress(OSError):
                for number in range(10000):
                    (filler / str(number)).touch()
            for number in range(draw.randrange(4)):
                (filler / str(number)).unlink(missing_ok=True)
            return "disk full: no inodes", lambda: shutil.rmtree(filler)
        free = draw.choice([0, 4096, 16384, _MOST_FREE])
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        os.truncate(filler, max(0, filler.stat().st_size - free))
        return "disk full: no bytes", filler.unlink

    def is_full(self) -> bool:
        """Return whether less is free than a shard of many images needs."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize <= _MOST_FREE or found.f_favail <= 4

    def close(self) -> None:
        """Unmount the disk."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


# Servers


class Link:
    """A port of 127.0.0.1 that passes all bytes to a server, and can be taken away and brought back.

    `names` are words by which messages name the server; `reset` counts the connections that were ended at once.
    """

    def __init__(self, port: int, names: Collection[str] = ()) -> None:
        self._target, self._open = port, set[tuple[socket.socket, socket.socket]]()
        self._listener: socket.socket | None = None
        self._resets = False
        self.port = self.reset = 0
        self.bring_back()
        self.names = {*names, f"127.0.0.1:{self.port}"}

    def bring_back(self) -> None:
        """Listen again, on the same port."""
        self._resets = False
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def take_away(self, *, resets: bool = False) -> int:
        """Break all connections and return how many; new ones are refused, or are taken and reset."""
        self._resets = resets
        if self._listener is not None and not resets:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        return self.break_connections()

    def break_connections(self) -> int:
        """Break all connections, in the middle of whatever they pass, and return how many; new ones are taken."""
        pairs = list(self._open)
        for each in (each for pair in pairs for each in pair):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        return len(pairs)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                if self._resets:
                    self.reset += 1
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()
                else:
                    threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            self._open.add((client, server))
            try:
                other = {client: server, server: client}
                while True:
                    for ready in select.select([client, server], [], [])[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        other[ready].sendall(data)
            finally:
                self._open.discard((client, server))


@contextmanager
def folder_served(folder: Path, log: Path) -> Iterator[Link]:
    """Serve a folder by HTTP from a process of its own, behind a link."""
    port = free_port()
    words = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    with log.open("w") as file, subprocess.Popen(words, stdout=file, stderr=file) as server:
        link = Link(port)
        try:
            yield link
        finally:
            link.take_away()
            server.kill()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
