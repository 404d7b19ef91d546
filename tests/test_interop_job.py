"""The import job: checkpoints in every container become the same tokenizer, and what does not fit is named."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from imported import fine_tuned
from making import fill
from published import drawn, maskgit_shapes
from torch import Tensor
from typer.testing import CliRunner, Result

import imtok
from imtok.analysis import analyze
from imtok.cli import app
from imtok.config.origin import Origin
from imtok.description import describe
from imtok.encoding import encode
from imtok.errors import TokenizerError
from imtok.interop import import_checkpoint, read_checkpoint
from imtok.interop.families.maskgit import MaskGIT

WEIGHTS = drawn(maskgit_shapes())


def saved(path: Path, content: Any = WEIGHTS, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def sharded(folder: Path) -> Path:
    """Two files of safetensors and their index."""
    folder.mkdir()
    names = sorted(WEIGHTS)
    for number, part in enumerate((names[::2], names[1::2])):
        safetensors.torch.save_file({name: WEIGHTS[name] for name in part}, folder / f"part-{number}.safetensors")
    places = {name: f"part-{names.index(name) % 2}.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def in_safetensors(path: Path) -> Path:
    safetensors.torch.save_file(WEIGHTS, path)
    return path


CONTAINERS: dict[str, Callable[[Path], Path]] = {
    "a state dict": lambda folder: saved(folder / "x.bin"),
    "the legacy format": lambda folder: saved(folder / "x.pt", _use_new_zipfile_serialization=False),
    "safetensors": lambda folder: in_safetensors(folder / "x.safetensors"),
    "another suffix": lambda folder: in_safetensors(folder / "x.bin"),
    "shards": lambda folder: sharded(folder / "x"),
    "a folder of one file": lambda folder: saved(folder / "x.bin").parent,
    "Lightning": lambda folder: saved(folder / "x.ckpt", {"epoch": 3, "state_dict": WEIGHTS, "callbacks": {}}),
    "options of argparse": lambda folder: saved(folder / "x.pt", {"model": WEIGHTS, "args": Namespace(size=256)}),
    "a wrapper's prefix": lambda folder: saved(folder / "x.pt", {f"module.{name}": w for name, w in WEIGHTS.items()}),
    "half precision": lambda folder: saved(
        folder / "x.pt", {name: weight.bfloat16().float().bfloat16() for name, weight in WEIGHTS.items()}
    ),
}


@pytest.fixture(scope="module")
def fingerprint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reference")
    return import_checkpoint(saved(folder / "x.bin"), folder / "t").tokenizer.fingerprint


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_tokenizer(container: str, fingerprint: str, tmp_path: Path) -> None:
    path = CONTAINERS[container](tmp_path)
    found = import_checkpoint(path, tmp_path / "out").tokenizer.fingerprint
    assert (found == fingerprint) == (container != "half precision")
    assert imtok.load(tmp_path / "out").fingerprint == found


def test_the_report_says_what_was_left_out_and_assumed(tmp_path: Path) -> None:
    extras = {"loss.discriminator.main.0.weight": torch.zeros(2), "loss.logvar": torch.zeros(())}
    report = import_checkpoint(
        saved(tmp_path / "x.ckpt", {"state_dict": WEIGHTS | extras, "epoch": 3}), tmp_path / "out", license="Apache-2.0"
    )
    assert report.left_out == {"`epoch`": 1, "loss.*": 2}
    assert report.assumed == ("images of 256 x 256, as published",)
    assert (report.settings_path, report.averaged, report.existed) == (None, False, False)


def test_the_origin_is_recorded_and_no_part_of_the_fingerprint(fingerprint: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "x.ckpt")
    import_checkpoint(path, tmp_path / "out", license="Apache-2.0")
    tokenizer = imtok.load(tmp_path / "out")
    digest = sha256(path.read_bytes()).hexdigest()
    assert tokenizer.config.origin == Origin(family="maskgit", source="x.ckpt", sha256=digest, license="Apache-2.0")
    assert tokenizer.fingerprint == fingerprint
    facts = {"family": "maskgit", "source": "x.ckpt", "sha256": digest, "license": "Apache-2.0"}
    assert describe(tmp_path / "out")["origin"] == facts


def test_tokens_and_their_statistics_carry_the_origin(tmp_path: Path) -> None:
    import_checkpoint(saved(tmp_path / "x.ckpt"), tmp_path / "t", license="MIT")
    encode([fill(tmp_path / "pictures", ["a.png"])], tmp_path / "tokens", tmp_path / "t", size=16)
    assert describe(tmp_path / "tokens")["origin"]["license"] == "MIT"
    origin = analyze(tmp_path / "tokens").statistics.origin
    assert origin is not None
    assert origin.family == "maskgit"


@pytest.mark.parametrize(("freeze", "further"), [(True, "decoder"), (False, "all")])
def test_a_fine_tuned_run_keeps_the_origin(freeze: bool, further: str, tmp_path: Path) -> None:
    report = import_checkpoint(saved(tmp_path / "x.ckpt"), tmp_path / "t", license="MIT")
    tuned = fine_tuned(report.tokenizer, tmp_path, 16, freeze_codes=freeze)
    assert tuned.config.origin == report.origin.model_copy(update={"trained_further": further})
    assert describe(tmp_path / "run")["origin"]["trained_further"] == further
    assert Origin(trained_further="all").after_training(freeze_codes=True).trained_further == "all"


def test_the_same_import_again_changes_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.bin")
    import_checkpoint(path, tmp_path / "out")
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert import_checkpoint(path, tmp_path / "out").existed
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == times
    (tmp_path / "out/config.json").unlink()  # as a kill leaves it: the configuration is written last
    assert not import_checkpoint(path, tmp_path / "out").existed
    assert imtok.load(tmp_path / "out")


def test_an_output_with_anything_else_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.bin")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/photo.png").write_bytes(b"")
    with pytest.raises(TokenizerError, match=r"full: holds photo\.png, expected a new folder; give another name"):
        import_checkpoint(path, tmp_path / "full")
    import_checkpoint(path, tmp_path / "other", license="MIT")
    with pytest.raises(TokenizerError, match=r"holds another tokenizer \(config\.json differs\)"):
        import_checkpoint(path, tmp_path / "other")


def changed(**tensors: Tensor | None) -> dict[str, Tensor]:
    """The weights with some replaced, or left out where None; `__` stands for a dot."""
    given = {name.replace("__", "."): value for name, value in tensors.items()}
    whole = {**WEIGHTS, **given}
    return {name: value for name, value in whole.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (changed(decoder__conv_out__bias=None), r"lacks decoder\.conv_out\.bias, which MaskGIT-VQGAN"),
        (changed(decoder__extra=torch.ones(2)), r"has decoder\.extra, which MaskGIT-VQGAN .* has not"),
        (changed(decoder__conv_out__bias=torch.ones(4)), r"decoder\.conv_out\.bias is \(4,\), expected \(3,\)"),
        (changed(decoder__conv_out__bias=torch.ones(3).long()), r"conv_out\.bias is torch\.int64, expected"),
        (changed(decoder__conv_out__bias=torch.full((3,), torch.nan)), r"conv_out\.bias has values that are not fin"),
        ({"a.b": torch.ones(2), "c": torch.ones(1)}, r"its 2 tensors \(a\.b, c, \.\.\.\) are those of no family; "),
        ({"state_dict": {}}, "it holds 'state_dict', and no tensors"),
        ([torch.ones(2)], "it holds a list, expected tensors under names"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(content: Any, finding: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=finding) as caught:
        import_checkpoint(saved(tmp_path / "x.bin", content), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_settings_that_make_no_tokenizer_are_a_finding(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.bin")
    for resolution in ('"big"', "33", "[1]", "1e400"):
        (tmp_path / "x.json").write_text(f'{{"resolution": {resolution}}}')
        with pytest.raises(TokenizerError, match=r"its tensors or settings are not those of MaskGIT-VQGAN") as caught:
            import_checkpoint(path, tmp_path / "out")
        assert "\n" not in str(caught.value)


def test_shapes_that_make_no_tokenizer_are_a_finding(tmp_path: Path) -> None:
    for name in ("quantize.embedding.weight", "encoder.conv_in.weight", "encoder.down.1.block.0.conv1.weight"):
        for value in (torch.ones(()), torch.ones(3), torch.ones(0, 4), torch.ones(2, 2, 2)):
            path = saved(tmp_path / "x.bin", {**WEIGHTS, name: value})
            with pytest.raises(TokenizerError, match=r"x\.bin: "):
                import_checkpoint(path, tmp_path / "out")


def test_arithmetic_that_a_shape_breaks_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskGIT, "convert", lambda *_: torch.ones(2) + torch.ones(3))
    with pytest.raises(TokenizerError, match=r"\(RuntimeError: The size of tensor a .*\); name its configuration"):
        import_checkpoint(saved(tmp_path / "x.bin"), tmp_path / "out")


def test_another_family_than_the_keys_say_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.bin")
    with pytest.raises(TokenizerError, match=r"they look like MaskGIT-VQGAN .*, or type --family maskgit"):
        import_checkpoint(path, tmp_path / "out", family="open-magvit2")
    with pytest.raises(TokenizerError, match=r"vae: no family of that name; the families are .*maskgit"):
        import_checkpoint(path, tmp_path / "out", family="vae")
    assert import_checkpoint(path, tmp_path / "out", family="maskgit").origin.family == "maskgit"


def test_a_tokenizer_of_imtok_is_no_checkpoint(tmp_path: Path) -> None:
    import_checkpoint(saved(tmp_path / "x.bin"), tmp_path / "t")
    with pytest.raises(TokenizerError, match="is a tokenizer of imtok already"):
        import_checkpoint(tmp_path / "t", tmp_path / "again")


def test_tensors_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.bin", {**WEIGHTS, "language_model.weight": torch.ones(5)})
    checkpoint = read_checkpoint(path)
    path.write_bytes(path.read_bytes()[:1000])
    assert "language_model.weight" in checkpoint.tensors
    with pytest.raises(TokenizerError, match=r"language_model\.weight cannot be read"):
        _ = checkpoint.tensors["language_model.weight"]


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


def test_the_command_imports_and_says_what_it_did(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.ckpt", {"state_dict": WEIGHTS, "epoch": 3})
    result = command(path, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "MaskGIT-VQGAN" in result.stdout
    assert "downsampling 2" in result.stdout
    assert "left out, as no tokenizer needs it: `epoch` (1)" in result.stderr
    assert "note: images of 256 x 256, as published" in result.stderr
    assert "it was there already" in command(path, "-o", tmp_path / "out").stdout


def test_errors_of_the_command_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", saved(tmp_path / "x.bin", {"a": torch.ones(1)})):
        result = command(path, "-o", tmp_path / "out")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
    assert command(path).exit_code == 2
