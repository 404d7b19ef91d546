"""Quantization kernels against plain torch, vector-quantize-pytorch and FAISS, in turn.

What limits each, on a CPU:

    nearest, long vectors    the matrix product; a bare `z @ e.T` also has to write N x K scores, which imtok does not
    nearest, short vectors   arithmetic in registers; the bare product spends its time writing scores
    search                   the same against the exact search of FAISS, IndexFlatL2, its index built beforehand
    statistics               reading and writing N x D and K x D numbers once
    rotation                 memory: three tensors in, one out, and the copy of the forward pass
    FSQ, LFQ, BSQ            memory, and one exponential a value
    a whole VQ step          the search

imtok's results are compared with double precision, or with the definition, before they are timed. Rounds are
interleaved, so that a drift of the machine meets all alike; a ratio is the median of the rounds' own ratios. Copies
allocate what they write, as kernels do. `first call` holds what compiling cost, with an empty cache; `memory` is what a
call holds at its highest, results included. FAISS has a process of its own, with as many threads: the threads of two
libraries in one process disturb each other. Run nothing else meanwhile.

    pip install 'imtok[bench]'
    python benchmarks/kernels.py                                # on a GPU where there is one
    python benchmarks/kernels.py --only search                  # against FAISS, on a CPU
    python benchmarks/kernels.py --dtype bf16 --only nearest-256 nearest-64 nearest-8 vq-step
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from faiss_search import Faiss
from machine import machine
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize, finite_scalar_quantization, lookup_free_quantization
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to as peer_rotate_to

from imtok.cores import usable_cores
from imtok.kernels import codebook_statistics, nearest_codes, rotate_to
from imtok.quantizers import BSQ, FSQ, LFQ, Quantizer, VectorQuantizer

LEVELS = [7, 5, 5, 5, 5]
BASE, OURS = "base", "imtok"


@dataclass(frozen=True)
class Setup:
    """Where, in what precision, and how much."""

    device: torch.device
    dtype: torch.dtype  # of the latents that are searched, and of the bare product
    shrink: int  # counts are divided by it: 1 for figures, more to see that the script runs

    def noise(self, *shape: int, seed: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def count(self, number: int) -> int:
        return max(number // self.shrink, 1)


@dataclass
class Measure:
    """One row of the table: what is timed, by name, `base` and `imtok` among it."""

    name: str
    base: str  # what the base is
    parts: dict[str, Callable[[], Any]]
    check: Callable[[Any], None]  # of what imtok's part returns; raises AssertionError
    must: float
    aim: float
    rounds: int = 0  # at most so many; 0: as many as asked for
    elsewhere: frozenset[str] = frozenset()  # parts of another process, whose memory cannot be read here
    close: Callable[[], None] = lambda: None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    first_call: float = 0.0
    megabytes: dict[str, float] = field(default_factory=dict)  # a call's own at its highest, results included

    def ratio(self, part: str) -> float:
        rounds = zip(self.seconds[part], self.seconds[BASE], strict=True)
        return statistics.median(time / base for time, base in rounds)


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    setup = Setup(torch.device(args.device), {"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype], args.shrink)
    enabled = {name for word in args.only or MEASURES for name in (SEARCH if word == "search" else [word])}
    if setup.device.type != "cpu":
        enabled -= set(SEARCH)
    makers = {name: maker for name, maker in MEASURES.items() if name in enabled}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # so that the first call is truly one
        results = [run(maker(setup), args.rounds, setup.device) for maker in makers.values()]
        memory = largest_search(setup) if not args.only or "memory" in args.only else None
    report(results, memory, setup, args)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="of the latents that are searched")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", choices=[*MEASURES, "search", "memory"], help="some measures only")
    parser.add_argument("--shrink", type=int, default=1, help="divide all counts: to see that it runs, not for figures")
    parser.add_argument("--output", type=Path, help="a file for the JSON line")
    return parser.parse_args()


def clones(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


# --- what is measured


def nearest(setup: Setup, count: int, num_codes: int, dim: int, must: float, aim: float) -> Measure:
    count, num_codes = setup.count(count), setup.count(num_codes)
    latents, codebook = (
        setup.noise(number, dim, seed=seed).to(setup.dtype) for seed, number in enumerate((count, num_codes))
    )
    half_norms = codebook.square().sum(dim=1) / 2
    peer = VectorQuantize(dim, num_codes, learnable_codebook=False).to(setup.device).eval()
    peer._codebook.embed.copy_(codebook.unsqueeze(0))
    return Measure(
        f"nearest, N {count}, K {num_codes}, D {dim}",
        "z @ e.T",
        {
            BASE: lambda: latents @ codebook.T,
            OURS: lambda: nearest_codes(latents, codebook),
            "plain torch": lambda: (half_norms - latents @ codebook.T).argmin(dim=1),
            "vector-quantize-pytorch": torch.no_grad()(lambda: peer(latents.unsqueeze(0))),
        },
        lambda codes: check_nearest(codes, latents, codebook),
        must,
        aim,
    )


def against_faiss(
    setup: Setup, count: int, num_codes: int, dim: int, must: float, aim: float, rounds: int = 0
) -> Measure:
    latents, codebook = (
        setup.noise(setup.count(number), dim, seed=seed) for seed, number in enumerate((count, num_codes))
    )
    faiss = Faiss(latents, codebook, torch.get_num_threads())

    def check(codes: Tensor) -> None:
        faiss.search()
        for found in (codes, faiss.codes()):
            check_nearest(found, latents, codebook)
        assert (codes == faiss.codes()).double().mean() > 0.999  # all but ties

    return Measure(
        f"search, N {len(latents)}, K {len(codebook)}, D {dim}",
        "FAISS",
        {BASE: faiss.search, OURS: lambda: nearest_codes(latents, codebook)},
        check,
        must,
        aim,
        rounds,
        frozenset({BASE}),
        faiss.close,
    )


def check_nearest(codes: Tensor, latents: Tensor, codebook: Tensor) -> None:
    """Equal to double precision but where two scores differ by less than single precision can tell."""
    for rows, found in zip(latents.double().split(1024), codes.split(1024), strict=True):
        scores = codebook.double().square().sum(dim=1) / 2 - rows @ codebook.double().T
        best = scores.min(dim=1).values
        chosen = scores.gather(1, found.unsqueeze(1)).squeeze(1)
        assert (chosen - best <= 1e-5 * scores.abs().max()).all()


def statistics_of_codes(setup: Setup) -> Measure:
    count = setup.count(16384)
    latents, codes = setup.noise(count, 256, seed=0), torch.randint(count, (count,)).to(setup.device)

    def one_hot() -> tuple[Tensor, Tensor]:
        table = F.one_hot(codes, count).float()
        return table.sum(dim=0), table.T @ latents

    def check(found: tuple[Tensor, Tensor]) -> None:
        torch.testing.assert_close(found, one_hot(), atol=1e-4, rtol=1e-4)

    return Measure(
        f"statistics, N = K = {count}, D 256",
        "the one-hot product",
        {BASE: one_hot, OURS: lambda: codebook_statistics(latents, codes, count)},
        check,
        0.006,
        0.002,
        rounds=3,
    )


def rotation(setup: Setup) -> Measure:
    count = setup.count(16384)
    latents, targets, grad = (setup.noise(count, 256, seed=seed) for seed in range(3))
    latents.requires_grad_()

    def through(function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        latents.grad = None
        function(latents, targets).backward(grad)
        assert latents.grad is not None
        return latents.grad

    return Measure(
        f"rotation forward + backward, N {count}, D 256",
        "copies of the three tensors",
        {
            BASE: lambda: clones(latents, targets, grad),
            OURS: lambda: through(rotate_to),
            "vector-quantize-pytorch": lambda: through(peer_rotate_to),
        },
        lambda found: torch.testing.assert_close(found.double(), rotated(latents, targets, grad), atol=1e-4, rtol=1e-3),
        3,
        1.5,
    )


def rotated(latents: Tensor, targets: Tensor, grad: Tensor) -> Tensor:
    """s (g - 2 (g.w) w + 2 (g.v) u) in double precision (Fifty et al., 2024, equation 4)."""
    latents, targets, grad = latents.detach().double(), targets.double(), grad.double()
    u, v = F.normalize(latents, dim=1), F.normalize(targets, dim=1)
    w = F.normalize(u + v, dim=1)
    along_w, along_v = (grad * w).sum(dim=1, keepdim=True), (grad * v).sum(dim=1, keepdim=True)
    return (
        targets.norm(dim=1, keepdim=True)
        / latents.norm(dim=1, keepdim=True)
        * (grad - 2 * along_w * w + 2 * along_v * u)
    )


def elementwise(
    name: str,
    ours: Quantizer,
    peer: torch.nn.Module,
    latents: Tensor,
    grad: Tensor,
    definition: Callable[[Tensor], Tensor],
    must: float = 0,
    aim: float = 0,
) -> Measure:
    """Forward and backward of a quantizer of channels, against copies of what goes in and comes out."""
    latents.requires_grad_()

    def through(function: Callable[[Tensor], Any]) -> Tensor:
        latents.grad = None
        out = function(latents)
        values: Tensor = out[0] if isinstance(out, tuple) else out.latents
        loss: Tensor | None = (out[2] if len(out) > 2 else None) if isinstance(out, tuple) else out.loss
        if loss is None or not loss.requires_grad:
            values.backward(grad)
        else:
            torch.autograd.backward([values, loss], [grad, torch.ones_like(loss)])
        return values.detach()

    def check(found: Tensor) -> None:
        """Values as defined, equal to the look-up of their codes; the gradient that of the definition."""
        exact = latents.detach().double().requires_grad_()
        values = definition(exact)
        assert ((found - values).abs() < 1e-6).double().mean() > 0.9999  # but for latents on an edge
        assert torch.equal(ours.lookup(ours(latents).codes), found)
        if not ours.loss_weights:
            values.backward(grad.double())
            through(ours)
            torch.testing.assert_close(latents.grad, exact.grad.float(), atol=1e-5, rtol=1e-4)

    return Measure(
        name,
        "copies of the three tensors",
        {
            BASE: lambda: clones(latents, latents, grad),
            OURS: lambda: through(ours),
            "vector-quantize-pytorch": lambda: through(peer),
        },
        check,
        must,
        aim,
    )


def fsq(setup: Setup) -> Measure:
    latents, grad = (setup.noise(setup.count(256), 5, 64, 64, seed=seed) for seed in (0, 1))
    peer = finite_scalar_quantization.FSQ(LEVELS).to(setup.device)
    name = f"FSQ {LEVELS} forward + backward, {tuple(latents.shape)}"
    return elementwise(name, FSQ(LEVELS).to(setup.device), peer, latents, grad, rounded, 2.6, 1.8)


def rounded(latents: Tensor) -> Tensor:
    """round(tanh(z) h) / (L // 2) for odd L, straight through the rounding (Mentzer et al., 2023)."""
    levels = torch.tensor(LEVELS, device=latents.device).view(1, -1, 1, 1)
    bounded = torch.tanh(latents) * ((levels - 1) * (1 - 1e-3) / 2)
    return (bounded + (bounded.round() - bounded).detach()) / (levels // 2)


def signs(setup: Setup, kind: str) -> Measure:
    """With their losses, of which imtok's entropy needs no table of all codes."""
    latents, grad = (setup.noise(setup.count(32), 8, 64, 64, seed=seed) for seed in (0, 1))
    ours = (LFQ if kind == "LFQ" else BSQ)(8).to(setup.device)
    peer = lookup_free_quantization.LFQ(dim=8, codebook_size=2**8, spherical=kind == "BSQ").to(setup.device)
    name = f"{kind} forward + backward with losses, {tuple(latents.shape)}"
    return elementwise(
        name, ours, peer, latents, grad, lambda points: points.sign() * (1 if kind == "LFQ" else 8**-0.5)
    )


def vq_step(setup: Setup) -> Measure:
    """Forward, backward and the EMA update, as in training."""
    num_codes = setup.count(16384)
    latents, grad = (setup.noise(8, 64, 32, 32, seed=seed).to(setup.dtype) for seed in (0, 1))
    latents.requires_grad_()
    ours = VectorQuantizer(64, num_codes).to(setup.device).train()
    peer = VectorQuantize(
        64,
        num_codes,
        decay=0.99,
        commitment_weight=0.25,
        accept_image_fmap=True,
        rotation_trick=False,
        kmeans_init=False,
    )
    peer = peer.to(setup.device).train()

    def step() -> None:
        latents.grad = None
        out = ours(latents)
        (out.loss + (out.latents * grad).sum()).backward()

    def peer_step() -> None:
        latents.grad = None
        values, _, loss = peer(latents)
        (loss.sum() + (values * grad).sum()).backward()

    return Measure(
        f"a whole VQ training step, N 8192, K {num_codes}, D 64",
        "vector-quantize-pytorch",
        {BASE: peer_step, OURS: step},
        lambda _: check_vq_step(ours, peer, latents),
        0.2,
        0.1,
        rounds=5,
    )


def check_vq_step(ours: VectorQuantizer, peer: VectorQuantize, latents: Tensor) -> None:
    """From the same codebook, no counts yet, both choose the same codes and learn the same."""
    codebook = torch.randn(ours.codebook.shape, generator=torch.Generator().manual_seed(2)).to(ours.codebook)
    for table in (ours.codebook, ours.embed_sum, peer._codebook.embed[0], peer._codebook.embed_avg[0]):
        table.copy_(codebook)
    for counts in (ours.cluster_size, peer._codebook.cluster_size):
        counts.fill_(1)
    found, expected = ours(latents).codes, peer(latents)[1]
    assert (found == expected).double().mean() > 0.999
    same = (ours.codebook - peer._codebook.embed[0]).abs().amax(dim=1) < 1e-3
    assert same.double().mean() > 0.999  # but for codes of latents on an edge


MEASURES: dict[str, Callable[[Setup], Measure]] = {
    "nearest-256": lambda setup: nearest(setup, 8192, 16384, 256, 1.05, 0.7),
    "nearest-64": lambda setup: nearest(setup, 8192, 16384, 64, 0, 0),
    "nearest-8": lambda setup: nearest(setup, 16384, 16384, 8, 0.35, 0.12),
    "search-256": lambda setup: against_faiss(setup, 8192, 16384, 256, 1, 0.75),
    "search-64": lambda setup: against_faiss(setup, 8192, 16384, 64, 1, 0.75),
    "search-8": lambda setup: against_faiss(setup, 16384, 16384, 8, 1, 0.8),
    "search-8-few": lambda setup: against_faiss(setup, 8192, 16384, 8, 1, 0.8),
    "search-8-large": lambda setup: against_faiss(setup, 8192, 262144, 8, 1, 0.8, rounds=5),
    "statistics": statistics_of_codes,
    "rotation": rotation,
    "fsq": fsq,
    "lfq": lambda setup: signs(setup, "LFQ"),
    "bsq": lambda setup: signs(setup, "BSQ"),
    "vq-step": vq_step,
}

SEARCH = [name for name in MEASURES if name.startswith("search-")]


# --- how


def run(measure: Measure, rounds: int, device: torch.device) -> Measure:
    """Times every part in turn, after one round that warms up."""
    started = time.perf_counter()
    found = measure.parts[OURS]()
    synchronize(device)
    measure.first_call = time.perf_counter() - started
    measure.check(found)
    measure.seconds = {name: [] for name in measure.parts}
    for number in range(min(measure.rounds or rounds, rounds) + 1):
        for name, part in measure.parts.items():
            started = time.perf_counter()
            result = part()
            synchronize(device)
            if number:
                measure.seconds[name].append(time.perf_counter() - started)
            del result  # outside the clock
    here = {name: part for name, part in measure.parts.items() if name not in measure.elsewhere}
    measure.megabytes = {name: peak_memory(part, device) for name, part in here.items()}
    measure.close()
    measure.parts.clear()
    return measure


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(part: Callable[[], object], device: torch.device) -> float:
    """Megabytes that a call holds at its highest, its results among them."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        part()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed memory would hide what the call allocates
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts anew
    before = status("VmRSS")
    part()
    return max(status("VmHWM") - before, 0) / 1e3


def largest_search(setup: Setup) -> float:
    """Memory of a search of N 32768, K 262144, D 8."""
    latents, codebook = (setup.noise(setup.count(n), 8, seed=seed) for seed, n in enumerate((32768, 262144)))
    codes = nearest_codes(latents, codebook)  # compiles
    check_nearest(codes[:512], latents[:512], codebook)
    return peak_memory(lambda: nearest_codes(latents, codebook), setup.device)


def status(key: str) -> int:
    """A line of /proc/self/status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


def report(results: list[Measure], memory: float | None, setup: Setup, args: argparse.Namespace) -> None:
    print(f"| measure | over | {OURS} | must | aim | peers | memory, MB | first call |")
    print("|---|---|---|---|---|---|---|---|")
    for measure in results:
        peers = ", ".join(f"{name} {measure.ratio(name):.3g}" for name in measure.seconds if name not in (BASE, OURS))
        others = [f"{name} {value:.0f}" for name, value in measure.megabytes.items() if name != OURS]
        targets = f"{measure.must:g} | {measure.aim:g}" if measure.must else "– | –"
        print(
            f"| {measure.name} | {measure.base}, {milliseconds(measure.seconds[BASE])} "
            f"| **{measure.ratio(OURS):.3g}**, {milliseconds(measure.seconds[OURS])} | {targets} | {peers or '–'} "
            f"| {measure.megabytes[OURS]:.0f} ({', '.join(others) or '–'}) | {measure.first_call:.1f} s |"
        )
    if memory is not None:
        table = 32768 * 262144 * 4 / 1e9
        print(f"| nearest, N 32768, K 262144, D 8: memory | – | – | 64 MB | – | – | **{memory:.0f}** "
              f"(the table of scores: {table:.0f} GB) | – |")  # fmt: skip
    result = {
        "benchmark": "kernels",
        "ratios": {m.name: {name: round(m.ratio(name), 4) for name in m.seconds if name != BASE} for m in results},
        "median_ms": {m.name: {n: round(statistics.median(s) * 1e3, 3) for n, s in m.seconds.items()} for m in results},
        "spread_ms": {
            m.name: {n: [round(min(s) * 1e3, 3), round(max(s) * 1e3, 3)] for n, s in m.seconds.items()} for m in results
        },
        "first_call_s": {m.name: round(m.first_call, 2) for m in results},
        "memory_mb": {m.name: {name: round(value, 1) for name, value in m.megabytes.items()} for m in results},
        "memory_mb_of_n32768_k262144_d8": memory and round(memory, 1),
        **machine(setup.device, "vector-quantize-pytorch", "faiss-cpu"),
        "settings": {name: getattr(args, name) for name in ("device", "dtype", "threads", "rounds", "shrink")},
    }
    line = json.dumps(result)
    print(line)
    if args.output:
        args.output.write_text(line + "\n", encoding="utf-8")


def milliseconds(values: list[float]) -> str:
    scaled = [value * 1e3 for value in values]
    return f"{statistics.median(scaled):.1f} ms ({min(scaled):.1f} to {max(scaled):.1f})"


if __name__ == "__main__":
    main()
