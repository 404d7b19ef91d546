"""What a training run would be: its networks, tokens, steps and memory, told without training and without a file.

The networks are run once on fake tensors (shapes and types, no values), so that a plan takes a moment at any size.
"""

# Axes: B images of a part of a batch, S crop, K codes, Q codebooks.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from imtok.config import TrainConfig
from imtok.data.collection import ImageCollection
from imtok.data.images import image_size
from imtok.devices import Precision, autocast
from imtok.errors import ImageError, SourceError, TrainingError
from imtok.losses import find_vgg_weights
from imtok.networks import Decoder, Encoder
from imtok.quantizers import Quantizer
from imtok.quantizers.record import QuantizerRecord
from imtok.tokenizer import build_quantizer, check_quantizer
from imtok.training.adversarial import build_discriminator
from imtok.training.loop import resolve
from imtok.training.run import RunFolder
from imtok.training.state import beginning

_LOOKED_AT = 200  # pictures, for the size of the others
_FLOAT = 4  # bytes; weights and all that is kept of them are float32
# What a step takes besides what is kept for its backward pass, as measured on CPUs: a third more for the gradients on
# their way back, and some float32 copies of the images for the losses and theirs.
_MORE_FOR_GRADIENTS = 1 / 3
_COPIES_OF_IMAGES = 10


@dataclass(frozen=True)
class Memory:
    """Bytes that the parts of a training take, as estimated: real use is within about a factor of 1.5 of it.

    Left out are what single layers compute in, what compiled networks save, and the libraries themselves.
    """

    weights: int  # of the tokenizer, the discriminator and the network behind a perceptual loss
    average: int  # of the tokenizer's weights
    gradients: int
    moments: int  # the two that Adam keeps
    activations: int  # of a part of a batch, at the moment when most are alive
    pictures: int  # decoded and kept in main memory, wherever the networks are

    @property
    def device(self) -> int:
        """All that is where the networks are."""
        return self.weights + self.average + self.gradients + self.moments + self.activations


@dataclass(frozen=True)
class TrainPlan:
    """What `train` would do with the same arguments."""

    config: TrainConfig  # with every `auto` made definite
    parameters: dict[str, int]  # by part; a codebook counts, however it learns
    grid: tuple[int, ...]  # (h, w), or (h, w, Q) for Q > 1, of an image of the tokenizer's size
    num_codes: int
    training_images: int
    validation_images: int
    memory: Memory

    @property
    def tokens(self) -> int:
        """Codes an image."""
        return math.prod(self.grid)

    @property
    def bits(self) -> float:
        """Bits an image, all codes taken for equally likely."""
        return self.tokens * math.log2(self.num_codes)

    @property
    def bits_per_pixel(self) -> float:
        """Bits a pixel."""
        return self.bits / self.config.tokenizer.size**2

    @property
    def steps(self) -> int:
        """Optimisation steps of the whole run."""
        return math.ceil(self.config.images / self.config.batch_size)

    @property
    def epochs(self) -> float:
        """How often the run sees each training image."""
        return self.config.images / self.training_images

    @property
    def discriminator_learns(self) -> int | None:
        """Training images after which the discriminator begins to learn; None where there is none."""
        adversarial = self.config.adversarial
        return self._after(adversarial.start - adversarial.warmup)

    @property
    def discriminator_felt(self) -> int | None:
        """Training images after which the generator begins to feel it."""
        return self._after(self.config.adversarial.start)

    @property
    def discriminator_whole(self) -> int | None:
        """Training images after which it has its whole weight."""
        return self._after(self.config.adversarial.start + self.config.adversarial.ramp)

    def _after(self, share: float) -> int | None:
        return round(share * self.config.images) if self.config.adversarial.wanted else None


def plan(
    config: TrainConfig,
    sources: Sequence[str | Path],
    val: Sequence[str | Path] = (),
    *,
    run: Path | None = None,
    resume: bool = False,
) -> TrainPlan:
    """The run that `train` would begin with these arguments; nothing is written.

    With `run` also what that folder says counts: raises as `train` does where it is of another configuration, or
    where `resume` finds no checkpoint. Raises ConfigError or SourceError for what cannot be used.
    """
    check_quantizer(config.tokenizer.quantizer)
    config = _resolved(config, run, resume=resume)
    if config.start_from and not (run and RunFolder(run).has_checkpoint()):
        with torch.random.fork_rng(devices=[]):
            beginning(config)  # refuses what does not fit
    if config.loss.perceptual > 0 and config.loss.perceptual_weights:  # those that are not named may be fetched later
        find_vgg_weights(Path(config.loss.perceptual_weights))
    images = ImageCollection.open(sources)
    if val:
        held_out = ImageCollection.open(val)
    else:
        images, held_out = images.split(config.data.val_fraction)
    parts = _Parts(config)
    side = config.tokenizer.size // config.tokenizer.network.downsample
    each = len(config.tokenizer.quantizer.codebook_ids)
    return TrainPlan(
        config,
        parts.parameters(),
        (side, side) if each == 1 else (side, side, each),
        config.tokenizer.quantizer.num_codes,
        len(images),
        min(len(held_out), config.data.val_images),
        parts.memory(_picture_bytes(images, config)),
    )


def _resolved(config: TrainConfig, run: Path | None, *, resume: bool) -> TrainConfig:
    if run is None:
        return resolve(config)
    folder = RunFolder(run)
    saved = folder.saved_config()
    wanted = resolve(config, saved)
    if saved is not None:
        folder.check_config(saved, wanted)
    if resume and not folder.finished and not folder.has_checkpoint():
        raise TrainingError(f"{run}: --resume was given but there is no checkpoint; leave it out to begin")
    return wanted


class _Parts:
    """The networks of a run without their values, and what each of them keeps for its backward pass."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            self.quantizer = build_quantizer(config.tokenizer.quantizer)  # real: some compute with their values
        shape = config.tokenizer.network.model_dump()
        self.fake = FakeTensorMode()
        with self.fake, torch.device(config.device):
            self.encoder = Encoder(self.quantizer.dim, **shape)
            self.decoder = Decoder(self.quantizer.code_dim, **shape)
            self.discriminator = _discriminator(config)
            self.perceptual = _vgg16() if config.loss.perceptual > 0 else None

    def parameters(self) -> dict[str, int]:
        """Parameters of each part."""
        counts = {
            "encoder": _count(self.encoder),
            "quantizer": _codebook_values(self.quantizer),
            "decoder": _count(self.decoder),
        }
        return counts | ({"discriminator": _count(self.discriminator)} if self.discriminator else {})

    def memory(self, pictures: int) -> Memory:
        """Bytes of everything, `pictures` among them."""
        tokenizer = _count(self.encoder) + _codebook_values(self.quantizer) + _count(self.decoder)
        learning = _count(self.decoder)
        if not self.config.freeze_codes:
            learning += _count(self.encoder) + sum(p.numel() for p in self.quantizer.parameters())
        others = _count(self.discriminator) if self.discriminator else 0
        frozen = _count(self.perceptual) if self.perceptual else 0
        return Memory(
            weights=_FLOAT * (tokenizer + others + frozen),
            average=_FLOAT * tokenizer,
            gradients=_FLOAT * (learning + others),
            moments=2 * _FLOAT * (learning + others),
            activations=self._activations(),
            pictures=pictures,
        )

    def _activations(self) -> int:
        """The tokenizer's stay while each network that judges its output is run and done with; then they go, and the
        discriminator learns from images and reconstructions."""
        count, crop = self.config.batch_size // self.config.accumulate, self.config.data.crop
        images = (count, 3, crop, crop)
        side = crop // self.config.tokenizer.network.downsample
        latents = (count, self.quantizer.code_dim, side, side)
        tokenizer = self._kept(self.decoder, latents)
        if not self.config.freeze_codes:
            tokenizer += self._kept(self.encoder, images)
            tokenizer += _quantizer_bytes(self.config.tokenizer.quantizer, count * side**2)
        judged = self._kept(self.discriminator, images) if self.discriminator else 0
        seen = 2 * self._kept(self.perceptual, images) if self.perceptual else 0  # half for the distances, in float32
        kept = max(tokenizer + max(judged, seen), 2 * judged)
        return round((1 + _MORE_FOR_GRADIENTS) * kept) + _COPIES_OF_IMAGES * _FLOAT * math.prod(images)

    def _kept(self, network: nn.Module, shape: tuple[int, ...]) -> int:
        """Bytes of the distinct tensors, besides parameters, that a forward pass on `shape` keeps for the backward."""
        own = {_storage(parameter) for parameter in network.parameters()}
        kept: dict[int, Tensor] = {}  # the tensors too, as a freed one's storage may come again

        def note(tensor: Tensor) -> Tensor:
            kept[_storage(tensor)] = tensor
            return tensor

        precision: Precision = "bf16" if self.config.precision == "bf16" else "fp32"
        device = torch.device(self.config.device)
        saving = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with self.fake, saving, autocast(device, precision):
            network(torch.empty(shape, device=device, requires_grad=True))
        return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)


def _discriminator(config: TrainConfig) -> nn.Module | None:
    if not config.adversarial.wanted:
        return None
    return build_discriminator(config.adversarial.discriminator, config.data.crop).eval()


def _vgg16() -> nn.Module:
    """The convolutions behind the perceptual loss, which are not trained."""
    from torchvision.models import vgg16

    layers: nn.Module = vgg16(weights=None).features
    return layers.requires_grad_(False)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _codebook_values(quantizer: Quantizer) -> int:
    """Parameters and codebooks: one that learns by moving averages is no parameter to torch."""
    parameters: Mapping[str, Any] = dict(quantizer.named_parameters())
    state = quantizer.state_dict()
    return sum(value.numel() for name, value in state.items() if name in parameters or name.endswith("codebook"))


def _quantizer_bytes(config: QuantizerRecord, vectors: int) -> int:
    """Estimate what a quantizer keeps for its backward pass: some copies of its latents, and its N x K tables."""
    base = config.base
    return _FLOAT * vectors * len(config.codebook_ids) * (8 * base.dim + base.assignment_tables * base.num_codes)


def _picture_bytes(images: ImageCollection, config: TrainConfig) -> int:
    """Bytes of the pictures that training keeps decoded, their shorter sides brought to the tokenizer's size."""
    looked_at = images.subsample(_LOOKED_AT)
    values = []
    for place in range(len(looked_at)):
        with suppress(ImageError, SourceError):
            sides = image_size(looked_at.read(place))
            values.append(3 * config.tokenizer.size**2 * max(sides) / min(sides))
    if not values:
        raise SourceError(f"none of {len(looked_at)} training images looked at can be read; check the files")
    wanted = len(images) * sum(values) / len(values)
    return int(min(wanted, config.data.cache_gb * 2**30))
