"""The list of reconstruction losses, and decoders of the output that they need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

import imtok
from imtok.config import TokenizerConfig, TrainConfig, load_train_config, parse_settings
from imtok.config.training import LossConfig
from imtok.errors import ConfigError
from imtok.losses import loss_terms, output_to_images

SMALL = ["size=16", "data.crop=16", "network={fold: 2, channels: [8, 16], blocks: 1}"]


def small(*settings: str) -> TrainConfig:
    return load_train_config(parse_settings([*SMALL, *settings]))


def test_the_configuration_gives_names_and_weights_in_order() -> None:
    def listed(**weights: float) -> dict[str, float]:
        return {term.name: term.weight for term in loss_terms(LossConfig(**weights))}  # type: ignore[arg-type]

    assert listed() == {"l1": 0, "l2": 1}
    assert listed(l1=0.5, perceptual=2) == {"l1": 0.5, "l2": 1, "perceptual": 2}
    assert listed(logit_laplace=3) == {"logit_laplace": 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss={logit_laplace: 1, l1: 1}"], "set l1, l2 and perceptual to 0, or logit_laplace"),
        (["loss={logit_laplace: 1, perceptual: 1}"], "set l1, l2 and perceptual to 0, or logit_laplace"),
        (["loss.logit_laplace=1", "adversarial.weight=1"], "adversarial.weight needs a decoder of pixels"),
        (["decoder_output=logit_laplace"], "set loss.logit_laplace=1"),
        (["loss.logit_laplace=1", "decoder_output=pixels"], "set loss.logit_laplace=0 and loss.l2=1"),
        (["loss.l2=0"], "l1 and l2 are both 0"),
    ],
)
def test_losses_that_do_not_go_together_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        small(*settings)
    assert "\n" not in str(caught.value)


def test_the_decoder_is_built_for_the_loss() -> None:
    assert small("loss.logit_laplace=1").tokenizer.decoder_output == "logit_laplace"
    assert small("loss.l1=1").tokenizer.decoder_output == "pixels"
    with pytest.raises(ValidationError, match="decoder_output is pixels"):
        TrainConfig(tokenizer=TokenizerConfig(), loss=LossConfig(logit_laplace=1))


def test_an_image_of_logit_laplace_is_the_sigmoid_mapped_back() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1)  # of pixels -1, 0 and 1
    output = torch.cat([torch.logit(probabilities), torch.full((1, 3, 1, 1), 7.0)], dim=1)
    images = output_to_images(output, "logit_laplace")
    torch.testing.assert_close(images.flatten(), torch.tensor([-1.0, 0.0, 1.0]), atol=1e-6, rtol=0)
    assert output_to_images(output, "pixels") is output


def test_a_tokenizer_of_six_channels_saves_loads_and_decodes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = imtok.Tokenizer(small("loss.logit_laplace=1").tokenizer).eval()
    tokenizer.save(tmp_path)
    loaded = imtok.load(tmp_path)
    codes = tokenizer.encode(torch.zeros(1, 3, 16, 16))
    images = loaded.decode(codes)
    assert images.shape == (1, 3, 16, 16)
    assert torch.equal(images, tokenizer.decode(codes))
    assert json.loads((tmp_path / "config.json").read_bytes())["decoder_output"] == "logit_laplace"


def test_a_decoder_of_pixels_changes_neither_files_nor_fingerprint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pixels = imtok.Tokenizer(small().tokenizer)
    pixels.save(tmp_path)
    assert "decoder_output" not in json.loads((tmp_path / "config.json").read_bytes())
    other = imtok.Tokenizer(small("loss.logit_laplace=1").tokenizer)
    other.encoder.load_state_dict(pixels.encoder.state_dict())
    assert other.fingerprint == pixels.fingerprint
