"""A server of moto that speaks S3 on 127.0.0.1, for tests; the processes that tests start inherit its address."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer

from imtok.data.remote import RemoteStorage
from imtok.data.storage import STORAGES

SECRET = "hunter2-secret"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Serve S3 from memory on a free port, and give the environment by which clients find it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server.stop()


def new_bucket(environment: Mapping[str, str], name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a bucket, let this process find the server, and return the bucket's address."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setitem(STORAGES, "s3", RemoteStorage("s3"))
    client = boto3.client("s3")
    client.create_bucket(Bucket=name)
    client.close()
    return f"s3://{name}"


def objects_below(address: str) -> dict[str, bytes]:
    """All objects below an address, by their names from there on."""
    assert "AWS_ENDPOINT_URL" in os.environ
    bucket, _, folder = address.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{folder}/"):
        for line in page.get("Contents", []):
            name = line["Key"].removeprefix(f"{folder}/")
            found[name] = client.get_object(Bucket=bucket, Key=line["Key"])["Body"].read()
    client.close()
    return found
