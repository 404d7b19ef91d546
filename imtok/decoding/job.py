"""The decoding job: a token folder to image files."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from imtok.config.origin import warn_of_gray_images
from imtok.cores import usable_cores
from imtok.counted import counted
from imtok.decoding.batches import FORMATS, BatchDecoder, CodeBatch, Format, code_batches
from imtok.decoding.record import DecodeRecord, begin, token_set
from imtok.decoding.sinks import check_sink, is_tar, open_sink
from imtok.devices import BATCH_SIZE, Precision, deterministic, resolve_device
from imtok.errors import ConfigError, DiskError, Interrupted, TokenizerError
from imtok.parallel import in_order
from imtok.tokenizer import Tokenizer, load
from imtok.tokens.dataset import TokenDataset, open_tokens
from imtok.tokens.folder import TOKENIZER
from imtok.tokens.tokenizer_copy import load_copy

_SECONDS_BETWEEN_RECORDS = 2.0


@dataclass(frozen=True)
class DecodeProgress:
    """Progress of a job."""

    done: int  # images
    total: int
    images_per_second: float


@dataclass(frozen=True)
class DecodeReport:
    """The result of a call of `decode`."""

    images: int  # in the output
    before: int  # of these, written whole by an earlier call and left as they were
    skipped: int  # inputs that could not be read when encoding, and so have no tokens
    size: int  # side of the decoded square; with fit=pad the images are cut to their own shape
    seconds: float
    images_per_second: float  # of this call


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
    overwrite: bool = False,
    limit: int | None = None,
    crop: int = 0,
    progress: Callable[[DecodeProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DecodeReport:
    """Write the image of every entry of a token folder as `<key>.<format>` below `output`, or into a `.tar`.

    Images out of a tar go below a folder of its name; what fit=pad added is cut off again. The folder's own tokenizer
    is used, or one with the same fingerprint. `limit` stops after so many images, and `crop` chooses the crop of an
    augmented set, the first one by default. A folder gets a record of the decode first (`imtok.decoding.record`): the
    same call resumes after a kill, and does nothing once all is written.

    Raises TokensError where the folder is incomplete and `partial` is False, is damaged, or holds keys that would
    leave `output`; also where `output` is a folder of imtok's own, or, unless `overwrite`, holds other files or another
    decode's images; TokenizerError on another tokenizer; Interrupted when `should_stop` says so.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: expected one of {', '.join(FORMATS)}")
    dataset, output = open_tokens(tokens, partial=partial), Path(output)
    if not 0 <= crop < dataset.num_crops:
        raise ConfigError(
            f"--crop {crop}: {tokens} has crops 0 to {dataset.num_crops - 1} of each image; give one of these"
        )
    check_sink(output, overwrite=overwrite)
    tokenizer = _load_tokenizer(dataset, tokenizer_path)
    target = resolve_device(device)
    record = DecodeRecord(
        tokens=token_set(dataset),
        tokenizer=_content_hash(tokenizer),
        image_format=format,
        limit=limit,
        crop=crop,
        device=target.type,
        precision=precision or "fp32",
        batch_size=batch_size or BATCH_SIZE[target.type],
        images=len(dataset) if limit is None else min(limit, len(dataset)),
    )
    if not is_tar(output):
        record = begin(output, record, overwrite=overwrite)
    decoder = BatchDecoder(
        tokenizer.to(target),
        dataset.info,
        device=target,
        precision=precision or "fp32",
        batch_size=record.batch_size,
        file_format=format,
    )
    writing = _Writing(output, record, progress)
    batches = writing.missing(code_batches(dataset, record.batch_size, f".{format}", record.images, crop))
    workers = workers or usable_cores()
    results = in_order(decoder, batches, workers=workers, ahead=2 * workers, should_stop=should_stop)
    try:
        with deterministic(target), closing(results):
            writing.write(results)
    except (KeyboardInterrupt, Interrupted) as error:
        raise Interrupted(
            f"{output}: stopped after {writing.done + writing.before} of {counted(record.images, 'image')}; run the "
            "same command again"
        ) from error
    done, seconds = writing.done, writing.seconds
    return DecodeReport(
        done + writing.before, writing.before, dataset.skipped, dataset.info.size, seconds, done / max(seconds, 1e-9)
    )


class _Writing:
    """The images of one call on their way into its output."""

    def __init__(self, output: Path, record: DecodeRecord, progress: Callable[[DecodeProgress], None] | None) -> None:
        self._output, self._record, self._progress = output, record, progress
        self._started = time.perf_counter()
        self.done = self.before = 0  # images: written by this call, found whole

    @property
    def seconds(self) -> float:
        """Seconds since the call began to decode."""
        return time.perf_counter() - self._started

    def missing(self, batches: Iterable[CodeBatch]) -> Iterator[CodeBatch]:
        """Yield the batches of which an image is to be written; those written whole before are counted."""
        start = 0
        for batch in batches:
            start += len(batch.names)
            # Files beyond those on record may be of another decode that this one writes over.
            if start <= self._record.written and all((self._output / name).is_file() for name in batch.names):
                self.before += len(batch.names)
            else:
                yield batch

    def write(self, results: Iterable[list[tuple[str, bytes]]]) -> None:
        """Write decoded images, and from time to time the record; it is written too where an error ends the call."""
        saved_at = time.monotonic()
        try:
            with open_sink(self._output) as sink:
                for files in results:
                    for name, data in files:
                        sink.write(name, data)
                    self.done += len(files)
                    if self._progress:
                        done = self.done + self.before
                        self._progress(DecodeProgress(done, self._record.images, self.done / self.seconds))
                    if time.monotonic() - saved_at >= _SECONDS_BETWEEN_RECORDS:
                        self._save()
                        saved_at = time.monotonic()
        except BaseException:
            with suppress(DiskError):
                self._save()
            raise
        self._save()

    def _save(self) -> None:
        """Record the images that are whole: batches are written in order, so they are the first ones."""
        written = max(self._record.written, self.done + self.before)
        if not is_tar(self._output) and written != self._record.written:
            self._record = self._record.having(written)
            self._record.save(self._output)


def _content_hash(tokenizer: Tokenizer) -> str:
    digest = hashlib.sha256()
    for _, data in sorted(tokenizer.files().items()):
        digest.update(data)
    return digest.hexdigest()


def _load_tokenizer(dataset: TokenDataset, path: str | Path | None) -> Tokenizer:
    """Load the tokenizer to decode with; raises TokenizerError where another one made the codes."""
    source = path if path is not None else dataset.store.file(TOKENIZER)
    tokenizer = load(path) if path is not None else load_copy(dataset.store)
    warn_of_gray_images(tokenizer.config.origin, source)
    if tokenizer.fingerprint != dataset.fingerprint:
        raise TokenizerError(
            f"{dataset.store}: made by tokenizer {dataset.fingerprint[:12]}, {source} is "
            f"{tokenizer.fingerprint[:12]}; decode without -t, or with one of the same fingerprint"
        )
    return tokenizer
