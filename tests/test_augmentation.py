"""Augmentation: the crops of a picture, their pixels, and the places that are recorded of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making import picture
from PIL import Image

from imtok.data.augmentation import Augmentation, augment, parse_augmentation
from imtok.data.images import Fit, central_square, fit_image, to_tensor
from imtok.errors import ConfigError

# Of the picture 0 under the name a.png with seed 0.
GOLDEN = [[3, 0, 40, 40, 0], [1, 1, 38, 38, 0], [0, 0, 32, 40, 1]]
KINDS = ["none", "flip", "ten-crop", "ten-crop=1.5", "random-crops=7"]


def slope(width: int, height: int) -> Image.Image:
    """A picture whose red grows from left to right and whose green grows from top to bottom."""
    values = np.zeros((height, width, 3), np.uint8)
    values[..., 0] = np.linspace(0, 255, width)
    values[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(values)


@pytest.mark.parametrize("text", ["none", "flip", "ten-crop=1.1", "ten-crop=1.05", "random-crops=10"])
def test_an_augmentation_is_read_from_its_own_name(text: str) -> None:
    assert parse_augmentation(text).name == text


def test_ten_crop_takes_the_ratio_of_llamagen() -> None:
    assert parse_augmentation("ten-crop") == parse_augmentation("ten-crop=1.10")
    assert [parse_augmentation(kind).num_crops for kind in KINDS] == [1, 2, 10, 10, 7]


@pytest.mark.parametrize(
    "text",
    [
        *("", "Flip", "flip=2", "none=1", "ten-crop=", "ten-crop=1", "ten-crop=nan", "ten-crop=5", "ten-crops"),
        *("random-crops", "random-crops=1", "random-crops=1001", "random-crops=x", "random-crops=2.0"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected none, flip, ten-crop, ten-crop=R with 1 < R <= 4"):
        parse_augmentation(text)


@pytest.mark.parametrize("kind", ["ten-crop", "random-crops=3"])
def test_crops_of_padded_pictures_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="--fit pad keeps all of them; leave one out"):
        parse_augmentation(kind).check(32, "pad")
    parse_augmentation(kind).check(32, "crop")
    parse_augmentation("flip").check(32, "pad")


def test_ten_crops_that_would_be_equal_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"all crops of 8 px would be the same; take ten-crop=1\.13"):
        parse_augmentation("ten-crop=1.1").check(8, "crop")
    parse_augmentation("ten-crop=1.13").check(8, "crop")


@pytest.mark.parametrize("kind", ["none", "flip", "random-crops=3"])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_the_first_crop_has_the_pixels_of_a_plain_encode(kind: str, fit: Fit) -> None:
    if (kind, fit) != ("random-crops=3", "pad"):
        made = augment(picture(3), 32, fit, parse_augmentation(kind), "x")
        assert torch.equal(made.pixels[0], fit_image(picture(3), 32, fit).pixels)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_flip_adds_the_mirrored_square(fit: Fit) -> None:
    made = augment(picture(3), 32, fit, parse_augmentation("flip"), "x")
    assert torch.equal(made.pixels[1], made.pixels[0].flip(-1))
    place = [4, 0, 40, 40] if fit == "crop" else [0, 0, 48, 40]
    assert made.crops.tolist() == [[*place, 0], [*place, 1]]


def test_ten_crop_takes_centre_and_corners_of_a_larger_square() -> None:
    made = augment(picture(3), 32, "crop", parse_augmentation("ten-crop=1.25"), "x")
    square = to_tensor(central_square(picture(3), 40))
    expected = [square[:, top : top + 32, left : left + 32] for top, left in ((4, 4), (0, 0), (0, 8), (8, 0), (8, 8))]
    assert torch.equal(made.pixels[:5], torch.stack(expected))
    assert torch.equal(made.pixels[5:], made.pixels[:5].flip(-1))
    # The picture is 40 wide and 48 high, so its central square begins at row 4 and has the scale of the larger square.
    places = [[8, 4], [4, 0], [4, 8], [12, 0], [12, 8]]
    assert made.crops[:, :2].tolist() == places * 2
    assert made.crops[:, 2:4].tolist() == [[32, 32]] * 10
    assert made.crops[:, 4].tolist() == [0] * 5 + [1] * 5


def test_random_crops_are_a_function_of_seed_and_name() -> None:
    def crops(seed: int, name: str) -> list[list[int]]:
        augmentation = Augmentation("random-crops", 3, seed=seed)
        return list(augment(picture(0), 16, "crop", augmentation, name).crops.tolist())

    assert crops(0, "a.png") == crops(0, "a.png") == GOLDEN
    assert crops(1, "a.png")[1:] != GOLDEN[1:]
    assert crops(0, "b.png")[1:] != GOLDEN[1:]
    assert crops(0, "\udcff.png") != GOLDEN  # a name that is no UTF-8


def test_more_random_crops_begin_with_the_same_ones() -> None:
    few, many = (augment(picture(0), 16, "crop", parse_augmentation(f"random-crops={k}"), "x") for k in (3, 6))
    assert torch.equal(few.pixels, many.pixels[:3])
    assert few.crops.tolist() == many.crops[:3].tolist()


def test_random_crops_have_the_areas_and_shapes_of_ml_4m() -> None:
    made = augment(slope(300, 300), 8, "crop", parse_augmentation("random-crops=1000"), "x")
    crops = made.crops[1:].astype(float)
    area, shape = crops[:, 2] * crops[:, 3] / 90_000, crops[:, 3] / crops[:, 2]
    assert area.min() > 0.195
    assert area.max() <= 1
    assert shape.min() > 0.74
    assert shape.max() < 1.35
    assert 0.45 < crops[:, 4].mean() < 0.55
    assert np.log(shape).mean() == pytest.approx(0, abs=0.03)
    assert (crops[:, 0] / np.maximum(1, 300 - crops[:, 2])).mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 3), (3000, 1), (1, 3000), (400, 50), (64, 64), (37, 91)])
def test_every_crop_lies_inside_its_picture(kind: str, width: int, height: int) -> None:
    augmentation = parse_augmentation(kind)
    made = augment(slope(width, height), 16, "crop", augmentation, "x")
    top, left, rows, columns, mirrored = made.crops.T
    assert made.pixels.shape == (augmentation.num_crops, 3, 16, 16)
    assert made.crops.dtype == np.int32
    assert min(top.min(), left.min()) >= 0
    assert min(rows.min(), columns.min()) >= 1
    assert (top + rows).max() <= height
    assert (left + columns).max() <= width
    assert set(mirrored.tolist()) <= {0, 1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "height"), [(200, 160), (90, 300)])
def test_the_recorded_place_is_that_of_the_pixels(kind: str, width: int, height: int) -> None:
    made = augment(slope(width, height), 32, "crop", parse_augmentation(kind), "x")
    for pixels, (top, left, rows, columns, mirrored) in zip(made.pixels.float(), made.crops.tolist(), strict=True):
        assert pixels[0].mean().item() == pytest.approx((left + columns / 2) / width * 255, abs=2)
        assert pixels[1].mean().item() == pytest.approx((top + rows / 2) / height * 255, abs=2)
        assert bool(pixels[0, 0, 0] > pixels[0, 0, -1]) == bool(mirrored)


def test_pixels_outside_a_random_crop_have_no_part_in_it() -> None:
    whole = slope(64, 48)
    made = augment(whole, 16, "crop", parse_augmentation("random-crops=2"), "x")
    top, left, rows, columns, mirrored = made.crops[1].tolist()
    part = whole.crop((left, top, left + columns, top + rows)).resize((16, 16), Image.Resampling.BICUBIC)
    expected = to_tensor(part)
    assert torch.equal(made.pixels[1], expected.flip(-1) if mirrored else expected)
