"""Conversions between levels and floats of each protocol, against its family's arithmetic on the same arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from imtok.evaluation.protocols import PROTOCOLS
from imtok.tokenizer import to_float, to_uint8

LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.fixture
def decoded() -> Tensor:
    """Floats as a decoder gives them, some outside [-1, 1], and every border between two levels."""
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 0.7
    borders = (torch.arange(511) / 510) * 2 - 1
    return torch.cat([noise, borders])


def test_imtok_converts_as_the_tokenizer(decoded: Tensor) -> None:
    assert torch.equal(PROTOCOLS["imtok"].to_input(LEVELS), to_float(LEVELS))
    assert torch.equal(PROTOCOLS["imtok"].to_uint8(decoded), to_uint8(decoded))


def test_adm_truncates_after_adding_half_a_level(decoded: Tensor) -> None:
    expected = np.clip(np.float32(127.5) * decoded.numpy() + np.float32(128), 0, 255).astype(np.uint8)
    assert PROTOCOLS["adm"].to_uint8(decoded).numpy().tolist() == expected.tolist()
    unit = LEVELS.numpy().astype(np.float32) / np.float32(255)
    assert PROTOCOLS["adm"].to_input(LEVELS).numpy().tolist() == ((unit - np.float32(0.5)) / np.float32(0.5)).tolist()


def test_taming_truncates_without_adding_half_a_level(decoded: Tensor) -> None:
    unit = (np.clip(decoded.numpy(), -1, 1) + np.float32(1)) / np.float32(2)
    assert PROTOCOLS["taming"].to_uint8(decoded).tolist() == (unit * np.float32(255)).astype(np.uint8).tolist()
    expected = (LEVELS.numpy() / 127.5 - 1.0).astype(np.float32)
    assert PROTOCOLS["taming"].to_input(LEVELS).numpy().tolist() == expected.tolist()


def test_taming_truncates_originals_too() -> None:
    restored = torch.zeros(1, 1, 16, 16)
    _, originals = PROTOCOLS["taming"].pair("uint8", restored, LEVELS.reshape(1, 1, 16, 16))
    floats = (np.arange(256) / 127.5 - 1.0).astype(np.float32)
    expected = ((floats + np.float32(1)) / np.float32(2) * np.float32(255)).astype(np.uint8)
    assert originals.flatten().tolist() == expected.tolist()
    assert int((expected != np.arange(256)).sum()) == 95


def test_titok_rounds_in_the_unit_interval(decoded: Tensor) -> None:
    unit = torch.clamp((decoded + 1) / 2, 0.0, 1.0)
    rounded = torch.round(unit * 255.0) / 255.0
    # The family multiplies the rounded floats by 255 once more and truncates, which changes no level.
    assert torch.equal(PROTOCOLS["titok"].to_uint8(decoded), (rounded * 255).to(torch.uint8))
    restored, _ = PROTOCOLS["titok"].pair("floats", decoded, LEVELS)
    torch.testing.assert_close((restored + 1) / 2, rounded, atol=1e-7, rtol=0)


def test_var_rounds_from_the_middle_and_makes_grey_of_nan(decoded: Tensor) -> None:
    images = torch.cat([decoded, torch.tensor([float("nan")])])
    expected = np.round((np.clip(images.numpy(), -1, 1) + np.float32(1)) * np.float32(127.5))
    expected[-1] = 128
    assert PROTOCOLS["var"].to_uint8(images).tolist() == expected.astype(np.uint8).tolist()
    unit = LEVELS.numpy().astype(np.float32) / np.float32(255)
    assert PROTOCOLS["var"].to_input(LEVELS).numpy().tolist() == (unit + unit - np.float32(1)).tolist()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_input_spans_black_to_white_as_the_tokenizer_expects(name: str) -> None:
    converted = PROTOCOLS[name].to_input(LEVELS)
    assert converted.dtype == torch.float32
    torch.testing.assert_close(converted, to_float(LEVELS), atol=2e-7, rtol=0)
    assert converted[[0, -1]].tolist() == pytest.approx([-1, 1], abs=1e-7)


@pytest.mark.parametrize("name", ["imtok", "adm", "titok", "var"])
def test_levels_that_come_back_as_floats_stay_themselves(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert torch.equal(protocol.to_uint8(protocol.to_input(LEVELS)), LEVELS)


def test_taming_loses_half_a_level_on_average(decoded: Tensor) -> None:
    inside = decoded[decoded.abs() < 1]
    loss = (inside + 1) * 127.5 - PROTOCOLS["taming"].to_uint8(inside).float()
    assert loss.mean().item() == pytest.approx(0.5, abs=0.01)
    for name in ("imtok", "adm", "titok", "var"):
        loss = (inside + 1) * 127.5 - PROTOCOLS[name].to_uint8(inside).float()
        assert loss.mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("name", ["adm", "taming", "titok", "var"])
def test_half_precision_is_converted_as_floats(name: str) -> None:
    values = torch.tensor([-1.2, -0.3, 0.0, 0.4, 1.1], dtype=torch.bfloat16)
    assert torch.equal(PROTOCOLS[name].to_uint8(values), PROTOCOLS[name].to_uint8(values.float()))
