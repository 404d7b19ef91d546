"""Paths of the files of a piece: beside each other in the export's folder, or in a folder for each split."""

from __future__ import annotations

from pathlib import Path

from imtok.export.format import Piece


def stem_of(piece: Piece) -> str:
    """Return the name of the files of a piece without what they end in: `train`, or `train-00000-of-00002`.

    For formats in which a split is one file, unless `--shard-size` asks for more.
    """
    if piece.pieces == 1:
        return piece.split
    return f"{piece.split}-{piece.number:05d}-of-{piece.pieces:05d}"


def path_of(piece: Piece, suffix: str) -> str:
    """Return the POSIX path of a piece's file in the folder of its split, so that one pattern names those of one."""
    return f"{piece.split}/{piece.number:06d}{suffix}"


def make_target(folder: Path, path: str) -> Path:
    """Return the target of a file below `folder`, and make the folder that it lies in."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
