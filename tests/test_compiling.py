"""When kernels compile, how often, what they give then, and what happens where nothing can be compiled."""

from __future__ import annotations

import importlib
import json
import math
import os
import pkgutil
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import noise
from torch import Tensor, nn

import imtok.kernels
from imtok.errors import SlowerWarning
from imtok.kernels import finite_scalar_codes, nearest_codes, rotate_to, sign_codes, to_sphere
from imtok.kernels.compiling import Kernel
from imtok.parallel import in_order
from imtok.quantizers import BSQ, FSQ, LFQ, Quantizer, VectorQuantizer

# torch.compile looks at `.grad` of what it is given and hides the warning, but not from a filter that raises it.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler: nothing can be compiled here"
)

# By name: in the package some modules are hidden by functions of the same name.
MODULES = {
    found.name: importlib.import_module(f"imtok.kernels.{found.name}")
    for found in pkgutil.iter_modules(imtok.kernels.__path__)
}
COMPILING, NEAREST = MODULES["compiling"], MODULES["nearest_short"]
KERNELS = {
    f"{name}.{key}": value
    for name, module in MODULES.items()
    for key, value in vars(module).items()
    if isinstance(value, Kernel)
}

LEVELS = [8, 5, 5, 5]


@pytest.fixture
def all_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """However small its work, a kernel compiles; no test may pass by falling back."""
    monkeypatch.setattr(COMPILING._compiling, "enabled", True)  # whatever happens here stays here
    for kernel in KERNELS.values():
        monkeypatch.setattr(kernel, "least_work", 0)
    yield
    assert COMPILING._compiling.enabled


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Size]]:
    """The shapes each compilation was made for; what is traced then runs as it is, without code being generated."""
    made: list[list[torch.Size]] = []
    compile_ = torch.compile

    def note(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        made.append([value.shape for value in inputs if isinstance(value, Tensor)])
        return graph.forward

    def compile_without_code(
        function: Callable[..., Any], *, fullgraph: bool, dynamic: bool | None, options: Any
    ) -> Any:
        return compile_(function, backend=note, fullgraph=fullgraph, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", compile_without_code)
    for kernel in KERNELS.values():
        monkeypatch.setattr(kernel, "_compiled", {})
    return made


def double(values: Tensor) -> Tensor:
    return values * 2


def double_rows(values: Tensor, factor: float) -> Tensor:
    return torch.stack([values[:, column] * factor for column in range(values.shape[1])], dim=1)


def gradient(function: Callable[..., Tensor], latents: Tensor, upstream: Tensor) -> Tensor:
    latents = latents.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(latents), latents, upstream)
    return found


def all_latents(quantizer: Quantizer, side: int) -> Tensor:
    """One latent for each code, in the order of the codes: (K / side^2, D, side, side)."""
    codes = torch.arange(quantizer.num_codes).view(-1, side, side)
    values = quantizer.lookup(codes)
    if not isinstance(quantizer, FSQ):
        return values
    # The inverse of the bound at the middle of each bin.
    half_widths = torch.tensor(quantizer.levels).view(1, -1, 1, 1) // 2
    levels = torch.tensor(quantizer.levels).view(1, -1, 1, 1)
    half = (levels - 1) * 0.999 / 2
    offset = torch.where(levels % 2 == 0, 0.5, 0.0)
    squashed = ((values * half_widths + offset) / half).clamp(-0.9999, 0.9999)
    return squashed.atanh() - (offset / half).tan()


# --- when


def test_small_work_is_not_compiled(compilations: list[list[torch.Size]]) -> None:
    kernel = Kernel(double, least_work=100)
    assert kernel(torch.ones(3), family=None, work=99).tolist() == [2, 2, 2]
    assert compilations == []
    assert kernel(torch.ones(3), family=None, work=100).tolist() == [2, 2, 2]
    assert len(compilations) == 1


def test_no_kernel_compiles_for_a_small_picture(compilations: list[list[torch.Size]]) -> None:
    assert len(KERNELS) >= 3
    latents = noise(1, 4, 32, 32).requires_grad_()
    for quantizer in (FSQ(LEVELS), LFQ(4), BSQ(4), VectorQuantizer(4, 1024, estimator="rotation")):
        quantizer(latents).latents.sum().backward()
    assert compilations == []


def test_one_compilation_serves_every_length(compilations: list[list[torch.Size]]) -> None:
    kernel = Kernel(double_rows, least_work=0)
    for length in (100, 7, 50, 1000, 2, 33):
        values = noise(length, 5)
        assert torch.equal(kernel(values, 3.0, family=(5, 3.0), work=length), values * 3)
    assert len(compilations) == 1


def test_a_first_call_of_one_row_compiles_once_more(
    compilations: list[list[torch.Size]],
) -> None:
    kernel = Kernel(double_rows, least_work=0)
    for length in (1, 100, 7, 50, 1, 12):
        values = noise(length, 5)
        assert torch.equal(kernel(values, 3.0, family=(5, 3.0), work=length), values * 3)
    assert len(compilations) == 2


@pytest.mark.parametrize("lengths", [(0,), ()])
def test_more_than_eight_families_all_stay_compiled(
    lengths: tuple[int, ...], compilations: list[list[torch.Size]]
) -> None:
    kernel = Kernel(double, least_work=0, lengths=lengths)
    for _ in range(2):
        for dim in range(2, 12):
            values = noise(20, dim)
            assert torch.equal(kernel(values, family=dim, work=1), values * 2)
    assert [shapes[0][1] for shapes in compilations] == list(range(2, 12))
    assert COMPILING._compiling.enabled


def training_step(name: str, batch: int, length: int = 16) -> None:
    latents = (noise(batch, 4, 1, length) * 1).requires_grad_() * 1.5
    if name == "rotation":
        rows = latents.movedim(1, -1).flatten(0, 2)
        torch.autograd.backward(rotate_to(rows, noise(len(rows), 4, seed=2)).square().sum())
    if name == "finite_scalar":
        torch.autograd.backward(finite_scalar_codes(latents, LEVELS)[0].square().sum())
    if name == "binary":
        torch.autograd.backward(sign_codes(latents)[0].square().sum())
    if name == "sphere":
        torch.autograd.backward(to_sphere(latents).square().sum())
    if name == "nearest":
        nearest_codes(latents.movedim(1, -1).flatten(0, 2), noise(100, 4))


NAMES = ["rotation", "finite_scalar", "binary", "sphere", "nearest"]


@pytest.mark.parametrize("name", NAMES)
def test_training_at_many_batch_sizes_compiles_each_kernel_once(
    name: str, compilations: list[list[torch.Size]], all_compiled: None
) -> None:
    for batch in (4, 2, 7, 3, 20):
        training_step(name, batch)
    used = [key for key, kernel in KERNELS.items() if kernel._compiled]
    assert used
    assert all(key.startswith(name) for key in used)
    assert len(compilations) == len(used)


@pytest.mark.parametrize("name", NAMES)
def test_training_at_many_grid_sizes_compiles_each_kernel_once(
    name: str, compilations: list[list[torch.Size]], all_compiled: None
) -> None:
    for length in (1000, 1001, 1002, 4096, 7, 64):
        training_step(name, 3, length)
    assert compilations
    assert len(compilations) == sum(kernel._compiled != {} for kernel in KERNELS.values())


@pytest.mark.parametrize("name", ["finite_scalar", "binary", "sphere"])
def test_single_images_and_positions_cost_few_compilations(
    name: str, compilations: list[list[torch.Size]], all_compiled: None
) -> None:
    for batch, length in [(1, 1), (1, 9), (9, 1), (4, 4), (4, 9), (1, 7), (7, 1), (1, 1), (30, 30)] * 2:
        training_step(name, batch, length)
    assert 0 < len(compilations) <= 4 * sum(kernel._compiled != {} for kernel in KERNELS.values())


def test_memory_layouts_share_a_compilation(compilations: list[list[torch.Size]], all_compiled: None) -> None:
    latents = noise(4, 4, 4, 4)
    for layout in (
        latents,
        latents.contiguous(memory_format=torch.channels_last),
        latents.repeat_interleave(2, dim=3)[..., ::2],
        latents.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        assert torch.equal(finite_scalar_codes(layout, LEVELS)[0], finite_scalar_codes(latents, LEVELS)[0])
    assert len(compilations) == 1


def test_no_count_of_threads_turns_compiling_off(compilations: list[list[torch.Size]], all_compiled: None) -> None:
    kernel = Kernel(double, least_work=0)
    try:
        for threads in range(1, 11):
            torch.set_num_threads(threads)
            assert kernel(torch.ones(2), family=None, work=1).tolist() == [2, 2]
    finally:
        torch.set_num_threads(1)


def test_nothing_compiles_inside_what_its_user_compiles(
    compilations: list[list[torch.Size]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(double, least_work=0)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert kernel(torch.ones(2), family=None, work=5).tolist() == [2, 2]
    assert compilations == []


# --- where it cannot


@pytest.fixture
def nothing_compiles(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """torch.compile fails as it does without a compiler, at the first call; returns the attempts made."""
    attempts: list[Any] = []

    def compile_(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def fail(*args: Any) -> Any:
            attempts.append(function)
            raise RuntimeError("No working C++ compiler found\nand much else")

        return fail

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(COMPILING._compiling, "enabled", True)  # put back afterwards
    return attempts


def test_a_failed_compilation_warns_once_and_is_not_repeated(nothing_compiles: list[Any]) -> None:
    kernels = [Kernel(double, least_work=0), Kernel(double, least_work=0, plain=lambda values: values + values)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for kernel in kernels * 2:
            assert kernel(torch.ones(2), family=None, work=1).tolist() == [2, 2]
    assert [(warning.category, str(warning.message)) for warning in caught] == [
        (
            SlowerWarning,
            "kernels run uncompiled, with the same results but slower: torch.compile failed (No working C++ compiler "
            "found); install a C++ compiler, for instance g++",
        )
    ]
    assert len(nothing_compiles) == 1


def test_threads_that_all_fail_to_compile_warn_once(nothing_compiles: list[Any]) -> None:
    kernel = Kernel(double, least_work=0)
    started = threading.Barrier(5)

    def work(_: int) -> list[float]:
        started.wait()
        doubled: list[float] = kernel(torch.ones(2), family=None, work=1).tolist()
        return doubled

    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("always")
        with kernel._lock:  # as if another thread were compiling
            results = [pool.submit(work, number) for number in range(4)]
            started.wait()
            time.sleep(0.1)  # all of them wait for the lock by now
        assert [result.result() for result in results] == [[2, 2]] * 4
    assert len(caught) == 1


def test_exhausted_memory_is_no_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def fail(*args: Any) -> Any:
            raise torch.OutOfMemoryError("out of memory")

        return fail

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(torch.OutOfMemoryError):
        Kernel(double, least_work=0)(torch.ones(2), family=None, work=1)
    assert COMPILING._compiling.enabled


WITHOUT_COMPILER = """
import importlib, json, sys, warnings
import torch
from imtok.kernels import nearest_codes, rotate_to
from imtok.kernels.compiling import Kernel
from imtok.quantizers import BSQ, FSQ, LFQ

for name, module in list(sys.modules.items()):
    if name.startswith("imtok.kernels."):
        for kernel in [value for value in vars(module).values() if isinstance(value, Kernel)]:
            kernel.least_work = 0
generator = torch.Generator().manual_seed(0)
whole = lambda *shape: torch.randint(-9, 10, shape, generator=generator).float()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    right = {}
    for dim, count in ((3, 700), (20, 300)):
        latents, codebook = whole(1500, dim), whole(count, dim)
        distances = torch.cdist(latents.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist")
        right[f"nearest {dim}"] = nearest_codes(latents, codebook).tolist() == distances.numpy().argmin(axis=1).tolist()
    for quantizer in (FSQ([5, 3]), LFQ(4), BSQ(4)):
        latents = torch.randn(3, quantizer.dim, 5, 5, generator=generator).requires_grad_()
        out = quantizer(latents)
        out.latents.sum().backward()
        kind = type(quantizer).__name__
        right[kind] = torch.equal(quantizer.lookup(out.codes), out.latents) and bool(latents.grad.isfinite().all())
    quarter = torch.tensor([[0.0, 2.0]])
    latents = torch.tensor([[1.0, 0.0]]).requires_grad_()
    rotate_to(latents, quarter).backward(torch.tensor([[3.0, 5.0]]))
    right["rotation"] = torch.allclose(latents.grad, torch.tensor([[10.0, -6.0]]))
print(json.dumps({"right": right, "warnings": [[w.category.__name__, str(w.message)] for w in caught]}))
"""


def test_without_a_compiler_all_works_after_one_warning(tmp_path: Path) -> None:
    """In a process of its own, since what torch knows of compilers it learns once."""
    (tmp_path / "no-programs").mkdir()
    environment = os.environ | {
        "PATH": str(tmp_path / "no-programs"),
        "CXX": str(tmp_path / "no-compiler"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(imtok.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["right"] == dict.fromkeys(["nearest 3", "nearest 20", "FSQ", "LFQ", "BSQ", "rotation"], True)
    ours = [message for category, message in report["warnings"] if category == "SlowerWarning"]
    assert len(ours) == 1, report["warnings"]
    assert ours[0].startswith("kernels run uncompiled, with the same results but slower: torch.compile failed (")
    assert ours[0].endswith("install a C++ compiler, for instance g++")
    assert len(ours[0]) < 400
    assert "\n" not in ours[0]


# --- what compiled kernels give


def brute_force(latents: Tensor, codebook: Tensor) -> list[int]:
    distances = (latents.double().unsqueeze(1) - codebook.double()).square().sum(dim=2)
    found: list[int] = distances.numpy().argmin(axis=1).tolist()  # the first of equals
    return found


@needs_compiler
@pytest.mark.usefixtures("all_compiled")
@pytest.mark.parametrize("count", [1, 5, 1023, 1024, 1025, 2500])
@pytest.mark.parametrize("num_codes", [1, 63, 700, 1024, 1025, 2500])
def test_the_compiled_search_finds_the_first_of_the_nearest(
    count: int, num_codes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NEAREST, "_PIECE", 3072)  # so that a few thousand codes are several pieces
    generator = torch.Generator().manual_seed(count + num_codes)
    latents = torch.randint(-9, 10, (count, 3), generator=generator).float() + 100  # exact, with many ties
    codebook = torch.randint(-9, 10, (num_codes, 3), generator=generator).float() + 100
    assert nearest_codes(latents, codebook).tolist() == brute_force(latents, codebook)


@needs_compiler
@pytest.mark.usefixtures("all_compiled")
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_the_compiled_search_agrees_with_tiles(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, codebook = noise(1500, 3), noise(900, 3, seed=2)
    compiled = nearest_codes(latents, codebook, metric)
    monkeypatch.setattr(NEAREST.fused, "least_work", 2**60)
    assert torch.equal(compiled, nearest_codes(latents, codebook, metric))


@needs_compiler
@pytest.mark.usefixtures("all_compiled")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", [0, 1023, 1024, 1100])
def test_the_compiled_search_refuses_what_is_not_finite(bad: float, row: int) -> None:
    latents = noise(1101, 3)
    latents[row, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        nearest_codes(latents, noise(500, 3, seed=2))
    codebook = noise(1101, 3)[:1000]
    codebook[row % 1000, 1] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        nearest_codes(noise(100, 3), codebook)


@needs_compiler
@pytest.mark.usefixtures("all_compiled")
@pytest.mark.parametrize(
    ("quantizer", "side"), [(FSQ(LEVELS), 10), (LFQ(6), 4), (BSQ(6), 4)], ids=["FSQ", "LFQ", "BSQ"]
)
def test_compiled_latents_equal_the_codes_bit_for_bit(quantizer: Quantizer, side: int) -> None:
    out = quantizer.eval()(all_latents(quantizer, side))
    assert torch.equal(out.codes.flatten(), torch.arange(quantizer.num_codes))
    assert torch.equal(out.latents.view(torch.int32), quantizer.lookup(out.codes).view(torch.int32))


@needs_compiler
@pytest.mark.usefixtures("all_compiled")
@pytest.mark.parametrize("quantizer", [FSQ(LEVELS), LFQ(6), BSQ(6)], ids=["FSQ", "LFQ", "BSQ"])
def test_a_compiled_result_is_independent_of_the_first_grid(
    quantizer: Quantizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that saw other grids before, and one that did not, give the same bits."""
    latents = 2 * noise(3, quantizer.dim, 37, 27)
    seen = quantizer(latents)
    for kernel in KERNELS.values():
        monkeypatch.setattr(kernel, "_compiled", {})
    quantizer(noise(2, quantizer.dim, 16, 16))
    other = quantizer(latents)
    assert torch.equal(seen.codes, other.codes)
    assert torch.equal(seen.latents.view(torch.int32), other.latents.view(torch.int32))


@needs_compiler
@pytest.mark.parametrize(
    ("quantizer", "side"), [(FSQ(LEVELS), 10), (LFQ(6), 4), (BSQ(6), 4)], ids=["FSQ", "LFQ", "BSQ"]
)
def test_compiled_codes_and_gradients_are_those_of_plain_code(
    quantizer: Quantizer, side: int, all_compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = 2 * noise(40, quantizer.dim, side, side)
    upstream = noise(*latents.shape, seed=2)
    compiled = quantizer(latents)
    turned = gradient(lambda values: quantizer(values).latents, latents, upstream)
    for kernel in KERNELS.values():
        monkeypatch.setattr(kernel, "least_work", 2**60)
    plain = quantizer(latents)
    assert torch.equal(compiled.codes, plain.codes)
    assert torch.equal(compiled.latents, plain.latents)
    torch.testing.assert_close(compiled.loss, plain.loss, atol=1e-6, rtol=1e-6)
    expected = gradient(lambda values: quantizer(values).latents, latents, upstream)
    torch.testing.assert_close(turned, expected, atol=1e-6, rtol=1e-5)


@needs_compiler
@pytest.mark.usefixtures("all_compiled")
@pytest.mark.parametrize(
    ("quantizer", "side"), [(FSQ(LEVELS), 10), (LFQ(6), 4), (BSQ(6), 4)], ids=["FSQ", "LFQ", "BSQ"]
)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_compiled_quantizers_refuse_what_is_not_finite(quantizer: Quantizer, side: int, bad: float) -> None:
    latents = noise(3, quantizer.dim, side, side)
    latents[2, 1, 3, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantizer(latents)


@needs_compiler
@pytest.mark.usefixtures("all_compiled")
def test_the_compiled_gradient_of_a_rotation_follows_the_formula() -> None:
    e, q, g = (noise(200, 8, seed=seed) for seed in range(3))
    e[0], q[1] = 0, 0

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dim=1, keepdim=True)

    wide_e, wide_q, wide_g = e.double(), q.double(), g.double()
    u, v = F.normalize(wide_e, dim=1), F.normalize(wide_q, dim=1)
    w = F.normalize(u + v, dim=1)
    s = wide_q.norm(dim=1, keepdim=True) / wide_e.norm(dim=1, keepdim=True)
    expected = s * (wide_g - 2 * dot(wide_g, w) * w + 2 * dot(wide_g, v) * u)
    expected[0] = wide_g[0]  # a latent without direction takes the gradient as it is
    turned = gradient(lambda rows: rotate_to(rows, q), e, g)
    torch.testing.assert_close(turned.double(), expected, atol=1e-4, rtol=1e-4)


@needs_compiler
@pytest.mark.usefixtures("all_compiled")
def test_a_compiled_rotation_reflects_exact_opposites() -> None:
    e, g = noise(200, 8), noise(200, 8, seed=2)
    u = F.normalize(e, dim=1)
    expected = 3 * (g - 2 * (g * u).sum(dim=1, keepdim=True) * u)
    turned = gradient(lambda rows: rotate_to(rows, -3 * e), e, g)
    torch.testing.assert_close(turned, expected, atol=1e-4, rtol=1e-4)


@needs_compiler
@pytest.mark.usefixtures("all_compiled")
def test_the_compiled_gradient_of_fsq_is_that_of_the_formula() -> None:
    latents, upstream = 4 * noise(20, 4, 10, 10), noise(20, 4, 10, 10, seed=2)
    levels = torch.tensor(LEVELS).double().view(1, -1, 1, 1)
    half = (levels - 1) * (1 - 1e-3) / 2
    shift = torch.where(levels % 2 == 0, (0.5 / half).tan(), 0)
    slope = (1 - torch.tanh(latents.double() + shift) ** 2) * half / (levels // 2)
    turned = gradient(lambda values: finite_scalar_codes(values, LEVELS)[0], latents, upstream)
    torch.testing.assert_close(turned.double(), slope * upstream.double(), atol=1e-6, rtol=1e-5)


# --- threads


@needs_compiler
@pytest.mark.usefixtures("all_compiled")
@pytest.mark.parametrize("first_here", [False, True])
def test_one_kernel_called_by_many_threads_stays_right(first_here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As encoding does; whether threads compile first or find a form that another thread has compiled."""
    for kernel in (NEAREST.fused, MODULES["finite_scalar"]._quantize):
        monkeypatch.setattr(kernel, "_compiled", {} if not first_here else dict(kernel._compiled))
    codebook = noise(400, 3).mul(10).round()
    quantizer = FSQ(LEVELS)
    expected = quantizer.lookup(torch.arange(1000).view(10, 10, 10))
    middles = all_latents(quantizer, 10)

    def work(number: int) -> bool:
        latents = noise(300 + 400 * (number % 5), 3, seed=number).mul(10).round()
        found = nearest_codes(latents, codebook).tolist()
        batch = 2 + number % 9
        values, codes = finite_scalar_codes(middles[:batch], LEVELS)
        return (
            found == brute_force(latents, codebook)
            and torch.equal(values, expected[:batch])
            and torch.equal(codes.flatten(), torch.arange(batch * 100))
        )

    if first_here:
        assert work(0)
    assert list(in_order(work, range(24), workers=4, ahead=8)) == [True] * 24


# --- inside what a user compiles


@needs_compiler
@pytest.mark.parametrize("kind", ["FSQ", "VectorQuantizer"])
def test_a_users_own_compiled_module_may_hold_a_quantizer(kind: str) -> None:
    torch.manual_seed(0)
    quantizer: Quantizer = FSQ([5, 5, 5]) if kind == "FSQ" else VectorQuantizer(3, 20, codebook_update="frozen")
    module = nn.Sequential(nn.Conv2d(2, 3, 1), quantizer)
    pictures = noise(2, 2, 4, 4)
    plain = module(pictures)
    plain.latents.square().sum().backward()
    expected = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
    module.zero_grad()
    # Code is generated for one of them only, which takes seconds.
    compiled = torch.compile(module, backend="inductor" if kind == "FSQ" else "aot_eager")
    out = compiled(pictures)
    out.latents.square().sum().backward()
    assert torch.equal(out.codes, plain.codes)
    torch.testing.assert_close(out.latents, plain.latents)
    found = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert len(found) == len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    broken = pictures.clone()
    broken[1, 0, 2, 3] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        compiled(broken)
