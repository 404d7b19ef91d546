"""Tokenizers of the Hub in every command, and the commit in whatever a command writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from hub_server import Hub, forbid_network, use_hub
from making import fill, tiny
from typer.testing import CliRunner

import imtok
from imtok.cli import app
from imtok.config import load_train_config
from imtok.encoding import encode
from imtok.errors import TokensError
from imtok.tokens import open_tokens, write_tokens
from imtok.training.resolve import pinned_start, resolve

pytest.importorskip("huggingface_hub", reason="needs the extra hf")

ROOT = Path(__file__).parents[1]
NAME = "hf://org/tiny"
SHORT = "--images 16 --set batch_size=8 --set data.crop=16 --set threads=1 --device cpu"


@pytest.fixture
def hub(hub_server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A stand-in for the Hub with one tokenizer, and pictures in the working folder."""
    hub_server.repositories.clear()
    use_hub(hub_server, tmp_path / "cache", monkeypatch)
    hub_server.add("org/tiny", tiny(seed=1).files())
    fill(tmp_path / "pictures", (f"{number}.png" for number in range(4)))
    monkeypatch.chdir(tmp_path)
    return hub_server


def run(command: str) -> str:
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, f"{command}\n{result.output}"
    return result.stdout


def address(hub: Hub) -> str:
    return f"{NAME}@{hub.repositories['org/tiny'].branches['main']}"


def move_on(hub: Hub, seed: int = 2) -> None:
    """Let the branch have a tokenizer of other codes."""
    hub.repositories["org/tiny"].commit(tiny(seed=seed).files())


def origin(path: str) -> Any:
    return json.loads(Path(path, "config.json").read_text())["origin"]


def names_of_tokenizers() -> dict[str, Any]:
    """The types of all parameters of commands that name a tokenizer to read."""
    words = ("tokenizer", "start_from", "beside", "checkpoint")
    found = {}
    for command in app.registered_commands:
        assert command.callback is not None
        for name, kind in get_type_hints(command.callback).items():
            if name in words or (command.name, name) == ("info", "folder"):
                found[f"{command.name} {name}"] = kind
    return found


def test_no_command_takes_a_tokenizer_as_a_path() -> None:
    """A path joins the slashes of `hf://`."""
    found = names_of_tokenizers()
    assert set(found) >= {"encode tokenizer", "train start_from", "eval tokenizer", "info folder", "stats tokenizer"}
    assert [name for name, kind in found.items() if "Path" in str(kind)] == []


def test_every_command_takes_an_address(hub: Hub) -> None:
    run(f"encode pictures -t {NAME} -o tokens")
    run(f"decode tokens -t {NAME} -o back")
    run(f"stats tokens -t {NAME} --json")
    run(f"eval {NAME} pictures --json")
    tiny(seed=2).save("other")
    run(f"eval other pictures --with {NAME}")
    assert json.loads(run(f"info {NAME} --json"))["fingerprint"] == tiny(seed=1).fingerprint
    assert len(list(Path("back").glob("*.png"))) == 4


def test_a_token_folder_names_the_commit(hub: Hub) -> None:
    pinned = address(hub)
    run(f"encode pictures -t {NAME} -o tokens")
    assert origin("tokens/tokenizer")["hub"] == pinned
    assert open_tokens("tokens").fingerprint == tiny(seed=1).fingerprint
    written = write_tokens("made", ["a"], open_tokens("tokens")[0][1][None], tokenizer=NAME)
    assert origin(str(written.folder / "tokenizer"))["hub"] == pinned


def test_an_encode_resumes_when_the_branch_moved(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(["pictures"], "tokens", NAME)
    move_on(hub)
    (Path("tokens") / "MANIFEST.jsonl").unlink()
    (Path("tokens") / "shards/000/00000000.safetensors").unlink()
    forbid_network(monkeypatch)
    assert encode(["pictures"], "tokens", NAME).units_done == 1
    assert imtok.load("tokens").fingerprint == tiny(seed=1).fingerprint


def test_an_encode_with_another_commit_is_refused(hub: Hub) -> None:
    encode(["pictures"], "tokens", NAME)
    move_on(hub)
    with pytest.raises(TokensError, match="begun with tokenizer"):
        encode(["pictures"], "tokens", address(hub))


def test_a_run_names_the_commit_and_resumes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = address(hub)
    command = f"train pictures -o run --start-from {NAME} --freeze-codes {SHORT}"
    run(command)
    saved = yaml.safe_load(Path("run/config.yaml").read_text())
    assert (saved["start_from"], saved["tokenizer"]["origin"]["hub"]) == (pinned, pinned)
    assert imtok.load("run").fingerprint == tiny(seed=1).fingerprint
    move_on(hub)
    forbid_network(monkeypatch)
    assert "this run is finished" in CliRunner().invoke(app, command.split()).output
    again = CliRunner().invoke(app, command.replace(NAME, f"{NAME}@{'0' * 40}").split())
    assert (again.exit_code, "this run is finished and has start_from" in again.output) == (1, True)


def test_a_configuration_file_is_pinned_too(hub: Hub) -> None:
    config = load_train_config({"start_from": NAME, "device": "cpu", "precision": "fp32"})
    resolved = resolve(config)
    assert resolved.start_from == address(hub)
    move_on(hub)
    assert resolve(config, resolved).start_from == resolved.start_from
    assert resolve(config).start_from == address(hub)
    assert pinned_start("runs/first", resolved) == "runs/first"


def test_errors_of_the_hub_are_one_line(hub: Hub) -> None:
    result = CliRunner().invoke(app, ["encode", "pictures", "-t", "hf://org/none", "-o", "tokens"])
    assert result.exit_code == 1
    assert result.stderr.strip().startswith("error: hf://org/none: no such repository")
    assert not Path("tokens").exists()


def test_the_environment_chooses_server_and_cache(hub: Hub, tmp_path: Path) -> None:
    """As a person sets it: the library reads these variables when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "own"), "PYTHONPATH": ""}
    code = f"from imtok.hub import fetch_tokenizer; print(fetch_tokenizer({NAME!r}).address)"
    for offline in ("0", "1"):
        variables = {**environment, "HF_HUB_OFFLINE": offline}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=variables, cwd=ROOT, check=False
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{address(hub)}\n")
    assert list((tmp_path / "own").glob("models--org--tiny/snapshots/*/model.safetensors"))
