"""Configuration files of checkpoints: which one is found, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from imtok.errors import TokenizerError
from imtok.interop.settings import find_settings, read_settings


@pytest.mark.parametrize(
    ("files", "checkpoint", "found"),
    [
        (["config.yaml", "last.ckpt"], "last.ckpt", "config.yaml"),
        (["config.json", "model.safetensors"], ".", "config.json"),
        (["last.yaml", "config.yaml", "last.ckpt"], "last.ckpt", "last.yaml"),
        (["f16.yml", "last.ckpt"], "last.ckpt", "f16.yml"),
        (["a.yaml", "b.yaml", "last.ckpt"], "last.ckpt", None),
        (["preprocessor.json", "last.ckpt"], "last.ckpt", None),
        (["configs/model.yaml", "checkpoints/last.ckpt"], "checkpoints/last.ckpt", "configs/model.yaml"),
        (
            ["configs/1-project.yaml", "configs/1-lightning.yaml", "checkpoints/last.ckpt"],
            "checkpoints/last.ckpt",
            "configs/1-project.yaml",
        ),
    ],
)
def test_a_configuration_is_found_beside_the_weights(
    files: list[str], checkpoint: str, found: str | None, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    path = find_settings(tmp_path / checkpoint)
    assert path == (tmp_path / found if found else None)


def test_yaml_and_json_are_read_as_plain_data(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model:\n  params: {ch: 128, ch_mult: [1, 2]}\n")
    (tmp_path / "b.json").write_text('{"model_type": "x", "size": [1]}')
    assert read_settings(tmp_path / "a.yaml") == {"model": {"params": {"ch": 128, "ch_mult": [1, 2]}}}
    assert read_settings(tmp_path / "b.json") == {"model_type": "x", "size": [1]}


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch ran']",
        "model: !!python/name:os.system",
        "[" * 100_000,
        "- a\n- b",
        "1: 2",
        "a: [",
        "a: &a [*a, \x00]",
        'a: !!int ""',
        "a: !!bool perhaps",
        "a: 1" + ":1" * 2**18,
    ],
)
def test_a_hostile_configuration_is_one_finding(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.yaml", "x.json"):
        (tmp_path / name).write_text(text)
        with pytest.raises(TokenizerError, match=rf"{name}: ") as caught:
            read_settings(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_configuration_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"x\.yaml: cannot be read \(No such file or directory\)"):
        read_settings(tmp_path / "x.yaml")


def test_a_few_lines_of_yaml_never_become_many_values(tmp_path: Path) -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        laughs += f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    for text in (laughs, "a: &a [*a]\n"):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(TokenizerError, match=r"x\.yaml: stands for more than 100,000 values"):
            read_settings(tmp_path / "x.yaml")
