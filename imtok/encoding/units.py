"""From encoded batches to committed shards, and facts read from committed shards."""

# Axes: N images of a unit, A crops of an image.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from imtok.encoding.batches import Encoded
from imtok.encoding.inputs import Plan
from imtok.encoding.report import Skips
from imtok.packed_strings import PackedStrings
from imtok.tokens.folder import ManifestEntry, TokensInfo, manifest_entry, shard_path
from imtok.tokens.label_counts import LabelCounts
from imtok.tokens.shard import NO_LABEL, Shard, ShardHeader, read_shard, shard_to_bytes, smallest_dtype
from imtok.tokens.store import Store

_EXAMPLES = 5


def build_shard(batches: list[Encoded], info: TokensInfo) -> Shard:
    """Build the shard of a unit from all its batches, in order."""
    unit = batches[0].batch.unit
    labels = [label for batch in batches for label in batch.labels]
    index = [position for batch in batches for position in batch.index]
    skips = [skip for batch in batches for skip in batch.skips]
    nothing = np.zeros((0, info.num_crops, *info.code_shape), smallest_dtype(info.codebook_size))
    codes = np.concatenate([nothing, *(batch.codes for batch in batches if batch.codes is not None)])
    augmented = info.augment is not None
    crops = np.array([crops for batch in batches for crops in batch.crops], np.int32).reshape(-1, info.num_crops, 5)
    return Shard(
        header=ShardHeader(
            version=2 if augmented else 1,
            unit=unit.number,
            inputs=len(unit.keys),
            fingerprint=info.fingerprint,
            codebook_size=info.codebook_size,
            salvaged=unit.salvaged,
            renamed=unit.renamed,
        ),
        codes=codes[:, 0],
        keys=PackedStrings.pack(unit.keys[position] for position in index),
        index=np.array(index, np.int64),
        original_size=np.array([size for batch in batches for size in batch.sizes], np.int32).reshape(-1, 2),
        labels=np.array(labels, np.int64) if any(label != NO_LABEL for label in labels) else None,
        skip_index=np.array([position for position, _ in skips], np.int64),
        skip_keys=PackedStrings.pack(unit.keys[position] for position, _ in skips),
        skip_reasons=PackedStrings.pack(reason for _, reason in skips),
        crop_codes=codes if augmented else None,
        crops=crops if augmented else None,
    )


def commit(store: Store, shard: Shard) -> ManifestEntry:
    """Publish a shard whole; where another process was first, its shard stands."""
    data = shard_to_bytes(shard)
    if store.publish_once(shard_path(shard.header.unit), data):
        return manifest_entry(shard, data)
    return read_entry(store, shard.header.unit)


def read_entry(store: Store, unit: int) -> ManifestEntry:
    """Read the manifest's line for a unit from its shard; raises TokensError where the shard is damaged."""
    path = store.file(shard_path(unit))
    return manifest_entry(read_shard(path), path.read_bytes())


def count_labels(store: Store, info: TokensInfo, plan: Plan, units: Iterable[int]) -> LabelCounts:
    """Count the labels of some units."""

    def container_name(unit: int) -> str | None:
        container = plan.container(unit)
        return container.name if container else None

    counts = LabelCounts(info)
    for unit in units:
        counts.add(read_shard(store.file(shard_path(unit))), container_name)
    return counts


def count_skips(store: Store, plan: Plan, units: Iterable[int]) -> dict[str, Skips]:
    """Count the skips of some units by reason, the most frequent first; keys in a tar are led by its name."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for unit in units:
        shard = read_shard(store.file(shard_path(unit)))
        container = plan.container(unit)
        tar = f"{container.shown}: " if container else ""
        for key, reason in zip(shard.skip_keys, shard.skip_reasons, strict=True):
            counts[reason] += 1
            if counts[reason] <= _EXAMPLES:
                examples.setdefault(reason, []).append(tar + key)
    return {reason: Skips(count, tuple(examples[reason])) for reason, count in counts.most_common()}
