"""What must hold on a CUDA device. Run with `pytest -m gpu`; without a device these skip and say so."""

from __future__ import annotations

import copy
import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import NOISY, QUANTIZERS, make, noise, noise_for
from launching import TORCHRUN, Started, newest
from making import fill
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import imtok
from imtok.config import load_train_config, parse_settings
from imtok.decoding import decode
from imtok.encoding import encode
from imtok.kernels import codebook_statistics, nearest, nearest_codes, nearest_gpu, rotate_to
from imtok.quantizers import BSQ, FSQ, LFQ, Quantized, Quantizer, VectorQuantizer
from imtok.quantizers.vector_config import CodebookUpdate, Estimator, VectorMetric
from imtok.tokens import open_tokens
from imtok.training import step as step_module
from imtok.training import train
from imtok.training.state import TrainState

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", (f"{number:02}.png" for number in range(20)))


@pytest.fixture
def tf32_wanted() -> Iterator[None]:
    """As a program that trains in TF32 sets it, which is for the whole process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def set_forms(monkeypatch: pytest.MonkeyPatch, forms: list[Any]) -> None:
    """Leave the tuner these forms alone."""
    kernels = importlib.import_module("imtok.kernels.nearest_triton")
    monkeypatch.setattr(kernels, "CONFIGS", forms)
    monkeypatch.setattr(nearest_gpu, "_triton", nearest_gpu._Triton())


def assert_nearest(codes: Tensor, latents: Tensor, codebook: Tensor) -> None:
    """No code is nearer than the one found by more than float32 can tell, and hardly any other is found."""
    distances = torch.cdist(latents.double(), codebook.double())
    least, expected = distances.min(dim=1)
    found = distances.gather(1, codes[:, None])[:, 0]
    assert (codes == expected).double().mean() > 0.98  # on a line many are as good
    torch.testing.assert_close(found.square(), least.square(), rtol=1e-5, atol=1e-5)


# --- the search


@pytest.mark.parametrize(
    ("count", "dim", "num_codes"),
    [(5000, 1, 1000), (5000, 7, 16384), (20000, 8, 16384), (5000, 64, 1000), (5000, 100, 4097), (3000, 256, 16384)],
)
@pytest.mark.parametrize("way", ["kernel", "tiles"])
def test_the_search_is_exact_where_tf32_is_wanted(
    way: str, count: int, dim: int, num_codes: int, tf32_wanted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, codebook = noise(count, dim).cuda(), noise(num_codes, dim, seed=2).cuda()
    if way == "tiles":
        monkeypatch.setattr(nearest, "search_on_gpu", lambda *_: None)
    else:
        pytest.importorskip("triton", reason="needs Triton")
    assert_nearest(nearest_codes(latents, codebook), latents, codebook)
    assert not nearest_gpu._triton.failed


def test_the_kernel_is_what_searches_here() -> None:
    pytest.importorskip("triton", reason="needs Triton")
    found = nearest_gpu.search_on_gpu(noise(300, 8).cuda(), noise(100, 8, seed=2).cuda(), None)
    assert found is not None
    assert torch.equal(found[1].cpu(), nearest_codes(noise(300, 8), noise(100, 8, seed=2), "dot"))


@pytest.mark.parametrize("dim", [8, 100])
def test_all_forms_of_the_kernel_give_the_same_bits(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="needs Triton")
    rows, table = noise(1000, dim).cuda(), noise(3000, dim, seed=2).cuda()
    centre = table.median(dim=0).values
    forms = importlib.import_module("imtok.kernels.nearest_triton").CONFIGS
    found = []
    for form in forms:
        set_forms(monkeypatch, [form])
        found += [nearest_gpu.search(rows, table, centre, spans) for spans in (1, 3, 7)]
    assert all(torch.equal(best, found[0][0]) and torch.equal(codes, found[0][1]) for best, codes in found)


@pytest.mark.parametrize("way", ["kernel", "tiles"])
def test_ties_on_the_gpu_go_to_the_lower_index(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "tiles":
        monkeypatch.setattr(nearest, "search_on_gpu", lambda *_: None)
    codebook = noise(64, 4).cuda()
    latents = codebook.repeat(100, 1)
    codes = nearest_codes(latents, codebook.repeat(100, 1))
    assert torch.equal(codes, torch.arange(64, device="cuda").repeat(100))


@pytest.mark.parametrize("count", [10, 10_000])
def test_nan_on_the_gpu_is_refused(count: int) -> None:
    latents = noise(count, 8).cuda()
    latents[7, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        nearest_codes(latents, noise(1024, 8, seed=2).cuda())


def test_codes_far_from_the_origin_differ_on_the_gpu() -> None:
    codebook = noise(4096, 8).cuda() + 1000
    latents = codebook[:2000] + 0.001 * noise(2000, 8, seed=2).cuda()
    assert torch.equal(nearest_codes(latents, codebook), torch.arange(2000, device="cuda"))


def test_the_search_needs_little_memory_beyond_its_inputs() -> None:
    latents, codebook = noise(32768, 8).cuda(), noise(262144, 8, seed=2).cuda()
    nearest_codes(latents, codebook)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    nearest_codes(latents, codebook)
    assert torch.cuda.max_memory_allocated() - before < 64 * 2**20


# --- the other kernels


def test_statistics_on_the_gpu_are_deterministic_and_right() -> None:
    latents, codes = noise(20000, 16), torch.randint(0, 500, (20000,), generator=torch.Generator().manual_seed(0))
    first = codebook_statistics(latents.cuda(), codes.cuda(), 512)
    for again in (codebook_statistics(latents.cuda(), codes.cuda(), 512) for _ in range(5)):
        assert torch.equal(again[0], first[0])
        assert torch.equal(again[1], first[1])
    for here, there in zip(codebook_statistics(latents, codes, 512), first, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("count", [500, 70_000])  # as it is, and compiled
def test_the_rotation_on_the_gpu_is_that_of_the_cpu(count: int) -> None:
    latents, targets = noise(count, 16), noise(count, 16, seed=2)
    one, other = latents.clone().requires_grad_(), latents.cuda().requires_grad_()
    turned = rotate_to(other, targets.cuda())
    assert torch.equal(turned.cpu(), targets)
    weights = noise(count, 16, seed=3)
    (here,) = torch.autograd.grad(rotate_to(one, targets), one, weights)
    (there,) = torch.autograd.grad(turned, other, weights.cuda())
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4)


# --- quantizers


def near_codes(quantizer: VectorQuantizer, count: int) -> Tensor:
    """Latents (2, D, 1, count / 2) each close to one code: no rounding changes which."""
    everything = torch.arange(quantizer.num_codes).view(1, 1, -1)
    table = quantizer.lookup(everything).detach()[0, :, 0].T  # (K, D)
    rows = table[torch.arange(count) * 7 % len(table)]
    rows = rows + 0.02 * table.std() * noise(*rows.shape, seed=3)
    return rows.view(2, 1, count // 2, -1).permute(0, 3, 1, 2)


def train_step(quantizer: Quantizer, latents: Tensor) -> tuple[Quantized, dict[str, Tensor]]:
    """One step in training mode -> its result, and all that it changed or gave a gradient, on the CPU."""
    latents = latents.detach().clone().requires_grad_()
    out = quantizer(latents)
    weights = noise(*out.latents.shape, seed=4).to(latents.device)
    (out.loss + (out.latents * weights).mean()).backward()
    grads = {name: value.grad for name, value in quantizer.named_parameters()} | {"latents": latents.grad}
    changed = dict(quantizer.state_dict()) | {f"grad of {name}": grad for name, grad in grads.items()}
    return out, {name: value.cpu() for name, value in changed.items() if value is not None}


def assert_steps_agree(quantizer: Quantizer, latents: Tensor, steps: int = 1) -> None:
    twin = copy.deepcopy(quantizer).cuda()
    for _ in range(steps):
        here, ours = train_step(quantizer, latents)
        there, theirs = train_step(twin, latents.cuda())
    assert torch.equal(there.codes.cpu(), here.codes)
    torch.testing.assert_close(there.latents.detach().cpu(), here.latents.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(there.loss.detach().cpu(), here.loss.detach(), rtol=1e-4, atol=1e-5)
    assert ours.keys() == theirs.keys()
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
@pytest.mark.parametrize("update", ["ema", "gradient", "projection"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_vq_step_on_the_gpu_equals_the_cpu(
    metric: VectorMetric, update: CodebookUpdate, estimator: Estimator
) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(16, 1024, metric=metric, estimator=estimator, codebook_update=update)
    assert_steps_agree(quantizer, near_codes(quantizer, 8192), steps=3)  # enough scores for the kernel


@pytest.mark.parametrize("name", [name for name in QUANTIZERS if name not in NOISY | {"vq-clustering-gradient"}])
def test_a_quantizer_step_on_the_gpu_equals_the_cpu(name: str) -> None:
    quantizer = make(name)
    assert_steps_agree(quantizer, noise_for(quantizer))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_alone_rebuild_the_latents_on_the_gpu(name: str) -> None:
    quantizer = make(name).cuda().eval()
    out = quantizer(noise_for(quantizer).cuda())
    assert torch.equal(quantizer.lookup(out.codes), out.latents)


@pytest.mark.parametrize(
    "quantizer", [FSQ([8, 5, 5, 5]), LFQ(12, batch_entropy_weight=0.1), BSQ(12, batch_entropy_weight=0.1)]
)
def test_large_lattice_batches_on_the_gpu_equal_the_cpu(quantizer: Quantizer) -> None:
    latents = noise(8, quantizer.dim, 192, 192)  # enough work to be compiled
    here, ours = train_step(quantizer, latents)
    twin = copy.deepcopy(quantizer).cuda()
    there, theirs = train_step(twin, latents.cuda())
    assert torch.equal(twin.lookup(there.codes).view(torch.int32), there.latents.detach().view(torch.int32))
    assert (there.codes.cpu() != here.codes).double().mean() < 1e-5  # latents on the border of two codes
    torch.testing.assert_close(there.loss.detach().cpu(), here.loss.detach(), rtol=1e-4, atol=1e-5)
    far = (theirs["grad of latents"] - ours["grad of latents"]).abs() > 1e-6 + 1e-3 * ours["grad of latents"].abs()
    assert far.double().mean() < 1e-4


# --- the jobs


@pytest.mark.parametrize("quantizer", [["quantizer.levels=[8,5,5]"], ["quantizer.kind=vq", "quantizer.num_codes=64"]])
def test_train_encode_decode_on_the_gpu(quantizer: list[str], pictures: Path, tmp_path: Path) -> None:
    settings = [*quantizer, "size=64", "data.crop=32", "network.channels=[16,32]", "images=320", "device=cuda"]
    train([pictures], tmp_path / "run", load_train_config(parse_settings(settings)))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["val/psnr"] > 5
    report = encode([pictures], tmp_path / "tokens", tmp_path / "run", device="cuda")
    assert report.complete
    assert decode(tmp_path / "tokens", tmp_path / "back", device="cuda").images == 20
    key, codes = open_tokens(tmp_path / "tokens")[0]
    pixels = torch.from_numpy(np.array(Image.open(pictures / key))).permute(2, 0, 1)[None]
    assert (imtok.load(tmp_path / "run").encode(pixels)[0] != codes).float().mean() < 0.05


@pytest.mark.parametrize("kind", ["patchgan", "stylegan", "maskbit"])
def test_adversarial_training_on_the_gpu_ends_with_finite_figures(kind: str, pictures: Path, tmp_path: Path) -> None:
    settings = ["size=64", "data.crop=64", "network.channels=[16,32]", "images=160", "device=cuda", "compile=false"]
    settings += ["adversarial.weight=0.1", f"adversarial.discriminator={{kind: {kind}, channels: 32, layers: 2}}"]
    settings += ["adversarial.start=0.2", "adversarial.adaptive=true", "adversarial.r1=1", "accumulate=2"]
    last: dict[str, float] = {}
    train(
        [pictures],
        tmp_path / "run",
        load_train_config(parse_settings(settings)),
        progress=lambda p: last.update(p.metrics or {}),
    )
    assert all(np.isfinite(value) for value in last.values())
    assert last["skipped_steps"] == 0


def test_crops_and_pipelines_on_the_gpu_have_encodes_codes(pictures: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"device": "cuda", "batch_size": 8}
    encode([pictures], tmp_path / "plain", "imtok-f8", **options)
    encode([pictures], tmp_path / "flip", "imtok-f8", **options, augment="flip")
    plain, flip = open_tokens(tmp_path / "plain"), open_tokens(tmp_path / "flip")
    codes = torch.stack([codes for _, codes in plain])
    assert torch.equal(torch.stack([codes for _, codes in flip]), codes)
    assert not torch.equal(flip.all_codes(0)[1], codes[0])
    files = [path.read_bytes() for path in sorted(pictures.iterdir())]
    found = imtok.BatchEncoder("imtok-f8", **options, workers=2)(files)
    assert np.array_equal(found["codes"], codes.numpy())


def test_a_non_finite_step_changes_nothing_on_the_gpu() -> None:
    settings = ["size=32", "data.crop=32", "network.channels=[16,32]", "device=cuda", "precision=fp32", "images=80"]
    state = TrainState(load_train_config(parse_settings(settings)), torch.device("cuda"))
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    step_module.train_step(state, images)
    before = {name: value.clone() for name, value in state.tokenizer.state_dict().items()}
    handle = state.tokenizer.decoder.conv_out.register_forward_hook(lambda *_: handle.remove() or _[2] * float("inf"))
    step_module.train_step(state, images)
    assert int(state.skipped.all) == 1
    assert all(torch.equal(value, before[name]) for name, value in state.tokenizer.state_dict().items())
    step_module.train_step(state, images)
    assert int(state.skipped.in_a_row) == 0


def test_compiled_and_plain_training_steps_agree_on_the_gpu() -> None:
    settings = ["size=64", "data.crop=64", "network.channels=[32,64]", "device=cuda", "precision=fp32", "images=160"]
    settings += ["adversarial.weight=0.1", "adversarial.start=0", "adversarial.warmup=0", "adversarial.adaptive=true"]
    images = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8)
    losses = []
    for compiled in ("false", "true"):
        torch.manual_seed(0)
        config = load_train_config(parse_settings([*settings, f"compile={compiled}", f"channels_last={compiled}"]))
        state = TrainState(config, torch.device("cuda"))
        for _ in range(3):
            step_module.train_step(state, images)
        losses.append(state.metrics.means()["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs a CUDA device for each process")
def test_two_processes_with_nccl_train_as_one(pictures: Path, tmp_path: Path) -> None:
    words = ["train", str(pictures), "--device", "cuda", "--images", "64", "--set", "batch_size=8"]
    words += ["--set", "size=32", "--set", "data.crop=32", "--set", "network.channels=[16,32]"]
    words += [
        "--set",
        "quantizer={kind: vq, dim: 4, num_codes: 16}",
        "--set",
        "precision=fp32",
        "--set",
        "compile=false",
    ]
    words += ["--set", "adversarial={weight: 0.1, start: 0.25, discriminator: {channels: 4, layers: 1}}"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    for ranks in ("1", "2"):
        command = [*launcher, ranks, "-m", "imtok", *words, "-o", str(tmp_path / ranks)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / ranks / "tokenizer" / "model.safetensors") for ranks in ("1", "2"))
    torch.testing.assert_close(two, one, rtol=1e-2, atol=1e-3)
    assert "device: cuda\n" in (tmp_path / "2" / "config.yaml").read_text()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs a CUDA device for each process")
@pytest.mark.parametrize(("number", "words"), [(signal.SIGTERM, "stopped:"), (signal.SIGKILL, "error:")])
def test_a_signal_to_one_nccl_process_ends_all(
    number: signal.Signals, words: str, pictures: Path, tmp_path: Path
) -> None:
    settings = ["--images", "4000000", "--set", "batch_size=8", "--set", "checkpoint_every=80", "--device", "cuda"]
    command = [
        *TORCHRUN,
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "imtok",
        "train",
        pictures,
        "-o",
        tmp_path / "run",
    ]
    job = Started([*command, *settings, "--set", "size=32", "--set", "data.crop=32"], tmp_path / "output.txt")
    job.wait_for(lambda: newest(tmp_path / "run") > 0)
    _, seconds = job.signal_and_wait(number, rank=1)
    assert words in job.text
    assert "the same command resumes" in job.text
    assert seconds < 60
