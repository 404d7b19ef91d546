"""Group norm in the memory order that a CPU is fast in: torch's results, by torch's fast kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from runs import GAN, VQ, tiny
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from imtok.networks import norms
from imtok.networks.norms import GroupNorm, in_fast_order
from imtok.training.state import TrainState
from imtok.training.step import train_step

LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format
SHAPES = [(2, 8, 4, 6), (3, 12, 5, 1), (1, 4, 7, 3)]
GROUPS = [1, 2, 4]
# The argument of torch's operators that is normalised.
NORMALISED = {torch.ops.aten.native_group_norm.default: 0, torch.ops.aten.native_group_norm_backward.default: 1}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(groups: int, channels: int) -> tuple[GroupNorm, nn.GroupNorm]:
    """Ours and torch's with the same weights."""
    ours, theirs = GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
    for norm in (ours, theirs):
        norm.weight.data, norm.bias.data = noise(channels, seed=1), noise(channels, seed=2)
    return ours, theirs


def passes(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """The output and the gradients at x, weight and bias."""
    x = x.detach().requires_grad_()
    out = norm(x)
    grad = torch.empty_like(out).copy_(noise(*x.shape, seed=3))  # in the memory order of the output
    return [out, *torch.autograd.grad(out, (x, *norm.parameters()), grad)]


class Orders(TorchDispatchMode):
    """Records type and memory order of what torch normalises; its backward kernel brings gradients to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[torch.dtype, bool]] = set()
        self.calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        position = NORMALISED.get(function)
        if position is not None:
            self.calls += 1
            self.seen.add((args[position].dtype, args[position].is_contiguous()))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_channels_last_bfloat16_is_the_contiguous_result(shape: tuple[int, ...], groups: int) -> None:
    ours, theirs = pair(groups, shape[1])
    x = noise(*shape).bfloat16()
    found = passes(ours, x.contiguous(memory_format=LAST))
    assert found[0].is_contiguous(memory_format=LAST)
    for mine, expected in zip(found, passes(theirs, x), strict=True):
        assert mine.dtype == expected.dtype
        assert torch.equal(mine, expected)
    exact = theirs.double()(x.double())
    torch.testing.assert_close(found[0].double(), exact, atol=0.03, rtol=0.01)


@pytest.mark.parametrize("order", [LAST, CONTIGUOUS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wider_types_keep_the_bits_of_torch(dtype: torch.dtype, order: torch.memory_format) -> None:
    ours, theirs = (norm.to(dtype) for norm in pair(2, 8))
    x = noise(2, 8, 5, 4).to(dtype).contiguous(memory_format=order)
    for mine, expected in zip(passes(ours, x), passes(theirs, x), strict=True):
        assert torch.equal(mine, expected)
        assert mine.stride() == expected.stride()


def test_second_derivatives_are_those_of_torch() -> None:
    ours, theirs = pair(2, 4)
    x = noise(2, 4, 3, 3).bfloat16()
    penalties = []
    for norm, values in ((ours, x.contiguous(memory_format=LAST)), (theirs, x)):
        leaf = values.detach().requires_grad_()
        (slope,) = torch.autograd.grad(norm(leaf).float().square().sum(), leaf, create_graph=True)
        penalties.append(torch.autograd.grad(slope.float().square().sum(), norm.weight)[0])
    assert penalties[0].abs().max() > 0
    torch.testing.assert_close(*penalties, rtol=0.02, atol=0.02)


def test_gradients_of_the_copy_agree_with_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "is_slow", lambda _: True)
    norm = GroupNorm(2, 4).double()
    x = noise(1, 4, 2, 2).double().contiguous(memory_format=LAST).requires_grad_()
    assert torch.autograd.gradcheck(norm, x)
    assert torch.autograd.gradgradcheck(norm, x)


def test_a_compiled_graph_has_torchs_norm_alone() -> None:
    norm, graphs = GroupNorm(2, 4), []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append([str(node.target) for node in graph.graph.nodes if node.op.startswith("call")])
        return graph.forward

    x = noise(2, 4, 3, 3).bfloat16().contiguous(memory_format=LAST)
    compiled = torch.compile(norm, backend=keep, fullgraph=True)
    torch.testing.assert_close(compiled(x).float(), norm(x).float(), atol=0.02, rtol=0.02)
    assert len(graphs) == 1
    assert not any("contiguous" in name for name in graphs[0])


@pytest.mark.parametrize("last", ["channels_last=false", "channels_last=true"])
@pytest.mark.parametrize(
    "settings", [VQ, [*GAN, "adversarial.start=0", "adversarial.warmup=0"]], ids=["vq", "adversarial"]
)
def test_a_bfloat16_step_never_takes_the_slow_kernel(settings: list[str], last: str) -> None:
    torch.manual_seed(0)
    state = TrainState(tiny(*settings, "precision=bf16", last), torch.device("cpu"))
    batch = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    with Orders() as orders:
        train_step(state, batch)
    assert orders.calls >= 2 * 10  # the norms of encoder and decoder, forward and backward
    assert {contiguous for dtype, contiguous in orders.seen if dtype == torch.bfloat16} == {True}


def test_decoders_are_contiguous_in_bfloat16_alone() -> None:
    latents = noise(1, 3, 3, 4).movedim(-1, 1)  # as a look-up gives them
    assert in_fast_order(latents) is latents
    assert in_fast_order(latents.bfloat16()).is_contiguous()
    with torch.autocast("cpu", torch.bfloat16):
        assert in_fast_order(latents).is_contiguous()
    with torch.autocast("cpu", torch.float16):
        assert in_fast_order(latents) is latents
