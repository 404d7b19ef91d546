"""All that must survive a restart, and the one optimisation step that changes it."""

# Axes: B batch, S crop.

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imtok.config import TrainConfig
from imtok.devices import Precision, autocast
from imtok.errors import ConfigError, LatentsError
from imtok.losses import PerceptualLoss, reconstruction_losses
from imtok.quantizers import Quantized, forget_moved_codes
from imtok.tokenizer import Tokenizer, load, to_float
from imtok.training.adversarial import Adversary
from imtok.training.checkpoint import pack, under, unpack
from imtok.training.metric_accumulator import Window
from imtok.training.schedule import average_decay, learning_rate

_PATIENCE = 20  # steps in a row that may be skipped


class TrainState:
    """The networks, the moving average of their weights, the optimizers, and how far they have come."""

    def __init__(self, config: TrainConfig, device: torch.device, *, resumed: bool = False) -> None:
        """`resumed`: a checkpoint follows, so that nothing is read from where the run once started."""
        self.config, self.device = config, device
        self.precision = _precision(config)
        self.tokenizer = (Tokenizer(config.tokenizer) if resumed else beginning(config)).to(device).train()
        self.average = copy.deepcopy(self.tokenizer).eval().requires_grad_(False)
        if config.freeze_codes:
            for part in (self.tokenizer.encoder, self.tokenizer.quantizer):
                part.eval().requires_grad_(False)
        self.learning = [parameter for parameter in self.tokenizer.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.learning,
            lr=config.optimizer.learning_rate,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
            fused=True,
        )
        self.perceptual: PerceptualLoss | None = None
        if config.loss.perceptual > 0:
            named = config.loss.perceptual_weights
            self.perceptual = PerceptualLoss(Path(named) if named else None).to(device)
        self.adversary: Adversary | None = None
        if config.adversarial.wanted:
            self.adversary = Adversary(config.adversarial, config.data.crop, device, self.precision)
        self._arrange()
        self.seen = 0  # training images
        self.steps = 0
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)  # steps, in all
        self.skipped_in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        self.window = Window(self.tokenizer.num_codebooks, self.tokenizer.num_codes, device)

    def step(self, batch: Tensor) -> None:
        """One optimisation step on a batch (B, 3, S, S) uint8.

        A step whose losses or gradients are not finite changes no weight, codebook or average; it is counted, and
        `trouble` tells when that persists. Nothing in here waits for a GPU, save quantizers that refuse latents which
        are not finite.
        """
        images = to_float(batch.to(self.device, non_blocking=True))
        rate = self._set_learning_rate()
        self.tokenizer.quantizer.anneal(min(1.0, self.seen / self.config.images))
        figures: dict[str, Tensor | float] = {}
        sound = torch.ones((), dtype=torch.bool, device=self.device)
        before = [tensor.clone() for tensor in self._changed_by_forward()]
        try:
            for part in torch.split(images, len(images) // self.config.accumulate):
                for name, value in self._learn_from(part).items():
                    figures[name] = figures.get(name, 0.0) + value / self.config.accumulate
        except LatentsError:
            sound = ~sound
        self._settle_moved_codes()
        norm = nn.utils.clip_grad_norm_(self.learning, self.config.optimizer.clip_norm)
        figures["gradient_norm"] = norm
        sound = sound & torch.isfinite(norm + figures.get("loss", 0.0))
        if self._discriminator_learns():
            assert self.adversary is not None
            figures["adversarial/gradient_norm"] = self.adversary.gradient_norm(self.config.optimizer.clip_norm)
            sound = sound & torch.isfinite(torch.as_tensor(figures["adversarial/gradient_norm"]))
            self.adversary.step(self._middle(), self.config.images, (~sound).float())
        self.optimizer.found_inf = (~sound).float()  # type: ignore[attr-defined]  # the fused kernel reads it
        self.optimizer.step()
        self.optimizer.zero_grad()
        for tensor, old in zip(self._changed_by_forward(), before, strict=True):
            tensor.copy_(torch.where(sound, tensor, old))
        self.steps += 1
        self.seen += len(batch)
        self._update_average(sound)
        self.skipped += ~sound
        self.skipped_in_a_row = torch.where(sound, 0, self.skipped_in_a_row + 1)
        self.window.add({**figures, "learning_rate": rate}, sound)

    def trouble(self) -> str | None:
        """A sentence of advice where step after step had to be skipped, else None; waits for a GPU."""
        in_a_row = int(self.skipped_in_a_row)
        if in_a_row < _PATIENCE:
            return None
        return self.advice(f"the loss or its gradient was not finite in the last {in_a_row} steps, which were skipped")

    def advice(self, finding: str) -> str:
        """What was found, and the settings that help against it."""
        rate = self.config.optimizer.learning_rate
        return f"{finding}; lower optimizer.learning_rate (now {rate:g}){self._remedies()} in a new run"

    def to_bytes(self, extra: dict[str, Any]) -> bytes:
        """Everything as one file; `extra` is JSON that comes back from `restore`."""
        tensors = _prefixed("tokenizer.", self.tokenizer.state_dict())
        tensors |= _prefixed("average.", self.average.state_dict())
        tensors |= _prefixed("optimizer.", _moments(self.optimizer))
        tensors |= _prefixed("window.", self.window.tensors())
        tensors |= {"skipped.all": self.skipped, "skipped.in_a_row": self.skipped_in_a_row}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        facts = {"seen": self.seen, "steps": self.steps, **extra}
        if self.adversary:
            tensors |= _prefixed("discriminator.", self.adversary.discriminator.state_dict())
            tensors |= _prefixed("lecam.", self.adversary.lecam.state_dict())
            tensors |= _prefixed("discriminator_optimizer.", _moments(self.adversary.optimizer))
            facts["discriminator_steps"] = self.adversary.steps
        return pack(tensors, facts)

    def restore(self, data: bytes) -> dict[str, Any]:
        """Go back to what `to_bytes` wrote; its extra facts.

        Raises SafetensorError, ValueError or KeyError on damaged data, which has changed nothing then.
        """
        tensors, facts = unpack(data)
        self.tokenizer.load_state_dict(under(tensors, "tokenizer."))
        self.average.load_state_dict(under(tensors, "average."))
        _remember(self.optimizer, under(tensors, "optimizer."))
        if self.adversary:
            self.adversary.discriminator.load_state_dict(under(tensors, "discriminator."))
            self.adversary.lecam.load_state_dict(under(tensors, "lecam."))
            _remember(self.adversary.optimizer, under(tensors, "discriminator_optimizer."))
            self.adversary.steps = facts.pop("discriminator_steps")
        self.seen, self.steps = facts.pop("seen"), facts.pop("steps")
        self.skipped.copy_(tensors["skipped.all"])
        self.skipped_in_a_row.copy_(tensors["skipped.in_a_row"])
        self.window.restore(under(tensors, "window."))
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        return facts

    def _arrange(self) -> None:
        """Memory order and compilation, which change neither the weights nor their names."""
        # The last layers stay out, as an adaptive weight goes back through them twice, which a compiled graph refuses.
        networks: list[nn.Module] = [self.tokenizer.encoder.trunk, self.tokenizer.decoder.trunk]
        if self.adversary:
            networks.append(self.adversary.discriminator)
        for network in networks:
            if self.config.channels_last is True:
                network.to(memory_format=torch.channels_last)
            if self.config.compile is True:
                network.compile()

    def _learn_from(self, images: Tensor) -> dict[str, Tensor | float]:
        """Add to all gradients what a part of the batch teaches; the figures of the step by name.

        The losses are differentiated to the reconstructions first, each through its own network, and the sum goes
        through the decoder and the encoder once.
        """
        share = 1 / self.config.accumulate
        reconstructions, quantized = self._forward(images)
        output = reconstructions.detach().float().requires_grad_()
        losses = reconstruction_losses(output, images)
        if self.perceptual is not None:
            with autocast(self.device, self.precision):
                losses["perceptual"] = self.perceptual(output, images)
        reconstruction = self._weighted(losses)
        (gradient,) = torch.autograd.grad(reconstruction, output)
        losses |= quantized.losses
        figures: dict[str, Tensor | float] = {f"loss/{name}": value.detach() for name, value in losses.items()}
        figures["loss"] = (reconstruction + quantized.loss).detach()
        if self.adversary and self.adversary.weight(self._progress()) > 0:
            last_layer = self.tokenizer.decoder.conv_out.weight
            judgement = self.adversary.judge(output, reconstructions, gradient, last_layer, self._progress())
            gradient = gradient + judgement.gradient
            figures |= {f"adversarial/{name}": value for name, value in judgement.figures.items()}
        roots, gradients = [reconstructions], [(share * gradient).to(reconstructions.dtype)]
        if quantized.loss.requires_grad:
            roots.append(quantized.loss)
            gradients.append(torch.full_like(quantized.loss, share))
        torch.autograd.backward(roots, gradients)
        if self._discriminator_learns():
            assert self.adversary is not None
            learned = self.adversary.learn(images, output.detach(), share)
            figures |= {f"adversarial/{name}": value for name, value in learned.items()}
        return figures

    def _forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstructions (B, 3, S, S), of the autocast's type, and what the quantizer returned."""
        if self.config.freeze_codes:  # codes as `imtok encode` makes them: in float32
            with torch.no_grad():
                quantized = self.tokenizer.quantizer(self.tokenizer.encoder(images))
            with autocast(self.device, self.precision):
                reconstructions = self.tokenizer.decoder(quantized.latents)
        else:
            with autocast(self.device, self.precision):
                reconstructions, quantized = self.tokenizer(images)
        self.window.count(quantized.codes)
        return reconstructions, quantized

    def _changed_by_forward(self) -> list[Tensor]:
        """What passes change without an optimizer: codebooks, running statistics, moving averages.

        The flag of an ActNorm that has started is left out, as its start is not undone.
        """
        tensors = list(self.tokenizer.quantizer.state_dict().values())
        if self.adversary:
            running = [*self.adversary.discriminator.buffers(), *self.adversary.lecam.buffers()]
            tensors += [tensor for tensor in running if tensor.dtype != torch.bool]
        return tensors

    def _weighted(self, losses: dict[str, Tensor]) -> Tensor:
        weights = self.config.loss.model_dump(include={"l1", "l2", "perceptual"})
        terms = [weights[name] * value for name, value in losses.items() if weights[name] > 0]
        return torch.stack(terms).sum()

    def _progress(self) -> float:
        """Share of the run that is done at the middle of this step."""
        return min(1.0, self._middle() / self.config.images)

    def _middle(self) -> float:
        """The middle of the step's images, so that neither the first step nor the last has a rate of 0."""
        return self.seen + self.config.batch_size / 2

    def _discriminator_learns(self) -> bool:
        return self.adversary is not None and self.adversary.learns(self._progress())

    def _set_learning_rate(self) -> float:
        settings = self.config.optimizer
        rate = learning_rate(self._middle(), self.config.images, settings.learning_rate, settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @torch.no_grad()
    def _settle_moved_codes(self) -> None:
        """Codes that revival has moved start anew for the optimizer and in the average, which would lag behind."""
        for name, codes in forget_moved_codes(self.tokenizer, self.optimizer).items():
            live, mean = (each.get_parameter(f"{name}.codebook") for each in (self.tokenizer, self.average))
            mean.copy_(torch.where(codes.unsqueeze(1), live, mean))

    @torch.no_grad()
    def _update_average(self, sound: Tensor) -> None:
        weight = (1 - average_decay(self.steps, self.config.ema_decay)) * sound.float()
        live, mean = tuple(self.tokenizer.parameters()), tuple(self.average.parameters())
        learned = [(m, p) for m, p in zip(mean, live, strict=True) if p.requires_grad]
        change = torch._foreach_sub([p for _, p in learned], [m for m, _ in learned])
        torch._foreach_mul_(change, weight)
        torch._foreach_add_([m for m, _ in learned], change)
        # Buffers are copied: an EMA codebook is an average already, and one averaged again lags behind the encoder
        # (0.18 dB on CIFAR-10 with 1024 codes).
        for target, buffer in zip(self.average.buffers(), self.tokenizer.buffers(), strict=True):
            target.copy_(buffer)

    def _remedies(self) -> str:
        """Settings that help against losses that are not finite, those that are not yet made."""
        adversarial = self.config.adversarial
        remedies = {
            "set precision=fp32": self.precision != "fp32",
            f"lower adversarial.weight (now {adversarial.weight:g})": adversarial.wanted,
            f"lower adversarial.adaptive_max (now {adversarial.adaptive_max:g})": adversarial.adaptive,
        }
        return "".join(f" or {remedy}" for remedy, helps in remedies.items() if helps)


def beginning(config: TrainConfig) -> Tokenizer:
    """New weights, or those of the tokenizer that the run starts from."""
    if not config.start_from:
        return Tokenizer(config.tokenizer)
    start = load(config.start_from)
    found, wanted = start.config, config.tokenizer
    same_codes = found.quantizer.code_identity() == wanted.quantizer.code_identity()
    if found.network != wanted.network or not same_codes:
        other = "quantizer" if found.network == wanted.network else "network"
        raise ConfigError(
            f"{config.start_from}: its {other} is not that of this run ({getattr(found, other)} there, "
            f"{getattr(wanted, other)} here); leave out the preset or the setting that names another"
        )
    tokenizer = Tokenizer(wanted)
    try:
        tokenizer.load_state_dict(start.state_dict())
    except RuntimeError as error:
        theirs, ours = found.quantizer.model_dump(), wanted.quantizer.model_dump()
        others = [name for name in ours if theirs.get(name) != ours[name]]
        raise ConfigError(
            f"{config.start_from}: its codebook was learned in another way; leave {', '.join(others)} of the quantizer "
            "as it was there"
        ) from error
    return tokenizer


def _precision(config: TrainConfig) -> Precision:
    if config.precision == "auto":
        raise ValueError("precision is still auto; resolve the configuration before training")
    return config.precision


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers, by the number of the parameter and the name of the moment."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def _remember(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    """Give back what `_moments` took, in the memory order of the parameters: the fused kernel goes by storage."""
    state = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in moments.items():
        index, field_name = name.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter).copy_(value)
        state["state"].setdefault(int(index), {})[field_name] = value
    optimizer.load_state_dict(state)


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}
