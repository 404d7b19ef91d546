"""What to change when a codebook has collapsed."""

# Axes: Q codebooks, K codes.

from __future__ import annotations

import numpy as np

from imtok.analysis.usage import CodebookUsage
from imtok.config import TrainConfig
from imtok.quantizer_config import BSQConfig, FSQConfig, GumbelConfig, LeafConfig, LFQConfig, QuantizerConfig

# Share of the codes that could be in use at or below which a codebook is called collapsed. FSQ, LFQ and BSQ have no
# codebook that could; where next to nothing is in use their encoder gives the same for everything.
_COLLAPSED = {"vq": 0.1, "gumbel": 0.1, "fsq": 0.01, "lfq": 0.01, "bsq": 0.01}


def collapse_hint(usage: CodebookUsage, config: TrainConfig) -> str | None:
    """A sentence of advice when few of the codes that could be in use are, None for healthy codebooks."""
    quantizer = config.tokenizer.quantizer
    tables = _by_table(usage, quantizer)
    collapsed = [number for number, table in enumerate(tables, 1) if _has_collapsed(table, quantizer)]
    if not collapsed:
        return None
    worst = min((tables[number - 1] for number in collapsed), key=lambda table: table.used)
    which = "the codebook has collapsed"
    if len(tables) > 1:
        which = f"{len(collapsed)} of {len(tables)} codebooks have collapsed (the first is number {collapsed[0]})"
    return (
        f"{which}: {worst.used} of {worst.codebook_size} codes in use, perplexity {worst.perplexity:.1f}; begin a new "
        f"run with {' or '.join(_remedies(quantizer.leaf, quantizer.leaf_key))}"
    )


def _by_table(usage: CodebookUsage, quantizer: QuantizerConfig) -> list[CodebookUsage]:
    """The use of each table of codes: one that is shared serves several codebooks."""
    numbers = np.array(quantizer.tables)  # (Q,)
    counts = np.stack([each.counts for each in usage.codebooks])  # (Q, K)
    return [CodebookUsage(counts[numbers == number].sum(axis=0), usage.images) for number in np.unique(numbers)]


def _has_collapsed(usage: CodebookUsage, quantizer: QuantizerConfig) -> bool:
    return usage.used <= _COLLAPSED[quantizer.leaf.kind] * min(usage.codebook_size, usage.tokens)


def _remedies(leaf: LeafConfig, key: str) -> list[str]:
    """Settings that help a collapsed codebook, those that are not yet made."""
    if isinstance(leaf, FSQConfig):
        return ["a lower optimizer.learning_rate", f"fewer {key}.levels"]
    if isinstance(leaf, LFQConfig | BSQConfig):
        return [f"a higher --set {key}.entropy_weight", f"a smaller --set {key}.dim", "a lower optimizer.learning_rate"]
    if isinstance(leaf, GumbelConfig):
        return [f"a higher --set {key}.kl_weight", f"a smaller --set {key}.num_codes"]
    revives = leaf.moves_single_codes and not leaf.online_clustering
    learns_by_loss = leaf.codebook_update in ("gradient", "projection")
    remedies = {
        f"--set {key}.kmeans_start=true": leaf.moves_single_codes and not leaf.kmeans_start,
        f"--set {key}.revival_threshold=0.05": revives and leaf.revival_threshold < 0.05,
        f"--set {key}.estimator=rotation": leaf.estimator == "straight_through",
        f"--set {key}.codebook_update=projection": leaf.codebook_update == "frozen",
        f"--set {key}.entropy_weight=0.05": learns_by_loss and leaf.entropy_weight == 0,
        f"a smaller --set {key}.num_codes": True,
        "--set quantizer.kind=fsq in place of all settings of the quantizer, as FSQ cannot collapse": True,
    }
    return [remedy for remedy, helps in remedies.items() if helps]
