"""Discriminators against numbers that other projects' own code produced, at the tolerances stated with them.

Where a peer differs on purpose, the difference itself is asserted and its reason written down.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import Golden, load
from torch import Tensor, nn

from imtok.networks import MaskBitDiscriminator, PatchDiscriminator, StyleGANDiscriminator
from imtok.networks.actnorm import ActNorm
from imtok.networks.blur import Blur, binomial_filter
from imtok.networks.stylegan import StyleGANBlock


def weights(golden: Golden, names: dict[str, str], prefix: str = "w.") -> dict[str, Tensor]:
    """The peer's weights under our names, which `names` gives for the part of a peer's name before the last dot."""
    found = {}
    for key, value in golden.tensors.items():
        module, _, kind = key.removeprefix(prefix).rpartition(".")
        if key.startswith(prefix) and module in names:
            found[f"{names[module]}.{'shift' if kind == 'loc' else kind}"] = value
    return found


def start(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Load every weight; ActNorm's come as (1, C, 1, 1) and are (C, 1, 1) here."""
    own = network.state_dict()
    assert own.keys() == state.keys()
    network.load_state_dict({key: value.view_as(own[key]) for key, value in state.items()})


def check_gradients(golden: Golden, logits: Tensor, images: Tensor) -> None:
    (gradient,) = torch.autograd.grad(-logits.mean(), images, retain_graph=True)
    golden.check("out.grad_x", gradient)


def taming_names(layers: int) -> dict[str, str]:
    """taming-transformers keeps the last convolution in one list with all others."""
    last = 3 * layers + 2
    return {f"main.{index}": f"trunk.{index}" for index in range(last)} | {f"main.{last}": "head"}


@pytest.mark.parametrize("name", ["taming_patchgan_bn_l3", "taming_patchgan_bn_l2"])
def test_patchgan_with_batch_norm_is_tamings(name: str) -> None:
    golden = load(name, "losses")
    channels, layers = golden.config["ndf"], golden.config["n_layers"]
    network, names = PatchDiscriminator(channels, layers, "batch"), taming_names(layers)
    start(network, weights(golden, names))
    images = golden["in.x"].requires_grad_()
    logits = network(images)
    golden.check("out.logits_train", logits.detach())
    check_gradients(golden, logits, images)
    (gradient,) = torch.autograd.grad(-logits.mean(), network.get_parameter("trunk.0.weight"))
    golden.check("out.grad_first_weight", gradient)
    for key, value in network.state_dict().items():
        theirs = f"after.{key.replace('trunk', 'main')}"
        if theirs in golden.tensors:
            golden.check(theirs, value)
    golden.check("out.logits_eval", network.eval()(images).detach())


def test_patchgan_with_actnorm_is_tamings() -> None:
    golden = load("taming_patchgan_actnorm", "losses")
    network = PatchDiscriminator(golden.config["ndf"], golden.config["n_layers"], "act")
    start(network, weights(golden, taming_names(3)))
    with torch.no_grad():
        golden.check("out.logits1", network(golden["in.x1"]))
        for index in (3, 6, 9):
            norm = network.get_submodule(f"trunk.{index}")
            assert isinstance(norm, ActNorm)
            golden.check(f"after.main.{index}.loc", norm.shift.unsqueeze(0))
            golden.check(f"after.main.{index}.scale", norm.scale.unsqueeze(0))
            golden.check(f"after.main.{index}.initialized", norm.initialized.to(torch.uint8))
        golden.check("out.logits2", network(golden["in.x2"]))
        golden.check("out.logits2_eval", network.eval()(golden["in.x2"]))


def test_actnorm_alone_is_tamings_with_its_inverse_and_determinant() -> None:
    golden, norm = load("taming_patchgan_actnorm", "losses"), ActNorm(5)
    with torch.no_grad():
        out = norm(golden["actnorm.in"])
        golden.check("actnorm.out", out)
        golden.check("actnorm.logdet", norm.log_determinant(golden["actnorm.in"]))
        golden.check("actnorm.reverse", norm.inverse(out))


BLOCK = {"conv_res": "skip", "net.0": "conv1", "net.2": "conv2", "downsample.1": "down"}  # downsample.0 is the blur


def test_the_block_of_the_stylegan_discriminator_is_llamagens() -> None:
    golden = load("llamagen_stylegan_disc", "losses")
    block = StyleGANBlock(golden.config["block"]["input_channels"], golden.config["block"]["filters"])
    start(block, weights(golden, BLOCK, "block.w."))
    x = golden["block.in"].requires_grad_()
    out = block(x)
    golden.check("block.out", out.detach())
    golden.check("block.grad_in", torch.autograd.grad(out.sum(), x)[0])
    golden.check("blur.out", block.blur(x).detach())
    with pytest.raises(AssertionError):  # the border tells: a zero one is not LlamaGen's
        golden.check("blur.out", Blur(3)(x).detach())


def llamagen_names(blocks: int) -> dict[str, str]:
    """LlamaGen counts the first convolution and its activation among the blocks."""
    inner = {f"blocks.{n + 2}.{theirs}": f"blocks.{n}.{ours}" for n in range(blocks) for theirs, ours in BLOCK.items()}
    return inner | {"blocks.0": "stem", "final_conv.0": "conv", "final_linear.0": "hidden", "final_linear.2": "head"}


def test_the_stylegan_discriminator_is_llamagens() -> None:
    """Its weights are not stored: every one is drawn anew from its name, as the golden data's README says."""
    golden = load("llamagen_stylegan_disc", "losses")
    network = StyleGANDiscriminator(golden.config["full"]["image_size"])
    theirs = {ours: name for name, ours in llamagen_names(2).items()}
    drawn = {}
    for name, parameter in network.named_parameters():
        module, _, kind = name.rpartition(".")
        key = f"{theirs[module]}.{kind}"
        values = np.random.RandomState((zlib.crc32(key.encode()) + golden.config["SEED"]) % 2**32)
        scale = (2 / np.prod(parameter.shape[1:])) ** 0.5 if parameter.ndim > 1 else 0.1
        drawn[name] = torch.from_numpy((values.standard_normal(tuple(parameter.shape)) * scale).astype(np.float32))
    golden.check("check.blocks.0.weight", drawn["stem.weight"].double().sum())
    golden.check("check.final_linear.0.weight", drawn["hidden.weight"].double().sum())
    start(network, drawn)
    with torch.no_grad():
        golden.check("full.logits", network(golden["full.in"]))


def titok_names(layers: int) -> dict[str, str]:
    """Of each stage the convolution and the norm; the blur between them has no weights here."""
    stages = {f"blocks.{n}.{part}": f"stages.{n}.{part}" for n in range(layers) for part in (0, 2)}
    return stages | {"block_in.0": "stem.0", "to_logits.0": "head.0", "to_logits.2": "head.2"}


@pytest.mark.parametrize("name", ["titok_disc_64", "titok_disc_96"])
def test_the_maskbit_discriminator_is_that_of_titok_and_open_magvit2(name: str) -> None:
    golden = load(name, "losses")
    channels, layers = golden.config["hidden_channels"], golden.config["num_stages"]
    state = weights(golden, titok_names(layers))
    images = golden["in.x"].requires_grad_()
    titok = MaskBitDiscriminator(channels, layers)
    start(titok, state)
    logits = titok(images)
    golden.check("out.logits", logits.detach())
    check_gradients(golden, logits, images)
    open_magvit2 = MaskBitDiscriminator(channels, layers, pool=None)
    start(open_magvit2, state)
    golden.check("openmagvit2.logits", open_magvit2(images).detach())


@pytest.mark.parametrize("name", ["titok_disc_64", "titok_disc_96"])
def test_the_blur_is_the_peers(name: str) -> None:
    """Deliberate: 1d-tokenizer pads every filter as one of four taps, which moves the others off centre.

    Ours pads by the filter's own size, as Open-MAGVIT2 does; 1d-tokenizer's numbers come of its padding and our filter.
    """
    golden = load(name, "losses")
    x = golden["blur.in"]
    torch.testing.assert_close(binomial_filter(4, like=x), golden["w.blocks.0.1.kernel"])
    for size in (3, 4, 5):
        blur = Blur(size, stride=2)
        golden.check(f"blur{size}.openmagvit2", blur(x))
        height, width = (max(2 * (-(-side // 2) - 1) + 4 - side, 0) for side in x.shape[-2:])  # as for four taps
        padded = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        kernel = binomial_filter(size, like=x).expand(2, 1, size, size)
        golden.check(f"blur{size}.titok", F.conv2d(padded, kernel, stride=2, groups=2))
        if size != 4:
            theirs, own = golden[f"blur{size}.titok"], blur(x)
            assert theirs.shape != own.shape or (theirs - own).abs().max() > 0.1
