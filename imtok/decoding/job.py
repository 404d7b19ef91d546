"""The decoding job: a token folder to image files."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from imtok.cores import usable_cores
from imtok.decoding.batches import FORMATS, BatchDecoder, Format, code_batches
from imtok.decoding.sinks import open_sink
from imtok.devices import BATCH_SIZE, Precision, deterministic, resolve_device
from imtok.errors import ConfigError, Interrupted, TokenizerError, TokensError
from imtok.parallel import in_order
from imtok.tokenizer import Tokenizer, load
from imtok.tokens.dataset import TokenDataset, open_tokens
from imtok.tokens.folder import INFO, TOKENIZER


@dataclass(frozen=True)
class DecodeProgress:
    """Progress of a job."""

    done: int  # images
    total: int
    images_per_second: float


@dataclass(frozen=True)
class DecodeReport:
    """The result of a call of `decode`."""

    images: int
    skipped: int  # inputs that could not be read when encoding, and so have no tokens
    size: int  # side of the decoded square; with fit=pad the images are cut to their own shape
    seconds: float
    images_per_second: float


def decode(
    tokens: str | Path,
    output: str | Path,
    *,
    tokenizer_path: str | Path | None = None,
    format: Format = "png",  # noqa: A002  (as the option is called)
    device: str = "auto",
    precision: Precision | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    partial: bool = False,
    limit: int | None = None,
    progress: Callable[[DecodeProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DecodeReport:
    """Write the image of every entry of a token folder as `<key>.<format>` below `output`, or into a `.tar`.

    Images out of a tar go below a folder of its name; what fit=pad added is cut off again. The folder's own tokenizer
    is used, or one with the same fingerprint. `limit` stops after so many images.

    Raises TokensError where the folder is incomplete and `partial` is False, is damaged, or holds keys that would
    leave `output`; TokenizerError on another tokenizer; Interrupted when `should_stop` says so.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: expected one of {', '.join(FORMATS)}")
    dataset = open_tokens(tokens, partial=partial)
    if (Path(output) / INFO).exists() or (Path(output) / "config.yaml").exists():
        raise TokensError(f"{output}: a token folder or a run, images would end up in it; choose another -o")
    tokenizer = _load_tokenizer(dataset, tokenizer_path)
    target = resolve_device(device)
    batch_size, workers = batch_size or BATCH_SIZE[target.type], workers or usable_cores()
    decoder = BatchDecoder(
        tokenizer.to(target),
        dataset.info,
        device=target,
        precision=precision or "fp32",
        batch_size=batch_size,
        file_format=format,
    )
    total = len(dataset) if limit is None else min(limit, len(dataset))
    started = time.perf_counter()
    done = 0
    batches = code_batches(dataset, batch_size, f".{format}", total)
    results = in_order(decoder, batches, workers=workers, ahead=2 * workers, should_stop=should_stop)
    try:
        with open_sink(Path(output)) as sink, deterministic(target), closing(results):
            for files in results:
                for name, data in files:
                    sink.write(name, data)
                done += len(files)
                if progress:
                    progress(DecodeProgress(done, total, done / (time.perf_counter() - started)))
    except (KeyboardInterrupt, Interrupted) as error:
        raise Interrupted(f"{output}: stopped after {done} of {total} images; run the same command again") from error
    seconds = time.perf_counter() - started
    return DecodeReport(done, dataset.skipped, dataset.info.size, seconds, done / seconds)


def _load_tokenizer(dataset: TokenDataset, path: str | Path | None) -> Tokenizer:
    """Load the tokenizer to decode with; raises TokenizerError where another one made the codes."""
    source = Path(path) if path is not None else dataset.folder / TOKENIZER
    tokenizer = load(source)
    if tokenizer.fingerprint != dataset.fingerprint:
        raise TokenizerError(
            f"{dataset.folder}: made by tokenizer {dataset.fingerprint[:12]}, {source} is "
            f"{tokenizer.fingerprint[:12]}; decode without -t, or with one of the same fingerprint"
        )
    return tokenizer
