"""Training batches from a token set: order, ranks, workers and resuming."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import making
import numpy as np
import pytest
from torch.utils.data import DataLoader

from imtok.errors import TokensError
from imtok.tokens import LabelledTokens, TokenBatchSampler, open_tokens


@pytest.fixture
def tokens(tmp_path: Path) -> LabelledTokens:
    """23 images in three shards, labelled by their number."""
    ends = [0, 10, 17, 23]
    units = [np.arange(start, stop).reshape(-1, 1, 1).repeat(4, 1).repeat(4, 2) for start, stop in pairwise(ends)]
    labels = [np.arange(start, stop) for start, stop in pairwise(ends)]
    return open_tokens(making.token_folder(tmp_path / "tokens", units, 32, labels=labels)).with_labels()


def taken(tokens: LabelledTokens, batches: int, **options: int) -> list[list[int]]:
    return list(islice(TokenBatchSampler(tokens, 4, seed=5, **options), batches))


def test_each_epoch_has_every_image_once_in_its_own_order(tokens: LabelledTokens) -> None:
    order = [image for batch in taken(tokens, 23) for image in batch]
    epochs = [order[start : start + 23] for start in range(0, 92, 23)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(23))] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_any_number_of_ranks_sees_the_same_joint_batches(tokens: LabelledTokens, ranks: int) -> None:
    of_ranks = [taken(tokens, 9, rank=rank, ranks=ranks) for rank in range(ranks)]
    joint = [[image for part in parts for image in part] for parts in zip(*of_ranks, strict=True)]
    assert joint == taken(tokens, 9)


def test_a_resumed_run_goes_on_where_it_stopped(tokens: LabelledTokens) -> None:
    assert taken(tokens, 5, seen=7 * 4) == taken(tokens, 12)[7:]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_codes_and_labels_in_this_order(tokens: LabelledTokens, workers: int) -> None:
    loader = DataLoader(tokens, batch_sampler=TokenBatchSampler(tokens, 4, seed=5), num_workers=workers)
    for numbers, (keys, codes, labels) in zip(taken(tokens, 12), loader, strict=False):
        assert labels.tolist() == numbers
        assert codes.shape == (4, 4, 4)
        assert codes[:, 0, 0].tolist() == numbers
        assert list(keys) == [tokens[number][0] for number in numbers]


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(TokensError, match="without images"):
        TokenBatchSampler([], 4)


@pytest.mark.parametrize(("seen", "rank"), [(-1, 0), (0, 2), (0, -1)])
def test_impossible_places_are_refused(tokens: LabelledTokens, seen: int, rank: int) -> None:
    with pytest.raises(TokensError, match="expected seen >= 0 and 0 <= rank < ranks"):
        TokenBatchSampler(tokens, 4, seen=seen, rank=rank, ranks=2)
