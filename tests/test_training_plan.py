"""A plan tells what a training would be, by the numbers of the very networks, and leaves no trace."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from making import QUANTIZERS, fill, tiny
from torch import Tensor

from imtok.config import TrainConfig, load_train_config, merge, parse_settings, preset, preset_names
from imtok.errors import ConfigError, SourceError, TokenizerError, TrainingError
from imtok.tokenizer import Tokenizer
from imtok.training import plan as plans
from imtok.training.adversarial import Adversary, build_discriminator
from imtok.training.plan import TrainPlan, plan
from imtok.training.resolve import resolve

SMALL: dict[str, Any] = {
    "tokenizer": {"size": 32, "network": {"fold": 2, "channels": [8, 16], "blocks": 1}},
    "data": {"crop": 16},
    "images": 1000,
    "batch_size": 12,
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
}
ADVERSARIAL = ["adversarial.weight=0.1", "adversarial.discriminator.channels=8", "adversarial.discriminator.layers=1"]


def small(*settings: str) -> TrainConfig:
    return load_train_config(merge(SMALL, parse_settings(settings)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of 40 x 48 pixels."""
    return fill(tmp_path_factory.mktemp("plan") / "pictures", [f"{number}.png" for number in range(10)])


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_planned_on_any_machine(name: str, pictures: Path) -> None:
    config = load_train_config(merge(preset(name), {"device": "cpu", "precision": "bf16", "threads": 1}), name)
    found = plan(config, [pictures])
    data = config.data.model_copy(update={"rules": 2, "stream": False})
    assert found.config == config.model_copy(update={"compile": False, "channels_last": False, "data": data})
    assert found.memory.device < 60e9
    assert found.parameters["encoder"] > 1e5
    assert ("discriminator" in found.parameters) == config.adversarial.enabled


@pytest.mark.parametrize("name", QUANTIZERS)
def test_parameters_and_tokens_are_those_of_the_tokenizer(name: str, pictures: Path) -> None:
    record = QUANTIZERS[name]
    quantizer = {"tokenizer": {"quantizer": record.model_dump(mode="json")}}
    found = plan(load_train_config(merge(SMALL, quantizer)), [pictures])
    tokenizer = Tokenizer(found.config.tokenizer)
    for part in ("encoder", "decoder"):
        assert found.parameters[part] == sum(p.numel() for p in tokenizer.get_submodule(part).parameters())
    codes = tokenizer.eval().encode(torch.zeros(1, 3, 32, 32))
    assert found.grid == tuple(codes.shape[1:])
    assert found.tokens == codes.numel()
    assert found.bits == pytest.approx(codes.numel() * math.log2(tokenizer.num_codes))
    assert found.bits_per_pixel == pytest.approx(found.bits / 1024)


def test_a_codebook_counts_however_it_learns(pictures: Path) -> None:
    def quantizer(update: str) -> int:
        vq = ["quantizer.kind=vq", "quantizer.dim=4", "quantizer.num_codes=32", f"quantizer.codebook_update={update}"]
        return plan(small(*vq), [pictures]).parameters["quantizer"]

    assert quantizer("ema") == quantizer("gradient") == quantizer("frozen") == 128
    assert quantizer("projection") == 128 + 16
    assert plan(small(), [pictures]).parameters["quantizer"] == 0


def test_steps_epochs_and_images_are_those_of_the_run(pictures: Path) -> None:
    found = plan(small(), [pictures])
    assert (found.training_images, found.validation_images) == (9, 1)
    assert found.steps == 84  # of 12, the last of which goes beyond 1000
    assert found.epochs == pytest.approx(1000 / 9)
    assert plan(small("data.val_fraction=0"), [pictures]).validation_images == 0
    apart = plan(small("data.val_images=4"), [pictures], [pictures])
    assert (apart.training_images, apart.validation_images) == (10, 4)


def test_the_discriminator_has_its_parameters_and_its_times(pictures: Path) -> None:
    without = plan(small(), [pictures])
    assert without.discriminator is None
    found = plan(small(*ADVERSARIAL, "adversarial.start=0.5"), [pictures])
    assert found.discriminator == (450, 500, 600)
    discriminator = build_discriminator(found.config.adversarial.discriminator, 16)
    assert found.parameters["discriminator"] == sum(p.numel() for p in discriminator.parameters())


@pytest.mark.parametrize("ramp", [0, 0.25])
@pytest.mark.parametrize(("each", "start", "warmup"), [(1, 0.5, 0.05), (3, 0, 0), (3, 0.2, 0.1), (5, 0.5, 0.5)])
def test_steps_of_the_discriminator_alone_are_those_of_training(
    each: int, start: float, warmup: float, ramp: float, pictures: Path
) -> None:
    schedule = [f"adversarial.start={start}", f"adversarial.warmup={warmup}", f"adversarial.ramp={ramp}"]
    config = small(*ADVERSARIAL, *schedule, f"adversarial.critic_steps={each}", "images=480")
    found = plan(config, [pictures])
    adversary, alone = Adversary(config.adversarial, 16, torch.device("cpu"), "fp32"), 0
    for number in range(found.steps):
        progress = (number + 0.5) * config.batch_size / config.images
        alone += adversary.steps_alone(progress)
        adversary.steps += adversary.learns(progress)
    assert found.steps_alone == alone
    assert (alone > 0) == (each > 1)


@pytest.mark.parametrize("kind", ["patchgan", "stylegan", "maskbit", "patchgan, spectral_norm: true"])
def test_every_discriminator_can_be_planned(kind: str, pictures: Path) -> None:
    settings = [f"adversarial.discriminator={{kind: {kind}, channels: 8, layers: 1}}", "adversarial.weight=0.1"]
    assert plan(small(*settings), [pictures]).memory.activations > plan(small(), [pictures]).memory.activations


def test_memory_counts_four_bytes_and_no_state_of_frozen_weights(pictures: Path, tmp_path: Path) -> None:
    found = plan(small(*ADVERSARIAL), [pictures])
    tokenizer = sum(found.parameters.values()) - found.parameters["discriminator"]
    memory = found.memory
    assert (memory.weights, memory.ema) == (4 * sum(found.parameters.values()), 4 * tokenizer)
    assert (memory.gradients, memory.optimizer_state) == (memory.weights, 2 * memory.weights)
    assert memory.device == 4 * memory.weights + memory.ema + memory.activations
    tiny().save(tmp_path / "start")
    frozen = plan(trained_on(tmp_path / "start", "freeze_codes=true"), [pictures])
    assert frozen.memory.gradients == 4 * frozen.parameters["decoder"]
    assert frozen.memory.activations < plan(trained_on(tmp_path / "start"), [pictures]).memory.activations


def trained_on(start: Path, *settings: str) -> TrainConfig:
    tokenizer = {"tokenizer": tiny().config.model_dump(mode="json")}
    return load_train_config(merge(merge(SMALL, tokenizer), parse_settings([f"start_from={start}", *settings])))


def test_activations_are_what_autograd_keeps_and_follow_batch_and_precision(pictures: Path) -> None:
    found = plan(small(), [pictures])
    tokenizer = Tokenizer(found.config.tokenizer)
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in tokenizer.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        tokenizer(torch.zeros(12, 3, 16, 16))
    measured = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)
    images = plans._COPIES_OF_IMAGES * 12 * 3 * 16 * 16 * 4
    assert found.memory.activations - images == pytest.approx(measured * 4 / 3, rel=0.1)
    in_parts = plan(small("accumulate=4"), [pictures])
    assert in_parts.memory.activations == pytest.approx(found.memory.activations / 4, rel=0.01)
    cast = 2 * (found.parameters["encoder"] + found.parameters["decoder"])  # weights as bf16 are kept too
    halved = plan(small("precision=bf16"), [pictures]).memory.activations - images
    assert halved == pytest.approx((measured / 2 + cast) * 4 / 3, rel=0.1)


def test_decoded_images_are_counted_at_the_size_of_the_tokenizer(pictures: Path) -> None:
    assert plan(small(), [pictures]).memory.decoded == pytest.approx(9 * 3 * 32 * 32 * 48 / 40, rel=0.01)
    assert plan(small("data.cache_gb=0"), [pictures]).memory.decoded == 0


def test_a_plan_draws_no_random_number_and_makes_no_file(pictures: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = plan(small("quantizer.kind=vq", *ADVERSARIAL), [pictures], run=tmp_path / "run")
    assert isinstance(found, TrainPlan)
    assert torch.equal(torch.rand(2), expected)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (["quantizer={kind: vq, codebook_update: projection, kmeans_start: true}"], ConfigError, "kmeans_start"),
        (["loss.perceptual=1", "loss.perceptual_weights=/nowhere/vgg16.pth"], ConfigError, "no such file"),
        (["start_from=/nowhere"], TokenizerError, "no such folder"),
        (["device=cuda:77"], ConfigError, "device cuda:77"),
    ],
)
def test_what_training_would_refuse_is_refused(
    settings: list[str], error: type[Exception], message: str, pictures: Path
) -> None:
    with pytest.raises(error, match=message):
        plan(small(*settings), [pictures])


def test_sources_starts_and_runs_that_cannot_be_used_are_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"<html>")
    with pytest.raises(SourceError, match="no training image of 1 that"):
        plan(small(), [tmp_path / "bad.png"])
    with pytest.raises(TrainingError, match="is no run"):
        plan(small(), [pictures], run=pictures)
    with pytest.raises(TrainingError, match="there is no checkpoint"):
        plan(small(), [pictures], run=tmp_path / "run", resume=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(resolve(small()).to_yaml())
    with pytest.raises(ConfigError, match="this run has seed = 0, the command asks for 7"):
        plan(small("seed=7"), [pictures], run=tmp_path / "run")
    tiny().save(tmp_path / "start")
    with pytest.raises(ConfigError, match="its network is not that of this run"):
        plan(small(f"start_from={tmp_path / 'start'}"), [pictures])
