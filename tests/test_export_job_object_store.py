"""Exports of a token set on an object store are those of the same set on a disk."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest
from exporting import random_tokens
from making import contents
from object_stores import SECRET, new_bucket, s3_server

from imtok.errors import TokensError
from imtok.export import ExportOptions, export_tokens
from imtok.export.verification import verify_export


def test_a_set_on_an_object_store_is_exported_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ExportOptions(shuffle=1, val_fraction=0.3, label="before")
    tokens = random_tokens(tmp_path / "tokens", units=(6, 9, 5), classes=4)
    export_tokens(tokens, tmp_path / "local", "npy", options)
    with s3_server() as server:
        bucket = new_bucket(server, "exported", monkeypatch)
        client = boto3.client("s3")
        for name, data in contents(tokens).items():
            client.put_object(Bucket="exported", Key=f"tokens/{name}", Body=data)
        client.close()
        export_tokens(f"{bucket}/tokens", tmp_path / "remote", "npy", options)
        assert contents(tmp_path / "remote") == contents(tmp_path / "local")
        assert verify_export(tmp_path / "remote", f"{bucket}/tokens").ok
        other = random_tokens(tmp_path / "other", units=(6, 9, 5), classes=4, seed=1)
        export_tokens(other, tmp_path / "out", "npy", options)
        with pytest.raises(TokensError, match="made from token set") as raised:
            verify_export(tmp_path / "out", f"{bucket}/tokens")
        assert SECRET not in str(raised.value)
