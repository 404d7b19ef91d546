"""Token folders: shards, plan and manifest on disk, reading them, and finding what is wrong with them."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from making import tiny, token_folder
from torch.utils.data import DataLoader

import imtok.tokens
from imtok.analysis import codebook_usage
from imtok.errors import TokensError
from imtok.tokens import (
    Numerics,
    PackedStrings,
    Shard,
    ShardHeader,
    TokenDataset,
    TokensInfo,
    open_tokens,
    read_info,
    read_manifest,
    read_shard,
    shard_to_bytes,
    verify_tokens,
)
from imtok.tokens.folder import (
    INFO,
    MANIFEST,
    manifest_entry,
    manifest_to_bytes,
    shard_path,
)
from imtok.tokens.plan import PlanEntry, plan_path, plan_to_bytes, read_plan
from imtok.tokens.shard import smallest_dtype

TOKENIZER = tiny()
OURS = TOKENIZER.fingerprint


def shard(
    unit: int = 0, *, codebook_size: int = 1000, inputs: int = 4, skip: int | None = 1, fingerprint: str = OURS
) -> Shard:
    """`inputs` positions of 2 x 3 codes, one of them skipped."""
    index = np.array([position for position in range(inputs) if position != skip], np.int64)
    skips = [] if skip is None else [skip]
    codes = np.arange(len(index) * 6).reshape(-1, 2, 3) * (unit + 1) % codebook_size
    return Shard(
        header=ShardHeader(unit=unit, inputs=inputs, fingerprint=fingerprint, codebook_size=codebook_size),
        codes=codes.astype(smallest_dtype(codebook_size)),
        keys=PackedStrings.pack(f"{unit}/ü{position}.jpg" for position in index),
        index=index,
        original_size=np.tile(np.array([[480, 640]], np.int32), (len(index), 1)),
        labels=index * 10,
        skip_index=np.array(skips, np.int64),
        skip_keys=PackedStrings.pack(f"{unit}/ü{position}.jpg" for position in skips),
        skip_reasons=PackedStrings.pack("truncated" for _ in skips),
    )


PLAN = plan_path()
INFO_EXAMPLE = TokensInfo(
    rules=2,
    fingerprint="f" * 64,
    codebook_size=1000,
    num_codebooks=1,
    index_order="first dimension fastest",
    grid=(2, 3),
    downsample=8,
    size=16,
    fit="crop",
    numerics=Numerics(
        device="cpu", precision="fp32", batch_size=16, threads=1, versions={"imtok": "1", "torch": "2", "pillow": "3"}
    ),
    units=3,
    unit_size=4,
    images=12,
    tars=0,
    labels="folders",
    class_names=(),
    max_pixels=1_000_000,
    plan="",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete token folder of three units with four inputs each, one skipped in each."""
    return write_folder(tmp_path / "tokens", [shard(unit) for unit in range(3)])


def write_folder(path: Path, shards: list[Shard]) -> Path:
    entries = [PlanEntry(unit=u, key=f"{u}/ü{p}.jpg", bytes=9) for u in range(len(shards)) for p in range(4)]
    plan = plan_to_bytes(entries)
    info = INFO_EXAMPLE.model_copy(
        update={"plan": hashlib.sha256(plan).hexdigest(), "units": len(shards), "fingerprint": OURS}
    )
    TOKENIZER.save(path / "tokenizer")
    (path / PLAN).parent.mkdir(parents=True)
    (path / PLAN).write_bytes(plan)
    (path / INFO).write_bytes(info.to_bytes())
    for one in shards:
        file = path / shard_path(one.header.unit)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(shard_to_bytes(one))
    lines = [manifest_entry(one, shard_to_bytes(one)) for one in shards]
    (path / MANIFEST).write_bytes(manifest_to_bytes(lines))
    return path


def written(path: Path, content: Shard) -> Path:
    path.write_bytes(shard_to_bytes(content))
    return path


# Shards


def test_the_bytes_of_a_shard_do_not_change() -> None:
    digest = hashlib.sha256(shard_to_bytes(shard(fingerprint="f" * 64))).hexdigest()
    assert digest == "a2eb9d1a839de13ca46b251882239f1a28283cdb3fcd3315bb7a34a353f3f4e2"


def test_a_shard_is_a_safetensors_file_with_one_metadata_key(tmp_path: Path) -> None:
    path = written(tmp_path / "x", shard())
    arrays = safetensors.numpy.load_file(path)
    assert arrays["codes"].dtype == np.uint16
    assert arrays["codes"].tolist() == shard().codes.tolist()
    assert arrays["key_bytes"].tobytes().decode() == "0/ü0.jpg0/ü2.jpg0/ü3.jpg"
    assert arrays["key_offsets"].tolist() == [0, 9, 18, 27]
    assert arrays["skip_index"].tolist() == [1]
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    assert json.loads(metadata["imtok"])["unit"] == 0
    assert list(metadata) == ["imtok"]


def test_a_shard_is_read_as_it_was_written(tmp_path: Path) -> None:
    expected = shard(7)
    found = read_shard(written(tmp_path / "x", expected))
    assert found.header == expected.header
    assert found.codes.tolist() == expected.codes.tolist()
    assert list(found.keys) == list(expected.keys) == ["7/ü0.jpg", "7/ü2.jpg", "7/ü3.jpg"]
    assert found.keys[1] == "7/ü2.jpg"
    assert found.index.tolist() == [0, 2, 3]
    assert found.labels is not None
    assert found.labels.tolist() == [0, 20, 30]
    assert found.original_size.tolist() == [[480, 640]] * 3
    assert (found.skip_index.tolist(), list(found.skip_keys), list(found.skip_reasons)) == (
        [1],
        ["7/ü1.jpg"],
        ["truncated"],
    )
    assert shard_to_bytes(found) == shard_to_bytes(expected)


def test_a_shard_is_read_where_files_cannot_be_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "x", shard())

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert shard_to_bytes(read_shard(path)) == shard_to_bytes(shard())


def test_a_shard_without_images_or_labels_is_read_back(tmp_path: Path) -> None:
    empty = replace(shard(inputs=0, skip=None), labels=None)
    found = read_shard(written(tmp_path / "x", empty))
    assert len(found) == 0
    assert found.labels is None
    assert list(found.keys) == []


def test_a_shard_may_hold_several_codebooks(tmp_path: Path) -> None:
    codes = np.arange(3 * 6 * 2, dtype=np.uint16).reshape(3, 2, 3, 2)
    found = read_shard(written(tmp_path / "x", replace(shard(), codes=codes)))
    assert found.codes.tolist() == codes.tolist()


@pytest.mark.parametrize(
    ("codebook_size", "dtype"),
    [(1, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4"), (2**31, "u4")],
)
def test_codes_take_the_smallest_type_that_holds_the_codebook(codebook_size: int, dtype: str) -> None:
    assert smallest_dtype(codebook_size) == np.dtype(dtype)


def test_codes_at_the_edge_of_their_type_survive(tmp_path: Path) -> None:
    codes = np.full((3, 2, 3), 65535)
    content = replace(shard(codebook_size=65536), codes=codes)
    assert read_shard(written(tmp_path / "x", content)).codes.min() == 65535


def test_a_shard_cut_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    whole = shard_to_bytes(shard())
    path = tmp_path / "cut.safetensors"
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(TokensError, match=r"cut\.safetensors: "):
            read_shard(path)


def test_a_shard_with_more_behind_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(shard_to_bytes(shard()) + b"\0")
    with pytest.raises(TokensError, match="damaged"):
        read_shard(path)


def test_any_damage_to_the_header_is_an_error_of_ours(tmp_path: Path) -> None:
    whole = shard_to_bytes(shard())
    header = 8 + int.from_bytes(whole[:8], "little")
    path = tmp_path / "x"
    random = np.random.default_rng(0)
    for place in range(header):
        data = bytearray(whole)
        data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            read_shard(path)
        except TokensError:
            continue


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"nonsense",
        b"[" * 100_000,
        b'{"__metadata__": 3}',
        b'{"codes": {"dtype": "U8", "shape": [-1], "data_offsets": [0, -1]}}',
        b'{"codes": {"dtype": "U8", "shape": [99999999999999999999], "data_offsets": [0, 99999999999999999999]}}',
        b'{"codes": {"dtype": "U8", "shape": [1.5], "data_offsets": [0, 1]}}',
        b'{"codes": {"dtype": "F8", "shape": [1], "data_offsets": [0, 1]}}',
        b'{"codes": []}',
    ],
)
def test_a_hostile_header_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(TokensError, match="damaged"):
        read_shard(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(safetensors.numpy.save({"weights": np.zeros(3, np.uint8)}))
    with pytest.raises(TokensError, match="not a shard"):
        read_shard(path)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(shard(), index=np.arange(2)),
        replace(shard(), original_size=np.zeros((3, 2), np.int32)),
        replace(shard(), original_size=np.ones((3, 3), np.int32)),
        replace(shard(), labels=np.arange(4)),
        replace(shard(), keys=PackedStrings.pack(["a", "b"])),
        replace(shard(), keys=PackedStrings(np.zeros(3, np.uint8), np.array([0, 2, 1, 3]))),
        replace(shard(), keys=PackedStrings(np.full(3, 0xFF, np.uint8), np.array([0, 1, 2, 3]))),
        replace(shard(), keys=PackedStrings(np.frombuffer("üü".encode(), np.uint8), np.array([0, 1, 2, 4]))),
        replace(shard(), skip_reasons=PackedStrings.pack([])),
        replace(shard(), index=np.arange(3, dtype=np.int32)),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path, wrong: Shard) -> None:
    with pytest.raises(TokensError, match="damaged"):
        read_shard(written(tmp_path / "x", wrong))


# The folder's other files


def test_the_form_of_imtok_json_does_not_change() -> None:
    assert INFO_EXAMPLE.to_bytes().decode() == GOLDEN_INFO
    assert INFO_EXAMPLE.model_copy(update={"version": 1}).to_bytes().decode() == GOLDEN_INFO_1


def test_the_form_of_plan_and_manifest_does_not_change(folder: Path) -> None:
    assert (folder / PLAN).read_text(encoding="utf-8").splitlines()[0] == '{"unit":0,"key":"0/ü0.jpg","bytes":9}'
    assert plan_to_bytes([PlanEntry(unit=1, tar="a", bytes=5)]) == b'{"unit":1,"tar":"a","bytes":5}\n'
    line = json.loads((folder / MANIFEST).read_text(encoding="utf-8").splitlines()[2])
    digest = hashlib.sha256((folder / shard_path(2)).read_bytes()).hexdigest()
    size = (folder / shard_path(2)).stat().st_size
    assert line == {
        "unit": 2,
        "path": "shards/000/00000002.safetensors",
        "bytes": size,
        "sha256": digest,
        "images": 3,
        "skipped": 1,
        "first_key": "2/ü0.jpg",
        "last_key": "2/ü3.jpg",
    }


def test_units_go_a_thousand_to_a_folder() -> None:
    assert shard_path(0) == "shards/000/00000000.safetensors"
    assert shard_path(1_234_567) == "shards/1234/01234567.safetensors"


def test_the_manifest_names_the_data_set(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.dataset_id == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def test_odd_keys_survive_the_plan(tmp_path: Path) -> None:
    keys = ["line\nbreak.jpg", "sep\u2028arator.jpg", 'quo"te.jpg', "back\\slash.jpg", "名前.jpg"]
    (tmp_path / PLAN).parent.mkdir()
    (tmp_path / PLAN).write_bytes(plan_to_bytes(PlanEntry(unit=0, key=key, bytes=1) for key in keys))
    assert [entry.key for entry in read_plan(tmp_path)] == keys


@pytest.mark.parametrize("name", [INFO, PLAN, MANIFEST])
def test_a_file_cut_anywhere_is_refused_by_name(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    readers: dict[str, Callable[[], object]] = {
        INFO: lambda: read_info(folder),
        PLAN: lambda: list(read_plan(folder)),
        MANIFEST: lambda: read_manifest(folder),
    }
    starts = {0} if name == INFO else {0, *(place + 1 for place, byte in enumerate(whole) if byte == ord("\n"))}
    for length in range(1, len(whole) - 1, 11):
        if length in starts:
            continue  # whole lines, too few of them: the hash or the number of units tells
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(TokensError, match=Path(name).name):
            readers[name]()


def test_a_format_of_the_future_is_told_from_damage(folder: Path) -> None:
    text = (folder / INFO).read_text().replace('"version": 2,', '"version": 4,', 1)
    (folder / INFO).write_text(text)
    with pytest.raises(TokensError, match="format version 4, this imtok reads 1 to 3; update imtok"):
        read_info(folder)


def test_a_json_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / INFO).write_text('{"format": "other"}')
    with pytest.raises(TokensError, match="not a token folder of imtok"):
        read_info(tmp_path)


# The data set


def test_images_come_by_number_from_either_end(folder: Path) -> None:
    tokens = open_tokens(folder)
    assert len(tokens) == 9
    key, codes = tokens[4]
    assert key == "1/ü2.jpg"
    assert codes.dtype == torch.int64
    assert codes.tolist() == shard(1).codes[1].tolist()
    assert tokens[-1][0] == "2/ü3.jpg"
    for index in (9, -10):
        with pytest.raises(IndexError, match="of 9 images"):
            tokens[index]


def test_iteration_gives_the_same_in_order(folder: Path) -> None:
    tokens = open_tokens(folder)
    for index, (key, codes) in enumerate(tokens):
        assert key == tokens[index][0]
        assert torch.equal(codes, tokens[index][1])
    assert index == 8


def test_the_data_set_describes_itself(folder: Path) -> None:
    tokens = open_tokens(str(folder))
    assert (tokens.codebook_size, tokens.grid, tokens.fingerprint) == (1000, (2, 3), OURS)
    assert tokens.skipped == 3
    assert tokens.units == (0, 1, 2)
    assert [len(one) for one in tokens.shards()] == [3, 3, 3]


def test_labels_come_by_number(tmp_path: Path) -> None:
    second = replace(shard(1), labels=None)
    third = replace(shard(2), labels=np.array([5, -1, 7]))
    tokens = open_tokens(write_folder(tmp_path / "t", [shard(0), second, third]))
    assert [tokens.label(index) for index in range(9)] == [0, 20, 30, None, None, None, 5, None, 7]


def test_a_data_set_travels_to_other_processes(folder: Path) -> None:
    tokens = open_tokens(folder)
    tokens[0]
    copy = pickle.loads(pickle.dumps(tokens))
    assert copy[8][0] == tokens[8][0]
    assert torch.equal(copy[8][1], tokens[8][1])


def test_changing_a_tensor_does_not_change_the_files(folder: Path) -> None:
    tokens = open_tokens(folder)
    tokens[0][1].fill_(0)
    assert tokens[1][1].sum() > 0
    assert tokens[0][1].tolist() == shard(0).codes[0].tolist()


def test_more_shards_than_may_be_open_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imtok.tokens.dataset, "_OPEN_SHARDS", 1)
    tokens = open_tokens(folder)
    assert [tokens[index][0] for index in (0, 8, 0, 4)] == ["0/ü0.jpg", "2/ü3.jpg", "0/ü0.jpg", "1/ü2.jpg"]


def test_a_shard_changed_behind_the_manifest_is_refused_by_name(folder: Path) -> None:
    (folder / shard_path(1)).write_bytes(shard_to_bytes(shard(1, inputs=6)))
    tokens = open_tokens(folder)
    for read in (
        lambda: tokens.unit(1),
        lambda: tokens[4],
        lambda: list(tokens.shards()),
        lambda: codebook_usage(tokens),
    ):
        with pytest.raises(TokensError, match=r"00000001\.safetensors: holds 5 images where 3 are listed; delete it"):
            read()
    assert tokens.unit(2)[0] == 6


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_missing_unit_is_refused_unless_a_part_will_do(folder: Path, with_manifest: bool) -> None:
    (folder / shard_path(1)).unlink()
    if not with_manifest:
        (folder / MANIFEST).unlink()
    with pytest.raises(TokensError, match="1 of 3 units are missing, first unit 1"):
        open_tokens(folder)
    tokens = open_tokens(folder, partial=True)
    assert [key for key, _ in tokens] == ["0/ü0.jpg", "0/ü2.jpg", "0/ü3.jpg", "2/ü0.jpg", "2/ü2.jpg", "2/ü3.jpg"]
    assert tokens[3][0] == "2/ü0.jpg"
    assert tokens.skipped == 2


def test_a_complete_folder_opens_without_its_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    assert len(open_tokens(folder)) == 9


def test_a_set_without_images_works(tmp_path: Path) -> None:
    nothing = replace(shard(inputs=0, skip=None), labels=None)
    tokens = open_tokens(write_folder(tmp_path / "t", [nothing]))
    assert len(tokens) == 0
    assert list(tokens) == []
    with pytest.raises(IndexError):
        tokens[0]


def test_empty_units_between_others_do_not_shift_numbers(tmp_path: Path) -> None:
    nothing = replace(shard(1, inputs=0, skip=None), labels=None)
    tokens = open_tokens(write_folder(tmp_path / "t", [shard(0), nothing, shard(2)]))
    assert tokens[3][0] == "2/ü0.jpg"
    assert len(tokens) == 6


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_what_is_no_token_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TokensError, match="imtok encode"):
        open_tokens(tmp_path / name)


def test_a_shard_of_another_tokenizer_is_refused(folder: Path) -> None:
    other = shard(1)
    header = other.header.model_copy(update={"fingerprint": "0" * 64})
    written(folder / shard_path(1), replace(other, header=header))
    with pytest.raises(TokensError, match=r"00000001\.safetensors: foreign, the tokenizer's fingerprint"):
        open_tokens(folder)[4]


def with_codebooks(one: Shard, count: int) -> Shard:
    """The same shard with codebook q's codes q times those of the first."""
    codes = np.stack([one.codes * number for number in range(1, count + 1)], axis=-1) % one.header.codebook_size
    return replace(one, codes=codes.astype(one.codes.dtype))


def say_codebooks(folder: Path, count: int) -> None:
    info = json.loads((folder / INFO).read_text())
    (folder / INFO).write_text(json.dumps(info | {"num_codebooks": count}))


def test_codes_of_several_codebooks_come_back_and_are_counted_apart(tmp_path: Path) -> None:
    shards = [with_codebooks(shard(unit), 3) for unit in range(3)]
    folder = write_folder(tmp_path / "tokens", shards)
    say_codebooks(folder, 3)
    tokens = open_tokens(folder)
    assert (tokens.num_codebooks, tokens[0][1].shape) == (3, (2, 3, 3))
    assert np.array_equal(tokens[0][1].numpy(), shards[0].codes[0])
    usage = codebook_usage(tokens)
    every = np.concatenate([one.codes.reshape(-1, 3) for one in shards])
    assert usage.tokens == every.size
    assert np.array_equal(usage.counts, np.bincount(every.reshape(-1), minlength=usage.codebook_size))
    for each, column in zip(usage.codebooks, every.T, strict=True):
        assert np.array_equal(each.counts, np.bincount(column, minlength=usage.codebook_size))
    assert verify_tokens(folder).ok


@pytest.mark.parametrize(("written", "recorded"), [(1, 3), (3, 1), (2, 3)])
def test_a_shard_of_another_number_of_codebooks_is_refused(written: int, recorded: int, tmp_path: Path) -> None:
    shards = [shard(unit) if written == 1 else with_codebooks(shard(unit), written) for unit in range(2)]
    folder = write_folder(tmp_path / "tokens", shards)
    say_codebooks(folder, recorded)
    with pytest.raises(TokensError, match="foreign, the grid of codes is"):
        open_tokens(folder)[0]
    assert not verify_tokens(folder).ok


# Verification


def test_a_sound_folder_is_found_sound(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    result = verify_tokens(folder, lambda done, total: told.append((done, total)))
    assert result.ok
    assert (result.units, result.images, result.skipped) == (3, 9, 3)
    assert result.dataset_id == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert told == [(1, 3), (2, 3), (3, 3)]


def _only(problems: list[str]) -> str:
    assert len(problems) == 1, problems
    return problems[0]


def test_a_missing_unit_is_named_with_its_inputs(folder: Path) -> None:
    (folder / shard_path(1)).unlink()
    problem = _only(verify_tokens(folder).problems)
    assert problem.startswith("unit 1 (1/ü0.jpg to 1/ü3.jpg, 4 inputs) is missing")


def test_every_changed_byte_is_found(folder: Path) -> None:
    path = folder / shard_path(2)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    problems = verify_tokens(folder).problems
    assert any("unit 2" in problem and "hash" in problem for problem in problems)


def test_a_cut_shard_is_named(folder: Path) -> None:
    path = folder / shard_path(0)
    path.write_bytes(path.read_bytes()[:-1])
    assert "unit 0 (0/ü0.jpg to 0/ü3.jpg, 4 inputs): " in _only(verify_tokens(folder).problems)


def test_a_missing_manifest_is_said(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    assert "MANIFEST.jsonl is missing" in _only(verify_tokens(folder).problems)


def test_a_manifest_of_fewer_units_is_found(folder: Path) -> None:
    lines = (folder / MANIFEST).read_bytes().splitlines(keepends=True)
    (folder / MANIFEST).write_bytes(b"".join(lines[:2]))
    assert "2 units, 3 are planned" in _only(verify_tokens(folder).problems)


def test_a_changed_plan_is_found(folder: Path) -> None:
    text = (folder / PLAN).read_text(encoding="utf-8")
    (folder / PLAN).write_text(text.replace('"bytes":9', '"bytes":8', 1), encoding="utf-8")
    assert "plan/inputs-00000.jsonl: its hash" in _only(verify_tokens(folder).problems)


def test_files_nobody_planned_are_named(folder: Path) -> None:
    shutil.copy(folder / shard_path(0), folder / shard_path(7))
    (folder / "shards/000/notes.txt").write_text("mine")
    (folder / "shards/000/.tmp-left-over").write_text("")
    assert verify_tokens(folder).problems == [
        "shards/000/notes.txt: a file that nobody planned",
        "shards/000/00000007.safetensors: a unit that nobody planned",
    ]


def test_a_tokenizer_that_is_missing_or_another_is_found(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")
    assert "tokenizer" in _only(verify_tokens(folder).problems)
    tiny(seed=1).save(folder / "tokenizer")
    assert _only(verify_tokens(folder).problems).startswith("tokenizer: its fingerprint is ")


@pytest.mark.parametrize(
    ("wrong", "finding"),
    [
        (replace(shard(1), index=np.array([0, 2, 2])), "1/ü3.jpg is not accounted for"),
        (replace(shard(1), index=np.array([0, 1, 3])), "1/ü1.jpg is accounted for more than once"),
        (replace(shard(1), index=np.array([2, 0, 3])), "index is not in ascending order"),
        (replace(shard(1), index=np.array([0, 2, 9])), "position 9 is outside the unit's 4 inputs"),
        (
            replace(shard(1), keys=PackedStrings.pack(["1/ü0.jpg", "x", "1/ü3.jpg"])),
            "position 2 holds x, the plan says 1/ü2.jpg",
        ),
        (replace(shard(1), codes=shard(1).codes + np.uint16(990)), "is outside [0, 1000)"),
        (shard(1, inputs=3), "it accounts for 3 inputs, the plan has 4"),
    ],
)
def test_a_shard_that_breaks_its_account_is_found(folder: Path, wrong: Shard, finding: str) -> None:
    written(folder / shard_path(1), wrong)
    problems = verify_tokens(folder).problems
    assert any(finding in problem for problem in problems), problems
    assert all(problem.startswith("unit 1 (") for problem in problems)


GOLDEN_INFO_1 = """\
{
  "format": "imtok-tokens",
  "version": 1,
  "fingerprint": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
  "codebook_size": 1000,
  "num_codebooks": 1,
  "index_order": "first dimension fastest",
  "grid": [
    2,
    3
  ],
  "downsample": 8,
  "size": 16,
  "fit": "crop",
  "numerics": {
    "device": "cpu",
    "precision": "fp32",
    "batch_size": 16,
    "threads": 1,
    "versions": {
      "imtok": "1",
      "torch": "2",
      "pillow": "3"
    }
  },
  "units": 3,
  "unit_size": 4,
  "images": 12,
  "tars": 0,
  "class_names": [],
  "plan": ""
}
"""

GOLDEN_INFO = """\
{
  "format": "imtok-tokens",
  "version": 2,
  "rules": 2,
  "fingerprint": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
  "codebook_size": 1000,
  "num_codebooks": 1,
  "index_order": "first dimension fastest",
  "grid": [
    2,
    3
  ],
  "downsample": 8,
  "size": 16,
  "fit": "crop",
  "numerics": {
    "device": "cpu",
    "precision": "fp32",
    "batch_size": 16,
    "threads": 1,
    "versions": {
      "imtok": "1",
      "torch": "2",
      "pillow": "3"
    }
  },
  "units": 3,
  "unit_size": 4,
  "images": 12,
  "tars": 0,
  "labels": "folders",
  "class_names": [],
  "max_pixels": 1000000,
  "salvage_images": false,
  "plan": ""
}
"""


# As a Python sequence


@pytest.fixture
def five(tmp_path: Path) -> TokenDataset:
    """Five images in two units, four of them with labels."""
    units = [np.arange(12).reshape(3, 2, 2), np.arange(12, 20).reshape(2, 2, 2)]
    labels = [np.array([1, -1, 0]), np.array([2, 2])]
    return open_tokens(token_folder(tmp_path / "five", units, 125, labels=labels))


def test_a_slice_is_a_list_across_units(five: TokenDataset) -> None:
    assert [key for key, _ in five[1:4]] == ["0/1", "0/2", "1/0"]
    assert [key for key, _ in five[::-2]] == ["1/1", "0/2", "0/0"]
    assert five[7:] == []
    assert torch.equal(five[-2:][0][1], five[3][1])


def test_indices_count_from_the_end_and_may_be_of_numpy(five: TokenDataset) -> None:
    assert five[-1][0] == five[np.int64(4)][0] == "1/1"
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"index {index} of 5 images"):
            five[index]


def test_labels_stand_beside_codes(five: TokenDataset) -> None:
    labelled = five.with_labels()
    assert [label for _, _, label in labelled] == [1, -1, 0, 2, 2]
    assert labelled[-1][0] == "1/1"
    assert [label for _, _, label in labelled[:2]] == [1, -1]
    keys, codes, labels = next(iter(DataLoader(labelled, batch_size=5)))
    assert (len(keys), codes.shape, labels.tolist()) == (5, (5, 2, 2), [1, -1, 0, 2, 2])


def test_the_repr_is_one_short_line(five: TokenDataset) -> None:
    assert re.fullmatch(r"<TokenDataset \S+five, 5 images, 2x2 codes of 125>", repr(five))
