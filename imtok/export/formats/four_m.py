"""ml-4m's pretokenized images: tars of tokens, and tars of the crops that they were made from, side by side.

    train/tok_rgb@256/shard-00000.tar     NAME.npy int16 (A, T)
    train/crop_settings/shard-00000.tar   NAME.npy int64 (A, 5): top, left, height, width, mirrored

Read from ml-4m's `fourm/data/unified_datasets.py` and `save_vq_tokens.py`. A sample has one name in the tars of all
modalities, and stands at one place in them; the name is the one that the picture has in a tar of pictures. A name with
a second dot would be taken for a sample of several modalities.
"""

# Axes: n images of a block, A crops of an image, T ids of an image.

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from imtok.errors import TokensError
from imtok.export.format import Block, ExportPlan, Format, Piece, ReadImage
from imtok.export.hashing import hashed_writer
from imtok.export.member_names import MemberNames
from imtok.export.npy_files import npy_files
from imtok.export.tar_writing import Member, TarWriter, read_members

_CROPS_DTYPE = np.dtype("<i8")


class FourM(Format):
    """Tars of tokens and of crop settings."""

    name: ClassVar[str] = "4m"
    dtypes: ClassVar[tuple[str, ...]] = ("int16",)
    refused: ClassVar[frozenset[str]] = frozenset({"boi", "eoi", "eol", "eod", "label", "label_offset"})
    default_images: ClassVar[int | None] = 10_000

    def trainer_note(self, plan: ExportPlan) -> str:
        """Return the path for ml-4m's data configuration, and the facts of the modality."""
        last = self.last_piece(plan)
        shards = f"shard-{{00000..{last:05}}}.tar" if last else "shard-00000.tar"
        return (
            f"data_path OUT/train/[tok_rgb@{plan.info.size},crop_settings]/{shards}; "
            f"vocab_size {plan.num_ids}, max_tokens {plan.ids_per_image}"
        )

    def write(self, piece: Piece, blocks: Iterable[Block], plan: ExportPlan, folder: Path) -> list[str]:
        """Write a tar of tokens and a tar of crop settings."""
        paths = _paths(piece, plan)
        names = MemberNames()
        with hashed_writer(folder / paths[0]) as tokens_file, hashed_writer(folder / paths[1]) as settings_file:
            tokens, settings = TarWriter(tokens_file), TarWriter(settings_file)
            for block in blocks:
                taken = names.take(block.keys)
                tokens.write_samples(taken, {"npy": npy_files(block.ids)})
                settings.write_samples(taken, {"npy": npy_files(_crop_settings(block, plan))})
            tokens.close()
            settings.close()
        return list(paths)

    def read(self, pieces: Sequence[Piece], plan: ExportPlan, folder: Path) -> Iterator[ReadImage]:
        """Read both tars of each piece side by side."""
        for piece in pieces:
            tokens, settings = (folder / path for path in _paths(piece, plan))
            pairs = zip(read_members(tokens), read_members(settings), strict=True)
            count = 0
            try:
                for member, crops in pairs:
                    if member.name != crops.name:
                        raise TokensError(
                            f"{settings}: has {crops.name} where {tokens} has {member.name}; export again"
                        )
                    _load(crops, _CROPS_DTYPE, (plan.crops, 5), settings)
                    ids = _load(member, plan.dtype, (plan.crops, plan.ids_per_image), tokens)
                    yield ReadImage(split=piece.split, ids=ids)
                    count += 1
            except ValueError as error:
                raise TokensError(f"{settings}: holds more or fewer samples than {tokens}; export again") from error
            if count != piece.images:
                raise TokensError(f"{tokens}: holds {count} images, expected {piece.images}; export again")


def _paths(piece: Piece, plan: ExportPlan) -> tuple[str, str]:
    """Return the paths of the tokens and of the crop settings."""
    shard = f"shard-{piece.number:05}.tar"
    return f"{piece.split}/tok_rgb@{plan.info.size}/{shard}", f"{piece.split}/crop_settings/{shard}"


def _crop_settings(block: Block, plan: ExportPlan) -> npt.NDArray[np.int64]:
    """Return the crops of a block's images: (n, A, 5)."""
    if block.crops is not None:
        return block.crops.astype(_CROPS_DTYPE)
    assert block.sizes is not None  # every token set has them
    crops = np.zeros((len(block), 1, 5), _CROPS_DTYPE)
    # The central square, or the square around the picture; parts outside the picture have negative places.
    sides = block.sizes.min(axis=1) if plan.info.fit == "crop" else block.sizes.max(axis=1)
    rest = block.sizes - sides[:, None]  # (n, 2)
    crops[:, 0, :2] = np.sign(rest) * (np.abs(rest) // 2)
    crops[:, 0, 2:4] = sides[:, None]
    return crops


def _load(member: Member, dtype: np.dtype[Any], shape: tuple[int, ...], path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(member.data))
    except (ValueError, EOFError, OSError) as error:
        raise TokensError(f"{path}: {member.name} is damaged ({error}); export again") from error
    if array.shape != shape or array.dtype != dtype:
        raise TokensError(
            f"{path}: {member.name} is {array.dtype}{list(array.shape)}, expected {dtype}{list(shape)}; export again"
        )
    return array
