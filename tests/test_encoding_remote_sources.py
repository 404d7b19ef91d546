"""Encoding from other machines: the same token folders as from the disk, whatever the network does."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from making import contents, encoded, fill, picture, pictures_tar, tiny_tokenizer, write_tar
from servers import Web, served

from imtok.data import remote_files
from imtok.data.streaming.transfers import Patience
from imtok.encoding import EncodeReport, encode
from imtok.errors import DiskError, Interrupted, SourceError
from imtok.tokens import open_tokens

SECRET = "hunter2-secret"
QUICK = Patience(first_wait=0.01)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tars of five pictures with class numbers."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(4):
        members = [(f"{number}-{index}.png", encoded(picture(number * 5 + index))) for index in range(5)]
        members += [(f"{number}-{index}.cls", str(index).encode()) for index in range(5)]
        write_tar(folder / f"s-{number}.tar", members)
    return folder


@pytest.fixture(scope="module")
def from_disk(tokenizer: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The token folder of the tars as they lie on the disk."""
    output = tmp_path_factory.mktemp("tokens") / "tokens"
    encode([shards], output, tokenizer)
    return contents(output)


@pytest.fixture
def web(shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Web]:
    """A server of the tars; retries are quick, and temporary files lie in `temporary`."""
    monkeypatch.setattr(remote_files, "PATIENCE", QUICK)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with served({f"/{path.name}": path.read_bytes() for path in shards.iterdir()}) as server:
        yield server


def signed(web: Web) -> str:
    return web.url.replace("//", f"//user:{SECRET}@") + f"/s-{{0..3}}.tar?signature={SECRET}"


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"/s-1.tar": ["cut", "reset"], "/s-2.tar": ["status 503", "status 500", "chunked and cut"]},
        {"/s-0.tar": ["html"], "/s-3.tar": ["damaged"]},
    ],
    ids=["whole", "cut", "damaged"],
)
def test_tars_of_a_server_give_the_tokens_of_the_disk(
    web: Web, faults: dict[str, list[str]], tokenizer: Path, from_disk: dict[str, bytes], tmp_path: Path
) -> None:
    web.faults, extra = faults, sum(map(len, faults.values()))
    report = encode([signed(web)], tmp_path / "tokens", tokenizer)
    assert (report.failed, report.images) == ((), 20)
    assert contents(tmp_path / "tokens") == from_disk
    assert not any(web.faults.values())
    assert [method for method, _ in web.requests].count("GET") == 4 + extra  # the first look's copies are used again
    assert not list((tmp_path / "temporary").iterdir())


def test_nothing_that_is_written_or_said_holds_a_secret(web: Web, tokenizer: Path, tmp_path: Path) -> None:
    web.faults = {"/s-1.tar": ["status 403"] * 9}
    report = encode([signed(web)], tmp_path / "tokens", tokenizer)
    (failed,) = report.failed
    assert failed.name == f"{web.url}/s-1.tar"
    assert failed.reason.startswith("access is refused (HTTP 403), after 2 tries; check the address")
    files = (path for path in (tmp_path / "tokens").rglob("*") if path.is_file())
    assert SECRET not in repr(report)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_failed_fetch_fails_its_unit_and_is_repeated(
    web: Web, tokenizer: Path, from_disk: dict[str, bytes], tmp_path: Path
) -> None:
    web.faults = {"/s-2.tar": ["cut"] * 10}
    report = encode([signed(web)], tmp_path / "tokens", tokenizer)
    assert [(one.unit, one.reason) for one in report.failed] == [
        (
            2,
            "the connection ended before the file did, after 5 tries; check the address and its server, then give the "
            "same command again",
        )
    ]
    assert not report.complete
    web.faults.clear()
    encode([signed(web).replace(SECRET, "another")], tmp_path / "tokens", tokenizer)
    assert contents(tmp_path / "tokens") == from_disk


def test_a_tar_that_is_cut_at_its_source_fails(web: Web, tokenizer: Path, tmp_path: Path) -> None:
    web.files["/s-1.tar"] = web.files["/s-1.tar"][:3000]
    report = encode([signed(web)], tmp_path / "tokens", tokenizer)
    assert [(one.unit, one.reason.partition(";")[0]) for one in report.failed] == [(1, "cut short inside 1-0.png")]
    salvaged = encode([signed(web)], tmp_path / "tokens", tokenizer, salvage=True)
    assert (salvaged.failed, salvaged.complete, salvaged.images) == ((), True, 15)


def test_a_file_that_changes_after_its_listing_is_refused(web: Web, tokenizer: Path, tmp_path: Path) -> None:
    web.faults = {"/s-0.tar": ["html"] * 9}
    report = encode([f"{web.url}/s-0.tar"], tmp_path / "tokens", tokenizer)
    assert "when it was listed; it changes meanwhile" in report.failed[0].reason


def test_a_server_without_lengths_is_read_too(web: Web, tokenizer: Path, shards: Path, tmp_path: Path) -> None:
    web.faults = {"/s-0.tar": ["chunked"] * 9}
    report = encode([f"{web.url}/s-0.tar"], tmp_path / "tokens", tokenizer)
    encode([shards / "s-0.tar"], tmp_path / "local", tokenizer)
    assert report.complete
    shard = "shards/000/00000000.safetensors"
    assert (tmp_path / "tokens" / shard).read_bytes() == (tmp_path / "local" / shard).read_bytes()


def test_the_next_tar_is_fetched_while_one_is_encoded(
    web: Web, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    fetched = remote_files.RemoteFiles.begin
    opened = remote_files.RemoteFiles.path

    def begin(self: remote_files.RemoteFiles, address: str, size: int, *, ahead: bool = False) -> bool:
        begun.append(f"begin {address[-5]}")
        return fetched(self, address, size, ahead=ahead)

    def path(self: remote_files.RemoteFiles, address: str) -> Path:
        begun.append(f"open {address[-5]}")
        return opened(self, address)

    monkeypatch.setattr(remote_files.RemoteFiles, "begin", begin)
    monkeypatch.setattr(remote_files.RemoteFiles, "path", path)
    encode([f"{web.url}/s-{{0..3}}.tar"], tmp_path / "tokens", tokenizer, labels="none")
    assert begun.index("begin 1") < begun.index("open 0")
    assert begun.index("begin 3") < begun.index("open 1")


@pytest.mark.parametrize("kind", ["zip", "parquet"])
def test_other_containers_of_a_server_are_read(kind: str, web: Web, tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    pictures = {f"{seed}.png": encoded(picture(seed)) for seed in range(3)}
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in pictures.items():
                archive.writestr(name, data)
    else:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({"image": [{"bytes": one, "path": name} for name, one in pictures.items()]}), path)
    web.files[f"/{path.name}"] = path.read_bytes()
    encode([path], tmp_path / "local", tokenizer)
    encode([f"{web.url}/{path.name}"], tmp_path / "remote", tokenizer)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")


def urls(web: Web, folder: Path, *, query: str = "") -> list[str]:
    """Serve the pictures of a folder, and return lines of a list with their keys."""
    paths = sorted(folder.rglob("*.png"))
    web.files |= {f"/{path.relative_to(folder)}": path.read_bytes() for path in paths}
    return [f"{web.url}/{path.relative_to(folder)}{query}\t{path.relative_to(folder)}\n" for path in paths]


def shards_of(tokens: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(tokens).items() if name.startswith("shards/")}


def test_a_list_of_urls_gives_the_shards_of_the_disk(web: Web, tokenizer: Path, tmp_path: Path) -> None:
    folder = fill(tmp_path / "photos", [f"{('cat', 'dog')[n % 2]}/{n:02d}.png" for n in range(20)])
    (tmp_path / "list.txt").write_text("".join(urls(web, folder, query=f"?signature={SECRET}")))
    web.faults = {"/cat/04.png": ["status 500", "cut"]}
    report = encode([tmp_path / "list.txt"], tmp_path / "remote", tokenizer, unit_size=8)
    encode([folder], tmp_path / "local", tokenizer, unit_size=8)
    assert (report.complete, report.labels) == (True, "class folders, 20 of 20 images, 2 classes (cat, dog)")
    assert shards_of(tmp_path / "remote") == shards_of(tmp_path / "local")
    assert SECRET.encode() not in b"".join(contents(tmp_path / "remote").values())


def test_a_dead_link_is_skipped_and_a_dead_server_fails(web: Web, tokenizer: Path, tmp_path: Path) -> None:
    lines = urls(web, fill(tmp_path / "photos", [f"{n}.png" for n in range(4)]))
    del web.files["/1.png"]
    web.faults = {"/2.png": ["status 503"] * 99}
    (tmp_path / "list.txt").write_text("".join(lines))
    report = encode([tmp_path / "list.txt"], tmp_path / "tokens", tokenizer, unit_size=2)
    assert [(one.unit, one.reason.partition(";")[0]) for one in report.failed] == [
        (1, f"{web.url}/2.png: the server fails (HTTP 503), after 5 tries")
    ]
    report = encode([tmp_path / "list.txt"], tmp_path / "tokens", tokenizer, unit_size=2, salvage=True)
    assert {reason: skips.examples for reason, skips in report.skips.items()} == {
        "does not exist": ("1.png",),
        "cannot be fetched": ("2.png",),
    }
    assert [key for key, _ in open_tokens(tmp_path / "tokens")] == ["0.png", "3.png"]


@pytest.mark.parametrize("fault", ["half", "html", "empty"])
@pytest.mark.parametrize("salvage_images", [None, True])
def test_a_listed_image_that_came_damaged_is_fetched_again(
    web: Web, tokenizer: Path, tmp_path: Path, fault: str, salvage_images: bool | None
) -> None:
    lines = urls(web, fill(tmp_path / "photos", [f"{n}.png" for n in range(4)]))
    web.files["/3.png"] = b"no picture, whoever asks"
    (tmp_path / "photos/3.png").write_bytes(b"no picture, whoever asks")
    web.faults = {"/2.png": [f"{fault} without length" if fault == "half" else fault]}
    (tmp_path / "list.txt").write_text("".join(lines))
    report = encode([tmp_path / "list.txt"], tmp_path / "remote", tokenizer, salvage_images=salvage_images)
    encode([tmp_path / "photos"], tmp_path / "local", tokenizer, salvage_images=salvage_images)
    assert (report.images, report.skipped, report.salvaged_images) == (3, 1, ())
    assert shards_of(tmp_path / "remote") == shards_of(tmp_path / "local")
    assert [path for method, path in sorted(web.requests) if method == "GET"] == [
        *("/0.png", "/1.png", "/2.png", "/2.png", "/3.png", "/3.png")
    ]


def test_a_list_may_grow_and_not_shrink(web: Web, tokenizer: Path, tmp_path: Path) -> None:
    lines = urls(web, fill(tmp_path / "photos", [f"{n}.png" for n in range(5)]))
    for count in (3, 5):
        (tmp_path / "list.txt").write_text("".join(lines[:count]))
        report = encode([tmp_path / "list.txt"], tmp_path / "tokens", tokenizer)
    assert (report.units_added, report.images) == (1, 5)
    (tmp_path / "list.txt").write_text("".join(lines[:4]))
    with pytest.raises(SourceError, match=r"4\.png is missing"):
        encode([tmp_path / "list.txt"], tmp_path / "tokens", tokenizer)


def test_a_stop_does_not_wait_for_a_server(web: Web, tokenizer: Path, tmp_path: Path) -> None:
    web.faults = {"/s-0.tar": ["stall"]}
    asked = threading.Event()
    threading.Timer(0.5, asked.set).start()
    begun = time.perf_counter()
    with pytest.raises(Interrupted):
        encode([f"{web.url}/s-0.tar"], tmp_path / "tokens", tokenizer, should_stop=asked.is_set)
    assert time.perf_counter() - begun < 10


def test_units_are_committed_while_the_next_is_waited_for(web: Web, tokenizer: Path, tmp_path: Path) -> None:
    web.faults = {"/s-1.tar": ["stall"]}
    first = tmp_path / "tokens/shards/000/00000000.safetensors"
    begun = time.perf_counter()
    with pytest.raises(Interrupted, match="stopped with 1 of 4 units committed"):
        encode(
            [f"{web.url}/s-{{0..3}}.tar"],
            tmp_path / "tokens",
            tokenizer,
            labels="none",
            should_stop=lambda: first.exists() or time.perf_counter() - begun > 10,
        )


def test_a_full_disk_of_temporary_files_ends_the_job(
    web: Web, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(remote_files, "receive", full)
    with pytest.raises(DiskError, match=r"temporary/.*No space left on device"):
        encode([f"{web.url}/s-0.tar"], tmp_path / "tokens", tokenizer)


def test_little_room_lets_few_copies_lie_at_once(
    web: Web, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    opened = remote_files.RemoteFiles.path

    def path(self: remote_files.RemoteFiles, address: str) -> Path:
        nonlocal most
        found = opened(self, address)
        most = max(most, len(list(found.parent.iterdir())))
        return found

    web.files = {f"/t-{number:02d}.tar": web.files["/s-0.tar"] for number in range(14)}
    monkeypatch.setattr(remote_files.RemoteFiles, "path", path)
    monkeypatch.setattr(remote_files.RemoteFiles.__init__, "__defaults__", (None, 1))
    report = encode([f"{web.url}/t-{{00..13}}.tar"], tmp_path / "tokens", tokenizer, labels="none", workers=1)
    assert report.complete
    assert 2 <= most <= 5  # with enough room there are nine


def test_an_encode_report_is_that_of_the_disk(web: Web, tokenizer: Path, shards: Path, tmp_path: Path) -> None:
    def facts(report: EncodeReport) -> tuple[object, ...]:
        return report.images, report.skips, report.labels, report.dataset_id, report.notes, report.label_notes

    remote = encode([f"{web.url}/s-{{0..3}}.tar"], tmp_path / "remote", tokenizer)
    assert facts(remote) == facts(encode([shards], tmp_path / "local", tokenizer))
    again = encode([f"{web.url}/s-{{0..3}}.tar"], tmp_path / "remote", tokenizer)
    assert again.was_complete


def test_a_missing_address_is_refused_before_anything_is_written(web: Web, tokenizer: Path, tmp_path: Path) -> None:
    pictures_tar(tmp_path / "x.tar", ["x.png"])
    for address, words in {
        f"{web.url}/s-{{0..4}}.tar": r"/s-4\.tar: does not exist; check the address",
        f"{web.url}/folder/": "web servers list no folders",
        f"{web.url}/list.txt": "a list is read from this machine alone",
        f"{web.url}/s-{{0..4.tar": "its braces do not balance",
    }.items():
        web.files["/list.txt"] = b"x"
        with pytest.raises(SourceError, match=words):
            encode([address], tmp_path / "tokens", tokenizer)
    assert not (tmp_path / "tokens").exists()
