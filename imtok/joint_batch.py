"""The joint batch of a step: which of its rows each process computes.

A batch is computed in parts of equal size, one after the other. Each rank takes a block of consecutive rows of every
part, and the ranks' blocks follow each other. So the joint parts, and all that is drawn for them, are the same for any
number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from imtok.counted import counted
from imtok.errors import ConfigError


@dataclass(frozen=True)
class JointBatch:
    """`size` images in `parts` equal parts, of which this is rank `rank` of `ranks`.

    Raises ConfigError where a part has fewer images than there are ranks.
    """

    size: int
    parts: int = 1
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.part_size < self.ranks:
            raise ConfigError(
                f"batch_size {self.size} in {counted(self.parts, 'part')} gives {counted(self.part_size, 'image')} a "
                f"part, too few for {self.ranks} processes; raise batch_size, lower accumulate, or start fewer "
                "processes"
            )

    @property
    def part_size(self) -> int:
        """Images of a joint part."""
        return self.size // self.parts

    @property
    def rows(self) -> range:
        """This rank's rows of a joint part."""
        return range_of(self.part_size, self.rank, self.ranks)

    @property
    def numbers(self) -> list[int]:
        """This rank's rows of the joint batch, part after part."""
        return [part * self.part_size + row for part in range(self.parts) for row in self.rows]

    @property
    def sizes(self) -> list[int]:
        """Rows of each rank in a joint part."""
        return [len(range_of(self.part_size, rank, self.ranks)) for rank in range(self.ranks)]

    @property
    def part_share(self) -> float:
        """The weight, in a mean over a joint part, of a mean over this rank's rows of it."""
        return len(self.rows) / self.part_size

    @property
    def share(self) -> float:
        """The weight, in a mean over the joint batch, of a mean over this rank's rows of one part."""
        return len(self.rows) / self.size


def range_of(rows: int, rank: int, ranks: int) -> range:
    """Return the block of `rows` consecutive rows that rank `rank` of `ranks` takes."""
    return range(rank * rows // ranks, (rank + 1) * rows // ranks)
