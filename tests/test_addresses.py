"""Addresses: what is shown of them, and what is never read."""

from __future__ import annotations

import pytest

from imtok.data.addresses import is_remote, plain_address, redacted
from imtok.errors import SourceError


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://host/a/x.tar", "https://host/a/x.tar"),
        ("https://host:8080/a@b.tar", "https://host:8080/a@b.tar"),
        ("https://user:secret@host/x.tar", "https://host/x.tar"),
        ("https://user:se/cret@host/x.tar", "https://host/x.tar"),
        ("https://user:se@cret@host:80/x.tar", "https://host:80/x.tar"),
        ("https://host/x.tar?X-Signature=secret&b=/x@y", "https://host/x.tar"),
        ("https://host/x.tar#secret", "https://host/x.tar"),
        ("https://host?secret", "https://host"),
        ("s3://bucket/take #2.png", "s3://bucket/take #2.png"),
        ("hf://datasets/org/name@branch/x.tar", "hf://datasets/org/name@branch/x.tar"),
        ("s3://bucket/x.tar?versionId=secret", "s3://bucket/x.tar"),
        ("/data/what?.tar", "/data/what?.tar"),
    ],
)
def test_secrets_are_left_out_of_what_is_shown(address: str, shown: str) -> None:
    assert redacted(address) == shown


def test_schemes_are_told_apart() -> None:
    assert [is_remote(address) for address in ("S3://b/x", "https://h/x", "file:///x", "/x", "x://y")] == [
        *(True, True, False, False, False)
    ]
    assert plain_address("HTTPS://host/x.tar") == "https://host/x.tar"
    assert plain_address("file:///a%20b/x.tar") == plain_address("file://localhost/a b/x.tar") == "/a b/x.tar"


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("s3://key:secret@bucket/x.tar", "s3://bucket/x.tar: has a user name in it"),
        ("https://host/x.tar::y?secret", "https://host/x.tar::y: chains by :: are not read"),
        ("file://other/x.tar", "file://other/x.tar: a file of another machine"),
        ("s3:///x.tar", "s3:///x.tar: names no bucket"),
        ("gs://", "gs://: names no bucket"),
        ("https:///x.tar", "https:///x.tar: names no host"),
    ],
)
def test_what_is_never_read_is_refused(address: str, line: str) -> None:
    with pytest.raises(SourceError, match=line) as found:
        plain_address(address)
    assert "secret" not in str(found.value)
