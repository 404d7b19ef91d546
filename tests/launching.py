"""Training started by torchrun under test: how it is started, and how its processes are found and signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TINY = [
    *("--set", "size=16", "--set", "data.crop=16", "--set", "network={fold: 2, channels: [8,16], blocks: 1}"),
    *("--set", "quantizer={kind: fsq, levels: [5,5,3]}", "--set", "batch_size=8", "--set", "data.val_fraction=0.2"),
    *("--set", "threads=2", "--set", "precision=fp32", "--set", "device=cpu"),
]


class Started:
    """A command that works with processes below it; what it prints goes into a file."""

    def __init__(self, command: Sequence[str | Path], output: Path, **environment: str) -> None:
        self.output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [*map(str, command)], stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environment}
            )

    @property
    def text(self) -> str:
        """All that was printed so far."""
        return self.output.read_text()

    def ranks(self) -> dict[int, int]:
        """The process numbers of the ranks below the command."""
        parents, numbers = dict[int, int](), dict[int, int]()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names = dict(word.partition("=")[::2] for word in (folder / "environ").read_text().split("\0"))
                if "TORCHELASTIC_RUN_ID" in names:
                    numbers[int(folder.name)] = int(names["RANK"])
            except (OSError, KeyError, ValueError):
                continue
        return {rank: pid for pid, rank in numbers.items() if self._is_above(pid, parents)}

    def _is_above(self, pid: int, parents: dict[int, int]) -> bool:
        while pid in parents and pid != self.process.pid:
            pid = parents[pid]
        return pid == self.process.pid

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` says so; the command must not end before."""
        until = time.monotonic() + 300
        while not ready():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < until, self.text
            time.sleep(0.05)

    def signal_and_wait(self, number: signal.Signals, rank: int | None = None) -> tuple[int, float]:
        """Send a signal to a rank, or to the command; return its exit code and the seconds until all had ended."""
        ranks = self.ranks()
        os.kill(self.process.pid if rank is None else ranks[rank], number)
        sent = time.monotonic()
        while any(Path(f"/proc/{pid}").exists() for pid in ranks.values()):
            assert time.monotonic() < sent + 100, self.text
            time.sleep(0.02)
        seconds = time.monotonic() - sent
        return self.process.wait(100), seconds


def newest(run: Path) -> int:
    """Training images seen at the newest checkpoint, 0 without one."""
    return max((int(path.stem) for path in run.glob("checkpoints/*.safetensors")), default=0)
