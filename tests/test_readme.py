"""The README does what it says: its commands and its Python run, in order, in one folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, Hub, hub_served, use_hub
from making import fill, pictures_tar, tiny
from published import drawn, maskgit_shapes
from servers import served
from typer.testing import CliRunner

from imtok.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# tests/test_extending.py and tests/test_batch_encoder.py run the samples of these, in processes of their own.
ELSEWHERE = {"extending.md", "ray.md", "export-flat.md", "export-keyed.md"}  # the last two have nothing to run
PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in ELSEWHERE)
# Short of length, the commands run as they stand.
SHORT = ["--images", "64", "--set", "network.channels=[8,16]"]
SHORT_VQGAN = ["--images", "64", "--set", "network.channels=[32,32]", "--set", "network.attention_stages=[1]"]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str = README) -> list[str]:
    lines = [line for block in blocks("sh", text) for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith(("imtok ", "find "))]


def run(command: str) -> None:
    """One command of a page, short of length."""
    if command.startswith("find "):  # the shell's
        subprocess.run(command, shell=True, check=True)
        return
    words = shlex.split(command)[1:]
    if words[0] == "train" and "--start-from" in words:
        words += ["--images", "32"]
    elif words[0] == "train" and "--list-presets" not in words:
        small = ["--set", "tokenizer.size=32", "--set", "data.crop=32"] if "--preset" in words else []
        words += [*(SHORT_VQGAN if "network.kind=vqgan" in words else SHORT), *small]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{command}\n{result.output}"


def published(folder: Path) -> None:
    """Put a checkpoint beside the photographs, under the name and in the layout of a published one."""
    torch.save(drawn(maskgit_shapes(multipliers=(1, 1, 1, 1))), folder / "maskgit-vqgan-imagenet-f16-256.bin")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos/` and `shards/` in it, in which all that the README names is made."""
    folder = tmp_path_factory.mktemp("readme")
    fill(folder / "photos", (f"{number}.jpg" for number in range(6)))
    published(folder)
    (folder / "shards").mkdir()
    for number in range(3):
        pictures_tar(folder / "shards" / f"{number}.tar", [f"{number}-{index}.png" for index in range(8)])
    return folder


@pytest.fixture(scope="module")
def elsewhere(workplace: Path) -> Iterator[str]:
    """A web server that stands in for the stores and servers of the README."""
    shards = [path.read_bytes() for path in sorted((workplace / "shards").iterdir())]
    files = {f"/train-{number:04}.tar": shards[number % 2] for number in range(1024)}
    with served(files | {f"/val-{number:03}.tar": shards[2] for number in range(4)}) as web:
        yield web.url


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server that stands in for the Hub, with a tokenizer for pictures of 32 px, and a token that may write."""
    with hub_served() as hub:
        use_hub(hub, tmp_path_factory.mktemp("hub"), monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.add("org/tokenizer", tiny(seed=1).files())
        yield hub


# The Hub's library passes bytes to its HTTP client in a way that this client no longer likes.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_the_commands_run_in_order_and_the_python_after_them(
    workplace: Path, elsewhere: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    assert len(commands()) >= 6
    for command in commands():
        run(command.replace("s3://bucket", elsewhere).replace("https://data.example.org", elsewhere))
    assert (workplace / "back").is_dir()
    samples = blocks("python")
    assert len(samples) >= 2
    for sample in samples:
        exec(compile(sample, "README.md", "exec"), {})


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_samples_of_the_pages_run(page: Path, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", (f"{number}.jpg" for number in range(6)))
    published(tmp_path)
    text = page.read_text()
    lines, samples = commands(text), blocks("python", text)
    assert lines or samples
    read = any(f"{command} tokens" in line for line in lines for command in ("decode", "status"))
    if read and not any("-o tokens" in line for line in lines):
        run("imtok encode photos/ -o tokens")
    for line in lines:
        run(line)
    for sample in samples:
        exec(compile(sample, page.name, "exec"), {})


def test_the_commands_named_in_the_text_exist() -> None:
    for name in set(re.findall(r"`imtok (\w+)", README)):
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0, name


def test_ci_runs_the_readmes_own_test_command() -> None:
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("the checkout's .ci is not here")
    (command,) = [line for block in blocks("sh") for line in block.splitlines() if line.endswith("pytest")]
    assert command in script.read_text()
    assert os.access(script, os.X_OK)
