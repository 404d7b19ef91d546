"""The encoding job: units in, committed shards out, exactly once.

Files are the truth: a unit is done when its shard is there. Who encodes which unit is a hint (unit modulo number of
processes), so a restart with another world size changes nothing, and a unit done twice is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from imtok.encoding.report import EncodeProgress, EncodeReport
from imtok.encoding.run import Done, Options, encode_units
from imtok.encoding.settings import Requested, check_machine
from imtok.encoding.setup import prepare
from imtok.errors import ConfigError, Interrupted, TooManySkips
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
    progress: Callable[[EncodeProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> EncodeReport:
    """Encode folders of images and tars into the token folder `output`; a second call resumes where the first stopped.

    Options left at None take the value that `output` has recorded or, in a new folder, the default: the tokenizer's
    size, crop, a GPU where there is one, fp32, 16 images a batch (64 on a GPU), 2048 images a unit, labels where they
    are found, pictures of up to 178 megapixels, no truncated ones, the newest rules of reading, and one crop an image.
    `augment` is what `imtok.data.augmentation.parse_augmentation` takes. This process does the units that fall to it as
    one of `shard` = (index, count) and of `world_size` ranks. Without a tokenizer the job takes the one in `output`,
    and in a new folder the one that comes with imtok.

    Units that fail are named in the report, and the others are encoded. Raises SourceError, ConfigError, TokenizerError
    or TokensError before anything is encoded, Interrupted when `should_stop` says so, DiskError when the disk is full,
    and TooManySkips, with everything committed, when more than `max_skip` inputs were skipped.
    """
    mine = _Share(*shard, rank, world_size)
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
        units = mine.units(len(job.plan))
        present, _ = find_shards(store)
        missing = [unit for unit in units if unit not in present]
        done = Done()
        if missing:
            check_machine(job.info, {job.plan.part_of(unit) for unit in missing}, store)
            store.sweep()
            options = Options(workers or usable_cores(), salvage, on_duplicate, progress, should_stop, mine.journal)
            try:
                done = encode_units(job, missing, tokenizer, options)
            except (KeyboardInterrupt, Interrupted) as error:
                committed = len(find_shards(store)[0])
                raise Interrupted(
                    f"{store}: stopped with {committed} of {counted(len(job.plan), 'unit')} committed; run the same "
                    "command again to resume"
                ) from error
        report = finish(job, done, units, len(units) - len(missing))
    if max_skip is not None and report.skipped > max_skip and not report.failed:
        raise TooManySkips(_too_many(report, max_skip))
    return report


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


@dataclass(frozen=True)
class _Share:
    """The units of this process, which is one of `count` jobs of `world_size` ranks each."""

    index: int
    count: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(f"--shard {self.index}/{self.count}: expected I/N with 0 <= I < N, for instance 0/8")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank {self.rank} of world size {self.world_size}: expected 0 <= rank < world size")

    def units(self, total: int) -> range:
        return range(self.index * self.world_size + self.rank, total, self.count * self.world_size)

    @property
    def journal(self) -> str:
        return f"{self.index * self.world_size + self.rank:05d}-of-{self.count * self.world_size:05d}.jsonl"


def _too_many(report: EncodeReport, max_skip: int) -> str:
    reasons = ", ".join(f"{skips.count} {reason}, first {skips.examples[0]}" for reason, skips in report.skips.items())
    return (
        f"{report.skipped} of {report.images + report.skipped} inputs were skipped ({reasons}), --max-skip allows "
        f"{max_skip}; everything else is committed"
    )
