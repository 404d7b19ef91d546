"""The Triton search, run by Triton's interpreter: what it finds on a CPU is what its code says for a GPU."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from families import noise
from torch import Tensor

from imtok.errors import SlowerWarning
from imtok.kernels import nearest, nearest_codes, nearest_gpu

# The interpreter is chosen when Triton is imported: searches run in a process of their own, which starts with this.
INTERPRET = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def interpreter() -> Iterator[ProcessPoolExecutor]:
    pytest.importorskip("triton", reason="needs Triton, which comes with torch where there are GPUs")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in INTERPRET.items():
                patch.setenv(name, value)
            pool.submit(torch.set_num_threads, 1).result()  # starts it
        yield pool


def run_search(latents: Tensor, codebook: Tensor, centred: bool, spans: int | None) -> tuple[Tensor, Tensor]:
    """In the other process: the search as `nearest_codes` calls it."""
    centre = codebook.median(dim=0).values if centred else None
    rows = latents - centre if centre is not None else latents
    with np.errstate(invalid="ignore"):  # the interpreter computes with numpy, which speaks up at inf - inf
        return nearest_gpu.search(rows, codebook, centre, spans)


def run_nearest_codes(latents: Tensor, codebook: Tensor, metric: nearest.Metric) -> Tensor:
    """In the other process: the whole search with the Triton kernel in it."""
    nearest._search = nearest_gpu.search
    return nearest_codes(latents, codebook, metric)


def whole_numbers(count: int, dim: int, seed: int = 0) -> Tensor:
    """(N, D) float32 whose products have no rounding: that of the interpreter's matrix product depends on the place."""
    return (4 * noise(count, dim, seed=seed)).round()


def search(
    interpreter: ProcessPoolExecutor,
    latents: Tensor,
    codebook: Tensor,
    *,
    centred: bool = True,
    spans: int | None = None,
) -> tuple[Tensor, Tensor]:
    return interpreter.submit(run_search, latents, codebook, centred, spans).result()


def scores_of(latents: Tensor, codebook: Tensor, centred: bool) -> Tensor:
    """(N, K) float64 brute force."""
    latents, codebook = latents.double(), codebook.double()
    centre = codebook.median(dim=0).values if centred else 0
    codes = codebook - centre
    offsets = codes.square().sum(dim=1) / 2 if centred else 0
    return offsets - (latents - centre) @ codes.T


def assert_best(found: tuple[Tensor, Tensor], latents: Tensor, codebook: Tensor, centred: bool = True) -> None:
    best, codes = found
    scores = scores_of(latents, codebook, centred)
    expected, places = scores.min(dim=1)
    assert best.dtype == torch.float32
    assert codes.dtype == torch.int64
    torch.testing.assert_close(best.double(), expected, rtol=1e-5, atol=1e-5)
    least_two = scores.topk(min(2, scores.shape[1]), largest=False).values
    sure = (
        least_two[:, -1] - least_two[:, 0] > 1e-4 if scores.shape[1] > 1 else torch.ones(len(codes), dtype=torch.bool)
    )
    assert torch.equal(codes[sure], places[sure])
    torch.testing.assert_close(scores.gather(1, codes[:, None])[:, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("count", [1, 130])
@pytest.mark.parametrize(("dim", "num_codes"), [(1, 1), (1, 63), (7, 64), (8, 1000), (64, 63), (100, 1), (100, 1000)])
def test_the_kernel_finds_what_brute_force_finds(
    count: int, dim: int, num_codes: int, centred: bool, interpreter: ProcessPoolExecutor
) -> None:
    latents, codebook = noise(count, dim), noise(num_codes, dim, seed=2)
    assert_best(search(interpreter, latents, codebook, centred=centred), latents, codebook, centred)


@pytest.mark.parametrize("spans", [2, 3, 7, 63])
def test_spans_of_codes_do_not_change_the_bits(spans: int, interpreter: ProcessPoolExecutor) -> None:
    latents, codebook = whole_numbers(70, 20), whole_numbers(500, 20, seed=2)
    best, codes = search(interpreter, latents, codebook)
    again_best, again = search(interpreter, latents, codebook, spans=spans)
    assert torch.equal(again_best, best)
    assert torch.equal(again, codes)


def test_spans_beyond_the_last_code_find_nothing(interpreter: ProcessPoolExecutor) -> None:
    latents, codebook = noise(5, 3), noise(10, 3, seed=2)  # spans of 2: the last two are empty
    assert_best(search(interpreter, latents, codebook, spans=7), latents, codebook)


@pytest.mark.parametrize("spans", [1, 2, 5])
def test_ties_go_to_the_lower_index_everywhere(spans: int, interpreter: ProcessPoolExecutor) -> None:
    codebook = noise(64, 4, seed=2)[torch.arange(640) % 64]  # each code ten times
    codebook[1] = codebook[0]
    _, codes = search(interpreter, codebook[:64], codebook, spans=spans)
    assert codes.tolist() == [0, 0, *range(2, 64)]


def test_all_codes_alike_give_the_first(interpreter: ProcessPoolExecutor) -> None:
    _, codes = search(interpreter, whole_numbers(3, 8), torch.ones(300, 8), centred=False, spans=4)
    assert codes.tolist() == [0, 0, 0]


@pytest.mark.parametrize("spans", [1, 3])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_bad_latent_spoils_its_own_score_alone(bad: float, spans: int, interpreter: ProcessPoolExecutor) -> None:
    latents, codebook = noise(40, 4), noise(200, 4, seed=2)
    latents[17, 2] = bad
    best, _ = search(interpreter, latents, codebook, spans=spans)
    assert not best[17].isfinite()
    assert best.isfinite().sum() == 39


@pytest.mark.parametrize("place", [0, 70, 199])
def test_a_bad_code_spoils_all_scores(place: int, interpreter: ProcessPoolExecutor) -> None:
    latents, codebook = noise(40, 4), noise(200, 4, seed=2)
    codebook[place, 2] = torch.nan
    best, _ = search(interpreter, latents, codebook, centred=False, spans=3)
    assert not best.isfinite().any()


def test_far_from_the_origin_codes_are_still_told_apart(interpreter: ProcessPoolExecutor) -> None:
    codebook = noise(300, 8, seed=2) + 10_000
    latents = codebook[:100] + 0.01 * noise(100, 8)
    _, codes = search(interpreter, latents, codebook, spans=2)
    assert codes.tolist() == list(range(100))


def test_no_latents_have_no_codes(interpreter: ProcessPoolExecutor) -> None:
    best, codes = search(interpreter, torch.zeros(0, 4), noise(10, 4))
    assert best.shape == codes.shape == (0,)
    assert codes.dtype == torch.int64


def test_views_are_searched_like_copies(interpreter: ProcessPoolExecutor) -> None:
    latents, codebook = noise(8, 50).T, noise(16, 90, seed=2).T[:, ::2]
    found = search(interpreter, latents, codebook, centred=False)
    copies = search(interpreter, latents.contiguous(), codebook.contiguous(), centred=False)
    assert torch.equal(found[0], copies[0])
    assert torch.equal(found[1], copies[1])


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_nearest_codes_are_the_same_with_the_kernel_in_it(
    metric: nearest.Metric, interpreter: ProcessPoolExecutor
) -> None:
    latents, codebook = noise(100, 12), noise(300, 12, seed=2)
    codes = interpreter.submit(run_nearest_codes, latents, codebook, metric).result()
    assert torch.equal(codes, nearest_codes(latents, codebook, metric))


def test_nearest_codes_refuse_nan_with_the_kernel_in_it(interpreter: ProcessPoolExecutor) -> None:
    latents = noise(10, 4)
    latents[3, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        interpreter.submit(run_nearest_codes, latents, noise(20, 4), "euclidean").result()


@pytest.mark.parametrize(("form", "arch"), [(0, 80), (-1, 90)])
def test_the_kernel_compiles_for_gpus_with_exact_products(form: int, arch: int) -> None:
    triton = pytest.importorskip("triton")
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", arch, 32)
    kernels = importlib.import_module("imtok.kernels.nearest_triton")
    config = kernels.CONFIGS[form]
    constants = {"DIM": 20, "CENTRED": True, "BLOCK_D": kernels.BLOCK_D, **config.kwargs}
    types = dict.fromkeys(("rows", "table", "centre", "offsets", "best"), "*fp32") | {"codes": "*i64"}
    types |= dict.fromkeys(("count", "num_codes", "span", "bucket"), "i32") | dict.fromkeys(constants, "constexpr")
    source = importlib.import_module("triton.compiler").ASTSource(kernels.nearest_in_span, types, constants)
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages, "enable_fp_fusion": True}
    assembly = triton.compile(source, target=target, options=options).asm["ptx"]
    assert "fma.rn.f32" in assembly
    assert "mma" not in assembly  # tensor cores would take float32 as TF32


def test_without_triton_nothing_is_found_and_nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "imtok.kernels.nearest_triton", raising=False)
    monkeypatch.setattr(nearest_gpu, "_triton", nearest_gpu._Triton())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nearest_gpu.search_on_gpu(noise(3, 4), noise(5, 4), None) is None


def test_a_triton_failure_warns_once_and_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    triton = nearest_gpu._Triton()
    monkeypatch.setattr(nearest_gpu, "_triton", triton)
    with pytest.warns(SlowerWarning, match="searched in tiles"):  # Triton without its interpreter refuses a CPU
        assert nearest_gpu.search_on_gpu(noise(3, 4), noise(5, 4), None) is None
    assert triton.failed
    assert nearest_gpu.search_on_gpu(noise(3, 4), noise(5, 4), None) is None


def test_only_few_latents_cut_the_codes_into_spans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Properties:
        multi_processor_count = 100

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    cuda = torch.device("cuda")
    assert nearest_gpu._spans(64, 16384, cuda) == 16  # of 1024 codes, the least that a program is started for
    assert nearest_gpu._spans(6400, 16384, cuda) == 4
    assert nearest_gpu._spans(64_000, 16384, cuda) == 1
    assert nearest_gpu._spans(1, 5, cuda) == 1
