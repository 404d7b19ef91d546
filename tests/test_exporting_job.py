"""The export of a tokenizer as a job: whole or not at all, compared before it is given, described beside the files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar, get_args

import pytest
import torch
from making import tiny, tiny_tokenizer
from torch import Tensor
from typer.testing import CliRunner

import imtok
from imtok.cli import app
from imtok.cli.export import TokenizerFormat
from imtok.config.origin import Origin
from imtok.errors import ImtokError, TokenizerError
from imtok.interop.exporting import job
from imtok.interop.exporting.format import Format, Layout, Runtime
from imtok.interop.exporting.job import DESCRIPTION, FORMATS, export_tokenizer
from imtok.tokenizer import Tokenizer


class Copied(Format):
    """A format that holds a tokenizer as imtok does; `wrong` of its codes are others."""

    name: ClassVar[str] = "copied"
    runtime: ClassVar[str] = "torch"
    packages: ClassVar[tuple[str, ...]] = ()
    wrong = 0

    def write(self, tokenizer: Tokenizer, folder: Path) -> Layout:
        tokenizer.save(folder)
        return Layout(("batch", 3, "8*h", "8*w"), ("batch", "h", "w"))

    def read(self, folder: Path) -> Runtime:
        return CopiedRuntime(imtok.load(folder), self.wrong)

    def misfit(self, tokenizer: Tokenizer) -> str:
        return "its size is odd" if tokenizer.config.size % 16 else ""


class CopiedRuntime(Runtime):
    def __init__(self, tokenizer: Tokenizer, wrong: int) -> None:
        self.tokenizer, self.wrong = tokenizer, wrong

    def encode(self, images: Tensor) -> Tensor:
        codes = self.tokenizer.encode(images)
        codes.view(-1)[: self.wrong] += 1
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        return self.tokenizer.decode(codes) + 1e-6


@pytest.fixture(autouse=True)
def copied(monkeypatch: pytest.MonkeyPatch) -> Copied:
    found = Copied()
    monkeypatch.setitem(job.FORMATS, "copied", found)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_tokenizer(tmp_path / "tokenizer")


def test_an_export_is_described_beside_its_files(tmp_path: Path) -> None:
    tokenizer = tiny()
    origin = Origin(family="taming", source="last.ckpt", license="MIT")
    tokenizer.config = tokenizer.config.model_copy(update={"origin": origin})
    tokenizer.save(tmp_path / "tokenizer")
    report = export_tokenizer(tmp_path / "tokenizer", tmp_path / "out", "copied")
    found = json.loads((tmp_path / "out" / DESCRIPTION).read_text())
    assert found["fingerprint"] == tokenizer.fingerprint
    assert found["origin"]["source"] == "last.ckpt"
    assert found["license"] == report.license == "MIT"
    assert found["images"] == {
        "shape": ["batch", 3, "8*h", "8*w"],
        "dtype": "float32",
        "range": [-1, 1],
        "least_side": 8,
    }
    assert found["codes"] == {"shape": ["batch", "h", "w"], "dtype": "int64", "num_codes": 125}
    assert found["made_with"]["torch"] == torch.__version__.partition("+")[0]
    assert set(found["files"]) == set(report.sizes) == {"config.json", "model.safetensors"}
    assert found["check"]["different_codes"] == 0
    assert found["check"]["codes"] == 16 + 2 * 24
    assert found["check"]["image_difference"] == pytest.approx(1e-6, rel=0.2)


def test_the_same_export_again_does_nothing(source: Path, tmp_path: Path, copied: Copied) -> None:
    first = export_tokenizer(source, tmp_path / "out", "copied")
    copied.wrong = 64  # it would be found
    again = export_tokenizer(source, tmp_path / "out", "copied")
    assert again.existed
    assert not first.existed
    assert (again.sizes, again.layout, again.check) == (first.sizes, first.layout, first.check)


def test_a_folder_with_another_export_is_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_tokenizer(source, tmp_path / "out", "copied")
    other = tiny_tokenizer(tmp_path / "other", seed=1)
    with pytest.raises(ImtokError, match=r"holds another export than that of .*other to copied"):
        export_tokenizer(other, tmp_path / "out", "copied")
    monkeypatch.setitem(job.FORMATS, "again", job.FORMATS["copied"])
    with pytest.raises(ImtokError, match="holds another export"):
        export_tokenizer(source, tmp_path / "out", "again")


@pytest.mark.parametrize("text", [None, "[]", "{", '{"a": 1}'])
def test_a_folder_with_other_files_is_refused(text: str | None, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ("notes.txt" if text is None else DESCRIPTION)).write_text(text or "mine")
    with pytest.raises(ImtokError, match="give a new name"):
        export_tokenizer(source, tmp_path / "out", "copied")
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_damaged_export_is_named(source: Path, tmp_path: Path) -> None:
    export_tokenizer(source, tmp_path / "out", "copied")
    (tmp_path / "out" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ImtokError, match=r"safetensors: missing or damaged; remove"):
        export_tokenizer(source, tmp_path / "out", "copied")


@pytest.mark.parametrize(
    ("key", "value"), [("files", []), ("images", 3), ("codes", {}), ("check", {"x": 1}), ("downsample", "8")]
)
def test_a_damaged_description_is_named(key: str, value: object, source: Path, tmp_path: Path) -> None:
    export_tokenizer(source, tmp_path / "out", "copied")
    path = tmp_path / "out" / DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_bytes()), key: value}))
    with pytest.raises(ImtokError, match=r"imtok\.json: damaged; remove"):
        export_tokenizer(source, tmp_path / "out", "copied")


def test_other_codes_are_refused_and_nothing_is_left(source: Path, tmp_path: Path, copied: Copied) -> None:
    copied.wrong = 3
    with pytest.raises(TokenizerError, match=r"6 of 64 codes are others than imtok's under torch"):
        export_tokenizer(source, tmp_path / "out", "copied")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer"]


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny()
    tokenizer.config = tokenizer.config.model_copy(update={"size": 24})
    tokenizer.save(tmp_path / "tokenizer")
    with pytest.raises(TokenizerError, match="its size is odd; export it to torch-export or onnx or diffusers"):
        export_tokenizer(tmp_path / "tokenizer", tmp_path / "out", "copied")


def test_a_missing_package_is_named_with_its_extra(source: Path, tmp_path: Path, copied: Copied) -> None:
    copied.packages = ("no-such-package",)  # type: ignore[misc]
    with pytest.raises(ImtokError, match=r"--to copied needs no-such-package.*imtok\[export\]"):
        export_tokenizer(source, tmp_path / "out", "copied")


def test_an_unknown_format_is_refused_with_those_there_are(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ImtokError, match="no such format; known are torch-export, onnx, diffusers"):
        export_tokenizer(source, tmp_path / "out", "coreml")


def test_the_command_offers_the_formats_there_are() -> None:
    assert [*get_args(TokenizerFormat), "copied"] == list(FORMATS)


def test_the_command_says_what_the_files_take(source: Path, tmp_path: Path) -> None:
    command = ["export", str(source), "--to", "torch-export", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "encoder.pt2 (" in result.stdout
    assert "images float32 (batch, 3, 8*h, 8*w) in [-1, 1]; codes int64 (batch, h, w) in [0, 125)" in result.stdout
    assert "64 of 64 codes are imtok's under torch" in result.stdout
    assert "images are equal to the bit" in result.stdout
    again = CliRunner().invoke(app, command)
    assert again.stdout.startswith("nothing to do: ")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").write_text("a file")
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert "out: is no directory" in refused.stderr
