"""The plan of a training run: its networks, tokens, steps and memory, found without training and without a file.

The networks run once on fake tensors (shapes and types, no values), so that a plan takes a moment at any size.
"""

# Axes: B images of a part of a batch, S crop, K codes, Q codebooks.

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from imtok.config import TrainConfig
from imtok.cores import usable_memory
from imtok.data.images import image_size
from imtok.data.overlap import shared_images
from imtok.devices import Precision, autocast
from imtok.errors import ImageError, SourceError
from imtok.joint_batch import JointBatch
from imtok.losses import LossTerm, loss_terms, ramp
from imtok.quantizers import Quantizer
from imtok.quantizers.record import QuantizerRecord
from imtok.tokenizer import build_networks, build_quantizer, check_quantizer
from imtok.training.adversarial import build_discriminator
from imtok.training.image_notes import enlarged_note, shared_note
from imtok.training.images import RunImages, open_images
from imtok.training.initial import initial_tokenizer
from imtok.training.resolve import resolve
from imtok.training.run import RunFolder

_SAMPLED = 200  # images, from which the sizes of the others are estimated
_FLOAT = 4  # bytes; weights and all that is kept of them are float32
# A step takes more than it keeps for its backward pass, as measured on CPUs: a third more for the gradients on their
# way back, and some float32 copies of the images for the losses and their gradients.
_MORE_FOR_GRADIENTS = 1 / 3
_COPIES_OF_IMAGES = 10


@dataclass(frozen=True)
class Memory:
    """Estimated bytes of a training run by part: real use is within about a factor of 1.5.

    The estimate leaves out the workspace of single layers, the savings of compiled networks, and the libraries.
    """

    weights: int  # of the tokenizer, the discriminator and the network behind a perceptual loss
    ema: int  # of the tokenizer's weights
    gradients: int
    optimizer_state: int  # two values for each weight
    activations: int  # of a part of a batch, at the moment when most are alive
    decoded: int  # images kept decoded, or shards of a stream's two windows; in main memory wherever the networks are

    @property
    def device(self) -> int:
        """Bytes on the device of the networks."""
        return self.weights + self.ema + self.gradients + self.optimizer_state + self.activations


@dataclass(frozen=True)
class TrainPlan:
    """The run that `train` would begin with the same arguments."""

    config: TrainConfig  # with every `auto` made definite
    parameters: dict[str, int]  # by part; a codebook counts, however it learns
    grid: tuple[int, ...]  # (h, w), or (h, w, Q) for Q > 1, of an image of the tokenizer's size
    num_codes: int
    training_images: int | None  # None of a stream, whose images are not counted
    shards: int | None  # of a stream
    validation_images: int
    memory: Memory
    requirements: dict[str, str]  # sentences on what losses fetch before the run, by their names
    notes: tuple[str, ...] = ()  # sentences about the images that a person should read
    shares: tuple[int, ...] = ()  # images of a part of a batch that each process computes

    @property
    def tokens(self) -> int:
        """Codes an image."""
        return math.prod(self.grid)

    @property
    def bits(self) -> float:
        """Bits an image, where all codes are equally likely."""
        return self.tokens * math.log2(self.num_codes)

    @property
    def bits_per_pixel(self) -> float:
        """Bits a pixel."""
        return self.bits / self.config.tokenizer.size**2

    @property
    def memory_needed(self) -> int:
        """Estimated bytes on the device of the networks; on a CPU with the images in memory."""
        return self.memory.device + (self.memory.decoded if self._on_cpu else 0)

    @property
    def memory_limit(self) -> int:
        """Bytes that the device of the networks has."""
        if self._on_cpu:
            return usable_memory()
        return torch.cuda.get_device_properties(self.config.device).total_memory

    @property
    def _on_cpu(self) -> bool:
        return torch.device(self.config.device).type == "cpu"

    @property
    def steps(self) -> int:
        """Optimisation steps of the whole run."""
        return math.ceil(self.config.images / self.config.batch_size)

    @property
    def epochs(self) -> float | None:
        """Number of times that the run sees each training image; None where they are not counted."""
        return self.config.images / self.training_images if self.training_images else None

    @property
    def discriminator(self) -> tuple[int, int, int] | None:
        """Training images after which the discriminator learns, is active, has its full weight; None without one."""
        adversarial, images = self.config.adversarial, self.config.images
        if not adversarial.enabled:
            return None
        start, ramp = adversarial.start, adversarial.ramp
        return round((start - adversarial.warmup) * images), round(start * images), round((start + ramp) * images)

    @property
    def steps_alone(self) -> int:
        """Optimisation steps of the discriminator alone, of all `steps`, in a run that skips none."""
        adversarial, steps, each = self.config.adversarial, self.steps, self.config.adversarial.critic_steps
        if not adversarial.enabled or each == 1:
            return 0
        middles = [(number + 0.5) * self.config.batch_size / self.config.images for number in range(steps)]
        first = bisect_left(middles, adversarial.start - adversarial.warmup)  # of the discriminator
        active = bisect_left(
            middles, True, key=lambda progress: ramp(progress, adversarial.start, adversarial.ramp) > 0
        )
        taken = range(active - first, steps - first)  # its own steps, counted from 0, from when both are active
        return len(taken) - len(range(-(-taken.start // each) * each, taken.stop, each))


def plan(
    config: TrainConfig,
    sources: Sequence[str | Path],
    val: Sequence[str | Path] = (),
    *,
    run: Path | None = None,
    resume: bool = False,
    ranks: int = 1,
) -> TrainPlan:
    """Plan the run that `train` would begin with these arguments; nothing is written.

    Of `ranks` processes each is planned to need what the one with most images needs.

    With `run` the folder counts too: raises as `train` does where it is of another configuration, or where `resume`
    finds no checkpoint. Raises ConfigError or SourceError for what cannot be used.
    """
    check_quantizer(config.tokenizer.quantizer)
    folder = RunFolder(run) if run else None
    if folder:
        config = folder.checked_config(config, folder.saved_config(), sources, resume=resume)
    else:
        config = resolve(config, None, sources)
    if config.start_from and not (folder and folder.has_checkpoint()):
        with torch.random.fork_rng(devices=[]):
            initial_tokenizer(config)  # refuses what does not fit
    joint = [JointBatch(config.batch_size, config.accumulate, rank, ranks) for rank in range(ranks)]
    shares = tuple(len(each.rows) for each in joint)
    losses = loss_terms(config.loss)
    for term in losses:
        term.check(fetch=False)
    images = open_images(sources, val, config)
    config = images.config
    networks = _Networks(config, losses, max(shares))
    grid = config.tokenizer.network.grid(config.tokenizer.size, config.tokenizer.size)
    each = len(config.tokenizer.quantizer.codebook_ids)
    return TrainPlan(
        config,
        networks.parameters(),
        grid if each == 1 else (*grid, each),
        config.tokenizer.quantizer.num_codes,
        None if images.indexed is None else len(images.indexed),
        images.shards,
        min(len(images.held_out), config.data.val_images),
        networks.memory(_image_bytes(images)),
        {term.name: term.requirement for term in losses if term.requirement},
        _image_notes(images),
        shares,
    )


def _image_notes(images: RunImages) -> tuple[str, ...]:
    notes = [enlarged_note(images.sample, images.config.tokenizer.size)]
    if images.indexed is not None:
        held_out = images.held_out.subsample(images.config.data.val_images)
        notes.insert(0, shared_note(shared_images(images.indexed, held_out), len(images.held_out)))
    return tuple(filter(None, notes))


class _Networks:
    """The networks of a run without their values."""

    def __init__(self, config: TrainConfig, losses: Sequence[LossTerm], count: int) -> None:
        """`count`: images that are computed at once."""
        self.config, self.count = config, count
        with torch.random.fork_rng(devices=[]):
            self.quantizer = build_quantizer(config.tokenizer.quantizer)  # real: some compute with their values
        self.fake = FakeTensorMode()
        with self.fake, torch.device(config.device):
            self.encoder, self.decoder = build_networks(config.tokenizer, self.quantizer)
            self.discriminator = _discriminator(config)
            self.frozen = [network for term in losses if (network := term.outline()) is not None]

    def parameters(self) -> dict[str, int]:
        """Count the parameters of each network."""
        counts = {
            "encoder": _count(self.encoder),
            "quantizer": _codebook_values(self.quantizer),
            "decoder": _count(self.decoder),
        }
        return counts | ({"discriminator": _count(self.discriminator)} if self.discriminator else {})

    def memory(self, decoded: int) -> Memory:
        """Estimate the memory of everything; `decoded` are the bytes of images kept decoded, or of shards."""
        tokenizer = _count(self.encoder) + _codebook_values(self.quantizer) + _count(self.decoder)
        learning = _count(self.decoder)
        if not self.config.freeze_codes:
            learning += _count(self.encoder) + sum(p.numel() for p in self.quantizer.parameters())
        others = _count(self.discriminator) if self.discriminator else 0
        frozen = sum(map(_count, self.frozen))
        return Memory(
            weights=_FLOAT * (tokenizer + others + frozen),
            ema=_FLOAT * tokenizer,
            gradients=_FLOAT * (learning + others),
            optimizer_state=2 * _FLOAT * (learning + others),
            activations=self._activations(),
            decoded=decoded,
        )

    def _activations(self) -> int:
        """Estimate the activations at the moment when most are alive.

        The tokenizer's stay while the networks of the losses run, one after the other. Then they are freed, and the
        discriminator learns from images and reconstructions.
        """
        count, crop = self.count, self.config.data.crop
        images = (count, 3, crop, crop)
        height, width = self.config.tokenizer.network.grid(crop, crop)
        latents = (count, self.quantizer.code_dim, height, width)
        tokenizer = self._kept(self.decoder, latents)
        if not self.config.freeze_codes:
            tokenizer += self._kept(self.encoder, images)
            tokenizer += _quantizer_bytes(self.config.tokenizer.quantizer, count * height * width)
        discriminator = self._kept(self.discriminator, images) if self.discriminator else 0
        losses = [2 * self._kept(network, images) for network in self.frozen]  # half for the distances, in float32
        kept = max(tokenizer + max(discriminator, *losses, 0), 2 * discriminator)
        return round((1 + _MORE_FOR_GRADIENTS) * kept) + _COPIES_OF_IMAGES * _FLOAT * math.prod(images)

    def _kept(self, network: nn.Module, shape: tuple[int, ...]) -> int:
        """Sum the bytes that a forward pass on `shape` keeps for the backward pass, parameters left out."""
        own = {_storage(parameter) for parameter in network.parameters()}
        kept: dict[int, Tensor] = {}  # holds the tensors, as the storage of a freed one may be used again

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
    if not config.adversarial.enabled:
        return None
    return build_discriminator(config.adversarial.discriminator, config.data.crop).eval()


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _codebook_values(quantizer: Quantizer) -> int:
    """Count parameters and codebooks: a codebook that learns by moving averages is no parameter to torch."""
    parameters: Mapping[str, Any] = dict(quantizer.named_parameters())
    state = quantizer.state_dict()
    return sum(value.numel() for name, value in state.items() if name in parameters or name.endswith("codebook"))


def _quantizer_bytes(config: QuantizerRecord, vectors: int) -> int:
    """Estimate what a quantizer keeps for its backward pass: some copies of its latents, and its N x K tables."""
    base = config.base
    return _FLOAT * vectors * len(config.codebook_ids) * (8 * base.dim + base.assignment_tables * base.num_codes)


def _image_bytes(images: RunImages) -> int:
    """Estimate the bytes of the images that training keeps.

    They are decoded, with their shorter sides at the tokenizer's size; of a stream they are those of two windows of
    shards, as long as the one looked at.
    """
    config, sample = images.config, images.sample
    if images.indexed is None:
        return 2 * config.data.window * int(sample.sizes.sum())
    sampled = sample.subsample(_SAMPLED)
    values = []
    for index in range(len(sampled)):
        with suppress(ImageError, SourceError):
            sides = image_size(sampled.read(index), sampled.reading)
            values.append(3 * config.tokenizer.size**2 * max(sides) / min(sides))
    if not values:
        raise SourceError(f"no training image of {len(sampled)} that were opened can be read; check the files")
    all_images = len(sample) * sum(values) / len(values)
    return int(min(all_images, config.data.cache_gb * 2**30))
