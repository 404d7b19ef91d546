"""The state of an encoding job, as its token folder shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from making import contents, encoded, fill, picture, tiny_tokenizer, token_folder, write_tar
from object_stores import new_bucket, s3_server

from imtok.encoding import encode, read_status, status
from imtok.encoding.claims import LocalClaims, claim_of, failure_of, record_failure
from imtok.encoding.leases import LEASE_SECONDS, open_claims
from imtok.encoding.share import Share
from imtok.encoding.status import StatusReader
from imtok.errors import TokensError
from imtok.tokens import read_manifest
from imtok.tokens.folder import MANIFEST, shard_path
from imtok.tokens.store import LocalStore, store_of


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """A folder of six units of one image each, of which 2, 4 and 5 are missing."""
    folder = token_folder(tmp_path / "t", [np.zeros((1, 4, 4), np.int64)] * 6, 16)
    (folder / MANIFEST).unlink()
    for unit in (2, 4, 5):
        (folder / shard_path(unit)).unlink()
    return folder


def test_a_complete_set_has_the_name_of_its_manifest(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["a.png", "b.png", "c.png"])
    (tmp_path / "in/d.png").write_bytes(b"no picture")
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, unit_size=2)
    before = contents(tmp_path / "t")
    state = read_status(tmp_path / "t")
    manifest = read_manifest(tmp_path / "t")
    assert manifest is not None
    assert (state.complete, state.dataset_id) == (True, manifest.dataset_id)
    assert (state.units, state.units_done, state.units_missing, state.units_waiting) == (2, 2, 0, 0)
    assert (state.images, state.skipped, list(state.skips.values())) == (3, 1, [1])
    assert (state.held, state.failed, state.damaged) == ((), (), ())
    assert (state.images_per_second, state.seconds_left) == (None, None)
    assert contents(tmp_path / "t") == before


def test_missing_units_are_held_failed_or_waiting(unfinished: Path) -> None:
    store, share = LocalStore(unfinished), Share(1, 2)
    record_failure(store, failure_of(4, "b.tar", "cut short", share))
    record_failure(store, failure_of(1, "a.tar", "cut short", share))  # was committed since
    claims = LocalClaims(store, share)
    assert claims.take(2)
    state = read_status(unfinished)
    assert (state.units_done, state.units_missing) == (3, 3)
    assert (state.units_held, state.units_failed, state.units_waiting) == (1, 1, 1)
    assert [(claim.unit, claim.process) for claim in state.held] == [(2, "1 of 2")]
    assert [(one.unit, one.name, one.reason) for one in state.failed] == [(4, "b.tar", "cut short")]
    claims.close()
    assert read_status(unfinished).units_waiting == 2


def test_a_claim_of_a_dead_process_holds_nothing(unfinished: Path) -> None:
    claims = LocalClaims(LocalStore(unfinished), Share())
    assert claims.take(2)
    path = unfinished / "journal/claims/00000002.json"
    left = path.read_bytes()
    claims.close()
    path.write_bytes(left)
    state = read_status(unfinished)
    assert (state.held, state.units_held, state.units_waiting) == ((), 0, 3)


def test_rate_and_time_left_are_those_of_processes_at_work(unfinished: Path) -> None:
    journal = unfinished / "journal"
    journal.mkdir()
    lines = [{"unit": 0, "images": 9, "skipped": 1, "seconds": 2.0}, {"unit": 1, "images": 1, "seconds": 0.5}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for name in ("00000-of-00002", "00001-of-00002"):
        (journal / f"{name}.jsonl").write_text(text)
    assert read_status(unfinished).images_per_second is None
    claims = [LocalClaims(LocalStore(unfinished), Share(index, 2)) for index in range(2)]
    assert claims[0].take(2)
    assert read_status(unfinished).images_per_second == 11 / 2.5
    assert claims[1].take(4)
    state = read_status(unfinished)
    assert state.images_per_second == 2 * 11 / 2.5
    assert state.seconds_left == pytest.approx(3 / state.images_per_second)
    (journal / "00000-of-00002.jsonl").write_text("damaged\n")
    assert read_status(unfinished).images_per_second == 11 / 2.5
    for each in claims:
        each.close()


def test_processes_that_run_one_command_add_up(unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = [claim_of(2, Share()).model_copy(update={"host": host, "held": True}) for host in ("one", "two")]
    monkeypatch.setattr(status, "read_claims", lambda _: [claims[0], claims[1].model_copy(update={"unit": 4})])
    lines = [
        {"unit": unit, "images": 10, "seconds": seconds, "host": host, "pid": claims[0].pid}
        for unit, host, seconds in ((0, "one", 2.0), (1, "two", 1.0), (3, "dead", 1.0))
    ]
    (unfinished / "journal").mkdir()
    (unfinished / "journal/00000-of-00001.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_status(unfinished).images_per_second == 10 / 2 + 10 / 1


def test_images_of_missing_tars_are_taken_from_committed_ones(tmp_path: Path, tokenizer: Path) -> None:
    for name, count in (("a", 3), ("b", 1), ("c", 1)):
        write_tar(tmp_path / f"{name}.tar", [(f"{number}.png", encoded(picture(number))) for number in range(count)])
    folder = tmp_path / "t"
    encode([tmp_path / f"{name}.tar" for name in "abc"], folder, tokenizer)
    (folder / shard_path(2)).unlink()
    claims = LocalClaims(LocalStore(folder), Share())
    assert claims.take(2)
    state = read_status(folder)
    assert state.images_per_second is not None
    assert state.seconds_left == pytest.approx(2 / state.images_per_second)
    assert not state.complete
    for unit in (0, 1):
        (folder / shard_path(unit)).unlink()
    assert read_status(folder).seconds_left is None
    claims.close()


def test_grown_inputs_count_with_the_first_ones(tmp_path: Path, tokenizer: Path) -> None:
    fill(tmp_path / "in", ["a.png", "b.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, unit_size=1)
    fill(tmp_path / "in", ["c.png", "d.png"])
    encode([tmp_path / "in"], tmp_path / "t", tokenizer, shard=(0, 2))
    state = read_status(tmp_path / "t")
    assert (state.complete, state.units, state.units_done, state.images) == (False, 4, 3, 3)


def test_a_damaged_shard_is_named_and_counts_nothing(unfinished: Path) -> None:
    (unfinished / shard_path(1)).write_bytes(b"half")
    (unfinished / shard_path(77)).write_bytes(b"nobody planned this")
    state = read_status(unfinished)
    assert (state.damaged, state.images, state.units_done) == ((1,), 2, 3)


def test_a_damaged_manifest_says_what_to_do(tmp_path: Path) -> None:
    folder = token_folder(tmp_path / "t", [np.zeros((1, 4, 4), np.int64)] * 2, 16)
    assert read_status(folder).manifest_problem is None
    with (folder / MANIFEST).open("a") as file:
        file.write("x\n")
    state = read_status(folder)
    assert (state.complete, state.units_done, state.images) == (False, 2, 2)
    assert str(state.manifest_problem).endswith("delete the file and run the same `imtok encode` again")


def test_a_reader_counts_each_shard_once(unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = StatusReader(unfinished)
    assert reader.read().images == 3
    monkeypatch.setattr("imtok.encoding.status.read_shard_counts", None)
    assert reader.read().images == 3


@pytest.mark.parametrize("lease", [None, 300.0])
def test_a_claim_that_stands_still_holds_nothing(
    unfinished: Path, monkeypatch: pytest.MonkeyPatch, lease: float | None
) -> None:
    claim, seconds = claim_of(2, Share(), lease), lease or LEASE_SECONDS
    claims, now = [claim], [100.0]
    monkeypatch.setattr(status, "read_claims", lambda _: claims)  # as those of an object store, `held` is None
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    reader = StatusReader(unfinished)
    assert reader.read().units_held == 1
    now[0] += seconds / 2
    claims[0] = claim.model_copy(update={"beat": 1})
    assert reader.read().units_held == 1
    now[0] += seconds * 0.9
    assert reader.read().units_held == 1
    now[0] += seconds * 0.2
    assert (reader.read().units_held, reader.read().units_waiting) == (0, 3)


def test_a_set_on_an_object_store_has_the_same_state(
    unfinished: Path, tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", ["a.png", "b.png", "c.png"])
    (tmp_path / "in/d.png").write_bytes(b"no picture")
    encode([tmp_path / "in"], unfinished.parent / "other", tokenizer, unit_size=1)
    with s3_server() as environment:
        bucket = new_bucket(environment, "tokens", monkeypatch)
        for name in ("t", "other"):
            store = store_of(f"{bucket}/{name}")
            for path in (path for path in (tmp_path / name).rglob("*") if path.is_file()):
                store.replace(path.relative_to(tmp_path / name).as_posix(), path.read_bytes())
            here, there = read_status(tmp_path / name), read_status(store)
            assert replace(there, path=here.path) == here
            assert there.path == f"s3://tokens/{name}"
        claims = open_claims(store_of(f"{bucket}/t"), Share())
        assert claims.take(2)
        for unit in range(2):  # each process has a journal of its own there
            store = store_of(f"{bucket}/t")
            store.append("journal/00000-of-00001.jsonl", b'{"unit": %d, "images": 3, "seconds": 2.0}\n' % unit)
            store.flush()
        assert read_status(f"{bucket}/t").images_per_second == 3 / 2
        claims.close()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokensError, match=r"not a token folder, it has no imtok\.json"):
        read_status(tmp_path)


def test_the_json_of_a_state_has_its_documented_keys(unfinished: Path) -> None:
    store = LocalStore(unfinished)
    record_failure(store, failure_of(4, "b.tar", "cut short", Share()))
    claims = LocalClaims(store, Share())
    assert claims.take(2)
    found = json.loads(json.dumps(read_status(unfinished).to_json()))
    claims.close()
    assert set(found) == {
        *("path", "complete", "dataset_id", "units", "units_done", "units_missing", "units_held", "units_failed"),
        *("units_waiting", "images", "skipped", "skips", "held", "failed", "damaged", "images_per_second"),
        *("seconds_left", "manifest_problem"),
    }
    assert set(found["held"][0]) == {"unit", "host", "pid", "process", "since"}
    assert set(found["failed"][0]) == {"unit", "name", "reason", "host", "pid", "process", "since"}
