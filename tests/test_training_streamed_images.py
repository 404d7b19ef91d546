"""Runs and evaluations on shards of a web server: the same as on local ones, and nothing secret kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer

import pytest
import yaml
from making import pictures_tar
from servers import Web, served
from typer.testing import CliRunner

import imtok.data.streaming.shards as shards_module
from imtok.cli import app
from imtok.config import TrainConfig, load_train_config, merge, parse_settings, preset
from imtok.data.remote import RemoteStorage
from imtok.data.storage import STORAGES
from imtok.data.streaming.transfers import Patience
from imtok.errors import ConfigError, Interrupted, TrainingError
from imtok.training import TrainProgress, train
from imtok.training.run import RunFolder

SECRET = "hunter2-secret"
SMALL = [
    *("--set", "tokenizer.size=16", "--set", "data.crop=16", "--set", "network.channels=[4,8]"),
    *("--set", "batch_size=8", "--set", "threads=1", "--images", "32", "--preset", "cpu-fsq-f8"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four shards of six pictures."""
    (tmp_path / "shards").mkdir()
    for number in range(4):
        pictures_tar(tmp_path / "shards" / f"t-{number}.tar", [f"{number}-{index}.png" for index in range(6)])
    return tmp_path / "shards"


@pytest.fixture
def web(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """The shards on a web server; a shard that fails is tried again at once."""
    monkeypatch.setitem(STORAGES, "http", RemoteStorage("http"))
    monkeypatch.setattr(shards_module, "Patience", lambda: Patience(first_wait=0.01))
    with served({f"/{path.name}": path.read_bytes() for path in folder.iterdir()}) as web:
        yield web


def run(*words: object) -> str:
    """Run a command that succeeds; return what it prints."""
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: object) -> str:
    """Run a command that fails by an error in one line; return it."""
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 1, result.output
    return result.output.splitlines()[-1]


def everything_in(run_folder: Path) -> bytes:
    """All that a run has written."""
    return b"".join(path.read_bytes() for path in run_folder.rglob("*") if path.is_file())


def test_a_run_on_urls_equals_a_local_one_without_secrets(tmp_path: Path, folder: Path, web: Web) -> None:
    url = f"{web.url.replace('//', f'//user:{SECRET}@')}/t-{{0..3}}.tar?signature={SECRET}"
    printed = run("train", url, "-o", tmp_path / "remote", *SMALL)
    run("train", folder, "--stream", "-o", tmp_path / "local", *SMALL)
    weights = [(tmp_path / name / "tokenizer" / "model.safetensors").read_bytes() for name in ("remote", "local")]
    assert weights[0] == weights[1]
    assert SECRET.encode() not in everything_in(tmp_path / "remote")
    assert SECRET not in printed
    data = yaml.safe_load((tmp_path / "remote" / "config.yaml").read_text())["data"]
    assert (data["stream"], data["window"], data["max_shard_failures"]) == (True, 2, "auto")
    assert "streamed, shuffled in windows of 2 shards" in run("info", tmp_path / "remote")


def test_an_evaluation_of_urls_equals_that_of_local_tars(tmp_path: Path, folder: Path, web: Web) -> None:
    url = f"{web.url}/t-{{0..3}}.tar?signature={SECRET}"
    local = run("eval", "imtok-f8", folder, "--size", 32, "--json")
    assert run("eval", "imtok-f8", url, "--size", 32, "--json") == local
    assert run("eval", "imtok-f8", folder, "--size", 32, "--json", "--stream") == local


def test_a_failed_shard_ends_an_evaluation_unless_allowed(tmp_path: Path, web: Web) -> None:
    url = f"{web.url}/t-{{0..3}}.tar?signature={SECRET}"
    del web.files["/t-2.tar"]
    line = refused("eval", "imtok-f8", url, "--size", 32)
    assert line == (
        f"error: {web.url}/t-2.tar: does not exist (HTTP 404), after 2 tries; mend it, or leave it out by "
        "--max-shard-failures 1"
    )
    printed = run("eval", "imtok-f8", url, "--size", 32, "--max-shard-failures", 1)
    assert f"note: {web.url}/t-2.tar: does not exist (HTTP 404), after 2 tries; this shard is left out" in printed
    assert re.search(r"^ *images +18 *$", printed, flags=re.MULTILINE)


def test_too_many_failed_shards_end_a_run_that_then_resumes(tmp_path: Path, web: Web) -> None:
    url = f"{web.url}/t-{{0..3}}.tar?signature={SECRET}"
    words = ["train", url, "-o", tmp_path / "run", *SMALL, "--val", f"{web.url}/t-0.tar?signature={SECRET}"]
    del web.files["/t-2.tar"]
    line = refused(*words)
    assert "1 shard has failed, and 0 may" in line
    assert f"{web.url}/t-2.tar: does not exist (HTTP 404)" in line
    printed = run(*words, "--max-shard-failures", 1)
    assert f"{web.url}/t-2.tar: does not exist (HTTP 404), after 2 tries; this shard is left out of training" in printed
    assert SECRET not in line + printed
    assert SECRET.encode() not in everything_in(tmp_path / "run")


def config_of(*settings_of_run: str) -> TrainConfig:
    """A small run, as `SMALL` has it."""
    typed = [*SMALL[1:-4:2], "images=32", *settings_of_run]
    return load_train_config(merge(preset("cpu-fsq-f8"), parse_settings(typed)), "test")


def test_a_run_resumes_from_elsewhere_with_another_signature(tmp_path: Path, folder: Path, web: Web) -> None:
    seen = 0

    def count(progress: TrainProgress) -> None:
        nonlocal seen
        seen = progress.seen

    config = config_of("data.window=1")
    with pytest.raises(Interrupted):
        train(
            [f"{web.url}/t-{{0..3}}.tar?sig={SECRET}"],
            tmp_path / "broken",
            config,
            progress=count,
            should_stop=lambda: seen >= 16,
        )
    cache = {"data": config.data.model_copy(update={"shard_cache": str(tmp_path / "cache")})}
    train([f"{web.url}/t-{{0..3}}.tar?sig=other"], tmp_path / "broken", config.model_copy(update=cache))
    train(
        [folder],
        tmp_path / "whole",
        config.model_copy(update={"data": config.data.model_copy(update={"stream": True})}),
    )
    weights = [(tmp_path / name / "tokenizer" / "model.safetensors").read_bytes() for name in ("broken", "whole")]
    assert weights[0] == weights[1]
    assert SECRET.encode() not in everything_in(tmp_path / "broken")


def test_a_stop_while_a_server_stalls_saves_the_run(tmp_path: Path, web: Web) -> None:
    stop = Event()

    def stall(progress: TrainProgress) -> None:
        for number in range(4):
            web.faults[f"/t-{number}.tar"] = ["stall"] * 9
        if progress.seen >= 8:
            Timer(0.5, stop.set).start()

    sources = [f"{web.url}/t-{{0..3}}.tar"]
    config = config_of("data.window=1", "data.val_fraction=0", "images=160")  # beyond what is read ahead
    with pytest.raises(Interrupted):
        train(sources, tmp_path / "run", config, progress=stall, should_stop=stop.is_set)
    assert RunFolder(tmp_path / "run").has_checkpoint()
    web.faults.clear()
    web.release.set()
    assert train(sources, tmp_path / "run", config).resumed_from >= 8


def test_runs_of_before_streams_stay_indexed(tmp_path: Path, folder: Path) -> None:
    config = config_of()
    with pytest.raises(Interrupted):
        train([folder], tmp_path / "run", config, should_stop=lambda: True)
    path = tmp_path / "run" / "config.yaml"
    values = yaml.safe_load(path.read_text())
    for name in ("stream", "window", "max_shard_failures", "shard_cache", "shard_cache_gb"):
        del values["data"][name]
    path.write_text(yaml.safe_dump(values))
    assert train([folder], tmp_path / "run", config).images == 32
    streamed = config.model_copy(update={"data": config.data.model_copy(update={"stream": True})})
    with pytest.raises(ConfigError, match=r"has data\.stream = false, the command asks for true"):
        train([folder], tmp_path / "run", streamed)


def test_other_shards_are_refused_on_resume(tmp_path: Path, web: Web) -> None:
    config = config_of("data.val_fraction=0")
    with pytest.raises(Interrupted):
        train([f"{web.url}/t-{{0..3}}.tar"], tmp_path / "run", config, should_stop=lambda: True)
    with pytest.raises(TrainingError, match=r"not those the run began with \(3 shards now\)"):
        train([f"{web.url}/t-{{0..2}}.tar"], tmp_path / "run", config)


def test_a_plan_of_a_stream_counts_shards_alone(tmp_path: Path, web: Web) -> None:
    printed = run("train", f"{web.url}/t-{{0..3}}.tar", "-o", tmp_path / "run", "--dry-run")
    assert "# training       4 shards, whose images are not counted" in printed
    assert "first shard: 6 images, shorter side 40 to 40 px" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "{url}", "{photos}", "-o", "{run}"], "holds images, and a stream reads tars alone"),
        (["train", "{photos}", "--stream", "-o", "{run}"], "holds images, and a stream reads tars alone"),
        (["train", "{url}", "-o", "{run}", "--set", "data.stream=false"], "data.stream is false, and http://"),
        (["train", "{base}/shards/", "-o", "{run}"], "web servers list no folders"),
        (["train", "{base}/t.tar.gz", "-o", "{run}"], "compressed, and a stream reads plain tars alone"),
        (["train", "{base}/t.zip", "-o", "{run}"], "a stream reads tars alone"),
        (
            ["train", "{base}/none-{{0..9}}.tar", "-o", "{run}"],
            "none-0.tar: does not exist (HTTP 404), after 2 tries; check the address",
        ),
        (["train", "s3://key:hunter2-secret@b/t.tar", "-o", "{run}"], "s3://b/t.tar: has a user name in it"),
        (["train", "simplecache::{base}/t.tar", "-o", "{run}"], "nothing reads this"),
        (["train", "https://host/a.tar::b", "-o", "{run}"], "chains by :: are not read"),
    ],
)
def test_what_cannot_be_streamed_is_refused_in_one_line(
    tmp_path: Path, folder: Path, web: Web, words: list[str], line: str
) -> None:
    pictures_tar(tmp_path / "x.tar", ["a.png"])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes((tmp_path / "x.tar").read_bytes()[512:-10240])
    names = {"base": web.url, "url": f"{web.url}/t-{{0..3}}.tar?signature={SECRET}"}
    names |= {"photos": str(tmp_path / "photos"), "run": str(tmp_path / "run")}
    found = refused(*(word.format(**names) for word in words))
    assert line in found
    assert SECRET not in found
    assert not (tmp_path / "run").exists()
