"""Seconds and memory until the first batch of training, as sources grow.

Each row runs in a process of its own. It does what `imtok train` does with its images before the first step: list
them or read the headers of their tars, hold some out, take the fingerprints, look for validation images that are
trained on too and for small pictures, and make the first batch. A small source of the same kind goes first, so that
modules, threads and buffers are there already. Reported are

    seconds    until the first batch; CPU seconds are less disturbed by what else the machine does
    kept       resident memory after it over that before, with unused pages given back to the system
    peak       the highest resident memory on the way (VmHWM of Linux) over that before

and these bytes an image for lists of images. The sources:

    folder     one folder of a simulated storage, which makes up its names and serves one picture for all
    classes    the same with 1000 images in each of its folders
    files      a folder of real files, one picture under many names
    tars       tars of 1000 images with a `.cls` each, one tar under many names
    stream     the same tars, not indexed but read as a stream of shards, in windows of the size that training chooses

Of lists of images, seconds and memory should grow in line with the images; a few megabytes of memory are noise, which
is much for 10,000 images. Of a stream both should be flat from the size on where windows grow no more: its peak holds
the images of two windows, and nothing of them is kept once it is closed.

    python benchmarks/scale.py
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
import torch
from machine import machine
from PIL import Image

from imtok.config.training import DataConfig
from imtok.data.collection import ImageCollection
from imtok.data.images import decode_image
from imtok.data.overlap import shared_images
from imtok.data.storage import STORAGES, Entry, Kind
from imtok.data.stream import TrainingStream
from imtok.data.streaming.shard_list import find_shards
from imtok.data.streaming.shards import ShardReader
from imtok.data.streaming.stream import ShardStream
from imtok.joint_batch import JointBatch
from imtok.training.image_notes import enlarged_note

_SIDE = 32
_BATCH = 16
_VALIDATION = 64  # images of the validation
_IN_A_FOLDER = 1000  # of classes
_IN_A_TAR = 1000
_WARM_UP = 8000  # images: as many tars as there are threads that read them


def main() -> None:
    args = parse()
    if args.row:
        torch.set_num_threads(1)
        print(json.dumps(measured(args.row[0], int(args.row[1]), Path(args.row[2]))))
        return
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        rows = [row(*text.split(":"), scratch) for text in args.rows]
    show(rows)
    for each in rows:
        print(json.dumps({"benchmark": "scale_start-up", **each, **machine(torch.device("cpu"), "pillow", "numpy")}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = {
        "folder": (10**4, 10**5, 10**6),
        "classes": (10**4, 10**5, 10**6),
        "files": (10**4,),
        "tars": (10**4, 10**5, 10**6),
        "stream": (10**4, 10**5, 10**6),
    }
    default = [f"{kind}:{count}" for kind, counts in kinds.items() for count in counts]
    parser.add_argument("--rows", nargs="+", default=default, metavar="KIND:IMAGES", help="the rows to measure")
    parser.add_argument("--scratch", help="folder for tars and files; the system's own by default")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)  # a process of its own
    return parser.parse_args()


def row(kind: str, count: str, scratch: str) -> dict[str, Any]:
    """Measure one row in a process of its own."""
    make_source(kind, int(count), Path(scratch))
    command = [sys.executable, __file__, "--row", kind, count, scratch]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind}: {int(count):,} images, {result['seconds']:.1f} s", file=sys.stderr)
    return result


def show(rows: Sequence[dict[str, Any]]) -> None:
    titles = ("source", "images", "seconds", "CPU s", "kept MB", "peak MB", "kept B/image", "peak B/image")
    print(("{:8}" + "{:>13}" * 7).format(*titles))
    for each in rows:
        bytes_ = each["kept_bytes"], each["peak_bytes"]
        rates = ["-", "-"] if each["source"] == "stream" else [f"{value / each['images']:.0f}" for value in bytes_]
        times = (f"{each[name]:.2f}" for name in ("seconds", "cpu_seconds"))
        cells = [f"{each['images']:,}", *times, *(f"{value / 1e6:.1f}" for value in bytes_), *rates]
        print(("{:8}" + "{:>13}" * 7).format(each["source"], *cells))


def measured(kind: str, count: int, scratch: Path) -> dict[str, Any]:
    """Start up once for the modules and threads, then again on the clock."""
    STORAGES["made"] = Made()
    begin = start_stream if kind == "stream" else start_up
    begin(make_source(kind, _WARM_UP, scratch))
    source = make_source(kind, count, scratch)
    before = resident(reset=True)
    started, cpu_started = time.perf_counter(), time.process_time()
    kept = begin(source)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    peak = status("VmHWM")
    after = resident()
    assert len(kept[0]) + len(kept[1]) == (count // _IN_A_TAR if kind == "stream" else count)
    return {
        "source": kind,
        "images": count,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "kept_bytes": after - before,
        "peak_bytes": peak - before,
    }


def start_up(source: Path | str) -> tuple[Any, ...]:
    """Do what training does before its first step; return all that it keeps."""
    images = ImageCollection.open([source])
    training, held_out = images.split(0.01)
    fingerprints = training.fingerprint, held_out.fingerprint
    stream = TrainingStream(
        training,
        size=_SIDE,
        crop=_SIDE,
        flip=True,
        seed=0,
        joint=JointBatch(_BATCH),
        cache_bytes=0,
        workers=2,
    )
    validation = held_out.subsample(_VALIDATION)
    for index in range(len(validation)):
        validation.picture(index)
    shared_images(training, validation)
    enlarged_note(training, _SIDE)
    batches = stream.batches(0, 100 * _BATCH)
    assert next(batches).images.shape == (_BATCH, 3, _SIDE, _SIDE)
    batches.close()
    return training, held_out, validation, stream, fingerprints


def start_stream(source: Path | str) -> tuple[Any, ...]:
    """Do the same for a stream, with a twentieth of the shards held out."""
    shards = find_shards([source])
    held_out = max(1, len(shards) // 20)
    training, validation = shards.only(range(held_out, len(shards))), shards.only(range(held_out))
    stream = ShardStream(
        ShardReader(training),
        width=DataConfig().chosen_window(len(training)),
        size=_SIDE,
        crop=_SIDE,
        flip=True,
        seed=0,
        joint=JointBatch(_BATCH),
        workers=2,
        max_shard_failures=0,
    )
    for _, data in ShardReader(validation).read(0)[:_VALIDATION]:
        decode_image(data)
    batches = stream.batches(0, 100 * _BATCH)
    assert next(batches).images.shape == (_BATCH, 3, _SIDE, _SIDE)
    batches.close()
    return training, validation, stream, training.fingerprint


def make_source(kind: str, count: int, scratch: Path) -> Path | str:
    """Return a source of so many images, made where it does not exist."""
    if kind in ("folder", "classes"):
        return f"made://{kind}/{count}"
    source = scratch / f"{'files' if kind == 'files' else 'tars'}-{count}"
    if source.exists():
        return source
    source.mkdir()
    if kind == "files":
        first = scratch / "picture.jpg"
        for number in range(count):
            if number % 10_000 == 0:  # a file system allows no more than some links to a file
                first = source / f"{number:08d}.jpg"
                first.write_bytes(picture())
            else:
                os.link(first, source / f"{number:08d}.jpg")
        return source
    first = scratch / "first.tar"
    if not first.exists():
        first.write_bytes(tar_of(_IN_A_TAR))
    for number in range(count // _IN_A_TAR):
        os.link(first, source / f"train-{number:05d}.tar")
    return source


def picture() -> bytes:
    """Make a picture of 48 x 48 pixels as JPEG."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(pixels).resize((48, 48)).save(file, "JPEG")
    return file.getvalue()


def tar_of(images: int) -> bytes:
    """Make a WebDataset tar: each image with a class number."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(images):
            photograph = picture() + bytes(number * 7919 % 5000)  # sizes differ as those of photographs do
            for name, data in ((f"{number:09d}.jpg", photograph), (f"{number:09d}.cls", b"7")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


class Made:
    """A storage whose folders `made://folder/COUNT` and `made://classes/COUNT` hold made-up names and one picture."""

    def __init__(self) -> None:
        self._picture = picture()

    def kind(self, address: str) -> Kind | None:
        return "file" if address.endswith(".jpg") else "folder"

    def list(self, folder: str) -> Sequence[Entry]:
        kind, count, *inner = folder.removeprefix("made://").split("/")
        if kind == "folder":
            return Names(folder, int(count), "file", "image-{:08d}.jpg")
        if inner:
            return Names(folder, _IN_A_FOLDER, "file", inner[0] + "_{:05d}.jpg")
        return Names(folder, int(count) // _IN_A_FOLDER, "folder", "n{:08d}")

    def size(self, address: str) -> int:
        # Sizes differ as those of photographs do, so that few training images must be compared with validation's.
        return len(self._picture) + int(address[-12:-4].replace("_", "")) * 7919 % 100_003

    def read(self, address: str, offset: int = 0, size: int = -1) -> bytes:  # noqa: ARG002
        data = self._picture[offset:]
        return data if size < 0 else data[:size]

    def open(self, address: str) -> BinaryIO:
        return io.BytesIO(self.read(address))

    def resolve(self, address: str) -> str:
        return address


class Names(Sequence[Entry]):
    """Entries of a made-up folder, made when they are asked for."""

    def __init__(self, folder: str, count: int, kind: Kind, pattern: str) -> None:
        self._folder, self._count, self._kind, self._pattern = folder, count, kind, pattern

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return [self._entry(number) for number in range(self._count)[index]]
        return self._entry(range(self._count)[index])

    def __iter__(self) -> Iterator[Entry]:
        return map(self._entry, range(self._count))

    def _entry(self, number: int) -> Entry:
        name = self._pattern.format(number)
        return Entry(name, f"{self._folder}/{name}", self._kind)


def resident(*, reset: bool = False) -> int:
    """Return the resident bytes of this process without garbage; with `reset` its highest value begins anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(name: str) -> int:
    """Return a number of bytes out of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) * 1024


if __name__ == "__main__":
    main()
