"""Codecs at the bytes of a tokenizer's codes."""

from __future__ import annotations

import io

import PIL
import pytest
import torch
from PIL import Image
from torch import Tensor

from imtok.data.images import to_picture, to_tensor
from imtok.evaluation.codecs import CODECS, Codec, available_codecs, larger, missing_codecs


@pytest.fixture
def images() -> Tensor:
    """One smooth image and one of noise: (2, 3, 32, 32) uint8."""
    across = torch.linspace(40, 210, 32).expand(3, 32, 32)
    noise = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    return torch.stack([across, noise.float()]).to(torch.uint8)


@pytest.mark.parametrize("codec", available_codecs(), ids=lambda codec: codec.name)
def test_a_file_is_the_best_of_all_that_fit(codec: Codec, images: Tensor) -> None:
    picture = to_picture(images[1])
    sizes = [len(codec.encode(picture, quality)) for quality in range(0, 101, 10)]
    assert sizes == sorted(sizes)  # so that bisection finds the best
    allowed = (sizes[4] + sizes[5]) / 2
    found = len(codec.best_file(picture, allowed))
    fitting = max(size for quality in range(40, 51) if (size := len(codec.encode(picture, quality))) <= allowed)
    assert found == fitting


@pytest.mark.parametrize("codec", available_codecs(), ids=lambda codec: codec.name)
def test_a_batch_holds_each_image_as_its_own_file(codec: Codec, images: Tensor) -> None:
    coded = codec.restore(images, 900)
    for number, image in enumerate(images):
        file = codec.best_file(to_picture(image), 900)
        assert int(coded.sizes[number]) == len(file)
        assert torch.equal(coded.restored[number], to_tensor(Image.open(io.BytesIO(file)).convert("RGB")))
    assert coded.restored.dtype == torch.uint8
    smooth, noisy = (coded.restored.double() - images.double()).abs().mean(dim=(1, 2, 3))
    assert smooth < 3 < noisy


def test_where_nothing_fits_the_least_quality_is_taken_and_counted(images: Tensor) -> None:
    codec = CODECS["jpeg"]
    coded = codec.restore(images, 10)
    assert coded.sizes.tolist() == [len(codec.encode(to_picture(image), 0)) for image in images]
    assert larger(coded.sizes.tolist(), 10) == 2
    assert larger([9, 10, 11], 10) == 1


def test_codecs_that_pillow_lacks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda feature: feature != "avif")
    assert [codec.name for codec in available_codecs()] == ["webp", "jpeg"]
    assert missing_codecs() == ["AVIF"]


def test_a_codec_says_which_library_wrote_its_files() -> None:
    assert PIL.__version__ in CODECS["jpeg"].version
    assert all(codec.version.startswith(codec.feature) for codec in available_codecs())
