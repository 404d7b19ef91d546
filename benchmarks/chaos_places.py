"""Places where `benchmarks/chaos.py` lets token folders lie: a folder of a disk, or objects of an S3 server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from chaos_world import Link, free_port

_BUCKET = "chaos"


class Place(Protocol):
    """The place of one token folder."""

    address: str  # as `imtok` takes it

    pause: float  # seconds between two looks at its files

    def names(self, below: str = "") -> list[str]:
        """Return the names of the files below one of its folders."""

    def read(self, name: str) -> bytes:
        """Read a file."""

    def clear(self, below: str = "") -> bool:
        """Remove the files below one of its folders, or all; False where there are none."""


class Folder:
    """A folder of this machine."""

    pause = 0.005

    def __init__(self, folder: Path) -> None:
        self.address, self._folder = str(folder), folder

    def names(self, below: str = "") -> list[str]:
        found = []
        for parent, _, names in os.walk(self._folder / below):
            found += [(Path(parent) / name).relative_to(self._folder).as_posix() for name in names]
        return found

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def clear(self, below: str = "") -> bool:
        there = (self._folder / below).exists()
        shutil.rmtree(self._folder / below, ignore_errors=True)  # processes may write into it meanwhile
        return there


class Bucket:
    """Objects, which this process reaches without the link that is disturbed."""

    pause = 0.05

    def __init__(self, client: Any, prefix: str) -> None:
        self.address = f"s3://{_BUCKET}/{prefix}"
        self._client, self._prefix = client, prefix

    def names(self, below: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=_BUCKET, Prefix=f"{self._prefix}/{below}")
        keys = [line["Key"] for page in pages for line in page.get("Contents", [])]
        return [key.removeprefix(f"{self._prefix}/") for key in keys]

    def read(self, name: str) -> bytes:
        found: bytes = self._client.get_object(Bucket=_BUCKET, Key=f"{self._prefix}/{name}")["Body"].read()
        return found

    def clear(self, below: str = "") -> bool:
        names = self.names(below)
        for name in names:
            self._client.delete_object(Bucket=_BUCKET, Key=f"{self._prefix}/{name}")
        return bool(names)

    def put(self, folder: Path) -> None:
        """Copy the files of a folder into it."""
        for path in (path for path in folder.rglob("*") if path.is_file()):
            key = f"{self._prefix}/{path.relative_to(folder).as_posix()}"
            self._client.put_object(Bucket=_BUCKET, Key=key, Body=path.read_bytes())


def contents(place: Place) -> dict[str, bytes]:
    """Return the files of a place outside its journal, temporaries included."""
    return {name: place.read(name) for name in place.names() if not name.startswith("journal/")}


@contextmanager
def bucket_served(log: Path) -> Iterator[tuple[Link, Any]]:
    """Serve a bucket by moto from a process of its own; yield the link to it, and a client that does without it.

    Commands that are started in the block find the link and credentials in their environment.
    """
    import boto3

    port = free_port()
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)], stdout=file, stderr=file
        ) as server,
    ):
        link = Link(port, [f"s3://{_BUCKET}"])
        credentials = {
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "word",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        before = dict(os.environ)
        os.environ.update(credentials)
        try:
            client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
            _create_bucket(client)
            os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{link.port}"
            yield link, client
        finally:
            os.environ.clear()
            os.environ.update(before)
            link.take_away()
            server.kill()


def _create_bucket(client: Any) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=_BUCKET)
        except Exception:  # its server still starts
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return
