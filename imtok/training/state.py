"""All that must survive a restart, and the one optimisation step that changes it."""

# Axes: B batch, K codes, Q codebooks.

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from imtok.config import TrainConfig
from imtok.devices import autocast
from imtok.errors import TrainingError
from imtok.losses import reconstruction_losses
from imtok.quantizers import VectorQuantizer, forget_moved_codes
from imtok.tokenizer import Tokenizer, to_float
from imtok.training.schedule import average_decay, learning_rate


@dataclass
class Window:
    """Sums since the last line of the log."""

    counts: Tensor  # (Q, K) int64 occurrences of each code in each codebook
    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, float], codes: Tensor) -> None:
        """Take in the scalars and the codes (B, h, w), or (B, h, w, Q), of one step."""
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        for row, column in zip(self.counts, codes.cpu().reshape(-1, len(self.counts)).T, strict=True):
            row += torch.bincount(column, minlength=len(row))

    def means(self) -> dict[str, float]:
        """The mean of each scalar over the steps."""
        return {name: total / self.steps for name, total in self.sums.items()}

    def clear(self) -> None:
        """Begin the next line of the log."""
        self.steps, self.sums = 0, {}
        self.counts.zero_()


class TrainState:
    """The networks, the moving average of their weights, the optimizer, and how far they have come."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.tokenizer = Tokenizer(config.tokenizer).to(device).train()
        self.average = copy.deepcopy(self.tokenizer).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.tokenizer.parameters(),
            lr=config.optimizer.learning_rate,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
            fused=True,
        )
        self.seen = 0  # training images
        self.steps = 0
        self.window = Window(torch.zeros(self.tokenizer.num_codebooks, self.tokenizer.num_codes, dtype=torch.int64))

    def step(self, batch: Tensor) -> None:
        """One optimisation step on a batch (B, 3, S, S) uint8.

        Raises TrainingError when the loss or the gradient is not finite; the weights are then still sound.
        """
        images = to_float(batch.to(self.device, non_blocking=True))
        rate = self._set_learning_rate()
        self.tokenizer.quantizer.anneal(min(1.0, self.seen / self.config.images))
        try:
            with autocast(self.device, _precision(self.config)):
                reconstructions, quantized = self.tokenizer(images)
        except ValueError as error:  # the quantizer's word on NaN latents
            raise TrainingError(self._advice(str(error))) from error
        losses = reconstruction_losses(reconstructions, images)
        weights = {"l1": self.config.loss.l1, "l2": self.config.loss.l2}
        reconstruction = sum((weights[name] * value for name, value in losses.items()), images.new_zeros(()))
        loss = reconstruction + quantized.loss
        loss.backward()
        self._settle_moved_codes()
        norm = nn.utils.clip_grad_norm_(self.tokenizer.parameters(), self.config.optimizer.clip_norm)
        if not torch.isfinite(norm + loss.detach()):
            raise TrainingError(self._advice("the loss or its gradient is not finite"))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        self.seen += len(batch)
        self._update_average()
        named = {"loss": loss, **{f"loss/{name}": value for name, value in (losses | quantized.losses).items()}}
        values = {name: value.item() for name, value in named.items()}
        self.window.add({**values, "gradient_norm": norm.item(), "learning_rate": rate}, quantized.codes)

    def to_bytes(self, extra: dict[str, Any]) -> bytes:
        """Everything as one safetensors file; `extra` is JSON that comes back from `restore`."""
        tensors = {f"tokenizer.{name}": value for name, value in self.tokenizer.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors["window.counts"] = self.window.counts
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        facts = {
            "seen": self.seen,
            "steps": self.steps,
            "window_steps": self.window.steps,
            "window_sums": self.window.sums,
            **extra,
        }
        cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        return safetensors.torch.save(cpu, {"imtok": json.dumps(facts, sort_keys=True)})

    def restore(self, data: bytes) -> dict[str, Any]:
        """Go back to what `to_bytes` wrote; its extra facts. Raises SafetensorError or ValueError on damaged data."""
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts: dict[str, Any] = json.loads(header["__metadata__"]["imtok"])
        self.tokenizer.load_state_dict(_under(tensors, "tokenizer."))
        self.average.load_state_dict(_under(tensors, "average."))
        optimizer = self.optimizer.state_dict()
        for name, value in _under(tensors, "optimizer.").items():
            index, field_name = name.split(".", 1)
            optimizer["state"].setdefault(int(index), {})[field_name] = value
        self.optimizer.load_state_dict(optimizer)
        self.seen, self.steps = facts.pop("seen"), facts.pop("steps")
        counts = tensors["window.counts"].view_as(self.window.counts)  # (K,) in older checkpoints
        self.window = Window(counts, facts.pop("window_steps"), facts.pop("window_sums"))
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        return facts

    def _set_learning_rate(self) -> float:
        settings = self.config.optimizer
        # At the middle of the step's images, so that neither the first step nor the last has a rate of 0.
        seen = self.seen + self.config.batch_size / 2
        rate = learning_rate(int(seen), self.config.images, settings.learning_rate, settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @torch.no_grad()
    def _settle_moved_codes(self) -> None:
        """Codes that revival has moved start anew for the optimizer and in the average, which would lag behind."""
        for name, codes in forget_moved_codes(self.tokenizer, self.optimizer).items():
            live, mean = self.tokenizer.get_submodule(name), self.average.get_submodule(name)
            assert isinstance(live, VectorQuantizer)
            assert isinstance(mean, VectorQuantizer)
            mean.codebook[codes] = live.codebook[codes]

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = average_decay(self.steps, self.config.ema_decay)
        live, mean = tuple(self.tokenizer.parameters()), tuple(self.average.parameters())
        torch._foreach_lerp_(mean, live, 1 - decay)
        # Buffers are copied: an EMA codebook is an average already, and one averaged again lags behind the encoder
        # (0.18 dB on CIFAR-10 with 1024 codes).
        for target, buffer in zip(self.average.buffers(), self.tokenizer.buffers(), strict=True):
            target.copy_(buffer)

    def _advice(self, finding: str) -> str:
        return (
            f"training image {self.seen}: {finding}; lower optimizer.learning_rate "
            f"(now {self.config.optimizer.learning_rate:g}) or use --set precision=fp32, then start a new run"
        )


def _precision(config: TrainConfig) -> Any:
    if config.precision == "auto":
        raise ValueError("precision is still auto; resolve the configuration before training")
    return config.precision


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
