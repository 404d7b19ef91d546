"""Names of files of formats in which a split is one file, unless `--shard-size` asks for more."""

from __future__ import annotations

from imtok.export.format import Piece


def stem_of(piece: Piece) -> str:
    """Return the name of the files of a piece without what they end in: `train`, or `train-00000-of-00002`."""
    if piece.pieces == 1:
        return piece.split
    return f"{piece.split}-{piece.number:05d}-of-{piece.pieces:05d}"
