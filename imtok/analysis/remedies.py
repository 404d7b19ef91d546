"""What to change when a codebook is badly used: settings that its quantizer has and that are not yet made.

Each quantizer wastes codes for a reason of its own. Codes of VQ die because only those that are chosen learn; FSQ, LFQ
and BSQ have no codes to learn, and waste those that the encoder does not reach. Remedies are named in the order in
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
_LOWER_RATE = "a lower optimizer.learning_rate"
_SEVERAL = 3  # remedies named at once: the others are for when these have been tried


def against_unused(config: QuantizerConfig | None) -> str:
    """For codes that never or hardly occur, and for codes that nearly coincide."""
    if config is None:
        return _new_run(["k-means start", "revival of unused codes", "fewer codes"])
    leaf, key = config.leaf, config.leaf_key
    if isinstance(leaf, FSQConfig):
        return _new_run([_LOWER_RATE, fewer_codes(config)])
    if isinstance(leaf, LFQConfig | BSQConfig):
        return _new_run([f"a higher {key}.entropy_weight", fewer_codes(config), _LOWER_RATE])
    if isinstance(leaf, GumbelConfig):
        return _new_run([f"a higher {key}.kl_weight", fewer_codes(config)])
    return _new_run(_for_vq(leaf, key, fewer_codes(config)))


def against_unused_stage(config: QuantizerConfig | None) -> str:
    """The same for one of several codebooks, which may be one too many."""
    if isinstance(config, ResidualConfig):
        return f"{against_unused(config)}, or with fewer stages (quantizer.depth)"
    if isinstance(config, ProductConfig):
        return f"{against_unused(config)}, or with fewer heads (quantizer.heads)"
    return against_unused(config)


def against_unevenness(config: QuantizerConfig | None) -> str:
    """For a few codes that make up most of the tokens."""
    if config is None:
        return _new_run(["an entropy loss", "fewer codes"])
    if isinstance(config.leaf, VQConfig):
        return _new_run([*_entropy_loss(config.leaf, config.leaf_key), fewer_codes(config)])
    return against_unused(config)


def against_idle_dimension(config: QuantizerConfig | None) -> str:
    """For a dimension of FSQ, LFQ or BSQ that is nearly constant."""
    if config is None:
        return _new_run(["one dimension fewer"])
    leaf, key = config.leaf, config.leaf_key
    if isinstance(leaf, FSQConfig):
        return _new_run([f"one dimension fewer ({key}.levels)", _LOWER_RATE])
    return _new_run([f"a higher {key}.entropy_weight", f"one dimension fewer ({key}.dim)"])


def fewer_codes(config: QuantizerConfig | None) -> str:
    """A smaller codebook, with the setting that makes it so."""
    if config is None:
        return "fewer codes"
    names = {FSQConfig: "levels", LFQConfig: "dim", BSQConfig: "dim"}
    return f"fewer codes ({config.leaf_key}.{names.get(type(config.leaf), 'num_codes')})"


def fewer_channels(config: QuantizerConfig | None, channels: int) -> str:
    """Codes of `channels` channels."""
    if config is None:
        return f"codes of {channels} channels"
    name = "code_dim" if isinstance(config.leaf, GumbelConfig) else "dim"
    return f"--set {config.leaf_key}.{name}={channels}"


def _for_vq(leaf: VQConfig, key: str, fewer: str) -> list[str]:
    wide = leaf.metric == "euclidean" and leaf.dim > _FEW_CHANNELS
    revives = leaf.moves_single_codes and not leaf.online_clustering
    remedies = {
        f"--set {key}.kmeans_start=true": leaf.moves_single_codes and not leaf.kmeans_start,
        f"--set {key}.revival_threshold=0.05": revives and leaf.revival_threshold < 0.05,
        f"--set {key}.codebook_update=projection": leaf.codebook_update == "frozen",
        **dict.fromkeys(_entropy_loss(leaf, key), True),
        f"--set {key}.metric=cosine --set {key}.dim=8": wide and leaf.codebook_update == "gradient",
        f"--set {key}.estimator=rotation": leaf.estimator == "straight_through",
        fewer: True,
        "--set quantizer.kind=fsq in place of all quantizer settings": True,
    }
    return [remedy for remedy, helps in remedies.items() if helps]


def _entropy_loss(leaf: VQConfig, key: str) -> list[str]:
    learns_by_loss = leaf.codebook_update in ("gradient", "projection")
    return [f"--set {key}.entropy_weight=0.05"] if learns_by_loss and leaf.entropy_weight == 0 else []


def _new_run(remedies: list[str]) -> str:
    """An instruction; it asks for a new run because no setting mends a codebook afterwards."""
    *others, last = remedies[:_SEVERAL]
    return f"start a new run with {', '.join(others)} or {last}" if others else f"start a new run with {last}"
