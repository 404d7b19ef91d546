"""docs/extending.md does what it says: each recipe's code runs, and what it adds is seen everywhere."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import encoded, fill, picture
from runs import logged, tiny
from safetensors.torch import save_file
from typer.testing import CliRunner

from imtok.analysis.breakdowns import dimensions
from imtok.analysis.diagnostics import usage_findings
from imtok.cli import app
from imtok.config import NetworkConfig, TokenizerConfig
from imtok.data.sources import CONTAINERS
from imtok.data.storage import STORAGES
from imtok.encoding import encode
from imtok.evaluation import METRICS
from imtok.export.format import Format
from imtok.export.formats import FORMATS
from imtok.interop.families import FAMILIES
from imtok.interop.families.names import renamed
from imtok.interop.skeleton import skeleton
from imtok.networks.vqgan_config import VQGANConfig
from imtok.quantizer_config import VQConfig
from imtok.tokenizer import Tokenizer, load
from imtok.tokens import open_tokens
from imtok.training import train
from imtok.training.plan import plan
from imtok.usage import CodebookUsage

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def recipe(title: str) -> str:
    """The Python code of one section."""
    if not PAGE.exists():
        pytest.skip("the checkout's docs are not here")
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL))


def run(title: str, **names: object) -> dict[str, Any]:
    """Run the code of one section, which may use `names`; return all names that are then known."""
    known = {"__name__": "recipe", **names}
    exec(compile(recipe(title), f"{PAGE.name}: {title}", "exec", dont_inherit=True), known)
    return known


def imtok(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_an_added_family_is_recognised_and_imported(tmp_path: Path) -> None:
    known = run("Add a published family")
    try:
        network = VQGANConfig(channels=(32, 32), blocks=1, attention_stages=(), latent_channels=None)
        quantizer = VQConfig(dim=4, num_codes=16, codebook_update="gradient", kmeans_start=False, revival_threshold=0.0)
        original = Tokenizer(TokenizerConfig(network=network, quantizer=quantizer, size=32)).eval()
        names, state = renamed(skeleton(original.config), known["NAMES"]), original.state_dict()
        save_file({theirs: state[ours] for ours, theirs in names.items()}, tmp_path / "weights.safetensors")
        (tmp_path / "config.json").write_text('{"resolution": 32}')
        imtok("import", tmp_path / "weights.safetensors", "-o", tmp_path / "imported")
    finally:
        FAMILIES.remove(FAMILIES[-1])
    imported = load(tmp_path / "imported")
    assert imported.config.origin is not None
    assert imported.config.origin.family == "example"
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(imported.encode(images), original.encode(images))


def test_an_added_metric_is_seen_wherever_metrics_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "mae", METRICS["psnr"])  # so that the recipe's entry is taken out again
    run("Add a metric")
    pictures = fill(tmp_path / "pictures", (f"{number}.png" for number in range(8)))
    report = train([pictures], tmp_path / "run", tiny("images=16"))
    assert 0 < report.validation["val/mae"] < 255
    assert logged(tmp_path / "run")[-1]["val/mae"] == report.validation["val/mae"]

    assert re.search(r"MAE +\d+\.\d\d levels", imtok("eval", tmp_path / "run", pictures))
    measured = json.loads(imtok("eval", tmp_path / "run", pictures, "--json"))
    assert "MAE mean over images of |x - y|" in measured["protocol"]

    tokens, page = tmp_path / "tokens", tmp_path / "report.html"
    imtok("encode", pictures, "-t", tmp_path / "run", "-o", tokens)
    deep = ("stats", tokens, "--deep", "--images", pictures)
    value = json.loads(imtok(*deep, "--json"))["tokenizer"]["reconstruction"]["mae"]
    assert value == pytest.approx(measured["mae"])
    assert f"{value:.2f} levels" in imtok(*deep, "--report", page)
    assert f"MAE {value:.2f} levels" in page.read_text()
    assert "mean over images of the mean absolute error" in page.read_text()


def test_an_added_loss_is_trained_on_and_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", (f"{number}.png" for number in range(8)))
    run("Add a loss", run=tmp_path / "run", config=tiny("images=16"))
    first = next(row for row in logged(tmp_path / "run") if "loss" in row)
    assert first["loss"] == pytest.approx(first["loss/l2"] + 0.5 * first["loss/charbonnier"])
    assert first["loss/charbonnier"] > 0


def toy_settings(*settings: str, without: str) -> dict[str, Any]:
    """Settings of a tiny run, but for one key of its tokenizer."""
    values = tiny("images=16", *settings).model_dump()
    del values["tokenizer"][without]
    return values


def test_an_added_quantizer_goes_through_a_training_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", (f"{number}.png" for number in range(8)))
    names = run("Add a quantizer", run=tmp_path / "run", settings=toy_settings(without="quantizer"))
    assert (tmp_path / "run" / "tokenizer" / "model.safetensors").is_file()
    assert logged(tmp_path / "run")[0]["loss/commitment"] > 0

    config = names["TernaryConfig"]()
    quantizer = config.build().eval()
    codes = torch.arange(3**5).view(1, 9, 27)
    assert torch.equal(quantizer(quantizer.lookup(codes)).codes, codes)
    counts = np.eye(1, 3**5, 1, dtype=np.int64)  # code 1: the first dimension is 0, all others are -1
    assert [each.shares.index(1) for each in dimensions(counts, config)] == [1, 0, 0, 0, 0]
    (finding,) = usage_findings(CodebookUsage(counts[0] * 1000, 0), config)
    assert finding.name == "collapsed-codebook"
    assert "fewer codes (quantizer.dim)" in finding.text


def test_an_added_network_goes_through_a_training_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", (f"{number}.png" for number in range(8)))
    adversarial = "adversarial={weight: 1, adaptive: true, start: 0, warmup: 0, ramp: 0, discriminator: {layers: 1}}"
    settings = toy_settings(adversarial, without="network")
    names = run("Add a network", run=tmp_path / "run", settings=settings)
    assert logged(tmp_path / "run")[0]["adversarial/adaptive"] > 0
    planned = plan(names["PatchTrainConfig"](**settings), ["photos"])
    assert planned.grid == (2, 2)
    config = names["PatchTokenizerConfig"]
    assert config.model_validate({"network": {"fold": 2}}).network == NetworkConfig(patch_size=2)  # as files leave it


def test_an_added_storage_and_container_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTAINERS, ".sqlite", CONTAINERS[".tar"])  # so that the recipe's entries are taken out again
    monkeypatch.setitem(STORAGES, "memory", STORAGES[""])
    pictures = {f"{number}.png": encoded(picture(number)) for number in range(8)}
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE images (key TEXT, data BLOB, label INTEGER)")
        rows = [(f"deep/{name}", data, 7) for name, data in list(pictures.items())[4:]]
        database.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)
        database.commit()
        table = database.serialize()
    files = {f"memory://photos/{name}": data for name, data in list(pictures.items())[:4]}
    run("Add a source", files={**files, "memory://tables/more.sqlite": table, "memory://bad/bad.sqlite": b"no table"})

    sources = ["memory://photos", "memory://tables/more.sqlite"]
    train(sources, tmp_path / "run", tiny("images=16", "data.val_fraction=0.25"))
    imtok("encode", *sources, "-t", tmp_path / "run", "-o", tmp_path / "there")
    tokens = open_tokens(tmp_path / "there")
    assert [key for key, _ in tokens] == [*list(pictures)[:4], *(f"deep/{name}" for name in list(pictures)[4:])]

    for name, data in pictures.items():
        path = tmp_path / "here" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    imtok("encode", tmp_path / "here", "-t", tmp_path / "run", "-o", tmp_path / "tokens")
    here = {key: codes.tolist() for key, codes in open_tokens(tmp_path / "tokens")}
    assert {key.removeprefix("deep/"): codes.tolist() for key, codes in tokens} == here

    report = encode(["memory://bad/bad.sqlite"], tmp_path / "bad", tmp_path / "run")
    assert "no database" in report.failed[0].reason


def test_an_added_export_is_written_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(__file__).parent / "formats/tokens-v1", tmp_path / "tokens")
    monkeypatch.setitem(FORMATS, "lines", Format)  # taken out again after the test
    verification = run("Add an export")["verification"]
    assert (verification.ok, verification.images) == (True, len(open_tokens(tmp_path / "tokens")))
    lines = (tmp_path / "exported" / "train-00000.txt").read_text().splitlines()
    codes = [[*codes.flatten().tolist(), 20_000] for _, codes in open_tokens(tmp_path / "tokens")]
    assert [[int(each) for each in line.split()] for line in lines] == codes
