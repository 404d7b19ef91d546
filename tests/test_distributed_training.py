"""Training on two ranks: the same as one process with the joint batch, and every decision taken together."""

from __future__ import annotations

import copy
import importlib
import json
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import torch
import torch.distributed as dist
from making import QUANTIZERS
from runs import GAN, tiny
from scripts import call_script, import_script
from torch import Tensor

import imtok.distributed as distributed
from imtok.config import TrainConfig
from imtok.config.training import AdversarialKind
from imtok.errors import ConfigError
from imtok.joint_batch import JointBatch
from imtok.quantizer_config import KINDS, VQConfig
from imtok.quantizers import LFQ
from imtok.quantizers.vector_config import CodebookUpdate, Estimator, VectorMetric
from imtok.tokenizer import Tokenizer
from imtok.training.gradient_sums import GradientSums
from imtok.training.state import TrainState
from imtok.training.step import train_step

CPU = torch.device("cpu")
STEPS = 3
# In float64 what is left is rounding: entries of a gradient that are all but 0 carry it into the weights at the size of
# the learning rate, since Adam divides a gradient by its own size. In float32 it is more, by the two precisions.
# Accuracies are float32 in either.
METRICS, WEIGHTS, METRICS_FLOAT32, WEIGHTS_FLOAT32 = 1e-6, 1e-6, 1e-5, 1e-3
IN_FLOAT32 = ["gumbel", "vq, ema, k-means, restarts", "bsq", "hinge, adaptive weight"]
ALWAYS = ["adversarial.start=0", "adversarial.warmup=0", "adversarial.ramp=0"]


def batch(seed: int = 0, size: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (size, 3, 16, 16), dtype=torch.uint8, generator=generator)


def state_on(rank: int, config: TrainConfig) -> TrainState:
    torch.manual_seed(0)
    return TrainState(config, CPU, rank=rank, ranks=2)


def tensors_of(state: TrainState) -> dict[str, Tensor]:
    """Everything that ranks must have in common, copied."""
    found = dict(state.tokenizer.state_dict()) | {f"average.{n}": v for n, v in state.ema.model.state_dict().items()}
    if state.adversary:
        found |= {f"adversary.{n}": v for n, v in state.adversary.state_dict().items() if isinstance(v, Tensor)}
    return {name: value.clone() for name, value in found.items()}


def spoil(rank: int, spoiled: Callable[[TrainState], Any], config: TrainConfig) -> dict[str, Any]:
    """Take three steps, the second of which `spoiled` makes unusable on rank 1 alone."""
    state = state_on(rank, config)
    found: dict[str, Any] = {}
    for number in range(3):
        hook = spoiled(state) if rank == 1 and number == 1 else None
        before = tensors_of(state)
        train_step(state, batch(number)[state.joint.numbers])
        if number == 1:
            after = tensors_of(state)
            counts = ("age", "latents_seen", "progress")
            found["changed"] = [n for n in after if not after[n].equal(before[n]) and not n.endswith(counts)]
        if hook:
            hook.remove()
    found["skipped"], found["tensors"] = int(state.skipped.all), tensors_of(state)
    found["means"] = state.metrics.means()
    return found


def spoil_latents(bad: float, state: TrainState) -> Any:
    def spoiled(_: Any, __: Any, latents: Tensor) -> Tensor:
        latents = latents.clone()
        latents[-1, -1, 0, 0] = bad
        return latents

    return state.tokenizer.encoder.register_forward_hook(spoiled)


def spoil_gradient(state: TrainState) -> Any:
    return next(iter(state.tokenizer.decoder.parameters())).register_hook(lambda gradient: gradient * math.nan)


def spoil_logits(state: TrainState) -> Any:
    assert state.adversary is not None
    return state.adversary.discriminator.register_forward_hook(lambda _, __, logits: logits * math.inf)


def noise_of(count: int) -> Tensor:
    return torch.randn(count, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def spoiled_runs(folder: Path) -> dict[str, Callable[[int], dict[str, Any]]]:
    """The faults of one rank, by name."""
    runs: dict[str, Callable[[int], dict[str, Any]]] = {}
    for name, quantizer in QUANTIZERS.items():
        dump = quantizer.model_dump(mode="json")
        config = tiny("batch_size=6", "accumulate=2").model_copy(
            update={"tokenizer": tiny().tokenizer.model_copy(update={"quantizer": type(quantizer)(**dump)})}
        )
        runs[f"latents of {name}"] = partial(_spoil, spoiled=partial(spoil_latents, math.nan), config=config)
    gan = tiny(*GAN, *ALWAYS, "batch_size=6", "adversarial.adaptive=true", "adversarial.critic_steps=2")
    runs["latents in a critic step"] = partial(_spoil, spoiled=partial(spoil_latents, math.inf), config=gan)
    frozen = tiny("batch_size=6", "freeze_codes=true", f"start_from={folder}")
    runs["latents of frozen codes"] = partial(_spoil, spoiled=partial(spoil_latents, math.nan), config=frozen)
    runs["gradient"] = partial(_spoil, spoiled=spoil_gradient, config=tiny("batch_size=6"))
    one = tiny(*GAN, *ALWAYS, "batch_size=6", "adversarial.adaptive=true")
    runs["logits"] = partial(_spoil, spoiled=spoil_logits, config=one)
    return runs


def _spoil(rank: int, *, spoiled: Callable[[TrainState], Any], config: TrainConfig) -> dict[str, Any]:
    return spoil(rank, spoiled, config)


def exchanges(rank: int) -> dict[str, Any]:
    """Use the single exchanges."""
    found: dict[str, Any] = {}
    rows = torch.arange(6.0).view(3, 2).split([1, 2])[rank]
    torch.manual_seed(5)
    drawn = [distributed.draw_for_rows(rows, lambda count: torch.rand(count, 2))]
    distributed._DRAW_BYTES = 0
    drawn.append(distributed.draw_for_rows(rows, lambda count: torch.rand(count, 2), row_bytes=8))
    found["drawn"], found["next number"] = drawn, torch.rand(())
    found["rows"] = distributed.joint_rows(rows, [1, 2])
    found["neighbours"] = distributed.from_previous_rank(rows[-1]), distributed.from_next_rank(rows[0])
    distributed._BUCKET_BYTES = 64
    several = [torch.full((2, 3, 4, 4), rank + 1.0).to(memory_format=torch.channels_last), torch.ones(3).double()]
    several += [torch.full((5,), 10.0 ** (rank + number)) for number in range(6)]
    distributed.begin_sums(several)()
    found["sums"] = several
    layers = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
    unused = torch.nn.Parameter(torch.ones(3))
    sums = GradientSums([unused, *layers.parameters()])
    sums.arm()
    layers(torch.full((1, 4), rank + 1.0)).sum().backward()
    found["sent"] = len(sums._finish), len(sums._buckets)
    sums.finish()
    found["gradients"] = [layers[-1].bias.grad, unused.grad]
    latents = noise_of(2).split(1)[rank].requires_grad_()
    LFQ(4, entropy_group=2)(latents).losses["entropy"].backward()
    found["entropy"] = latents.grad
    same = [torch.arange(9).view(3, 3).T, torch.zeros(()), torch.zeros(0)]
    other = [torch.ones(2), torch.tensor([1.0, 1.0 + rank * 2**-23])]
    swapped = [torch.tensor([1.0, 2.0] if rank else [2.0, 1.0])]
    found["agree"] = [distributed.ranks_agree(tensors) for tensors in (same, other, swapped, [])]
    state = state_on(rank, tiny("batch_size=6"))
    train_step(state, batch()[state.joint.numbers])
    counted = [int(state.metrics.counts.sum())]
    state.metrics.gather()
    counted.append(int(state.metrics.counts.sum()))
    saved = copy.deepcopy(state.metrics.state_dict())
    saved["counts"].fill_(1)
    state.metrics.load_state_dict(saved)
    found["counted"] = [*counted, int(state.metrics.counts.amax())]
    return found


def on_rank(rank: int, folder: Path) -> None:
    """Do it all on one rank, in a process of its own, and write what was found."""
    equality = importlib.import_module("rank_equality")
    torch.set_num_threads(1)
    rendezvous, limit = f"file://{folder}/rendezvous", timedelta(minutes=3)  # a rank that waits alone is a failure
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2, timeout=limit)
    try:
        double = {kind: equality.trained(kind, STEPS, rank=rank, ranks=2, double=True) for kind in equality.CASES}
        single = {kind: equality.trained(kind, STEPS, rank=rank, ranks=2) for kind in IN_FLOAT32}
        spoiled = {name: run(rank) for name, run in spoiled_runs(folder).items()}
        torch.save((double, single, spoiled, exchanges(rank)), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def equality() -> Iterator[ModuleType]:
    """The script that trains a kind on some ranks, or in one process."""
    with pytest.MonkeyPatch.context() as patch:
        yield import_script("rank_equality", patch)


@pytest.fixture(scope="module")
def found(equality: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The findings of each of two ranks; their start takes seconds, so that there is one for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    Tokenizer(tiny().tokenizer).save(folder)
    torch.multiprocessing.spawn(on_rank, args=(folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_ranks_equal_one_process_for_every_kind(equality: ModuleType, found: list[Any]) -> None:
    for kind, trained in found[0][0].items():
        alone = equality.trained(kind, STEPS, double=True)
        metrics, weights = equality.greatest_differences(alone, trained)
        assert metrics < METRICS, kind
        assert weights < WEIGHTS, kind


def test_two_ranks_equal_one_process_in_float32(equality: ModuleType, found: list[Any]) -> None:
    for kind, trained in found[0][1].items():
        metrics, weights = equality.greatest_differences(equality.trained(kind, STEPS), trained)
        assert metrics < METRICS_FLOAT32, kind
        assert weights < WEIGHTS_FLOAT32, kind


def test_metrics_and_tensors_are_the_same_on_every_rank(equality: ModuleType, found: list[Any]) -> None:
    for kind, trained in (found[0][0] | found[0][1]).items():
        others = (found[1][0] | found[1][1])[kind]
        means = [[step | {"codes": 0.0} for step in steps] for steps, _ in (trained, others)]
        assert str(means[0]) == str(means[1]), kind
        for name, value in trained[1].items():
            assert torch.equal(value, others[1][name]), (kind, name)


def test_the_kinds_cover_what_may_be_configured(equality: ModuleType) -> None:
    configs = [equality.config_of(kind) for kind in equality.CASES]
    quantizers = [config.tokenizer.quantizer for config in configs]
    vectors = [each for each in quantizers if isinstance(each, VQConfig)]
    for field, choices in (("metric", VectorMetric), ("estimator", Estimator), ("codebook_update", CodebookUpdate)):
        assert {getattr(each, field) for each in vectors} == set(get_args(choices)), field
    assert {each.kind for each in quantizers} == set(KINDS)
    games = [config.adversarial for config in configs if config.adversarial.enabled]
    assert {game.loss for game in games} == set(get_args(AdversarialKind))
    assert {game.discriminator.kind for game in games} == {"patchgan", "stylegan", "maskbit"}


def test_what_one_rank_cannot_use_all_ranks_skip(found: list[Any]) -> None:
    for name, first in found[0][2].items():
        second = found[1][2][name]
        assert first["skipped"] == second["skipped"] == 1, name
        assert first["changed"] == second["changed"] == [], name
        assert str(first["means"]) == str(second["means"]), name
        for tensor, value in first["tensors"].items():
            assert torch.equal(value, second["tensors"][tensor]), (name, tensor)
            assert torch.isfinite(value).all(), (name, tensor)


def test_rows_are_drawn_as_one_process_draws_them(found: list[Any]) -> None:
    torch.manual_seed(5)
    for number in range(2):  # in one draw, and one rank after the other
        assert torch.equal(torch.cat([found[rank][3]["drawn"][number] for rank in range(2)]), torch.rand(3, 2))
    following = torch.rand(())
    assert all(torch.equal(found[rank][3]["next number"], following) for rank in range(2))


def test_rows_and_neighbours_are_exchanged(found: list[Any]) -> None:
    for rank, (before, after) in enumerate([([4.0, 5.0], [2.0, 3.0]), ([0.0, 1.0], [0.0, 1.0])]):
        assert torch.equal(found[rank][3]["rows"], torch.arange(6.0).view(3, 2))
        assert [neighbour.tolist() for neighbour in found[rank][3]["neighbours"]] == [before, after]


def test_buckets_of_gradients_are_summed_in_place(found: list[Any]) -> None:
    for rank in range(2):
        grid, double, *rest = found[rank][3]["sums"]
        assert grid.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(grid, torch.full((2, 3, 4, 4), 3.0))
        assert torch.equal(double, torch.full((3,), 2.0, dtype=torch.float64))
        for number, each in enumerate(rest):
            torch.testing.assert_close(each, torch.full((5,), 11.0 * 10**number))


def test_gradients_are_sent_during_the_backward_pass(found: list[Any]) -> None:
    for rank in range(2):
        sent, buckets = found[rank][3]["sent"]
        assert buckets - sent == 1  # that of the parameter without a gradient
        gradient, unused = found[rank][3]["gradients"]
        assert torch.equal(gradient, torch.full((4,), 2.0))
        assert torch.equal(unused, torch.zeros(3))


def test_averaged_gradients_of_a_batch_entropy_are_joint(found: list[Any]) -> None:
    """As DistributedDataParallel averages those of ranks with equal shares."""
    joint = noise_of(2).requires_grad_()
    LFQ(4, entropy_group=2)(joint).losses["entropy"].backward()
    averaged = torch.cat([found[rank][3]["entropy"] for rank in range(2)]) / 2
    torch.testing.assert_close(averaged, joint.grad)


def test_one_differing_bit_is_found(found: list[Any]) -> None:
    assert found[0][3]["agree"] == found[1][3]["agree"] == [True, False, False, True]


def test_counts_of_codes_are_gathered_on_the_first_rank(found: list[Any]) -> None:
    tokens = 16  # of an image
    assert found[0][3]["counted"] == [3 * tokens, 6 * tokens, 1]
    assert found[1][3]["counted"] == [3 * tokens, 0, 0]


def test_batch_norm_is_refused_on_several_ranks() -> None:
    config = tiny(*GAN, "adversarial.discriminator.norm=batch")
    TrainState(config, CPU)
    with pytest.raises(ConfigError, match=r"set adversarial\.discriminator\.norm=group"):
        TrainState(config, CPU, rank=1, ranks=2)


@pytest.mark.parametrize(("size", "parts", "ranks"), [(10, 2, 2), (12, 3, 4), (21, 1, 5)])
def test_shares_of_ranks_and_parts_sum_to_one(size: int, parts: int, ranks: int) -> None:
    joints = [JointBatch(size, parts, rank, ranks) for rank in range(ranks)]
    assert [len(joint.rows) for joint in joints] == joints[0].sizes
    assert sum(joint.part_share for joint in joints) == pytest.approx(1)
    assert sum(joint.share for joint in joints) == pytest.approx(1 / parts)
    assert JointBatch(size, parts).share == 1 / parts


def test_the_script_prints_a_row_for_each_kind(
    equality: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_this_process(kinds: list[str], steps: int, ranks: int, *, double: bool) -> list[dict[str, Any]]:
        return [{kind: equality.trained(kind, steps, double=double) for kind in kinds}] * ranks

    monkeypatch.setattr(equality, "train_on_ranks", in_this_process)
    call_script(equality, monkeypatch, "--only", "residual fsq", "--steps", "1")
    *_, row, result = capsys.readouterr().out.splitlines()
    assert row == "| residual fsq | 0e+00 | 0e+00 | 0e+00 | 0e+00 |"
    assert json.loads(result)["differences"]["residual fsq"]["float64"] == [0, 0]


def test_steps_are_timed_with_and_without_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = import_script("rank_reductions", monkeypatch)
    small = ["batch_size=2", "data.crop=32", "tokenizer.network.channels=[8,16]"]
    script.time_on_rank(0, 1, tmp_path, "cpu-fsq-f8", small, 2)
    found = json.loads((tmp_path / "times.json").read_text())
    assert {way: len(seconds) for way, seconds in found["times"].items()} == {"overlap": 2, "after": 2, "none": 2}
    assert 0 < found["megabytes"] < 1
    with script.leaving_out("begin"):
        assert GradientSums([]).begin() is None
