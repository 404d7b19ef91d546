"""The exact search of FAISS in a process of its own: the threads of two libraries in one process disturb each other.

`Faiss` starts this file as a child, which builds an IndexFlatL2 of the codes and then searches it each time a line
arrives. Building the index is not part of a search.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LATENTS, CODEBOOK, CODES = "latents.npy", "codebook.npy", "codes.npy"


class Faiss:
    """A child process that finds the nearest of `codebook` (K, D) to each of `latents` (N, D), both float32."""

    def __init__(self, latents: Tensor, codebook: Tensor, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name)
        for name, values in ((LATENTS, latents), (CODEBOOK, codebook)):
            np.save(self._path / name, values.cpu().numpy())
        self._child = subprocess.Popen(
            [sys.executable, __file__, str(self._path), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._wait()

    def search(self) -> None:
        """Search once and wait for the end; the line there and back takes a fraction of a millisecond."""
        self._ask("search")

    def codes(self) -> Tensor:
        """Return the codes of the last search, (N,) int64."""
        self._ask("write")
        return torch.from_numpy(np.load(self._path / CODES))

    def close(self) -> None:
        self._child.communicate()
        self._folder.cleanup()

    def _ask(self, word: str) -> None:
        assert self._child.stdin is not None
        print(word, file=self._child.stdin, flush=True)
        self._wait()

    def _wait(self) -> None:
        assert self._child.stdout is not None
        if not self._child.stdout.readline():
            raise RuntimeError(f"FAISS ended with status {self._child.wait()}; pip install 'imtok[bench]'")


def serve(folder: Path, threads: int) -> None:
    """Answer each line from the parent once it is done."""
    import faiss

    faiss.omp_set_num_threads(threads)
    latents, codebook = (np.load(folder / name) for name in (LATENTS, CODEBOOK))
    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook)
    print("ready", flush=True)
    codes = np.zeros((len(latents), 1), dtype=np.int64)
    for line in sys.stdin:
        if line.strip() == "write":
            np.save(folder / CODES, codes[:, 0])
        else:
            _, codes = index.search(latents, 1)
        print("done", flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
