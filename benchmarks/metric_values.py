"""The metrics of imtok beside the libraries' own calls, on the same images and the same weights.

Photographs are brought to squares and reconstructed by a tokenizer. Each metric is computed by imtok and by the calls
that others make: torchmetrics, scikit-image, the lpips package, torch-fidelity's `calculate_metrics`, and clean-fid's
resizing, network and distance. Without `--weights` the networks have random weights in the published layout, drawn
once, so that the table says whether the arithmetic agrees and nothing about the photographs. A value may differ by
float32 rounding. rFID is computed below its 2,048 images, as both sides are handed the same few.

    python benchmarks/metric_values.py ../shared/data/photos --images 24
    python benchmarks/metric_values.py PHOTOS --weights inception=FILE --weights vgg16=FILE --weights alexnet=FILE
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from machine import machine
from torch import Tensor, nn

import imtok
from imtok.data.collection import ImageCollection
from imtok.data.images import fit_image
from imtok.evaluation import METRICS, open_available, parse_weights
from imtok.evaluation.inception import InceptionFeatures
from imtok.tokenizer import to_float, to_uint8

BATCH = 8


class Reference(NamedTuple):
    """A call of another library that gives a metric's value."""

    metric: str
    library: str
    value: Callable[[], float]


class Sets(NamedTuple):
    """Reconstructions and originals, (N, 3, S, S) uint8 each, and the files of weights by name."""

    restored: Tensor
    originals: Tensor
    weights: dict[str, Path]


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory() as folder:
        named = parse_weights(args.weights)
        sets = Sets(*reconstructions(args), random_weights(Path(folder)) | named)
        own = values_of_imtok(sets)
        rows = []
        print("| metric | imtok | library | its value | difference |\n|---|---|---|---|---|")
        for reference in references(sets):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = reference.value()
            difference = abs(value - own[reference.metric])
            rows.append((reference.metric, reference.library, own[reference.metric], value, difference))
            label = METRICS[reference.metric].label
            shown = f"{own[reference.metric]:.7f} | {reference.library} | {value:.7f} | {difference:.1e}"
            print(f"| {label} | {shown} |", flush=True)
    packages = ("torchmetrics", "torch-fidelity", "lpips", "clean-fid", "scikit-image")
    settings = {"images": len(sets.originals), "size": args.size, "weights": sorted(named) or "random"}
    record = {"benchmark": "metric_values", "rows": rows, **settings, **machine(torch.device("cpu"), *packages)}
    print(json.dumps(record))


def reconstructions(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    tokenizer = imtok.load(args.tokenizer)
    images = ImageCollection.open([args.source]).subsample(args.images)
    originals = torch.stack([fit_image(images.picture(index), args.size).pixels for index in range(len(images))])
    restored = [to_uint8(tokenizer.decode(tokenizer.encode(part))) for part in originals.split(BATCH)]
    return torch.cat(restored), originals


def random_weights(folder: Path) -> dict[str, Path]:
    """Write random weights in the published layouts, of a scale that keeps that of what passes through."""
    from torchvision import models

    with torch.device("meta"):
        networks = {
            "alexnet": models.alexnet(),
            "inception": models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False),
            "vgg16": models.vgg16(),
        }
    random = torch.Generator().manual_seed(0)
    files = {}
    for name, network in networks.items():
        state = {
            key: drawn(key, value.shape, random)
            for key, value in network.state_dict().items()
            if not key.endswith("num_batches_tracked") and not key.startswith("classifier.")
        }
        files[name] = folder / f"{name}.pth"
        torch.save(state, files[name])
    return files


def drawn(key: str, shape: torch.Size, random: torch.Generator) -> Tensor:
    if len(shape) > 1:
        return torch.randn(shape, generator=random) * (2 / shape[1:].numel()) ** 0.5
    near = 0.1 * torch.randn(shape, generator=random)
    return near + 1 if key.endswith(("bn.weight", "running_var")) else near


def values_of_imtok(sets: Sets) -> dict[str, float]:
    """Compute every metric of imtok on the sets."""
    opened = open_available(METRICS.values(), torch.device("cpu"), weights=sets.weights, fetch=False)
    for name, reason in opened.missing.items():
        raise SystemExit(f"{name}: {reason}")
    for pair in zip(sets.restored.split(BATCH), sets.originals.split(BATCH), strict=True):
        for metric in opened.metrics:
            metric.update(*pair)
    return {metric.name: metric.compute() for metric in opened.metrics}


def references(sets: Sets) -> Iterator[Reference]:
    """Yield the calls of other libraries."""
    yield from pixel_references(sets)
    yield from perceptual_references(sets)
    yield from distribution_references(sets)
    yield from clean_fid_references(sets)


def pixel_references(sets: Sets) -> Iterator[Reference]:
    from skimage.metrics import peak_signal_noise_ratio as skimage_psnr
    from torchmetrics.functional.image import peak_signal_noise_ratio
    from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure, StructuralSimilarityIndexMeasure

    floats = sets.restored.float(), sets.originals.float()

    def of_torchmetrics() -> float:
        values = peak_signal_noise_ratio(*floats, data_range=255.0, reduction="none", dim=(1, 2, 3))
        return float(values.mean())

    def of_skimage() -> float:
        pairs = zip(sets.originals.numpy(), sets.restored.numpy(), strict=True)
        return float(np.mean([skimage_psnr(*pair, data_range=255) for pair in pairs]))

    yield Reference("psnr", "torchmetrics", of_torchmetrics)
    yield Reference("psnr", "scikit-image", of_skimage)
    yield Reference("ssim", "torchmetrics", lambda: float(StructuralSimilarityIndexMeasure(data_range=255.0)(*floats)))
    ms_ssim = MultiScaleStructuralSimilarityIndexMeasure(data_range=255.0)
    yield Reference("ms_ssim", "torchmetrics", lambda: float(ms_ssim(*floats)))


def perceptual_references(sets: Sets) -> Iterator[Reference]:
    import lpips
    from torchmetrics.functional.image.lpips import _LPIPS

    def filled(network: nn.Module, weights: str) -> Callable[[], float]:
        state = torch.load(sets.weights[weights], weights_only=True)
        for name, value in network.net.named_parameters():
            value.data = state["features." + name.rpartition("slice")[2].split(".", 1)[1].removeprefix("s.")]
        return lambda: mean_distance(network, sets)

    for metric, net, weights in (("lpips", "vgg", "vgg16"), ("lpips_alex", "alex", "alexnet")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield Reference(metric, "lpips", filled(lpips.LPIPS(net=net, pnet_rand=True, verbose=False), weights))
        yield Reference(metric, "torchmetrics", filled(_LPIPS(net=net, pnet_rand=True), weights))


def mean_distance(network: nn.Module, sets: Sets) -> float:
    pairs = zip(sets.restored.split(BATCH), sets.originals.split(BATCH), strict=True)
    with torch.no_grad():
        return float(torch.cat([network(*map(to_float, pair)).flatten() for pair in pairs]).double().mean())


class Images(torch.utils.data.Dataset[Tensor]):
    """A set of images as torch-fidelity takes them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def distribution_references(sets: Sets) -> Iterator[Reference]:
    import torch_fidelity
    from torchmetrics.image.fid import FrechetInceptionDistance

    found = torch_fidelity.calculate_metrics(
        input1=Images(sets.restored),
        input2=Images(sets.originals),
        fid=True,
        prc=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(sets.weights["inception"]),
        batch_size=BATCH,
        cuda=False,
        cache=False,
        verbose=False,
    )
    yield Reference("rfid", "torch-fidelity", lambda: found["frechet_inception_distance"])
    yield Reference("rfid", "definition in float64", lambda: by_definition(sets))
    yield Reference("precision", "torch-fidelity", lambda: found["precision"])
    yield Reference("recall", "torch-fidelity", lambda: found["recall"])

    def of_torchmetrics() -> float:
        # Its default resizes with antialiasing first, which torch-fidelity does not.
        path = str(sets.weights["inception"])
        fid = FrechetInceptionDistance(feature_extractor_weights_path=path, antialias=False).set_dtype(torch.float64)
        for images, real in ((sets.originals, True), (sets.restored, False)):
            for part in images.split(BATCH):
                fid.update(part, real=real)
        return float(fid.compute())

    yield Reference("rfid", "torchmetrics, antialias=False", of_torchmetrics)


def by_definition(sets: Sets) -> float:
    """Compute rFID of fewer images than features; (C1 C2)^(1/2) has the singular values of centred X Y^T over N - 1."""
    network = InceptionFeatures(sets.weights["inception"])
    both = [torch.cat([network(part) for part in images.split(BATCH)]).double() for images in sets[:2]]
    first, second = (each - each.mean(dim=0) for each in both)
    spread = first.square().sum() + second.square().sum() - 2 * torch.linalg.svdvals(first @ second.T).sum()
    return float((both[0].mean(dim=0) - both[1].mean(dim=0)).square().sum() + spread / (len(first) - 1))


def clean_fid_references(sets: Sets) -> Iterator[Reference]:
    from cleanfid import inception_pytorch
    from cleanfid.fid import fid_from_feats
    from cleanfid.resize import build_resizer

    def distance(mode: str, network: Callable[[Tensor], Tensor]) -> float:
        resize = build_resizer(mode)

        def features(images: Tensor) -> np.ndarray:
            parts = []
            for part in images.split(BATCH):
                resized = np.stack([resize(each.permute(1, 2, 0).numpy()) for each in part])
                parts.append(network(torch.from_numpy(resized).permute(0, 3, 1, 2)))
            return torch.cat(parts).numpy()

        with torch.no_grad():
            return float(fid_from_feats(features(sets.restored), features(sets.originals)))

    def of_pytorch() -> float:
        inception_pytorch.load_state_dict_from_url = lambda *_, **__: torch.load(sets.weights["inception"])
        network = inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False).eval()
        return distance("legacy_pytorch", lambda levels: network(levels / 255)[0].flatten(1))

    layers = InceptionFeatures(sets.weights["inception"]).layers  # its TorchScript file is of the same weights
    yield Reference(
        "rfid_clean",
        "clean-fid, clean",
        lambda: distance("clean", lambda levels: layers((levels - 128) / 128).flatten(1)),
    )
    yield Reference("rfid_pytorch", "clean-fid, legacy_pytorch", of_pytorch)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder or tar of photographs")
    parser.add_argument("-t", "--tokenizer", default="imtok-f8", help="a name, a tokenizer folder or a run")
    parser.add_argument("--images", type=int, default=24, help="evenly spaced ones of the source")
    parser.add_argument("--size", type=int, default=176, help="side of the squares")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=PATH", help="a published file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
