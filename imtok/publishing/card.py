"""The model card of a tokenizer: metadata for the Hub, then what it is, where it comes from and what was measured.

A card states what its files record, and nothing of the machine: paths in a configuration are cut to their last name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from imtok.config import TrainConfig
from imtok.config.origin import Origin
from imtok.evaluation import METRICS
from imtok.hub import is_hub_address, parse_address
from imtok.publishing.facts import Facts, Measured
from imtok.publishing.licenses import license_metadata
from imtok.tokenizer import Tokenizer, pretrained_names
from imtok.version import __version__

_OTHERS = {  # measured beside the metrics of the list: the label, and how a value is written
    "usage": ("codes used", "{:.1%}"),
    "perplexity": ("perplexity of the codes", "{:,.1f}"),
    "bits_per_image": ("bits an image, raw", "{:,.0f}"),
}
_TRAINED = {  # by the `trained_further` of an origin
    "": "They are as they were there.",
    "decoder": "imtok trained their decoder further; encoder and codebook, and so all tokens, are as they were.",
    "all": "imtok trained them further, so tokens are its own.",
}


def model_card(facts: Facts, repository: str, license: str, *, data: str = "") -> str:  # noqa: A002
    """Write the card, Markdown after the Hub's metadata in YAML.

    `repository` is ORG/NAME, `license` the licence that the weights are given under, `data` the images that it was
    trained on, in a person's words. Raises ConfigError without a licence.
    """
    tokenizer, origin = facts.tokenizer, facts.tokenizer.config.origin
    metadata = yaml.safe_dump(_metadata(facts, repository, license), sort_keys=False, allow_unicode=True)
    sections = [
        f"---\n{metadata}---",
        f"# {repository.partition('/')[2]}",
        _opening(tokenizer),
        _sample(repository),
        _table(("", ""), _rows(facts, license)),
    ]
    if origin is not None:
        sections += ["## Origin", _origin(origin)]
    sections += ["## Data", _data(facts.config, data)]
    if facts.config is not None:
        sections += ["## Recipe", _recipe(facts.config)]
    sections.append("## Metrics")
    sections += [_metrics(measured) for measured in facts.measured] or ["Nothing was measured on held-out images."]
    sections.append(f"This card was written by `imtok push` (imtok {__version__}).")
    return "\n\n".join(sections) + "\n"


def _metadata(facts: Facts, repository: str, license: str) -> dict[str, Any]:  # noqa: A002
    config = facts.tokenizer.config
    tags = ["imtok", "image-tokenizer", config.quantizer.kind, config.network.kind]
    values = {**license_metadata(license), "library_name": "imtok", "tags": list(dict.fromkeys(tags))}
    if config.origin and config.origin.hub:
        base = parse_address(config.origin.hub).repository
        if base != repository:
            values["base_model"] = base
            values |= {"base_model_relation": "finetune"} if config.origin.trained_further else {}
    return values


def _opening(tokenizer: Tokenizer) -> str:
    size = tokenizer.config.size
    return (
        f"A tokenizer of images: a picture of {size} x {size} pixels becomes {_grid(tokenizer)} of "
        f"{tokenizer.num_codes:,} codes, {_bits(tokenizer):,.0f} bits, and comes back from them."
    )


def _sample(repository: str) -> str:
    address = f"hf://{repository}"
    return f"""```sh
pip install 'imtok[hf]'
imtok encode photos/ -t {address} -o tokens
imtok decode tokens -o back/
```

```python
import imtok

tokenizer = imtok.load("{address}")
codes = tokenizer.encode(images)  # images (B, 3, H, W), uint8 or float in [-1, 1]
restored = tokenizer.decode(codes)  # float32 in [-1, 1]
```"""


def _rows(facts: Facts, license: str) -> list[tuple[str, str]]:  # noqa: A002
    tokenizer = facts.tokenizer
    sizes = {name: _millions(tokenizer.get_submodule(name)) for name in ("encoder", "quantizer", "decoder")}
    parameters = ", ".join(f"{name} {size:.2f} M" for name, size in sizes.items() if size >= 0.005)
    downsampling = f"downsampling {tokenizer.downsample}" if tokenizer.downsample else tokenizer.config.network.summary
    return [
        ("network", f"{tokenizer.config.network.kind}, {downsampling}; parameters: {parameters}"),
        ("quantizer", tokenizer.config.quantizer.summary),
        ("tokens", f"{_grid(tokenizer)} at {tokenizer.config.size} px"),
        ("fingerprint", f"`{tokenizer.fingerprint}`, of what decides the codes; tokens record it"),
        ("licence", _plain(license)),
    ]


def _origin(origin: Origin) -> str:
    facts = origin.model_dump(exclude={"trained_further", "no_decoder"})
    rows = [(name, _plain(value)) for name, value in facts.items() if value]
    gray = " They have no decoder, so all decoded images are gray." if origin.no_decoder else ""
    return f"The weights come from elsewhere. {_TRAINED[origin.trained_further]}{gray}\n\n{_table(('', ''), rows)}"


def _data(config: TrainConfig | None, described: str) -> str:
    """Describe the images: in a person's words, then what the run did with them."""
    words = _plain(described) or "The images that it was trained on are not described."
    if config is None:
        return words
    data = config.data
    flipped = ", half of them mirrored" if data.flip else ""
    held_out = f"; {data.val_fraction:.0%} of the images are held out by key unless others were named"
    return f"{words}\n\nThe run took random crops of {data.crop} px at size {config.tokenizer.size}{flipped}{held_out}."


def _recipe(config: TrainConfig) -> str:
    frozen = ", the decoder alone, so that tokens made before stay valid" if config.freeze_codes else ""
    text = yaml.safe_dump(_without_paths(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)
    return (
        f"{config.images:,} training images in batches of {config.batch_size}{frozen}, AdamW at "
        f"{config.optimizer.learning_rate:g}, {config.precision}, seed {config.seed}. The configuration, which "
        f"`imtok train --config` takes:\n\n<details><summary>config.yaml</summary>\n\n```yaml\n{text}```\n\n</details>"
    )


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Cut the paths of a configuration to their last name; addresses of the Hub stay."""
    start = config["start_from"]
    if start and not is_hub_address(start) and start not in pretrained_names():
        config["start_from"] = Path(start).name
    config["loss"]["perceptual_weights"] = Path(config["loss"]["perceptual_weights"]).name
    config["data"]["shard_cache"] = ""
    return config


def _metrics(measured: Measured) -> str:
    rows = []
    for name, value in measured.values.items():
        if name in METRICS:
            text = METRICS[name].format(math.inf if value is None else value)
            low, high = measured.intervals.get(name, (None, None))
            between = f" ({METRICS[name].format(low)} to {METRICS[name].format(high)})" if low and high else ""
            rows.append((METRICS[name].label, text + between))
        elif name in _OTHERS and value is not None:
            label, written = _OTHERS[name]
            rows.append((label, written.format(value)))
    sentences = [f"Protocol: {_plain(measured.protocol)}."]
    sentences += [f"{measured.images:,} images."] if measured.images else []
    sentences += ["In brackets: 95 % by bootstrap over the images."] if measured.intervals else []
    sentences += [f"Weights of {name}: SHA-256 `{digest[:12]}`." for name, digest in measured.weights.items()]
    return f"{_table(('metric', 'value'), rows)}\n\n{' '.join(sentences)}"


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in (head, ("---", "---"), *rows))


def _grid(tokenizer: Tokenizer) -> str:
    """Name the tokens of a picture of the tokenizer's size: `32 x 32 tokens`."""
    height, width = _sides(tokenizer)
    stages = f" x {tokenizer.num_codebooks}" if tokenizer.num_codebooks > 1 else ""
    return f"{height} x {width}{stages} tokens"


def _bits(tokenizer: Tokenizer) -> float:
    return math.prod(_sides(tokenizer)) * tokenizer.num_codebooks * math.log2(tokenizer.num_codes)


def _sides(tokenizer: Tokenizer) -> tuple[int, int]:
    return tokenizer.config.network.grid(tokenizer.config.size, tokenizer.config.size)


def _millions(module: Any) -> float:
    return float(sum(parameter.numel() for parameter in module.parameters())) / 1e6


def _plain(text: str) -> str:
    """Return text as one line that Markdown and HTML show as it is: some of it comes from files of others."""
    return re.sub(r"([\\`|<>\[\]*])", r"\\\1", " ".join(str(text).split()))
