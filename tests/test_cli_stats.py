"""`imtok stats` from the command line: JSON by its schema, reports, comparison, and clear words for mistakes."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest
from making import fill, tiny, token_folder
from PIL import Image
from typer.testing import CliRunner, Result

from imtok.analysis import analyze
from imtok.analysis.job import UNITS, Stage
from imtok.analysis.statistics import json_schema
from imtok.cli import app
from imtok.config import TokenizerConfig
from imtok.quantizer_config import FSQConfig, QuantizerConfig, ResidualConfig, VQConfig
from imtok.report.plots import OF_ONE, OF_SEVERAL

SCHEMA = Path(__file__).parents[1] / "docs" / "stats.schema.json"


def imtok(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def printed(*arguments: object) -> Any:
    result = imtok(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    return fill(folder, [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(4)])


@pytest.fixture(scope="module")
def tokens(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Token folders of two tokenizers."""
    folder, made = tmp_path_factory.mktemp("tokens"), {}
    for name, tokenizer in (("fsq", tiny()), ("vq", tiny(quantizer=VQConfig(dim=4, num_codes=32)))):
        tokenizer.save(folder / f"{name}-tokenizer")
        made[name] = folder / name
        assert imtok("encode", pictures, "-t", folder / f"{name}-tokenizer", "-o", made[name]).exit_code == 0
    return made


def test_the_schema_in_docs_is_that_of_the_records() -> None:
    if not SCHEMA.exists():
        pytest.skip("the checkout's docs are not here")
    assert json.loads(SCHEMA.read_text()) == json_schema()
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("options", [(), ("--deep",), ("--images",)])
def test_json_keeps_to_the_schema_and_says_all_there_is(
    options: tuple[str, ...], tokens: dict[str, Path], pictures: Path
) -> None:
    more = [*options, pictures] if "--images" in options else options
    statistics = printed("stats", tokens["fsq"], "--json", *more)
    jsonschema.validate(statistics, json_schema(), cls=jsonschema.Draft202012Validator)
    assert next(iter(statistics)) == "format"
    assert (statistics["images"], statistics["tokens"], statistics["codebook_size"]) == (8, 8 * 16, 125)
    assert statistics["usage"] == statistics["used"] / 125
    assert statistics["dead"] == 125 - statistics["used"]
    assert {each["name"] for each in statistics["classes"]} == {"cat", "dog"}
    assert [each["max_bits"] for each in statistics["dimensions"]] == [pytest.approx(np.log2(5))] * 3
    assert (statistics["tokenizer"] is None) == (not options)
    if "--images" in options:
        assert statistics["tokenizer"]["reconstruction"]["images"] == 8
    if options == ("--deep",):
        assert statistics["tokenizer"]["sensitivity"]["of_decoded"]


def test_the_schema_refuses_what_the_records_do_not_know(tokens: dict[str, Path]) -> None:
    statistics = printed("stats", tokens["fsq"], "--json")
    for change in ({"usage": "all"}, {"surplus": 1}, {"dead": 0.5}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(statistics | change, json_schema(), cls=jsonschema.Draft202012Validator)


def test_report_and_plots_include_the_tokenizer(tokens: dict[str, Path], pictures: Path, tmp_path: Path) -> None:
    page, folder = tmp_path / "new" / "report.html", tmp_path / "plots"
    result = imtok("stats", tokens["fsq"], "--report", page, "--plots", folder, "--images", pictures, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tokenizer"] is not None
    text = page.read_text()
    assert text.lower().startswith("<!doctype html>")
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "data:image/png" in text
    names = {path.stem for path in folder.iterdir()}
    assert {"frequency", "rank-frequency", "growth", "surprisal-map", "neighbours", "swatches"} <= names
    for path in folder.iterdir():
        with Image.open(path) as picture:
            assert picture.width > 400


def test_tokens_only_leaves_the_tokenizer_out_of_a_report(tokens: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys; from imtok.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'"
    )
    arguments = ["stats", str(tokens["fsq"]), "--tokens-only", "--report", str(tmp_path / "report.html")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Decoded and encoded again" not in (tmp_path / "report.html").read_text()


def test_token_sets_stand_side_by_side(tokens: dict[str, Path], tmp_path: Path) -> None:
    both = printed("stats", tokens["fsq"], "--compare", tokens["vq"], "--json")
    assert both["format"] == "imtok-comparison"
    assert [each["codebook_size"] for each in both["tokenizers"]] == [125, 32]
    jsonschema.validate(both, json_schema(), cls=jsonschema.Draft202012Validator)
    for order in (["fsq", "--compare", "vq", "vq"], ["fsq", "vq", "--compare", "vq"], ["fsq", "vq", "vq"]):
        three = printed("stats", *(tokens.get(word, word) for word in order), "--json")
        assert [each["codebook_size"] for each in three["tokenizers"]] == [125, 32, 32]
    table = imtok("stats", tokens["fsq"], "--compare", tokens["vq"], "--report", tmp_path / "r.html")
    assert table.exit_code == 0, table.output
    assert "bits" in table.stdout
    assert "FSQ 5x5x5" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{fsq}", "--sample", "8"], 2, "only for diagnostics, as with --deep"),
        (["{fsq}", "--device", "cpu"], 2, "only for diagnostics, as with --deep"),
        (["{fsq}", "{fsq}/imtok.json"], 1, "imtok.json: not a token folder"),
        (["{fsq}", "--compare"], 2, "expected further token folders"),
        (["{fsq}", "{vq}", "-t", "imtok-f8"], 2, "has its own"),
        (["{fsq}", "--tokens-only", "--deep"], 2, "leaves out"),
        (["{fsq}", "-t", "imtok-f8"], 1, "give the one that made them"),
        (["{fsq}", "--deep", "--device", "abacus"], 1, "device abacus"),
        (["{fsq}", "--images", "{tmp}/nowhere"], 1, "nowhere"),
        (["{fsq}", "--images", "{tmp}", "{tmp}/.."], 1, "{tmp}/..: not a token folder; if it holds images, give"),
        (["--images", "{tmp}", "{tmp}/..", "{fsq}"], 1, "give --images once for each SOURCE"),
        (["{fsq}", "--compare", "{tmp}/nowhere"], 1, "nowhere: no such folder"),
        (["{fsq}", "--tokens-only", "--report", "{tmp}"], 1, "{tmp}: is a directory"),
        (["{fsq}", "--tokens-only", "--plots", "{tmp}/file"], 1, "{tmp}/file: is no directory"),
        (["{fsq}", "--tokens-only", "--report", "{tmp}/file/r.html"], 1, "{tmp}/file: is no directory"),
        (["{fsq}", "--report", "{tmp}/r", "--plots", "{tmp}/r"], 2, "cannot have one name"),
        (["{tmp}/a\nb"], 1, "a\\nb: no such folder"),
    ],
)
def test_mistakes_are_reported_in_one_line_before_counting(
    arguments: list[str],
    code: int,
    words: str,
    tokens: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("imtok.analysis.job.count_tokens")
    (tmp_path / "file").touch()
    places = {name: str(path) for name, path in tokens.items()} | {"tmp": str(tmp_path)}
    result = imtok("stats", *(argument.format(**places) for argument in arguments))
    assert result.exit_code == code, result.output
    assert words.format(**places) in " ".join(result.stderr.replace("│", "").split())
    assert code == 2 or result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "place",
    [
        "imtok.tokens.tokenizer_copy.load",
        "imtok.analysis.batched_runner.BatchedRunner.encode",
        "imtok.analysis.job.neighbours",
        "imtok.report.pages.report_page",
        "imtok.report.plot.Plot.png",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_wherever_it_is(
    place: str, number: signal.Signals, tokens: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = place.rpartition(".")
    owner = pkgutil.resolve_name(module)
    real, came = getattr(owner, name), []

    def hit(*arguments: object, **options: object) -> object:
        if not came:
            came.append(place)
            os.kill(os.getpid(), number)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, hit)
    result = imtok("stats", tokens["fsq"], "--report", tmp_path / "r.html", "--plots", tmp_path / "plots", "--json")
    assert came
    assert result.exit_code == 75, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("stopped:")
    assert not list(tmp_path.rglob("*.png"))
    assert (tmp_path / "r.html").exists() == (name == "png")
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_name_that_is_no_text_is_spelled_out(tmp_path: Path) -> None:
    folder = token_folder(tmp_path / os.fsdecode(b"t\xff"), [np.zeros((3, 2, 2), np.int64)], 9)
    statistics = printed("stats", folder, "--json", "--report", tmp_path / "r.html", "--plots", tmp_path / "plots")
    assert statistics["name"] == f"{tmp_path}/t\\xff"
    assert "t\\xff" in (tmp_path / "r.html").read_text()
    assert imtok("stats", folder).exit_code == 0


def test_a_report_goes_through_a_link_and_leaves_it(tmp_path: Path) -> None:
    folder = token_folder(tmp_path / "tokens", [np.zeros((3, 2, 2), np.int64)], 9)
    (tmp_path / "target.html").touch()
    (tmp_path / "link.html").symlink_to("target.html")
    assert imtok("stats", folder, "--report", tmp_path / "link.html").exit_code == 0
    assert (tmp_path / "link.html").is_symlink()
    assert "<html" in (tmp_path / "target.html").read_text()


@pytest.mark.parametrize(
    ("quantizer", "name"),
    [
        (FSQConfig(levels=(5, 5, 5)), "FSQ 5x5x5"),
        (FSQConfig(levels=(5, 5, 3)), None),
        (ResidualConfig(part=FSQConfig(levels=(5, 5, 5)), depth=2), None),
    ],
)
def test_a_tokenizer_that_cannot_be_the_tokens_own_is_ignored(
    quantizer: QuantizerConfig, name: str | None, tmp_path: Path
) -> None:
    folder = token_folder(tmp_path, [np.zeros((3, 2, 2), np.int64)], 125)
    config = TokenizerConfig(quantizer=quantizer).model_dump(mode="json")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "config.json").write_text(json.dumps(config))
    analysis = analyze(folder)
    statistics = analysis.statistics
    assert analysis.figures is statistics
    assert statistics.quantizer == name
    assert len(statistics.dimensions) == (3 if name else 0)


def test_images_alone_use_the_tokenizer_in_the_folder(tokens: dict[str, Path], pictures: Path) -> None:
    statistics = analyze(tokens["fsq"], images=[pictures], sample=3, device="cpu").statistics
    named = analyze(tokens["fsq"], tokenizer=tokens["fsq"], images=[pictures], sample=3, device="cpu").statistics
    assert statistics.tokenizer is not None
    assert statistics.tokenizer.reconstruction is not None
    assert statistics.tokenizer.reconstruction.images == 3
    assert statistics == named
    assert analyze(tokens["fsq"]).statistics.tokenizer is None


def test_each_stage_has_a_bar_in_its_own_units(tokens: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[str, str]] = []

    @contextmanager
    def bar(description: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
        begun.append((description, unit))
        yield lambda *_: None

    monkeypatch.setattr(import_module("imtok.cli.stats"), "progress_bar", bar)
    assert imtok("stats", tokens["fsq"], "--deep").exit_code == 0
    assert begun == [("counting", "shards"), ("testing the tokenizer", "image passes")]
    assert set(begun) <= set(UNITS.items())
    assert set(UNITS) == set(get_args(Stage))


def test_an_empty_token_set_is_said_to_be_empty(tmp_path: Path) -> None:
    folder = token_folder(tmp_path / "tokens", [np.zeros((0, 2, 2), np.int64)], 9)
    statistics = printed("stats", folder, "--json", "--report", tmp_path / "r.html")
    assert (statistics["images"], statistics["used"], statistics["positions"], statistics["horizontal"]) == (
        0,
        0,
        None,
        None,
    )
    jsonschema.validate(statistics, json_schema(), cls=jsonschema.Draft202012Validator)
    assert imtok("stats", folder).exit_code == 0


def test_every_plot_has_its_picture_in_the_docs() -> None:
    page = SCHEMA.with_name("stats.md")
    if not page.exists():
        pytest.skip("the checkout's docs are not here")
    shown = re.findall(r"\(images/stats/([\w-]+)\.(png|jpg)\)", page.read_text())
    assert all((page.parent / "images" / "stats" / f"{name}.{kind}").is_file() for name, kind in shown)
    drawn = [draw.__name__ for draw in OF_ONE] + [f"compared-{draw.__name__}" for draw in OF_SEVERAL]
    expected = {name.replace("_", "-") for name in drawn} | {"swatches", "reconstructions"}
    assert expected <= {name for name, _ in shown}
