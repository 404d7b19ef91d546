"""What to change when a codebook is badly used: settings that its quantizer has and that are not yet made.

Each quantizer wastes codes for a reason of its own. Codes of VQ die because only those that are chosen learn; FSQ, LFQ
and BSQ have no codes to learn, and waste them where the encoder does not reach parts of the grid. The order is that in
which to try them; docs/collapse.md says what is known of each.
"""

# Axes: Q codebooks.

from __future__ import annotations

from imtok.quantizer_config import (
    BSQConfig,
    FSQConfig,
    GumbelConfig,
    LFQConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    VQConfig,
)

_FEW_CHANNELS = 16  # ViT-VQGAN and LlamaGen take 8 to 32; nearest codes among hundreds of channels leave most unused
_SEVERAL = 3  # remedies named at once: the next ones are for when those have been tried


def against_unused(config: QuantizerConfig | None) -> str:
    """For codes that never or hardly occur, and for codes that lie on each other."""
    if config is None:
        return _anew(["a k-means start", "revival of unused codes", "fewer codes"])
    leaf, key = config.leaf, config.leaf_key
    if isinstance(leaf, FSQConfig):
        return _anew(["a lower --set optimizer.learning_rate", f"fewer --set {key}.levels"])
    if isinstance(leaf, LFQConfig | BSQConfig):
        weight, dim = f"a higher --set {key}.entropy_weight", f"a smaller --set {key}.dim"
        return _anew([weight, dim, "a lower --set optimizer.learning_rate"])
    if isinstance(leaf, GumbelConfig):
        return _anew([f"a higher --set {key}.kl_weight", f"a smaller --set {key}.num_codes"])
    return _anew(_for_vq(leaf, key))


def against_unused_stage(config: QuantizerConfig | None) -> str:
    """The same for one of several codebooks, which may be one too many."""
    if isinstance(config, ResidualConfig):
        return f"{against_unused(config)}, or do with a smaller --set quantizer.depth"
    if isinstance(config, ProductConfig):
        return f"{against_unused(config)}, or do with fewer --set quantizer.heads"
    return against_unused(config)


def against_unevenness(config: QuantizerConfig | None) -> str:
    """For a few codes that stand for most of the images."""
    if config is None:
        return _anew(["an entropy loss", "fewer codes"])
    leaf, key = config.leaf, config.leaf_key
    if isinstance(leaf, VQConfig):
        return _anew([*_entropy_loss(leaf, key), f"a smaller --set {key}.num_codes"])
    return against_unused(config)


def against_idle_dimension(config: QuantizerConfig | None) -> str:
    """For a dimension of FSQ, LFQ or BSQ that says next to nothing."""
    if config is None:
        return _anew(["a dimension fewer"])
    leaf, key = config.leaf, config.leaf_key
    if isinstance(leaf, FSQConfig):
        return _anew([f"a dimension fewer in --set {key}.levels", "a lower --set optimizer.learning_rate"])
    return _anew([f"a higher --set {key}.entropy_weight", f"a smaller --set {key}.dim"])


def fewer_codes(config: QuantizerConfig | None) -> str:
    """The setting that makes the codebook smaller."""
    if config is None:
        return "fewer codes"
    leaf, key = config.leaf, config.leaf_key
    if isinstance(leaf, FSQConfig):
        return f"fewer --set {key}.levels"
    name = "dim" if isinstance(leaf, LFQConfig | BSQConfig) else "num_codes"
    return f"a smaller --set {key}.{name}"


def fewer_channels(config: QuantizerConfig | None, channels: int) -> str:
    """Codes of `channels` channels."""
    if config is None:
        return f"codes of {channels} channels"
    name = "code_dim" if isinstance(config.leaf, GumbelConfig) else "dim"
    return f"--set {config.leaf_key}.{name}={channels}"


def _for_vq(leaf: VQConfig, key: str) -> list[str]:
    wide = leaf.metric == "euclidean" and leaf.dim > _FEW_CHANNELS
    revives = leaf.moves_single_codes and not leaf.online_clustering
    remedies = {
        f"--set {key}.kmeans_start=true": leaf.moves_single_codes and not leaf.kmeans_start,
        f"--set {key}.revival_threshold=0.05": revives and leaf.revival_threshold < 0.05,
        f"--set {key}.codebook_update=projection": leaf.codebook_update == "frozen",
        **dict.fromkeys(_entropy_loss(leaf, key), True),
        f"--set {key}.metric=cosine with --set {key}.dim=8": wide and leaf.codebook_update == "gradient",
        f"--set {key}.estimator=rotation": leaf.estimator == "straight_through",
        f"a smaller --set {key}.num_codes": True,
        "--set quantizer.kind=fsq in place of all settings of the quantizer, as FSQ has no codes that could die": True,
    }
    return [remedy for remedy, helps in remedies.items() if helps]


def _entropy_loss(leaf: VQConfig, key: str) -> list[str]:
    learns_by_loss = leaf.codebook_update in ("gradient", "projection")
    return [f"--set {key}.entropy_weight=0.05"] if learns_by_loss and leaf.entropy_weight == 0 else []


def _anew(remedies: list[str]) -> str:
    """As an instruction: what a codebook has become, no setting changes afterwards."""
    *others, last = remedies[:_SEVERAL]
    return f"begin a new run with {', '.join(others)} or {last}" if others else f"begin a new run with {last}"
