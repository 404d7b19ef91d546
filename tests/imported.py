"""Every published family's tests need these: fine-tuning of an imported tokenizer, and its tokens and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from making import fill

import imtok
from imtok.config import TrainConfig
from imtok.decoding import decode
from imtok.encoding import encode
from imtok.tokenizer import Tokenizer
from imtok.tokens import open_tokens
from imtok.tokens.verify import verify_tokens
from imtok.training import train


def fine_tuned(tokenizer: Tokenizer, folder: Path, size: int, freeze_codes: bool = True, **settings: Any) -> Tokenizer:
    """Train the decoder alone for two steps of two pictures, from a tokenizer folder, and return the result."""
    tokenizer.save(folder / "start")
    config = TrainConfig(
        tokenizer=tokenizer.config.model_copy(update={"size": size}),
        start_from=str(folder / "start"),
        freeze_codes=freeze_codes,
        images=4,
        batch_size=2,
        ema_decay=0,
        data={"crop": size, "val_fraction": 0.5},
        optimizer={"learning_rate": 0.01},
        threads=1,
        device="cpu",
        precision="fp32",
        **settings,
    )
    train([fill(folder / "pictures", [f"{number}.png" for number in range(4)])], folder / "run", config)
    return imtok.load(folder / "run")


def check_fine_tuning(tokenizer: Tokenizer, folder: Path, size: int, **settings: Any) -> None:
    """The decoder's training leaves every token as it was, and moves the decoder."""
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    tuned = fine_tuned(tokenizer, folder, size, **settings)
    codes = tokenizer.encode(images)
    assert torch.equal(tuned.encode(images), codes)
    assert tuned.fingerprint == tokenizer.fingerprint
    assert not torch.equal(tuned.decode(codes), tokenizer.decode(codes))


def check_token_folder(tokenizer: Tokenizer, folder: Path, size: int) -> None:
    """Pictures become a token folder that verifies, holds the tokenizer's own codes, and becomes pictures again."""
    tokenizer.save(folder / "tokenizer")
    encode([fill(folder / "pictures", ["a.png", "b.png"])], folder / "tokens", folder / "tokenizer", size=size)
    assert not verify_tokens(folder / "tokens").problems
    dataset = open_tokens(folder / "tokens")
    assert dataset.fingerprint == imtok.load(folder / "tokens").fingerprint == tokenizer.fingerprint
    assert len(dataset) == 2
    decode(folder / "tokens", folder / "images")
    assert len(list((folder / "images").glob("*.png"))) == 2
