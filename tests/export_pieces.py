"""Plans, pieces and blocks of an export, made for the tests of one format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from imtok.export.file_runs import names_in
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage, Split
from imtok.export.options import ExportOptions
from imtok.export.planning import cut_pieces
from imtok.tokens import Numerics, TokensInfo

INFO = TokensInfo(
    fingerprint="f" * 64,
    codebook_size=1000,
    num_codebooks=1,
    index_order=None,
    grid=(2, 3),
    downsample=8,
    size=16,
    fit="crop",
    numerics=Numerics(device="cpu", precision="fp32", batch_size=16, threads=1, versions={"imtok": "1"}),
    units=1,
    unit_size=1,
    images=8,
    tars=0,
    class_names=(),
    plan="a" * 64,
)


@dataclass
class Exporting:
    """An export of images with random ids in blocks of three, in pieces of five."""

    writer: Format
    dtype: str
    images: int = 8
    crops: int = 1
    labelled: bool = True
    keys: tuple[str, ...] = ()  # of the first images; the others are called `n/4.png`
    class_names: tuple[str, ...] = ()
    info: TokensInfo = INFO
    split: Split = "train"
    shard_size: int | None = 5
    sizes: tuple[int, int] | None = (48, 40)

    @property
    def plan(self) -> ExportPlan:
        height, width = self.info.grid
        return ExportPlan(
            info=self.info,
            options=ExportOptions(shard_size=self.shard_size),
            dtype=np.dtype(self.dtype).newbyteorder("<"),
            ids_per_image=height * width,
            num_ids=self.info.codebook_size,
            crops=self.crops,
            images={self.split: self.images},
            labelled=self.images if self.labelled else 0,
            class_names=self.class_names,
        )

    @property
    def pieces(self) -> list[Piece]:
        return cut_pieces(self.plan, self.writer)

    def block(self, start: int, stop: int) -> Block:
        """Return images [start, stop), the same in every call."""
        random = np.random.default_rng(7)
        images, plan = self.images, self.plan
        ids = random.integers(0, plan.num_ids, (images, self.crops, plan.ids_per_image)).astype(plan.dtype)
        labels = random.integers(0, max(3, len(self.class_names)), images)
        crops = random.integers(0, 9, (images, self.crops, 5)) if self.crops > 1 else None
        keys = [*self.keys[:images], *(f"n/{number}.png" for number in range(len(self.keys), images))]
        return Block(
            split=self.split,
            first=start,
            keys=keys[start:stop],
            ids=ids[start:stop],
            labels=labels[start:stop] if self.labelled else None,
            crops=None if crops is None else crops[start:stop],
            sizes=None if self.sizes is None else np.tile(self.sizes, (stop - start, 1)),
        )

    def blocks(self, piece: Piece) -> Iterator[Block]:
        """Yield the blocks of a piece."""
        end = piece.first + piece.images
        for start in range(piece.first, end, 3):
            yield self.block(start, min(start + 3, end))

    def write(self, folder: Path) -> list[str]:
        """Write all pieces and what stands beside them; return the paths of the files, all of which are there."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [
            path for piece in self.pieces for path in self.writer.write(piece, self.blocks(piece), self.plan, folder)
        ]
        paths += self.writer.finish(self.pieces, self.plan, folder)
        paths = [name for path in paths for name in names_in(path)]
        assert len(set(paths)) == len(paths)
        assert sorted(paths) == sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
        return paths

    def read(self, folder: Path) -> list[ReadImage]:
        return list(self.writer.read(self.pieces, self.plan, folder))

    def read_by_library(self, folder: Path) -> list[ReadImage]:
        return list(self.writer.read_by_library(self.pieces, self.plan, folder))

    def check(self, found: list[ReadImage], *, keys: bool = True, labels: bool = True) -> None:
        """Assert that the images that were read are those that were written, in their order."""
        expected = self.block(0, self.images)
        assert len(found) == self.images
        for number, image in enumerate(found):
            assert image.split == self.split
            np.testing.assert_array_equal(image.ids, expected.ids[number])
            assert image.key == (expected.keys[number] if keys else None)
            assert image.label == (int(expected.labels[number]) if labels and expected.labels is not None else None)

    def but(self, **changes: object) -> Exporting:
        """Return the same export with other fields."""
        return replace(self, **changes)  # type: ignore[arg-type]
