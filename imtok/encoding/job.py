"""The encoding job: units in, committed shards out, exactly once.

Files are the truth: a unit is done when its shard is there. Who encodes which unit is a hint: a free process takes what
nobody holds. So a restart with another world size changes nothing, and a unit done twice is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from imtok.cores import usable_cores
from imtok.counted import counted
from imtok.data.address_lists import AddressList
from imtok.data.images import Fit
from imtok.data.labels.origin import LabelChoice
from imtok.data.reading import Rules
from imtok.data.remote_files import RemoteFiles
from imtok.devices import Precision
from imtok.encoding.finish import finish
from imtok.encoding.inputs import OnDuplicate
from imtok.encoding.leases import open_claims
from imtok.encoding.report import EncodeProgress, EncodeReport
from imtok.encoding.run import Done, Options, encode_units
from imtok.encoding.settings import Requested, check_machine
from imtok.encoding.setup import Job, prepare
from imtok.encoding.share import Share
from imtok.encoding.taking import Taker
from imtok.errors import Interrupted, TooManySkips
from imtok.hub import is_hub_address, parse_address
from imtok.tokenizer import PRETRAINED, Tokenizer, load
from imtok.tokens.folder import TOKENIZER, find_shards
from imtok.tokens.store import Store, store_of
from imtok.tokens.tokenizer_copy import has_copy, load_copy


def encode(
    sources: Sequence[str | Path | AddressList],
    output: str | Path,
    tokenizer_path: str | Path | None = None,
    *,
    size: int | None = None,
    fit: Fit | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    unit_size: int | None = None,
    max_skip: int | None = None,
    salvage: bool = False,
    on_duplicate: OnDuplicate = "fail",
    labels: LabelChoice | None = None,
    max_pixels: int | None = None,
    salvage_images: bool | None = None,
    rules: Rules | None = None,
    augment: str | None = None,
    augment_seed: int | None = None,
    shard: tuple[int, int] = (0, 1),
    rank: int = 0,
    world_size: int = 1,
    lease_seconds: float | None = None,
    progress: Callable[[EncodeProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> EncodeReport:
    """Encode folders of images and tars into the token folder `output`; a second call resumes where the first stopped.

    Sources may also be zip and Parquet files, lists of paths and URLs, and addresses of all these on other machines.

    Options left at None take the value that `output` has recorded or, in a new folder, the default: the tokenizer's
    size, crop, a GPU where there is one, fp32, 16 images a batch (64 on a GPU), 2048 images a unit, labels where they
    are found, pictures of up to 178 megapixels, no truncated ones, the newest rules of reading, and one crop an image.
    `augment` is what `imtok.data.augmentation.parse_augmentation` takes. Without a tokenizer the job takes the one in
    `output`, and in a new folder the one that comes with imtok.

    Several processes may make the same call. Each takes units that nobody holds, first those that fall to it as one of
    `shard` = (index, count) and of `world_size` ranks, then those of other processes that have begun. On an object
    store the units of a process that was silent for `lease_seconds`, by default 60, are taken over.

    Units that fail are named in the report, and the others are encoded. Raises SourceError, ConfigError, TokenizerError
    or TokensError before anything is encoded, Interrupted when `should_stop` says so, DiskError when the disk is full,
    and TooManySkips, with everything committed, when more than `max_skip` inputs were skipped.
    """
    mine = Share(*shard, rank, world_size)
    requested = Requested(
        size=size,
        fit=fit,
        device=device,
        precision=precision,
        batch_size=batch_size,
        unit_size=unit_size,
        labels=labels,
        max_pixels=max_pixels,
        salvage_images=salvage_images,
        rules=rules,
        augment=augment,
        augment_seed=augment_seed,
    )
    store = store_of(output)
    tokenizer = _load_tokenizer(store, tokenizer_path)
    with RemoteFiles(should_stop) as remote:
        job = prepare(sources, store, tokenizer, requested, remote)
        present, _ = find_shards(store)
        done = Done()
        if any(unit not in present for unit in range(len(job.plan))):
            options = Options(
                workers or usable_cores(), salvage, on_duplicate, progress, should_stop, f"{mine.name()}.jsonl"
            )
            with closing(open_claims(store, mine, lease_seconds)) as claims:
                done = _encode_missing(job, Taker(claims, len(job.plan), present), tokenizer, options)
        units = mine.units(len(job.plan))
        report = finish(job, done, units, sum(unit in present for unit in units))
    if max_skip is not None and report.skipped > max_skip and not report.failed:
        raise TooManySkips(_too_many(report, max_skip))
    return report


def _encode_missing(job: Job, taker: Taker, tokenizer: Tokenizer, options: Options) -> Done:
    """Encode what is missing, as far as this process gets it; raises Interrupted on a request to stop."""
    check_machine(job.info, {job.plan.part_of(unit) for unit in taker.missing()}, job.store)
    job.store.sweep()
    try:
        return encode_units(job, taker, tokenizer, options)
    except (KeyboardInterrupt, Interrupted) as error:
        committed = len(find_shards(job.store)[0])
        raise Interrupted(
            f"{job.store}: stopped with {committed} of {counted(len(job.plan), 'unit')} committed; run the same "
            "command again to resume"
        ) from error


def _load_tokenizer(store: Store, name: str | Path | None) -> Tokenizer:
    """Load a tokenizer; without a name the copy in the token folder, or the one that comes with imtok.

    A token folder has a copy of a tokenizer of the Hub too, whose branch may have moved on since the folder was begun.
    The same command then still resumes the same job, and it needs no network.
    """
    if name is None:
        return load_copy(store) if any(store.names(TOKENIZER)) else load(PRETRAINED)
    if not is_hub_address(name) or not has_copy(store):
        return load(name)
    copy = load_copy(store)
    origin = copy.config.origin
    same = origin is not None and origin.hub and parse_address(name).may_mean(parse_address(origin.hub))
    return copy if same else load(name)


def _too_many(report: EncodeReport, max_skip: int) -> str:
    reasons = ", ".join(f"{skips.count} {reason}, first {skips.examples[0]}" for reason, skips in report.skips.items())
    return (
        f"{report.skipped} of {report.images + report.skipped} inputs were skipped ({reasons}), --max-skip allows "
        f"{max_skip}; everything else is committed"
    )
