"""One optimisation step: a function of (state, batch) that changes the state."""

# Axes: B batch, C channels of the decoder's output, S crop.

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from imtok.devices import autocast
from imtok.errors import LatentsError
from imtok.modes import evaluating
from imtok.quantizers import Quantized, forget_moved_codes
from imtok.quantizers.refusal import refusing_together
from imtok.tokenizer import to_float
from imtok.training.adversarial import Adversary
from imtok.training.metric_accumulator import joint_metrics
from imtok.training.schedule import learning_rate
from imtok.training.state import TrainState

Metrics = dict[str, Tensor | float]


def train_step(state: TrainState, batch: Tensor) -> None:
    """Take one optimisation step on this rank's rows (B, 3, S, S) uint8 of a joint batch.

    Every rank computes means over its own rows, weighed by its share of the joint batch; sums over the ranks, one of
    all metrics and one of all gradients, make them joint before the clip. `imtok.distributed` says more.

    A step whose losses or gradients are not finite changes no weight, codebook or EMA; it is counted, and
    `state.skipped` says when that persists. Nothing in here waits for a GPU, save quantizers that refuse latents which
    are not finite. With several critic steps for each of the tokenizer, some batches are the discriminator's alone.
    """
    if state.adversary and state.adversary.steps_alone(state.progress):
        _step_alone(state, state.adversary, batch)
        return
    config, optimizer, adversary = state.config, state.optimizer, state.adversary
    images = to_float(batch.to(state.device, non_blocking=True))
    rate = learning_rate(state.middle, config.images, config.optimizer.learning_rate, config.optimizer.warmup)
    state.tokenizer.quantizer.anneal(min(1.0, state.seen / config.images))
    metrics: Metrics = {}
    finite = torch.ones((), dtype=torch.bool, device=state.device)
    before = [tensor.clone() for tensor in _changed_by_forward(state)]
    try:
        for number, part in enumerate(torch.split(images, len(images) // config.accumulate), 1):
            if number == config.accumulate:
                optimizer.sums.arm()
            for name, value in accumulate_gradients(state, part).items():
                metrics[name] = metrics.get(name, 0.0) + value / config.accumulate
    except LatentsError:  # all ranks raise it together
        finite = ~finite
    learns = adversary is not None and adversary.learns(state.progress)
    optimizer.sums.begin()
    if adversary and learns:
        adversary.optimizer.sums.begin()
    metrics = joint_metrics(metrics, state.joint.part_share, state.device)
    optimizer.sums.finish()
    state.ema.restart_codes(state.tokenizer, forget_moved_codes(state.tokenizer, optimizer.adamw))
    metrics["gradient_norm"] = norm = optimizer.clip(config.optimizer.clip_norm)
    finite = finite & torch.isfinite(norm + metrics.get("loss", 0.0))
    if adversary and learns:
        adversary.optimizer.sums.finish()
        metrics["adversarial/gradient_norm"] = norm = adversary.optimizer.clip(config.optimizer.clip_norm)
        finite = finite & torch.isfinite(norm)
        adversary.step(state.middle, config.images, finite)
    optimizer.step(rate, finite)
    for tensor, old in zip(_changed_by_forward(state), before, strict=True):
        tensor.copy_(torch.where(finite, tensor, old))
    state.steps += 1
    state.seen += state.joint.size
    state.ema.update(state.tokenizer, state.steps, finite)
    state.skipped.count(finite)
    state.metrics.add({**metrics, "learning_rate": rate}, finite)


def _step_alone(state: TrainState, adversary: Adversary, batch: Tensor) -> None:
    """Take one step of the discriminator on a batch (B, 3, S, S) uint8; the tokenizer and its EMA stay as they are."""
    config = state.config
    metrics: Metrics = {}
    finite = torch.ones((), dtype=torch.bool, device=state.device)
    before = [tensor.clone() for tensor in adversary.changed_by_forward()]
    images = to_float(batch.to(state.device, non_blocking=True))
    try:
        for part in torch.split(images, len(images) // config.accumulate):
            learned = adversary.accumulate_gradients(part, _reconstruct(state, part), state.joint.share)
            for name, value in learned.items():
                metrics[f"adversarial/{name}"] = metrics.get(f"adversarial/{name}", 0.0) + value / config.accumulate
    except LatentsError:
        finite = ~finite
    adversary.optimizer.sums.begin()
    metrics = joint_metrics(metrics, state.joint.part_share, state.device)
    adversary.optimizer.sums.finish()
    metrics["adversarial/gradient_norm"] = norm = adversary.optimizer.clip(config.optimizer.clip_norm)
    finite = finite & torch.isfinite(norm)
    adversary.step(state.middle, config.images, finite)
    for tensor, old in zip(adversary.changed_by_forward(), before, strict=True):
        tensor.copy_(torch.where(finite, tensor, old))
    state.seen += state.joint.size
    state.skipped.count(finite)
    state.metrics.add(metrics, finite)


@torch.no_grad()
def _reconstruct(state: TrainState, images: Tensor) -> Tensor:
    """Return reconstructions (B, 3, S, S) float32 from which nothing learns, the codebook by its averages included."""
    with evaluating(state.tokenizer.quantizer):
        return _forward(state, images)[0].float()


def accumulate_gradients(state: TrainState, images: Tensor) -> Metrics:
    """Add the gradients of a part of the batch, (B, 3, S, S) in [-1, 1], and return its metrics by name.

    The losses are differentiated to the decoder's output first, each through its own network, and the sum goes
    through the decoder and the encoder once.
    """
    share, adversary = state.joint.share, state.adversary
    raw, quantized = _forward(state, images)
    output = raw.detach().float().requires_grad_()
    losses, reconstruction = _reconstruction_loss(state, output, images)
    (gradient,) = torch.autograd.grad(reconstruction, output)
    losses |= quantized.losses
    metrics: Metrics = {f"loss/{name}": value.detach() for name, value in losses.items()}
    metrics["loss"] = (reconstruction + quantized.loss).detach()
    shared = None
    if adversary and adversary.weight(state.progress) > 0:
        last_layer = state.tokenizer.decoder.last_layer
        generator = adversary.generator_loss(images, output, raw, gradient, last_layer, state.progress, share)
        shared = generator.shared
        gradient = gradient + generator.gradient
        metrics |= {f"adversarial/{name}": value for name, value in generator.metrics.items()}
    roots, gradients = [raw], [(share * gradient).to(raw.dtype)]
    if quantized.loss.requires_grad:
        roots.append(quantized.loss)
        gradients.append(torch.full_like(quantized.loss, share))
    torch.autograd.backward(roots, gradients)
    if adversary and adversary.learns(state.progress):
        learned = adversary.accumulate_gradients(images, output.detach(), share, shared)
        metrics |= {f"adversarial/{name}": value for name, value in learned.items()}
    return metrics


def _forward(state: TrainState, images: Tensor) -> tuple[Tensor, Quantized]:
    """Return the decoder's output (B, C, S, S), of the autocast's type, and what the quantizer returned."""
    if state.config.freeze_codes:  # codes as `imtok encode` makes them: in float32
        with torch.no_grad(), refusing_together(state.device):
            quantized = state.tokenizer.quantizer(state.tokenizer.encoder(images))
        with autocast(state.device, state.precision):
            output = state.tokenizer.decoder(quantized.latents)
    else:
        # A quantizer that learns sees to it itself.
        together = nullcontext() if state.tokenizer.quantizer.training else refusing_together(state.device)
        with together, autocast(state.device, state.precision):
            output, quantized = state.tokenizer(images)
    state.metrics.count(quantized.codes)
    return output, quantized


def _reconstruction_loss(state: TrainState, output: Tensor, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the active terms by name, unweighted, and their weighted sum."""
    losses, weighted = {}, []
    for term in state.losses:
        if term.active(state.progress):
            with autocast(state.device, state.precision if term.autocast else "fp32"):
                losses[term.name] = term(output, images)
            if term.weight > 0:
                weighted.append(term.weight * losses[term.name])
    return losses, torch.stack(weighted).sum()


def _changed_by_forward(state: TrainState) -> list[Tensor]:
    """Return what passes change without an optimizer: codebooks, running statistics, moving averages."""
    tensors = list(state.tokenizer.quantizer.state_dict().values())
    return tensors + state.adversary.changed_by_forward() if state.adversary else tensors
