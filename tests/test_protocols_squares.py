"""Squares of each protocol, against the calls that its family makes on the same arrays."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from imtok.data.images import fit_image
from imtok.errors import ConfigError, ImtokError
from imtok.evaluation.protocols import PROTOCOLS, find_protocol

SHAPES = [(75, 100), (41, 32), (33, 150), (200, 67), (64, 64), (32, 32), (20, 27), (97, 98)]
SIZE = 32


def picture(height: int, width: int) -> np.ndarray:
    """Draw smooth shapes with some noise, so that filters and corners all show: (H, W, 3) uint8."""
    random = np.random.default_rng(height * 1000 + width)
    across, down = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    waves = np.stack([np.sin(across + down), np.cos(across * 1.7), np.sin(down * 2.3)], axis=-1)
    return np.clip(128 + 90 * waves + random.normal(0, 25, waves.shape), 0, 255).astype(np.uint8)


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


@pytest.mark.parametrize("shape", SHAPES)
def test_imtok_has_the_square_that_it_encodes(shape: tuple[int, int]) -> None:
    pixels = picture(*shape)
    expected = fit_image(Image.fromarray(pixels), SIZE).pixels
    assert torch.equal(PROTOCOLS["imtok"].prepare(pixels, SIZE), expected)


def mean_of_pairs(pixels: np.ndarray) -> np.ndarray:
    """Halve both even sides as a box filter does, one axis after the other, rounding each."""
    across = (pixels[:, ::2].astype(int) + pixels[:, 1::2] + 1) // 2
    return ((across[::2] + across[1::2] + 1) // 2).astype(np.uint8)


def test_adm_halves_by_means_of_pairs_before_the_bicubic_filter() -> None:
    pixels = picture(136, 144)  # halved twice: 68 x 72, 34 x 36; then bicubic to 32 x 34
    halved = mean_of_pairs(mean_of_pairs(pixels))
    resized = np.asarray(Image.fromarray(halved).resize((34, 32), Image.Resampling.BICUBIC))
    assert torch.equal(PROTOCOLS["adm"].prepare(pixels, SIZE), channels_first(resized[:, 1:33]))


@pytest.mark.parametrize("shape", SHAPES)
def test_adm_rounds_sides_and_crops_from_the_lower_corner(shape: tuple[int, int]) -> None:
    pixels = picture(*shape)
    image = Image.fromarray(pixels)
    for _ in range(int(math.log2(min(shape) / SIZE)) if min(shape) >= SIZE else 0):
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    shorter = min(image.size)
    wide, high = round(image.width * SIZE / shorter), round(image.height * SIZE / shorter)
    left, top = (wide - SIZE) // 2, (high - SIZE) // 2
    expected = image.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + SIZE, top + SIZE))
    assert torch.equal(PROTOCOLS["adm"].prepare(pixels, SIZE), channels_first(np.asarray(expected)))


def bilinear(pixels: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Resample one axis by the two nearest pixels in float64, without antialiasing."""
    old = pixels.shape[axis]
    center = (np.arange(length) + 0.5) * old / length - 0.5
    first = np.floor(center).astype(int)
    share = np.expand_dims(center - first, axis=tuple(each for each in range(3) if each != axis))
    low, high = (pixels.take(np.clip(first + step, 0, old - 1), axis=axis) for step in (0, 1))
    return low * (1 - share) + high * share


@pytest.mark.parametrize("shape", SHAPES)
def test_taming_takes_the_two_nearest_pixels_without_antialiasing(shape: tuple[int, int]) -> None:
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    pixels = picture(*shape)
    high, wide = (round(side * SIZE / min(shape)) for side in shape)
    resized = bilinear(bilinear(pixels.astype(float), wide, axis=1), high, axis=0)
    top, left = (high - SIZE) // 2, (wide - SIZE) // 2
    expected = resized[top : top + SIZE, left : left + SIZE].transpose(2, 0, 1)
    found = PROTOCOLS["taming"].prepare(pixels, SIZE).numpy()
    assert (
        np.abs(found - expected).max() < 0.8
    )  # OpenCV rounds weights to 11 bits, cuts products, and rounds to a level


def test_taming_alone_lets_fine_stripes_through() -> None:
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    stripes = np.zeros((160, 160, 3), dtype=np.uint8)
    stripes[:, 2::5] = 255  # five pixels become one, and the middle one is all that is read
    assert PROTOCOLS["taming"].prepare(stripes, SIZE).unique().tolist() == [255]
    for name in ("imtok", "adm", "titok", "var"):
        assert int(PROTOCOLS[name].prepare(stripes, SIZE).max()) < 80


def test_taming_leaves_a_picture_of_the_right_size_alone() -> None:
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    pixels = picture(32, 47)
    assert torch.equal(PROTOCOLS["taming"].prepare(pixels, SIZE), channels_first(pixels[:, 7:39]))


def test_taming_without_opencv_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImtokError, match=r"taming needs opencv-python-headless; pip install 'imtok\[eval\]'"):
        PROTOCOLS["taming"].prepare(picture(40, 40), SIZE)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "mode"), [("titok", "BICUBIC"), ("var", "LANCZOS")])
def test_titok_and_var_have_the_square_of_torchvision(name: str, mode: str, shape: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is not installed")
    chain = transforms.Compose(
        [
            transforms.Resize(SIZE, interpolation=transforms.InterpolationMode[mode], antialias=True),
            transforms.CenterCrop(SIZE),
            transforms.PILToTensor(),
        ]
    )
    pixels = picture(*shape)
    assert torch.equal(PROTOCOLS[name].prepare(pixels, SIZE), chain(Image.fromarray(pixels)))


@pytest.mark.parametrize(("name", "mode"), [("titok", "BICUBIC"), ("var", "LANCZOS")])
def test_titok_and_var_round_the_corner_to_even(name: str, mode: str) -> None:
    pixels = picture(64, 79)  # 39.5 wide after resizing: 39 of them stay, and the corner at 3.5 becomes 4
    resized = np.asarray(Image.fromarray(pixels).resize((39, 32), Image.Resampling[mode]))
    assert torch.equal(PROTOCOLS[name].prepare(pixels, SIZE), channels_first(resized[:, 4:36]))
    same = picture(32, 47)
    assert torch.equal(PROTOCOLS[name].prepare(same, SIZE), channels_first(same[:, 8:40]))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_long_strip_takes_little_memory(name: str) -> None:
    if name == "taming":
        pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    strip = np.arange(60_000, dtype=np.uint32).astype(np.uint8).reshape(1, 20_000, 3)
    square = PROTOCOLS[name].prepare(strip, 64)
    assert square.shape == (3, 64, 64)
    assert square.is_contiguous()
    assert abs(int(square[0, 32, 32]) - int(strip[0, 10_000, 0])) < 8


def test_an_unknown_protocol_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="protocol lightning: unknown, expected one of imtok, adm, taming"):
        find_protocol("lightning")
    assert find_protocol("adm") is PROTOCOLS["adm"]
