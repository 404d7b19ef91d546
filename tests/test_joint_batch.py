"""The rows of a joint batch that each rank takes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from imtok.errors import ConfigError
from imtok.joint_batch import JointBatch


@pytest.mark.parametrize(("size", "parts", "ranks"), [(8, 1, 1), (8, 2, 2), (10, 2, 3), (7, 1, 4), (12, 3, 4)])
def test_ranks_take_consecutive_blocks_of_every_part(size: int, parts: int, ranks: int) -> None:
    batches = [JointBatch(size, parts, rank, ranks) for rank in range(ranks)]
    for part in range(parts):
        block = [
            number
            for batch in batches
            for number in batch.numbers[part * len(batch.rows) : (part + 1) * len(batch.rows)]
        ]
        assert block == list(range(part * size // parts, (part + 1) * size // parts))
    assert sum(Fraction(batch.share).limit_denominator(1000) * parts for batch in batches) == 1


def test_one_process_takes_every_row() -> None:
    assert JointBatch(6, 2).numbers == list(range(6))
    assert JointBatch(6, 2).share == 1 / 2


def test_more_ranks_than_images_of_a_part_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 images a part, too few for 3 processes"):
        JointBatch(4, 2, 0, 3)
