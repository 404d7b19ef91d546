"""Claims on units: real processes of `imtok encode` share a job on a disk and on moto's S3, and stop, die or lag."""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Command, Moment
from making import contents, fill, pictures_tar, tiny_tokenizer
from object_stores import new_bucket, objects_below, s3_server

import imtok.encoding.claims
from imtok.data import objects
from imtok.data.objects import NoConditions
from imtok.encoding import encode
from imtok.encoding.claims import CLAIMS, FAILED, LocalClaims, read_claims, read_failures
from imtok.encoding.leases import Leases
from imtok.encoding.share import Share
from imtok.encoding.taking import Taker
from imtok.errors import Interrupted, UnprotectedWarning
from imtok.tokens.folder import find_shards
from imtok.tokens.object_store import ObjectStore
from imtok.tokens.store import LocalStore, store_of

UNITS = 6
LEASE = 1.5  # seconds
SIZES: dict[str, Any] = {"unit_size": 4, "batch_size": 2, "workers": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, photos of six units of two batches, and the token folder that one process makes of them."""
    place = tmp_path_factory.mktemp("place")
    tiny_tokenizer(place / "tokenizer")
    fill(place / "photos", (f"{number:02d}.png" for number in range(4 * UNITS)))
    encode([place / "photos"], place / "whole", place / "tokenizer", **SIZES)
    return place


@pytest.fixture
def start(place: Path, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts a process of the command that makes a token folder; none is left behind."""
    started: list[Command] = []

    def begin(tokens: object, *options: object, moment: Moment | None = None) -> Command:
        sizes = [f"--{name.replace('_', '-')}={value}" for name, value in SIZES.items()]
        words = ["encode", place / "photos", "-o", tokens, "-t", place / "tokenizer", *sizes, *options]
        started.append(Command(*words, log=tmp_path / f"{len(started)}.txt", moment=moment))
        return started[-1]

    yield begin
    for command in started:
        command.kill()


def at_unit(unit: int, number: int) -> Moment:
    """A signal when the shard of a unit is about to get its name."""
    return Moment("os.link", f".tmp-{unit:08d}.safetensors", 1, number)


def at_photo(number: int, sent: int) -> Moment:
    """A signal when a photo is about to be opened."""
    return Moment("open", f"photos/{number:02d}.png", 1, sent)


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def journal_units(tokens: Path) -> list[int]:
    """The units that processes have committed, by their own lines."""
    lines = [line for path in (tokens / "journal").glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted(json.loads(line)["unit"] for line in lines)


def test_a_stopped_process_holds_only_the_units_in_hand(
    place: Path, tmp_path: Path, start: Callable[..., Command]
) -> None:
    tokens = tmp_path / "t"
    stopped = start(tokens, moment=at_unit(1, signal.SIGSTOP))
    wait_until(stopped.is_stopped)
    other = start(tokens)
    assert other.wait() == 0
    assert "not complete yet" in other.text
    missing = set(range(UNITS)) - find_shards(tokens)[0]
    assert {1} <= missing <= {1, 2, 3}  # the next ones have batches in the threads
    claims = read_claims(store_of(tokens))
    assert {claim.unit for claim in claims} == missing
    assert {(claim.held, claim.pid, claim.process) for claim in claims} == {(True, stopped.pid, "0 of 1")}
    stopped.signal(signal.SIGCONT)
    assert stopped.wait() == 0, stopped.text
    assert contents(tokens) == contents(place / "whole")
    assert journal_units(tokens) == list(range(UNITS))  # none was done twice
    assert read_claims(store_of(tokens)) == []


def test_units_of_a_killed_process_are_taken_at_once(
    place: Path, tmp_path: Path, start: Callable[..., Command]
) -> None:
    tokens = tmp_path / "t"
    killed = start(tokens, moment=at_unit(1, signal.SIGSTOP))
    wait_until(killed.is_stopped)
    other = start(tokens, moment=at_unit(5, signal.SIGSTOP))
    wait_until(other.is_stopped)
    killed.signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not any(claim.held for claim in read_claims(store_of(tokens)) if claim.pid == killed.pid)
    other.signal(signal.SIGCONT)
    assert other.wait() == 0, other.text
    assert contents(tokens) == contents(place / "whole")
    assert list((tokens / CLAIMS).iterdir()) == []


def test_ranks_and_shards_help_those_that_have_begun(place: Path, tmp_path: Path) -> None:
    def run(tokens: Path, **share: Any) -> set[int]:
        stop = share.pop("stop", False)
        try:
            encode([place / "photos"], tokens, place / "tokenizer", should_stop=lambda: stop, **SIZES, **share)
        except Interrupted:
            assert stop
        return find_shards(tokens)[0]

    for share in ({"shard": (0, 2)}, {"rank": 0, "world_size": 2}):
        assert run(tmp_path / f"alone {len(share)}", **share) == {0, 2, 4}
    assert run(tmp_path / "t", shard=(1, 2), stop=True) < {1, 3, 5}
    assert run(tmp_path / "t", shard=(0, 2)) == set(range(UNITS))
    assert contents(tmp_path / "t") == contents(place / "whole")


def test_a_file_system_without_locks_is_dealt_by_number(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imtok.encoding.claims, "lock", lambda *_, **__: False)
    for rank in range(2):
        with pytest.warns(UnprotectedWarning, match=r"no file locks, so units are dealt by number .* --shard I/N"):
            encode([place / "photos"], tmp_path / "t", place / "tokenizer", rank=rank, world_size=2, **SIZES)
        assert find_shards(tmp_path / "t")[0] == ({0, 2, 4} if rank == 0 else set(range(UNITS)))
    assert contents(tmp_path / "t") == contents(place / "whole")


def test_a_claim_has_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = (LocalClaims(LocalStore(tmp_path), Share(rank=rank, world_size=2)) for rank in range(2))
    assert first.take(3)
    assert not second.take(3)
    assert second.take(4)
    first.release(3)
    assert second.take(3)
    first.release(3)  # what it no longer holds
    assert [(claim.unit, claim.process, claim.held) for claim in read_claims(first.store)] == [
        (3, "1 of 2", True),
        (4, "1 of 2", True),
    ]
    second.close()
    assert read_claims(first.store) == []


def test_a_failed_unit_is_recorded_until_it_is_committed(place: Path, tmp_path: Path) -> None:
    tars = [pictures_tar(tmp_path / f"{number}.tar", [f"{number}.png"]) for number in range(3)]
    whole = tars[1].read_bytes()
    tars[1].write_bytes(b"broken" * 200)
    tokens = tmp_path / "t"
    assert len(encode(tars, tokens, place / "tokenizer").failed) == 1
    (failure,) = read_failures(store_of(tokens))
    assert (failure.unit, failure.process) == (1, "0 of 1")
    assert failure.name.endswith("1.tar")
    assert "not an uncompressed tar" in failure.reason
    tars[1].write_bytes(whole)
    assert encode(tars, tokens, place / "tokenizer").complete
    assert read_failures(store_of(tokens)) == []


def test_a_unit_that_failed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.replace(f"{FAILED}/00000001.json", b"from an earlier run")
    store.replace(f"{FAILED}/00000002.json", b"from an earlier run")
    claims = [LocalClaims(store, Share(rank=rank, world_size=2)) for rank in range(2)]
    first, second = (Taker(each, 4, set()) for each in claims)
    units = first.units()
    assert [next(units), next(units)] == [0, 2]
    second.failed(1, "1.tar", "cut short")
    assert list(units) == [3]
    assert list(second.units()) == [1]  # of its own share; 3 is held
    for each in claims:
        each.close()


# Object stores


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def tokens(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a token folder that is still to be made."""
    return new_bucket(server, f"bucket-{uuid.uuid4().hex[:8]}", monkeypatch) + "/t"


def truth(address: str) -> dict[str, bytes]:
    """All objects of a token folder outside its journal."""
    return {name: data for name, data in objects_below(address).items() if not name.startswith("journal/")}


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_silent_process_loses_its_units_after_the_lease(
    place: Path, tokens: str, start: Callable[..., Command], number: int
) -> None:
    silent = start(tokens, f"--lease={LEASE}", moment=at_photo(5, number))
    wait_until(silent.is_stopped if number == signal.SIGSTOP else lambda: not silent.is_alive())
    assert {claim.unit for claim in read_claims(store_of(tokens))} >= {1}
    other = start(tokens, f"--lease={LEASE}")
    assert other.wait() == 0, other.text
    assert truth(tokens) == contents(place / "whole")
    if number == signal.SIGSTOP:
        silent.signal(signal.SIGCONT)
        assert silent.wait() == 0, silent.text
        assert truth(tokens) == contents(place / "whole")
    assert read_claims(store_of(tokens)) == []


def test_two_processes_share_a_job_on_a_store(place: Path, tokens: str, start: Callable[..., Command]) -> None:
    pair = [start(tokens) for _ in range(2)]
    assert [command.wait() for command in pair] == [0, 0], [command.text for command in pair]
    assert truth(tokens) == contents(place / "whole")
    assert read_claims(store_of(tokens)) == []


def leases(tokens: str, rank: int) -> Leases:
    store = store_of(tokens)
    assert isinstance(store, ObjectStore)
    if not store.file("imtok.json").exists():
        store.replace("imtok.json", b"{}")
    return Leases(store, Share(rank=rank, world_size=2), LEASE)


def test_a_renewed_lease_is_not_waited_for(tokens: str) -> None:
    holder, other = leases(tokens, 0), leases(tokens, 1)
    assert holder.take(7)
    assert not other.take(7)
    began = time.monotonic()
    assert not other.wait([7])
    assert time.monotonic() - began < LEASE
    holder.close()
    assert other.wait([7])
    assert other.take(7)
    other.close()


def test_a_lease_that_stands_still_is_taken_over(tokens: str) -> None:
    holder, other = leases(tokens, 0), leases(tokens, 1)
    assert holder.take(7)
    holder._ended.set()  # as of a process that is dead or stopped
    assert not other.take(7)
    assert other.wait([7])
    assert other.take(7)
    holder._renew_one(7, *holder._held[7])
    assert 7 not in holder._held
    assert [claim.process for claim in read_claims(other.store)] == ["1 of 2"]
    other.close()


@pytest.mark.parametrize("knows", ["ignores", "refuses"])
def test_a_store_without_conditions_is_dealt_by_number(
    tokens: str, monkeypatch: pytest.MonkeyPatch, knows: str
) -> None:
    def create(*_: object) -> str | None:
        if knows == "refuses":
            raise NoConditions("it knows no conditional puts")
        return "tag"

    claims = leases(tokens, 0)
    monkeypatch.setattr(objects, "create", create)
    taker = Taker(claims, 4, set())
    with pytest.warns(UnprotectedWarning, match="condition.*, so units are dealt by number"):
        units = list(taker.units())
    assert units == [0, 2]
    assert not taker.wait(None)
