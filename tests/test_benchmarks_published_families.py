"""The table of reference checkpoints: every published family's tokens are met, and what differs is counted."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch
import torch
from published import drawn, maskgit_shapes
from scripts import call_script, import_script
from torch import Tensor

from imtok.interop import import_checkpoint

# All reference checkpoints, and the family that each is recognised as.
FAMILIES = {
    "dalle_dvae_recipe": "dalle",
    "diffusers_vqmodel": "diffusers",
    "hf_chameleon_vqvae": "chameleon",
    "hf_emu3_vqvae": "emu3",
    "hf_janus_vqvae": "janus",
    "ibq": "ibq",
    "llamagen_train_layout": "llamagen",
    "llamagen_vq": "llamagen",
    "maskgit_vqgan": "maskgit",
    "openmagvit2_lfq": "open-magvit2",
    "rqvae": "rqvae",
    "taming_f16": "taming",
    "taming_f4": "taming",
    "taming_gumbel_f8": "taming-gumbel",
}
WITHOUT_LATENTS = {"dalle_dvae_recipe"}  # the mean of the logits stands there
WITHOUT_IMAGES = {"hf_chameleon_vqvae"}  # transformers has no decoder of it


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return import_script("published_families", monkeypatch)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_reference_checkpoint_is_met(name: str, shared: Path, tmp_path: Path, script: ModuleType) -> None:
    rows = list(script.compared(shared / "goldens/checkpoints" / name, tmp_path))
    averaged = name in ("ibq", "llamagen_train_layout", "openmagvit2_lfq")
    assert [row.name for row in rows] == [name, f"{name} (average)"][: 1 + averaged]
    for row in rows:
        assert row.family == FAMILIES[name]
        assert row.equal == row.tokens > 0
        assert (row.latents is None) == (name in WITHOUT_LATENTS)
        assert (row.images is None) == (name in WITHOUT_IMAGES)
        assert (row.latents or 0) < 1e-4
        assert (row.images or 0) < 1e-3


def test_every_reference_checkpoint_is_in_the_list(shared: Path) -> None:
    assert {path.parent.name for path in (shared / "goldens/checkpoints").glob("*/io.safetensors")} == set(FAMILIES)


@pytest.fixture
def made_here(tmp_path: Path) -> Path:
    """A folder as the reference has them, its numbers those of the imported tokenizer."""
    folder = tmp_path / "checkpoints/small"
    folder.mkdir(parents=True)
    torch.save(drawn(maskgit_shapes()), folder / "weights.bin")
    tokenizer = import_checkpoint(folder / "weights.bin", tmp_path / "t").tokenizer
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        codes = tokenizer.encode(images * 2 - 1)
        golden: dict[str, Tensor] = {
            "in.images": images,
            "out.latents": tokenizer.encoder(images * 2 - 1) + 0.5,
            "out.indices": codes.clone(),
            "out.recon": tokenizer.decoder(tokenizer.quantizer.lookup(codes)) / 2 + 0.5,
        }
    golden["out.indices"][0, 0, :2] += 1
    golden = {name: value.contiguous() for name, value in golden.items()}
    safetensors.torch.save_file(golden, folder / "io.safetensors")
    return folder.parent


def test_what_differs_is_counted(
    made_here: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call_script(script, monkeypatch, made_here)
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[:7] == ["small", "maskgit", "5.0e-01", "30", "of", "32", row[6]]
    assert float(row[6]) < 1e-5
