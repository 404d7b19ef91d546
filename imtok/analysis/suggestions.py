"""What to change when a codebook is badly used: settings that its quantizer has and that are not yet made.

Each quantizer wastes codes for a reason of its own. Codes of VQ die because only those that are chosen learn; FSQ, LFQ
and BSQ have no codes to learn, and waste those that the encoder does not reach. Remedies are named in the order in
which to try them; docs/collapse.md says what is known of each. Settings stand as a command takes them, those that
belong together side by side.
"""

# Axes: K codes, Q codebooks.

from __future__ import annotations

import math

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
_LEVELS = ((8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (8, 8, 8, 6, 5), (8, 8, 8, 5, 5, 5))  # FSQ's, table 1 of its paper
_MARGIN = 1.5  # of the steps before the first revival: revived codes need some to find their latents


def against_unused(config: QuantizerConfig | None) -> str:
    """For codes that never or hardly occur, and for codes that nearly coincide."""
    if config is None:
        return _new_run(["k-means start and revival of unused codes", "fewer codes"])
    base, key = config.base, config.base_key
    if isinstance(base, FSQConfig):
        return _new_run([_LOWER_RATE, fewer_codes(config)])
    if isinstance(base, LFQConfig | BSQConfig):
        return _new_run([f"a higher {key}.entropy_weight", fewer_codes(config), _LOWER_RATE])
    if isinstance(base, GumbelConfig):
        return _new_run([f"a higher {key}.kl_weight", fewer_codes(config)])
    return _new_run(_for_vq(base, key, fewer_codes(config)))


def against_unused_stage(config: QuantizerConfig | None) -> str:
    """The same for one of several codebooks, which may be one too many."""
    if isinstance(config, ResidualConfig):
        return f"{against_unused(config)}; or with fewer stages (quantizer.depth)"
    if isinstance(config, ProductConfig):
        return f"{against_unused(config)}; or with fewer heads (quantizer.heads)"
    return against_unused(config)


def against_unevenness(config: QuantizerConfig | None) -> str:
    """For a few codes that make up most of the tokens."""
    if config is None:
        return _new_run(["an entropy loss", "fewer codes"])
    if isinstance(config.base, VQConfig):
        return _new_run([*_entropy_loss(config.base, config.base_key), fewer_codes(config)])
    return against_unused(config)


def against_idle_dimension(config: QuantizerConfig | None) -> str:
    """For a dimension of FSQ, LFQ or BSQ that is nearly constant."""
    if config is None:
        return _new_run(["one dimension fewer"])
    base, key = config.base, config.base_key
    if isinstance(base, FSQConfig):
        return _new_run([f"one dimension fewer ({key}.levels)", _LOWER_RATE])
    return _new_run([f"a higher {key}.entropy_weight", f"one dimension fewer ({key}.dim)"])


def fewer_codes(config: QuantizerConfig | None) -> str:
    """A smaller codebook, with the setting that makes it so."""
    if config is None:
        return "fewer codes"
    names = {FSQConfig: "levels", LFQConfig: "dim", BSQConfig: "dim"}
    return f"fewer codes ({config.base_key}.{names.get(type(config.base), 'num_codes')})"


def fewer_channels(config: QuantizerConfig | None, channels: int) -> str:
    """Codes of `channels` channels."""
    if config is None:
        return f"codes of {channels} channels"
    name = "code_dim" if isinstance(config.base, GumbelConfig) else "dim"
    return f"--set {config.base_key}.{name}={channels}"


def revives(base: QuantizerConfig) -> bool:
    """Codes that are not used are moved to where latents are, in training."""
    return isinstance(base, VQConfig) and base.moves_single_codes and base.revival_threshold > 0


def updates_before_revival(base: VQConfig, latents_per_code: float = 1.0) -> int:
    """How often the codebook learns before a code that was used as others are, and then no more, is moved.

    Its moving count falls as decay^n from s, its share at the start, and the mean of all counts goes from s to r, the
    latents of an update for each code. It is moved when decay^n s < threshold (r + (s - r) decay^n).
    """
    if base.decay == 0:
        return 1
    start, fair, threshold = 1.0, latents_per_code, base.revival_threshold
    if base.kmeans_start:
        start = max(start, fair)
    return math.ceil(math.log(threshold * fair / (start - threshold * (start - fair))) / math.log(base.decay))


def enough_for_revival(updates: int) -> int:
    """So many updates, or steps, show what revival does, where the first code is moved after `updates`."""
    return math.ceil(_MARGIN * updates)


def _for_vq(base: VQConfig, key: str, fewer: str) -> list[str]:
    wide = base.metric == "euclidean" and base.dim > _FEW_CHANNELS
    moves = [
        f"--set {key}.kmeans_start=true" if not base.kmeans_start else "",
        f"--set {key}.revival_threshold=0.05" if base.revival_threshold < 0.05 and not base.online_clustering else "",
    ]
    suggestions = {
        " ".join(filter(None, moves)): base.moves_single_codes and any(moves),
        f"--set {key}.codebook_update=projection": base.codebook_update == "frozen",
        _more_steps(base): revives(base),
        **dict.fromkeys(_entropy_loss(base, key), True),
        f"--set {key}.metric=cosine --set {key}.dim=8": wide and base.codebook_update == "gradient",
        fewer: True,
        _fsq(base.num_codes, key): True,
    }
    return [suggestion for suggestion, helps in suggestions.items() if helps]


def _more_steps(base: VQConfig) -> str:
    enough = enough_for_revival(updates_before_revival(base)) if revives(base) else 0
    return f"more steps if it had fewer than about {enough} (revival begins late)"


def _fsq(num_codes: int, key: str) -> str:
    """FSQ with about as many codes; its levels replace every setting of the quantizer."""
    levels = min(_LEVELS, key=lambda each: abs(math.log(math.prod(each) / num_codes)))
    written = ",".join(map(str, levels))
    return f'FSQ of {math.prod(levels)} codes: --set "{key}={{kind: fsq, levels: [{written}]}}"'


def _entropy_loss(base: VQConfig, key: str) -> list[str]:
    learns_by_loss = base.codebook_update in ("gradient", "projection")
    return [f"--set {key}.entropy_weight=0.05"] if learns_by_loss and base.entropy_weight == 0 else []


def _new_run(suggestions: list[str]) -> str:
    """An instruction; it asks for a new run because no setting mends a codebook afterwards."""
    return f"start a new run with {'; or with '.join(suggestions[:_SEVERAL])}"
