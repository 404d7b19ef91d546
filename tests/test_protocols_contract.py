"""The parts of a protocol that are no arithmetic of pixels: forms, order, weights and the line that describes it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.data.distributed import DistributedSampler

from imtok.errors import ConfigError
from imtok.evaluation import METRICS
from imtok.evaluation.protocols import DEFAULT_PROTOCOL, PROTOCOLS


def test_the_default_is_our_own() -> None:
    assert DEFAULT_PROTOCOL == "imtok"
    assert list(PROTOCOLS) == ["imtok", "adm", "taming", "titok", "var"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_cannot_be_changed(name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS[name].name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_pair_of_levels_has_the_rounded_reconstruction(name: str) -> None:
    decoded = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    originals = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    restored, same = PROTOCOLS[name].pair("uint8", decoded, originals)
    assert torch.equal(restored, PROTOCOLS[name].to_uint8(decoded))
    assert torch.equal(same, originals) or name == "taming"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_levels_of_a_codec_count_as_originals_do(name: str) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    protocol = PROTOCOLS[name]
    for form in ("uint8", "floats"):
        restored, originals = protocol.pair(form, levels, levels)
        assert torch.equal(restored, originals)
        assert torch.equal(restored, levels) or form == "floats" or name == "taming"


@pytest.mark.parametrize(("name", "largest"), [("adm", 3.0), ("taming", 1.0), ("imtok", 1.0), ("titok", 1.0)])
def test_floats_are_clamped_but_for_adm(name: str, largest: float) -> None:
    decoded = torch.tensor([-3.0, 0.25, 3.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    restored, originals = PROTOCOLS[name].pair("floats", decoded, torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    assert restored.max().item() == largest
    assert originals.unique().tolist() == [-1.0]


def test_each_metric_has_the_form_of_its_family() -> None:
    forms = {
        name: {metric for metric in ("psnr", "ssim", "lpips", "rfid") if protocol.form(metric) == "floats"}
        for name, protocol in PROTOCOLS.items()
    }
    assert forms == {
        "imtok": set(),
        "adm": {"lpips"},
        "taming": {"lpips", "rfid"},
        "titok": {"lpips"},
        "var": set(),
    }


def test_taming_alone_has_inception_of_pytorch_fid() -> None:
    resizing = {name: protocol.metric("rfid").method for name, protocol in PROTOCOLS.items()}
    assert "pytorch-fid" in resizing.pop("taming")
    assert set(resizing.values()) == {"torch-fidelity's Inception, resized as by TensorFlow 1"}
    with pytest.raises(ConfigError, match="metric loss: unknown, expected one of psnr, ssim"):
        PROTOCOLS["adm"].metric("loss")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_metrics_of_one_network_compare_images_of_one_form(name: str) -> None:
    protocol = PROTOCOLS[name]
    forms: dict[str, set[str]] = {}
    for metric in METRICS:
        forms.setdefault(protocol.metric(metric).needs or metric, set()).add(protocol.form(metric))
    assert all(len(found) == 1 for found in forms.values())


@pytest.mark.parametrize(("images", "ranks"), [(10, 1), (10, 4), (8, 8), (3, 8), (50, 8), (1, 3)])
def test_adm_repeats_the_images_that_the_sampler_repeats(images: int, ranks: int) -> None:
    order = PROTOCOLS["adm"].order(images, ranks)
    samplers = [DistributedSampler(range(images), ranks, rank, shuffle=False) for rank in range(ranks)]
    assert [order[rank::ranks] for rank in range(ranks)] == [list(sampler) for sampler in samplers]
    weights = PROTOCOLS["adm"].weights(images, ranks)
    counts = np.bincount(order, minlength=images)
    assert (weights is None) == (images % ranks == 0)
    if weights is not None:
        np.testing.assert_allclose(weights, counts / len(order))


def test_other_protocols_take_each_image_once() -> None:
    for name in ("imtok", "taming", "titok", "var"):
        assert PROTOCOLS[name].order(10, 4) == list(range(10))
    for name in ("imtok", "titok", "var"):
        assert PROTOCOLS[name].weights(10, 4) is None


def test_taming_averages_the_means_of_batches_of_four() -> None:
    values = np.random.default_rng(0).normal(size=10)
    mean_of_means = np.mean([values[:4].mean(), values[4:8].mean(), values[8:].mean()])
    weights = PROTOCOLS["taming"].weights(10)
    assert weights is not None
    assert (weights * values).sum() == pytest.approx(mean_of_means)
    assert PROTOCOLS["taming"].weights(12) is None


def test_no_image_has_no_order_and_no_weight() -> None:
    for protocol in PROTOCOLS.values():
        assert protocol.order(0, 8) == []
        assert protocol.weights(0, 8) is None


def test_a_protocol_is_described_in_one_line() -> None:
    described = PROTOCOLS["adm"].describe()
    assert described.startswith("adm: box halving to below 2S, Pillow bicubic to shorter side S, central S x S; ")
    assert "reconstructions truncated after 127.5 x + 128" in described
    assert "LPIPS: on floats, not clamped" in described
    assert len({protocol.describe() for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)
    assert not any("\n" in protocol.describe() for protocol in PROTOCOLS.values())
