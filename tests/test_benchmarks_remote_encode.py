"""The benchmark of encoding from elsewhere: all rows give the shards of the disk, and a wrong one stops it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from making import tiny_tokenizer
from scripts import call_script, import_script

from imtok.data.remote import RemoteStorage
from imtok.data.storage import STORAGES


def test_all_rows_are_timed_with_shards_of_the_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = import_script("remote_encode", monkeypatch)
    monkeypatch.setattr(script, "MADE", (40, 46))
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "set by the script")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setitem(STORAGES, "s3", RemoteStorage("s3"))  # for the address of this server
    tokenizer = str(tiny_tokenizer(tmp_path / "tokenizer"))
    arguments = ["--images", "6", "--per-tar", "3", "--rounds", "1", "--tokenizer", tokenizer]
    call_script(script, monkeypatch, *arguments)
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(one["images"], one["from"]) for one in records] == script.ROWS
    assert all(one["images_per_second"] > 0 and one["cpu_ms"] > 0 for one in records)
    assert [one["to_disk"] for one in records if one["from"] == "disk"] == [1.0, 1.0]
    monkeypatch.setattr(script, "shards", lambda tokens: {tokens.name: b""})
    with pytest.raises(SystemExit, match="tars from http: other shards than from the disk"):
        call_script(script, monkeypatch, *arguments)
