"""Images per second of `imtok encode` from the disk, a web server and an object store, from the same bytes.

    tars    disk     WebDataset tars in a folder
            http     the same tars from `python -m http.server`
            s3       the same tars from moto's S3 server
    files   disk     the same images as single files in a folder
            http     the same images as a list of URLs
            s3       the same images as objects of a bucket

The servers are processes of their own on this machine. Each row is a whole job: looking, fetching, encoding and
committing, with the network in memory. Rows take turns, and a figure is the median over rounds. The network's forward
limits all rows, so the ratio to the disk must reach .9: what is fetched hides behind what is computed. `cpu ms` is the
time that the job's own process computed for an image. It says what fetching costs, whatever else the machine does; the
servers are not in it. The shards of all rows are compared with those of the disk.

    python benchmarks/remote_encode.py --source ../shared/data/photos > remote_encode.txt

Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import torch
from machine import machine
from PIL import Image

from imtok.data.collection import ImageCollection
from imtok.encoding import encode
from imtok.tokenizer import PRETRAINED

BUCKET = "pictures"
ROWS = [(kind, place) for kind in ("tars", "files") for place in ("disk", "http", "s3")]
MADE = (256, 320)  # pixels of the pictures that are made where none are given
_WAIT = 60.0  # seconds for a server to answer


def pictures(source: str | None, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` encoded images under names of their own: those of the source over and over, or made ones."""
    if source is None:
        random = np.random.default_rng(0)
        for number in range(count):
            small = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            data = BytesIO()
            Image.fromarray(small).resize(MADE, Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
            yield f"{number:06d}.jpg", data.getvalue()
        return
    images = ImageCollection.open([source])
    for number in range(count):
        index = number % len(images)
        yield f"{number:06d}{Path(images.key(index)).suffix}", images.read(index)


def write(folder: Path, source: str | None, count: int, per_tar: int) -> None:
    """Write the images as tars and as single files."""
    (folder / "tars").mkdir(parents=True)
    (folder / "files").mkdir()
    tar: tarfile.TarFile | None = None
    for number, (name, data) in enumerate(pictures(source, count)):
        if number % per_tar == 0:
            if tar is not None:
                tar.close()
            tar = tarfile.open(folder / f"tars/train-{number // per_tar:04d}.tar", "w")  # noqa: SIM115
        info = tarfile.TarInfo(name)
        info.size = len(data)
        assert tar is not None
        tar.addfile(info, BytesIO(data))
        (folder / "files" / name).write_bytes(data)
    if tar is not None:
        tar.close()


@contextmanager
def serving(command: Sequence[str]) -> Iterator[None]:
    """Run a server in a process of its own."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + _WAIT
    while True:
        try:
            urlopen(url, timeout=5).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def free_port() -> int:
    """Find a port that nobody listens at."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start_web(folder: Path, stack: ExitStack) -> str:
    """Serve a folder over HTTP, and return its address."""
    port = free_port()
    stack.enter_context(serving([sys.executable, "-m", "http.server", str(port), "-b", "127.0.0.1", "-d", str(folder)]))
    wait_for(f"http://127.0.0.1:{port}/")
    return f"http://127.0.0.1:{port}"


def start_store(folder: Path, stack: ExitStack) -> str:
    """Serve a folder as a bucket over S3, and return its address."""
    import boto3

    port = free_port()
    stack.enter_context(serving([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]))
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    wait_for(f"http://127.0.0.1:{port}/moto-api/")
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())
    client.close()
    return f"s3://{BUCKET}"


def sources(folder: Path, web: str, store: str) -> dict[tuple[str, str], str]:
    """Return the SOURCE of each row."""
    tars = sorted((folder / "tars").iterdir())
    listed = folder / "urls.txt"
    listed.write_text(
        "".join(f"{web}/files/{path.name}\t{path.name}\n" for path in sorted((folder / "files").iterdir()))
    )
    (folder / "tars.txt").write_text("".join(f"{web}/tars/{path.name}\n" for path in tars))
    return {
        ("tars", "disk"): str(folder / "tars"),
        ("tars", "http"): str(folder / "tars.txt"),
        ("tars", "s3"): f"{store}/tars",
        ("files", "disk"): str(folder / "files"),
        ("files", "http"): str(listed),
        ("files", "s3"): f"{store}/files",
    }


def shards(tokens: Path) -> dict[str, bytes]:
    """Return the shards of a token folder."""
    return {path.name: path.read_bytes() for path in (tokens / "shards").rglob("*.safetensors")}


def timed(job: Callable[[], Any]) -> tuple[float, float]:
    """Run a job; return its seconds, and those that this process computed."""
    cpu, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    job()
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    return seconds, after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime


def measure(args: argparse.Namespace, folder: Path) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Time all rows in turns; raises SystemExit where one gives other shards than the disk."""
    write(folder, args.source, args.images, args.per_tar)
    times: dict[tuple[str, str], list[tuple[float, float]]] = {row: [] for row in ROWS}
    with ExitStack() as stack:
        where = sources(folder, start_web(folder, stack), start_store(folder, stack))
        for number in range(args.rounds + 1):  # the first one warms up
            expected: dict[str, dict[str, bytes]] = {}
            for kind, place in ROWS:
                output = folder / f"tokens-{number}-{kind}-{place}"
                taken = timed(
                    lambda s=where[kind, place], o=output: encode([s], o, args.tokenizer, unit_size=args.per_tar)
                )
                if shards(output) != expected.setdefault(kind, shards(output)):
                    raise SystemExit(f"{kind} from {place}: other shards than from the disk")
                if number:
                    times[kind, place].append(taken)
    return times


def main() -> None:
    """Print the table, and a line of JSON for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="folder of photographs; without it pictures are made")
    parser.add_argument("--images", type=int, default=480)
    parser.add_argument("--per-tar", type=int, default=60, help="images in a tar, and in a unit of single files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokenizer", default=PRETRAINED)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measure(args, Path(folder))
    print(f"{'images':8}{'from':6}{'images/s':>10}{'spread':>9}{'to disk':>9}{'cpu ms':>9}")
    facts = machine(torch.device("cpu"), "s3fs", "aiohttp", "moto")
    records = [facts | record(args, times, kind, place) for kind, place in ROWS]
    for one in records:
        print(
            f"{one['images']:8}{one['from']:6}{one['images_per_second']:10.2f}{one['spread']:9.0%}{one['to_disk']:9.2f}"
            f"{one['cpu_ms']:9.1f}"
        )
    for one in records:
        print(json.dumps(one))


def record(
    args: argparse.Namespace, times: dict[tuple[str, str], list[tuple[float, float]]], kind: str, place: str
) -> dict[str, Any]:
    """Return the figures of a row."""
    own, disk = times[kind, place], times[kind, "disk"]
    rates = [args.images / seconds for seconds, _ in own]
    ratio = statistics.median(one / other for (one, _), (other, _) in zip(disk, own, strict=True))
    return {
        "images": kind,
        "from": place,
        "images_per_second": round(statistics.median(rates), 2),
        "spread": round((max(rates) - min(rates)) / statistics.median(rates), 3),
        "to_disk": round(ratio, 3),
        "cpu_ms": round(1000 * statistics.median(computed for _, computed in own) / args.images, 2),
        "count": args.images,
        "per_tar": args.per_tar,
        "rounds": args.rounds,
    }


if __name__ == "__main__":
    main()
