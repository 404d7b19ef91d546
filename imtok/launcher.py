"""The numbers that a launcher such as torchrun gives each process in its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from imtok.errors import ConfigError

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Numbers:
    """The numbers of a process among all and among those of its machine."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1


def launched() -> Numbers:
    """Return the numbers that a launcher gave this process; raises ConfigError where it gave only some of them."""
    ranks, rank = launcher_number("WORLD_SIZE", 1), launcher_number("RANK", 0)
    needed = _NAMES if ranks > 1 else _NAMES[:2] if "RANK" in os.environ else ()
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        there = [f"{name}={os.environ[name]}" for name in _NAMES if os.environ.get(name)]
        raise ConfigError(
            f"the environment has {', '.join(there)} and no {', '.join(missing)}; start several processes by torchrun, "
            "or unset these for one"
        )
    numbers = Numbers(rank, ranks, launcher_number("LOCAL_RANK", 0), launcher_number("LOCAL_WORLD_SIZE", 1))
    if rank >= ranks or numbers.local_rank >= numbers.local_ranks:
        raise ConfigError(
            f"the environment has RANK={rank} of WORLD_SIZE={ranks} and LOCAL_RANK={numbers.local_rank} of "
            f"LOCAL_WORLD_SIZE={numbers.local_ranks}, and ranks count from 0; start by torchrun"
        )
    return numbers


def launcher_number(name: str, default: int) -> int:
    """Read a number that a launcher such as torchrun puts in the environment."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"the environment's {name} is {text!r}, expected a number; unset it or start by torchrun")
    return int(text)
