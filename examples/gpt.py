"""A small class-conditional GPT on image tokens that `imtok export --to nanogpt --label before` wrote.

    imtok train cifar10/train --val cifar10/test --preset fsq-f4 -o runs/fsq
    imtok encode cifar10/train -t runs/fsq -o tokens
    imtok export tokens --to nanogpt --label before --val-fraction 0.05 -o gpt-data
    python examples/gpt.py gpt-data tokens/tokenizer -o gpt

An image is its class id and then its codes in rows. The model is a transformer of today's plain kind: RMS norm before
each part, learned positions, causal attention. One in ten class ids is replaced by an id for "no class", so that
samples can be drawn with classifier-free guidance (Ho and Salimans, 2022): logits move away from those without class.

The output folder has `loss.jsonl`, `loss.png`, a token folder with the samples, and `samples.png`, one row a class,
which is what `imtok decode` makes of them.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from imtok.tokens import TokenBatchSampler, write_tokens

mpl.use("agg")

VALIDATED = 1000  # images


class Block(nn.Module):
    """Attention and a perceptron, each added to what comes in: (B, T, D) to (B, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, T, d)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.out(attended)
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Ids (B, T) to logits (B, T, V)."""

    def __init__(self, vocabulary: int, length: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.ids, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.RMSNorm(width)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                last = name.endswith(("out.weight", "mlp.2.weight"))  # of a branch: their sum grows with the depth
                nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * layers) if last else 1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.ids(ids) + self.positions.weight[: ids.shape[1]]
        return self.norm(self.blocks(x)) @ self.ids.weight.T


def images_of(folder: Path, split: str, facts: dict) -> np.ndarray:
    """Map the ids of a split: (N, 1 + T) uint16, class ids first."""
    return np.memmap(folder / f"{split}.bin", "<u2", "r").reshape(-1, facts["ids_per_image"])


def loss_of(model: GPT, ids: Tensor, no_class: int, dropped: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of the codes, nats a code, given the class id (B, 1 + T) that leads them."""
    inputs = ids[:, :-1].clone()
    if dropped is not None:
        inputs[dropped, 0] = no_class
    return F.cross_entropy(model(inputs).flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def validate(model: GPT, images: np.ndarray, no_class: int) -> float:
    model.eval()
    parts = torch.from_numpy(images[:VALIDATED].astype(np.int64)).split(100)
    loss = sum(float(loss_of(model, part, no_class)) * len(part) for part in parts) / min(len(images), VALIDATED)
    model.train()
    return loss


def train(model: GPT, folder: Path, facts: dict, args: argparse.Namespace) -> list[dict[str, float]]:
    """Train for `args.steps` batches; return the losses along the way."""
    images, held_out = (images_of(folder, split, facts) for split in ("train", "val"))
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    warmup = min(100, args.steps // 10)
    log, losses, start = [], [], time.perf_counter()
    for step, rows in enumerate(islice(TokenBatchSampler(images, args.batch_size, seed=args.seed), args.steps + 1)):
        if step % 100 == 0 or step == args.steps:
            line = {"step": step, "seconds": round(time.perf_counter() - start, 1)}
            line |= {"train": float(np.mean(losses))} if losses else {}
            log.append(line | {"val": validate(model, held_out, facts["no_class"])})
            print(json.dumps(log[-1]), flush=True)
            losses = []
        if step == args.steps:
            break
        share = min(step / warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * share
        ids = torch.from_numpy(images[rows].astype(np.int64))
        loss = loss_of(model, ids, facts["no_class"], torch.rand(len(ids)) < 0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return log


@torch.no_grad()
def sample(model: GPT, classes: Tensor, facts: dict, args: argparse.Namespace) -> Tensor:
    """Draw images of some class ids (n,): codes (n, T) int64 in [0, K)."""
    model.eval()
    ids = torch.stack([classes, torch.full_like(classes, facts["no_class"])]).flatten()[:, None]  # (2n, 1)
    for _ in range(facts["ids_per_image"] - 1):
        given, free = model(ids)[:, -1, : facts["codes"]].chunk(2)
        logits = (free + args.guidance * (given - free)) / args.temperature
        logits[logits < logits.topk(args.top_k).values[:, -1:]] = -torch.inf
        drawn = torch.multinomial(logits.softmax(dim=1), 1)
        ids = torch.cat([ids, drawn.repeat(2, 1)], dim=1)
    return ids[: len(classes), 1:]


def show(log: list[dict[str, float]], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for name, label in (("train", "training"), ("val", "held out")):
        points = [(line["step"], line[name] / math.log(2)) for line in log if name in line]
        axes.plot(*zip(*points, strict=True), label=label)
    axes.set(xlabel="step", ylabel="bits a code")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


def decode(codes: np.ndarray, labels: list[int], tokenizer: Path, output: Path, classes: int) -> None:
    """Write samples as a token folder, decode it by `imtok decode`, and lay the images out, one row a class."""
    keys = [f"{label:03d}-{number:03d}.png" for number, label in enumerate(labels)]
    write_tokens(output / "tokens", keys, codes, tokenizer=tokenizer, labels=labels)
    images = output / "images"
    subprocess.run([sys.executable, "-m", "imtok", "decode", output / "tokens", "-o", images], check=True)
    tiles = np.stack([np.asarray(Image.open(path)) for path in sorted(images.rglob("*.png"))])  # (n, S, S, 3)
    rows = tiles.reshape(classes, -1, *tiles.shape[1:]).transpose(0, 2, 1, 3, 4)
    sheet = Image.fromarray(rows.reshape(classes * tiles.shape[1], -1, 3))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(output / "samples.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of imtok export")
    parser.add_argument("tokenizer", type=Path, help="the tokenizer that made the tokens, to decode the samples")
    parser.add_argument("-o", "--output", type=Path, required=True)
    integers = {"steps": 1200, "batch-size": 64, "layers": 4, "width": 128, "heads": 4, "samples": 10, "seed": 0}
    numbers = {"learning-rate": 2e-3, "guidance": 2.0, "temperature": 1.0, "top-k": 200}
    for name, default in (integers | numbers).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    args = parser.parse_args()
    record = args.data / "imtok-export.json"
    facts = json.loads(record.read_text()) if record.exists() else {}
    if facts.get("to") != "nanogpt" or not facts.get("label_ids"):
        parser.error(f"{record}: no record of an export with --to nanogpt --label before; see the commands above")
    torch.manual_seed(args.seed)
    first, end = facts["label_ids"]  # of the classes; codes have the ids below
    classes = end - first
    facts |= {"codes": facts["code_ids"][1], "no_class": facts["num_ids"]}
    model = GPT(facts["num_ids"] + 1, facts["ids_per_image"] - 1, args.layers, args.width, args.heads)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters, {classes} classes")
    args.output.mkdir(parents=True)
    log = train(model, args.data, facts, args)
    (args.output / "loss.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    show(log, args.output / "loss.png")
    labels = [label for label in range(classes) for _ in range(args.samples)]
    codes = sample(model, first + torch.tensor(labels), facts, args)
    side = math.isqrt(codes.shape[1])
    decode(codes.view(-1, side, side).numpy(), labels, args.tokenizer, args.output, classes)


if __name__ == "__main__":
    main()
