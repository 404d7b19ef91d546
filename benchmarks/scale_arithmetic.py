"""Arithmetic, not measured: what the reductions of a step cost on 8 and on 64 GPUs, by preset.

Each step sums over the ranks the gradients of the tokenizer, those of the discriminator, and for a codebook that learns
by moving averages the counts and sums of its codes, K (D + 1) numbers, all in float32. A step's other joint values,
such as metrics and verdicts, are below a kilobyte; a loss on the entropy of a batch adds a number a code, which none of
these presets has. The table leaves them out, and the latency of all messages.

    seconds of a reduction   2 (R - 1) / R * bytes / bandwidth, of a ring of R ranks
    bandwidth                NVLink: 450 GB/s a GPU and direction. Between nodes of 8 GPUs rings of all NICs together, 8
                             times 50 GB/s (InfiniBand, 400 Gb/s a GPU), or 12.5 GB/s a node (Ethernet, 100 Gb/s)
    seconds of computing     FLOPs / (peak * utilisation), peak 989 TFLOP/s (H100, bf16 dense), utilisation .25
    FLOPs                    3 forward passes of encoder and decoder; 8 of the discriminator: two batches to learn from,
                             one forward and one backward for the tokenizer; 4 of the network of a perceptual loss
    late                     computing / (computing + reductions): nothing overlaps
    overlapped               the same, with the tokenizer's gradients sent during the 2/3 of its passes that go backward

Each GPU has the same batch on any number of GPUs, so the joint batch grows. All networks are counted on fake tensors.

    python benchmarks/scale_arithmetic.py
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from imtok.config import TrainConfig, load_train_config, preset
from imtok.losses import loss_terms
from imtok.quantizer_config import VQConfig
from imtok.tokenizer import build_networks, build_quantizer
from imtok.training.adversarial import build_discriminator

PRESETS = ["rotation-vqgan-f16", "vqgan-f16-16384", "llamagen-vq-f16", "fsq-f16", "cpu-fsq-f8", "cpu-gan-f4"]
FLOAT = 4  # bytes
PEAK, UTILISATION = 989e12, 0.25
LINKS = {  # ranks, and bytes a second of the slowest part of a ring
    "8 GPUs, NVLink": (8, 450e9),
    "64 GPUs, InfiniBand": (64, min(450e9, 8 * 50e9)),
    "64 GPUs, Ethernet": (64, 12.5e9),
}
OF_TOKENIZER, OF_DISCRIMINATOR, OF_PERCEPTUAL = 3, 8, 4  # forward passes' FLOPs of a step
BACKWARD = 2 / 3  # of the tokenizer's passes


@dataclass(frozen=True)
class Step:
    """Bytes that a step reduces, and FLOPs of one image."""

    tokenizer: int  # bytes of gradients
    discriminator: int
    codebook: int  # bytes of counts and sums
    tokenizer_flops: float
    other_flops: float

    @property
    def reduced(self) -> int:
        """Bytes that a step reduces."""
        return self.tokenizer + self.discriminator + self.codebook

    def efficiency(self, batch: int, ranks: int, bandwidth: float) -> tuple[float, float, float, float]:
        """Return the seconds of computing and of reductions, and the efficiencies: late, and overlapped."""
        backward = BACKWARD * batch * self.tokenizer_flops / (PEAK * UTILISATION)
        computing = batch * (self.tokenizer_flops + self.other_flops) / (PEAK * UTILISATION)
        early, late = (seconds(count, ranks, bandwidth) for count in (self.tokenizer, self.reduced - self.tokenizer))
        exposed = late + max(0.0, early - backward)
        return computing, early + late, computing / (computing + early + late), computing / (computing + exposed)


def seconds(count: float, ranks: int, bandwidth: float) -> float:
    """Return the seconds in which a ring of `ranks` reduces `count` bytes."""
    return 2 * (ranks - 1) / ranks * count / bandwidth


def step_of(config: TrainConfig) -> Step:
    """Count what a step of this configuration reduces and computes."""
    with torch.random.fork_rng(devices=[]):
        quantizer = build_quantizer(config.tokenizer.quantizer)
    crop, adversarial = config.data.crop, config.adversarial
    with FakeTensorMode():
        encoder, decoder = build_networks(config.tokenizer, quantizer)
        discriminator = build_discriminator(adversarial.discriminator, crop).eval() if adversarial.enabled else None
        perceptual = [network for term in loss_terms(config.loss) if (network := term.outline()) is not None]
        side = crop // config.tokenizer.network.downsample
        images = torch.empty(1, 3, crop, crop)
        tokenizer = flops(encoder, images) + flops(decoder, torch.empty(1, quantizer.code_dim, side, side))
        others = OF_DISCRIMINATOR * flops(discriminator, images) if discriminator else 0.0
        others += sum(OF_PERCEPTUAL * flops(network, images) for network in perceptual)
    learning = parameters(encoder) + parameters(decoder) + parameters(quantizer)
    return Step(
        FLOAT * learning,
        FLOAT * parameters(discriminator) if discriminator else 0,
        codebook_bytes(config),
        OF_TOKENIZER * tokenizer,
        others,
    )


def codebook_bytes(config: TrainConfig) -> int:
    """Count the bytes of the statistics of all codebooks that learn by moving averages."""
    base = config.tokenizer.quantizer.base
    if not isinstance(base, VQConfig):
        return 0
    codebooks = len(config.tokenizer.quantizer.codebook_ids)
    numbers = {"ema": base.dim + 1, "gradient": 1}.get(base.codebook_update, 0)
    return FLOAT * codebooks * base.num_codes * numbers


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def flops(network: nn.Module, argument: torch.Tensor) -> float:
    """Count the floating-point operations of a forward pass, a multiplication with its addition as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(argument)
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--batch-size", type=int, default=32, help="of each GPU")
    args = parser.parse_args()
    print(
        f"Arithmetic, not measured: batches of {args.batch_size} a GPU, {UTILISATION:.0%} of {PEAK / 1e12:.0f} TFLOP/s"
    )
    print("| preset | MB a step: tokenizer, discriminator, codebook | GPUs | ms computing | ms reducing | late |"
          " overlapped |\n" + "|---" * 7 + "|")  # fmt: skip
    records = []
    for name in args.presets:
        step = step_of(load_train_config(preset(name), name))
        parts = [part / 1e6 for part in (step.tokenizer, step.discriminator, step.codebook)]
        for link, (ranks, bandwidth) in LINKS.items():
            computing, reducing, late, overlapped = step.efficiency(args.batch_size, ranks, bandwidth)
            print(
                f"| {name} | {', '.join(f'{part:.1f}' for part in parts)} | {link} | {1e3 * computing:.1f} "
                f"| {1e3 * reducing:.2f} | {late:.1%} | {overlapped:.1%} |"
            )
            records.append({"preset": name, "link": link, "megabytes": parts, "late": late, "overlapped": overlapped})
    print(json.dumps({"benchmark": "scale_arithmetic", "measured": False, "rows": records, "settings": vars(args)}))


if __name__ == "__main__":
    main()
