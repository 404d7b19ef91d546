"""Recognition: prefixes of wrappers and whole models, ambiguous keys, and what a refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.family import Conversion, Family
from imtok.interop.recognition import recognised


class Named(Family):
    """A family that has one tensor of its own; `also` is one that it may have where a person says so."""

    def __init__(self, name: str, mark: str, also: str = "") -> None:
        self.name, self.label, self.mark, self.also = name, name.upper(), mark, also  # type: ignore[misc]

    def recognises(self, checkpoint: Checkpoint) -> bool:
        return self.mark in checkpoint.tensors

    def fits(self, checkpoint: Checkpoint) -> bool:
        return self.recognises(checkpoint) or self.also in checkpoint.tensors

    def convert(self, checkpoint: Checkpoint) -> Conversion:
        raise NotImplementedError


ONE, TWO, LIKE_TWO = Named("one", "a.weight"), Named("two", "b.weight"), Named("three", "c.weight", also="b.weight")


def checkpoint(*names: str, settings: dict[str, object] | None = None) -> Checkpoint:
    return Checkpoint(Path("x.ckpt"), {name: torch.ones(1) for name in names}, settings=settings or {})


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "model.", "model.vqmodel.", "first_stage_model.", "vqvae.", "gen_vision_model."],
)
def test_the_tokenizer_of_a_whole_model_is_found(prefix: str) -> None:
    whole = checkpoint(f"{prefix}a.weight", f"{prefix}other", "language_model.weight")
    family, part = recognised(whole, [ONE, TWO])
    assert family is ONE
    assert set(part.tensors) == {"a.weight", "other"} | ({"language_model.weight"} if not prefix else set())
    assert part.set_aside == ({f"tensors outside {prefix}*": 1} if prefix else {})


def test_a_whole_models_configuration_has_a_part_for_the_tokenizer() -> None:
    settings = {"model_type": "chameleon", "vq_config": {"embed_dim": 8}}
    _, part = recognised(checkpoint("model.vqmodel.a.weight", settings=settings), [ONE])
    assert part.settings == {"embed_dim": 8}
    _, part = recognised(checkpoint("a.weight", settings=settings), [ONE])
    assert part.settings == settings


def test_a_person_decides_where_the_keys_do_not() -> None:
    keys = checkpoint("b.weight")
    assert recognised(keys, [TWO, LIKE_TWO])[0] is TWO
    assert recognised(keys, [TWO, LIKE_TWO], "three")[0] is LIKE_TWO
    with pytest.raises(TokenizerError, match="its keys are those of one and two; name one of them by --family"):
        recognised(checkpoint("a.weight", "b.weight"), [ONE, TWO])
    assert recognised(checkpoint("a.weight", "b.weight"), [ONE, TWO], "two")[0] is TWO


def test_a_refusal_says_what_to_type() -> None:
    with pytest.raises(TokenizerError, match=r"not those of ONE \(one\), they look like TWO; .* type --family two"):
        recognised(checkpoint("b.weight"), [ONE, TWO], "one")
    with pytest.raises(TokenizerError, match="four: no family of that name; the families are one, two"):
        recognised(checkpoint("b.weight"), [ONE, TWO], "four")
    with pytest.raises(TokenizerError, match=r"its 5 tensors \(0, 1, 2, 3, \.\.\.\) are those of no family; imtok imp"):
        recognised(checkpoint(*"01234"), [ONE, TWO])
