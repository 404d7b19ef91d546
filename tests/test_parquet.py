"""Parquet files: which column holds images, under which keys, with which labels."""

from __future__ import annotations

import importlib.util
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import encoded, outcomes, picture, tiny_tokenizer

from imtok.data.archives import parquet as parquet
from imtok.data.archives.parquet import open_parquet
from imtok.data.containers import Container
from imtok.data.sources import find_sources
from imtok.encoding import encode
from imtok.errors import SourceError
from imtok.tokens import open_tokens, verify_tokens


def write_parquet(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, **options: Any) -> Path:
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **options)
    return path


def opened(path: Path) -> Container:
    return open_parquet(str(path))


def structs(*rows: tuple[bytes | None, str | None] | None) -> pa.Array:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([row and {"bytes": row[0], "path": row[1]} for row in rows], kind)


def test_the_layout_of_the_hub_is_read(tmp_path: Path) -> None:
    images = structs((b"A", "a.jpg"), (b"B", "twice.jpg"), (b"C", "twice.jpg"), (b"D", "/up/d.jpg"), (b"E", None))
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    found = opened(write_parquet(tmp_path / "x.parquet", {"image": images, "label": [1, 0, -1, None, 1]}, features))
    assert outcomes(found) == {"a.jpg": b"A", "00000001": b"B", "00000002": b"C", "00000003": b"D", "00000004": b"E"}
    assert [image.beside(".cls") for image in found.images] == [b"1", b"0", None, None, b"1"]
    assert found.class_names == ("cat", "dog")


def test_rows_without_bytes_are_skipped_with_a_reason(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", {"image": structs(None, (None, "b.jpg"), (b"C", "c.jpg"))})
    assert outcomes(opened(path)) == {"00000000": "no bytes", "b.jpg": "no bytes", "c.jpg": b"C"}


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_plain_column_is_found_by_its_name(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {"jpg": pa.array([b"A", None], kind), "hash": pa.array([b"1", b"2"]), "cls": ["cat", "dog"]}
    found = opened(write_parquet(tmp_path / "x.parquet", columns))
    assert outcomes(found) == {"00000000": b"A", "00000001": "no bytes"}
    assert [image.beside(".cls") for image in found.images] == [b"cat", b"dog"]


def test_columns_that_cannot_be_told_apart_are_named(tmp_path: Path) -> None:
    two = opened(write_parquet(tmp_path / "x.parquet", {"left": structs((b"A", None)), "right": structs((b"B", None))}))
    assert "2 columns hold images (left, right)" in str(two.problem)
    none = opened(write_parquet(tmp_path / "y.parquet", {"url": ["u"], "width": [3]}))
    assert "its columns are url, width" in str(none.problem)


@pytest.mark.parametrize("limit", [2**28, 1])
def test_rows_are_read_in_any_order_by_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(parquet, "_GROUP_BYTES", limit)  # 1: every row group is streamed
    data = [bytes([row]) * 50 for row in range(250)]
    found = opened(write_parquet(tmp_path / "x.parquet", {"image": data}, row_group_size=100))
    images = pickle.loads(pickle.dumps(found.images))
    assert [image.read() for image in images] == data
    order = [*range(250), *range(249, -1, -7), 3, 120, 5]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: images[row].read(), order)) == [data[row] for row in order]


def test_damage_is_seen(tmp_path: Path) -> None:
    data = write_parquet(tmp_path / "x.parquet", {"image": [b"A" * 5000, b"B"]}, compression="none").read_bytes()
    cut = tmp_path / "cut.parquet"
    for length in (0, 4, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:length])
        assert opened(cut).problem
    cut.write_bytes(data)
    found = opened(cut)
    cut.write_bytes(b"PAR1" + bytes(40))
    with pytest.raises(SourceError, match="changed while it was read"):
        found.images[0].read()


def test_a_missing_pyarrow_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "x.parquet", {"image": [b"A"]})
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SourceError, match=r"pip install 'imtok\[parquet\]'"):
        find_sources([path])


def test_a_parquet_file_becomes_a_unit(tmp_path: Path) -> None:
    images = structs((encoded(picture(0)), "a.png"), (None, "b.png"))
    source = write_parquet(tmp_path / "train.parquet", {"image": images, "label": [3, 4]})
    report = encode([source], tmp_path / "t", tiny_tokenizer(tmp_path / "tokenizer"))
    assert (report.images, report.skips["no bytes"].count) == (1, 1)
    dataset = open_tokens(tmp_path / "t")
    assert [key for key, _ in dataset] == ["a.png"]
    assert '"train.parquet"' in (tmp_path / "t/plan/inputs-00000.jsonl").read_text()
    assert verify_tokens(tmp_path / "t").ok
    assert report.labels == "a column of the Parquet files, 1 of 1 image, 1 class (3)"


def test_a_damaged_parquet_file_is_never_an_empty_unit(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", {"image": [encoded(picture(0))]})
    path.write_bytes(path.read_bytes()[:-20])
    report = encode([path], tmp_path / "t", tiny_tokenizer(tmp_path / "tokenizer"), salvage=True)
    assert (report.complete, report.salvaged) == (False, ())
    assert "nothing of it can be salvaged" in report.failed[0].reason


def test_a_clash_of_labels_names_the_column_not_cls(tmp_path: Path) -> None:
    numbers = write_parquet(tmp_path / "a.parquet", {"image": [encoded(picture(0))], "label": [3]})
    names = write_parquet(tmp_path / "b.parquet", {"image": [encoded(picture(1))], "label": ["cat"]})
    with pytest.raises(SourceError, match=r"a\.parquet has numbers in its label column.*names in its label column"):
        encode([numbers, names], tmp_path / "t", tiny_tokenizer(tmp_path / "tokenizer"))
