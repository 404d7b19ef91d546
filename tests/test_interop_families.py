"""Families with VQGAN's network: their goldens, their names, what their configurations say, and what is refused."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from imported import check_fine_tuning, check_token_folder
from published import LAYOUTS, check_golden, imported, written
from recipe import Golden, golden

from imtok.config import TokenizerConfig, load_train_config, preset
from imtok.decoding.job import decode
from imtok.errors import ImtokWarning, TokenizerError
from imtok.interop import import_checkpoint, read_checkpoint
from imtok.interop.families import FAMILIES
from imtok.interop.recognition import recognised
from imtok.interop.skeleton import skeleton
from imtok.networks.vqgan_config import VQGANConfig
from imtok.quantizer_config import GumbelConfig, QuantizerConfig, ResidualConfig, VQConfig
from imtok.tokenizer import Tokenizer
from imtok.tokens import write_tokens
from imtok.training.initial import initial_tokenizer

SHARED = {  # reference folders, their files of weights, and the leads of their tensors
    "taming_f4": ("last.ckpt", "taming"),
    "taming_f16": ("last.ckpt", "taming"),
    "taming_gumbel_f8": ("last.ckpt", "taming-gumbel"),
    "llamagen_vq": ("vq_ds_c2i.pt", "llamagen"),
    "llamagen_train_layout": ("0000100.pt", "llamagen"),
    "ibq": ("imagenet256_16384.ckpt", "ibq"),
    "diffusers_vqmodel": ("diffusion_pytorch_model.safetensors", "diffusers"),
    "hf_janus_vqvae": ("model.safetensors", "janus"),
}
ONCE = {"validate_every": 4, "checkpoint_every": 4}  # of a run of four images


def tokenizer_of(name: str, folder: Path, **options: Any) -> Tokenizer:
    return imported(written(name, folder / "published"), folder / "imported", **options)


def check(tokenizer: Tokenizer, peer: Golden) -> None:
    """The tokenizer's numbers are those of the published code."""
    with torch.no_grad():
        latents = tokenizer.encoder(peer["in.images"])
        quantized = tokenizer.quantizer(latents)
        images = tokenizer.decoder(peer["out.z_q"])
    torch.testing.assert_close(latents, peer["out.latents"], atol=1e-4, rtol=1e-3)
    assert torch.equal(tokenizer.encode(peer["in.images"]), peer["out.codes"])
    torch.testing.assert_close(tokenizer.quantizer.lookup(peer["out.codes"]), peer["out.z_q"], atol=1e-6, rtol=1e-6)
    if "out.images" in peer.tensors:
        torch.testing.assert_close(images, peer["out.images"], atol=1e-4, rtol=1e-3)
    if "out.loss" in peer.tensors:
        torch.testing.assert_close(quantized.loss, peer["out.loss"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", LAYOUTS)
def test_numbers_are_those_of_the_published_code(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path / "published")
    report = import_checkpoint(path, tmp_path / "imported", license="mit")
    check(report.tokenizer, golden(name))
    assert report.origin.family == LAYOUTS[name][0]
    assert report.tokenizer.config.size == (256 if name == "llamagen" else 16)
    assert not report.left_out.keys() - {"`epoch`"}


@pytest.mark.parametrize("name", SHARED)
def test_the_goldens_of_the_published_code_are_met(name: str, shared: Path, tmp_path: Path) -> None:
    file, family = SHARED[name]
    folder = shared / "goldens/checkpoints" / name
    for lead in ("out", "ema") if name in ("ibq", "llamagen_train_layout") else ("out",):
        tokenizer = imported(folder / file, tmp_path / lead, ema=lead == "ema")
        check_golden(tokenizer, folder, lead=lead)
        assert tokenizer.config.origin is not None
        assert tokenizer.config.origin.family == family


@pytest.mark.parametrize("name", LAYOUTS)
def test_pictures_become_tokens_and_come_back(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(name, tmp_path)
    gray = pytest.warns(ImtokWarning, match="has no decoder") if name == "chameleon" else nullcontext()
    with gray:
        check_token_folder(tokenizer, tmp_path, size=16)


@pytest.mark.parametrize("name", LAYOUTS)
def test_fine_tuning_the_decoder_keeps_every_token(name: str, tmp_path: Path) -> None:
    check_fine_tuning(tokenizer_of(name, tmp_path), tmp_path, size=16, **ONCE)


# --- names


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_tensor_that_is_missing_is_named_as_written(name: str, tmp_path: Path) -> None:
    weights = dict(golden(name).weights)
    missing = [key for key in weights if ".mid" in key and key.endswith("conv2.bias")][-1]
    del weights[missing]
    with pytest.raises(TokenizerError, match=f"lacks {missing}"):
        import_checkpoint(written(name, tmp_path, weights), tmp_path / "imported")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_tensor_too_many_is_named(name: str, tmp_path: Path) -> None:
    weights = {**golden(name).weights, "quantize.used": torch.zeros(8)}
    with pytest.raises(TokenizerError, match=r"has quantize\.used, which"):
        import_checkpoint(written(name, tmp_path, weights), tmp_path / "imported")


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_family_alone_recognises_each_layout(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(written(name, tmp_path))
    assert [family.name for family in FAMILIES if family.recognises(checkpoint)] == [LAYOUTS[name][0]]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("latent_diffusion", "first_stage_model."),
        ("chameleon", "model.vqmodel."),
        ("janus", "model.vqmodel."),
        ("llamagen", "gen_vision_model."),
    ],
)
def test_a_whole_model_holds_the_same_tokenizer(name: str, prefix: str, tmp_path: Path) -> None:
    weights = {prefix + key: value for key, value in golden(name).weights.items()}
    weights["other.weight"] = torch.ones(3)
    path = written(name, tmp_path, weights)
    if name == "latent_diffusion":
        model = {"target": "ldm.models.diffusion.ddpm.LatentDiffusion"}
        first = {"target": LAYOUTS[name][2], "params": golden(name).config}
        settings = {"model": {**model, "params": {"first_stage_config": first}}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    check(imported(path, tmp_path / "imported"), golden(name))


def test_llamagens_training_layout_has_options_and_an_average(tmp_path: Path) -> None:
    peer = golden("llamagen")
    others = {name: value + 1 for name, value in peer.weights.items()}
    counted = {**peer.weights, "quantize.codebook_used": torch.zeros(65536)}
    content = {"model": others, "ema": counted, "optimizer": {}, "steps": 3}
    content["args"] = argparse.Namespace(codebook_l2_norm=True, image_size=32)
    torch.save(content, tmp_path / "0000003.pt")
    report = import_checkpoint(tmp_path / "0000003.pt", tmp_path / "average")
    check(report.tokenizer, peer)
    assert report.averaged
    assert report.left_out["codebook_used"] == 1
    assert (report.assumed, report.tokenizer.config.size) == ((), 32)
    content["args"] = argparse.Namespace(codebook_l2_norm=False, image_size=32)
    torch.save(content, tmp_path / "0000004.pt")
    plain = imported(tmp_path / "0000004.pt", tmp_path / "plain").config.quantizer
    assert isinstance(plain, VQConfig)
    assert plain.metric == "euclidean"


def test_former_names_of_attention_in_diffusers_are_read(tmp_path: Path) -> None:
    peer = golden("diffusers")
    former = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    weights = {}
    for name, value in peer.weights.items():
        for present, before in former.items():
            name = name.replace(present, before)
        weights[name] = value
    assert "encoder.mid_block.attentions.0.query.weight" in weights
    check(imported(written("diffusers", tmp_path / "published", weights), tmp_path / "imported"), peer)


@pytest.mark.parametrize("attention", [False, True])
def test_models_that_diffusers_saves_are_read(attention: bool, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    kinds = [["Down", "AttnDown", "Down"], ["Up", "AttnUp", "Up"]]
    down, up = (
        [f"{kind}{coder}Block2D" for kind in half] for half, coder in zip(kinds, ("Encoder", "Decoder"), strict=True)
    )
    options = {"block_out_channels": [8, 16, 8], "layers_per_block": 2, "norm_num_groups": 4, "latent_channels": 5}
    torch.manual_seed(0)
    model = diffusers.VQModel(
        down_block_types=down, up_block_types=up, mid_block_add_attention=attention, num_vq_embeddings=16, **options
    ).eval()
    torch.nn.init.normal_(model.quantize.embedding.weight)
    model.save_pretrained(tmp_path / "model")
    tokenizer = imported(tmp_path / "model", tmp_path / "imported")
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = model.encode(images).latents
        found = model.quantize(latents)[2][2].view(2, 4, 4)
        decoded = model.decode(latents).sample
    torch.testing.assert_close(tokenizer.encoder(images), latents, atol=1e-5, rtol=1e-4)
    assert torch.equal(tokenizer.encode(images), found)
    torch.testing.assert_close(tokenizer.decoder(tokenizer.quantizer.lookup(found)), decoded, atol=1e-4, rtol=1e-3)


def test_an_average_under_tamings_names_is_ibqs(tmp_path: Path) -> None:
    peer = golden("ibq")
    weights = {name: value + 1 for name, value in peer.weights.items()}
    weights |= {f"model_ema.{name.replace('.', '')}": value for name, value in peer.weights.items()}
    torch.save({"state_dict": weights}, tmp_path / "ibq.ckpt")
    report = import_checkpoint(tmp_path / "ibq.ckpt", tmp_path / "imported")
    check(report.tokenizer, peer)
    assert "IBQ's search by the greatest product: no configuration says it" in report.assumed[1]
    euclidean = import_checkpoint(tmp_path / "ibq.ckpt", tmp_path / "taming", family="taming").tokenizer
    assert not torch.equal(euclidean.encode(peer["in.images"]), peer["out.codes"])
    assert euclidean.fingerprint != report.tokenizer.fingerprint


def test_stages_with_one_codebook_share_it(tmp_path: Path) -> None:
    peer = golden("rqvae")
    first = {name: value for name, value in peer.weights.items() if name.startswith("quantizer.codebooks.0.")}
    others = {name: value for name, value in peer.weights.items() if not name.startswith("quantizer.")}
    weights = {**others, **{name.replace(".0.", f".{stage}."): first[name] for stage in range(3) for name in first}}
    tokenizer = imported(written("rqvae", tmp_path, weights), tmp_path / "imported")
    quantizer = tokenizer.config.quantizer
    assert isinstance(quantizer, ResidualConfig)
    assert (quantizer.shared, quantizer.depth, quantizer.num_codes) == (True, 3, 32)
    table, latents = first["quantizer.codebooks.0.weight"][:-1], peer["out.latents"].movedim(1, -1)
    codes = []
    for _ in range(3):
        codes.append(torch.cdist(latents, table).argmin(dim=-1))
        latents = latents - table[codes[-1]]
    assert torch.equal(tokenizer.encode(peer["in.images"]), torch.stack(codes, dim=-1))


def test_sizes_of_stages_may_be_a_list(tmp_path: Path) -> None:
    hparams = {**golden("rqvae").config["hparams"], "n_embed": [32] * 3, "decay": [0.9] * 3}
    check(imported(written("rqvae", tmp_path / "published", hparams=hparams), tmp_path / "imported"), golden("rqvae"))


def test_stages_of_unequal_size_are_refused(tmp_path: Path) -> None:
    weights = dict(golden("rqvae").weights)
    weights["quantizer.codebooks.1.weight"] = torch.zeros(9, 6)
    with pytest.raises(TokenizerError, match="its stages have 32, 8, 32 codes"):
        import_checkpoint(written("rqvae", tmp_path, weights), tmp_path / "imported")


def test_janus_and_llamagen_find_other_tokens_by_the_same_weights(tmp_path: Path) -> None:
    peer = golden("janus")
    tokenizer = tokenizer_of("janus", tmp_path)
    cosine = VQConfig(**{**tokenizer.config.quantizer.model_dump(), "unit_lookup": False, "metric": "cosine"})
    other = Tokenizer(tokenizer.config.model_copy(update={"quantizer": cosine}))
    other.load_state_dict(tokenizer.state_dict())
    assert not torch.equal(other.encode(peer["in.images"]), peer["out.codes"])
    assert other.fingerprint != tokenizer.fingerprint


def test_chameleon_decodes_to_gray_until_its_decoder_is_trained(tmp_path: Path) -> None:
    path = written("chameleon", tmp_path / "published")
    report = import_checkpoint(path, tmp_path / "imported")
    codes = golden("chameleon")["out.codes"]
    assert torch.equal(report.tokenizer.decode(codes), torch.zeros(2, 3, 16, 16))
    assert any("no decoder is in the checkpoint" in sentence for sentence in report.assumed)
    again = import_checkpoint(path, tmp_path / "again").tokenizer
    assert again.files() == report.tokenizer.files()


def test_what_decodes_to_gray_is_reported_wherever_it_is_used(tmp_path: Path) -> None:
    report = import_checkpoint(written("chameleon", tmp_path / "published"), tmp_path / "imported")
    origin = report.tokenizer.config.origin
    assert origin is not None
    assert origin.no_decoder
    assert "decoded images are gray" in origin.summary
    codes = golden("chameleon")["out.codes"].numpy()
    write_tokens(tmp_path / "tokens", ["a", "b"], codes, tokenizer=report.tokenizer)
    with pytest.warns(ImtokWarning, match="has no decoder, so all decoded images are gray"):
        decode(tmp_path / "tokens", tmp_path / "images")
    assert not origin.after_training(freeze_codes=True).no_decoder


# --- configurations


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("taming", {"embed_dim": 7}, "embed_dim is 7 by config.yaml and 6 by the weights"),
        ("taming", {"l2_normalize": True}, "l2_normalize is true by its configuration"),
        ("taming_gumbel", {"n_embed": 65}, "n_embed is 65 by config.yaml and 64"),
        ("taming_gumbel", {"kl_weight": -1.0}, "its configuration is of no quantizer: kl_weight: Input should be"),
        ("ibq", {"entropy_temperature": 0}, "its configuration is of no quantizer: entropy_temperature"),
        ("diffusers", {"layers_per_block": 3}, "num_res_blocks is 3 by config.json and 1"),
        ("diffusers", {"norm_type": "spatial"}, "norm_type is spatial, and imtok has VQModel with group alone"),
        ("diffusers", {"norm_num_groups": 7}, "no network here has its shapes: .*norm_groups 7"),
        ("janus", {"num_embeddings": 65}, "n_embed is 65 by config.json and 64"),
        ("chameleon", {"channel_multiplier": [1, 4]}, r"ch_mult is \[1, 4\] by config.json"),
    ],
)
def test_a_configuration_of_other_weights_is_refused(
    name: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TokenizerError, match=message):
        import_checkpoint(written(name, tmp_path, **settings), tmp_path / "imported")


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "ibq"])
def test_shapes_alone_give_the_same_codes(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path / "published")
    with_settings = imported(path, tmp_path / "first")
    for file in path.parent.glob("config.*"):
        file.unlink()
    if name == "diffusers":  # its number of groups is in no shape
        with pytest.raises(TokenizerError, match="48 channels do not divide into norm_groups 32"):
            import_checkpoint(path, tmp_path / "second")
        return
    report = import_checkpoint(path, tmp_path / "second")
    assert report.tokenizer.fingerprint == with_settings.fingerprint
    assert report.tokenizer.config.size == 256
    assert report.assumed[0] == "size 256: no configuration says it"


@pytest.mark.parametrize("name", ["cpu-gan-f4", "fsq-f8", "llamagen-vq-f16", "vqgan-f16-1024"])
def test_the_losses_of_each_preset_train_an_imported_decoder(name: str, tmp_path: Path) -> None:
    """Of each set of losses one preset; LPIPS is left out, as it needs VGG's weights."""
    values = preset(name)
    adversarial = {**values["adversarial"], "start": 0.0, "warmup": 0.0}
    loss = {**values["loss"], "perceptual": 0.0}
    check_fine_tuning(tokenizer_of("taming", tmp_path), tmp_path, 32, adversarial=adversarial, loss=loss, **ONCE)


def test_a_run_starts_from_an_imported_tokenizer(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("llamagen", tmp_path)
    settings = {"tokenizer": tokenizer.config.model_dump(mode="json"), "start_from": str(tmp_path / "imported")}
    assert initial_tokenizer(load_train_config(settings)).fingerprint == tokenizer.fingerprint


# --- published configurations


def vqgan(multipliers: tuple[int, ...], attention: tuple[int, ...], latents: int, **options: Any) -> VQGANConfig:
    channels = tuple(128 * multiplier for multiplier in multipliers)
    return VQGANConfig(channels=channels, attention_stages=attention, latent_channels=latents, **options)


F16 = (1, 1, 2, 2, 4)
# Encoder, decoder and quantizer, as the modules of each project count on its published configuration. LlamaGen states
# 72 M and 70 M for the first two of its own.
PUBLISHED: dict[str, tuple[VQGANConfig, QuantizerConfig, tuple[int, int, int]]] = {
    "taming f16 1024": (vqgan(F16, (4,), 256), VQConfig(dim=256), (29_363_968, 42_515_587, 262_144)),
    "taming f16 16384": (
        vqgan(F16, (4,), 256),
        VQConfig(dim=256, num_codes=16384),
        (29_363_968, 42_515_587, 4_194_304),
    ),
    "taming gumbel f8": (
        vqgan((1, 1, 2, 4), (3,), 256),
        GumbelConfig(dim=256, num_codes=8192),
        (26_411_520, 38_381_955, 4_202_496),
    ),
    "latent-diffusion f4": (vqgan((1, 2, 4), (), 3), VQConfig(dim=3, num_codes=8192), (22_337_423, 32_960_783, 24_576)),
    "latent-diffusion f4-noattn": (
        vqgan((1, 2, 4), (), 3, middle_attention=False),
        VQConfig(dim=3, num_codes=8192),
        (21_285_775, 31_909_135, 24_576),
    ),
    "latent-diffusion f8": (
        vqgan((1, 2, 2, 4), (3,), 4),
        VQConfig(dim=4, num_codes=16384),
        (27_397_784, 40_253_975, 65_536),
    ),
    "latent-diffusion f16": (vqgan(F16, (4,), 8), VQConfig(dim=8, num_codes=16384), (28_155_216, 41_307_083, 131_072)),
    "llamagen VQ-16": (vqgan(F16, (4,), 256), VQConfig(dim=8, num_codes=16384), (29_300_232, 42_452_099, 131_072)),
    "llamagen VQ-8": (
        vqgan((1, 2, 2, 4), (3,), 256),
        VQConfig(dim=8, num_codes=16384),
        (28_561_288, 41_417_475, 131_072),
    ),
    "janus": (vqgan(F16, (4,), 256), VQConfig(dim=8, num_codes=16384), (29_300_232, 42_452_099, 131_072)),
    "ibq 16384": (
        vqgan(F16, (4,), 256, blocks=4),
        VQConfig(dim=256, num_codes=16384),
        (46_818_048, 59_969_667, 4_194_304),
    ),
    "rqvae 8x8x4": (
        vqgan((*F16, 4), (5,), 256),
        ResidualConfig(part=VQConfig(dim=256, num_codes=16384), shared=True),
        (41_167_104, 59_040_387, 4_194_560 - 256),  # without the row of zeros
    ),
    "diffusers ldm-celebahq": (
        vqgan((1, 2, 4), (), 3),
        VQConfig(dim=3, num_codes=8192),
        (22_337_423, 32_960_783, 24_576),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_network_has_its_number_of_parameters(name: str) -> None:
    network, quantizer, counts = PUBLISHED[name]
    shapes = skeleton(TokenizerConfig(network=network, quantizer=quantizer))
    learned = {
        key: value for key, value in shapes.items() if not key.endswith((".started", "progress", "_sum", "_size"))
    }
    found = [
        sum(value.numel() for key, value in learned.items() if key.startswith(part)) for part in ("enc", "dec", "qua")
    ]
    assert tuple(found) == counts


def test_chameleons_published_encoder_has_its_number_of_parameters() -> None:
    shapes = skeleton(TokenizerConfig(network=vqgan(F16, (), 256), quantizer=VQConfig(dim=256, num_codes=8192)))
    assert sum(value.numel() for key, value in shapes.items() if key.startswith("encoder.")) == 27_260_672


def test_another_family_is_named_with_the_option_to_type(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(written("llamagen", tmp_path))
    with pytest.raises(TokenizerError, match="type --family llamagen"):
        recognised(checkpoint, FAMILIES, "taming")


@pytest.mark.parametrize(("name", "wrong"), [("ibq", "taming"), ("taming", "ibq")])
def test_a_configuration_forbids_the_search_of_another_family(name: str, wrong: str, tmp_path: Path) -> None:
    """Taming's and IBQ's names are the same, and only the configuration says which search finds the codes."""
    path = written(name, tmp_path)
    with pytest.raises(TokenizerError, match=r"leave out --family, or type --family"):
        recognised(read_checkpoint(path), FAMILIES, wrong)
    (path.parent / "config.yaml").unlink()
    assert recognised(read_checkpoint(path), FAMILIES, wrong)[0].name == wrong
