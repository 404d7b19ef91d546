"""The share of one process in a job: the units that it encodes first."""

from __future__ import annotations

from dataclasses import dataclass

from imtok.errors import ConfigError


@dataclass(frozen=True)
class Share:
    """The units of this process, which is one of `count` jobs of `world_size` ranks each."""

    index: int = 0
    count: int = 1
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(f"--shard {self.index}/{self.count}: expected I/N with 0 <= I < N, for instance 0/8")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank {self.rank} of world size {self.world_size}: expected 0 <= rank < world size")

    @property
    def process(self) -> int:
        """The number of this process among all."""
        return self.index * self.world_size + self.rank

    @property
    def processes(self) -> int:
        """Processes of all jobs together."""
        return self.count * self.world_size

    def units(self, total: int) -> range:
        """Return the units of this process, of `total` in all."""
        return range(self.process, total, self.processes)

    def owner(self, unit: int) -> int:
        """Return the number of the process whose share a unit is in."""
        return unit % self.processes

    def name(self, process: int | None = None) -> str:
        """Return a name for files of a process, by default this one."""
        return f"{self.process if process is None else process:05d}-of-{self.processes:05d}"
