"""Configuration: the records of a tokenizer and of a run, and how presets, files and `--set` become one of them.

`TokenizerConfig` is saved with the weights; `TrainConfig` holds it and all else a run needs. The records of the
quantizers are in `imtok.quantizer_config`, those of the parts of a run in `imtok.training_config`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from imtok.config_errors import did_you_mean, first_problem
from imtok.errors import ConfigError
from imtok.quantizer_config import KINDS, FSQConfig, QuantizerConfig
from imtok.records import Record
from imtok.training_config import AdversarialConfig, DataConfig, LossConfig, OptimizerConfig


class _Loader(yaml.SafeLoader):
    """Reads 1e5 as a number; YAML 1.1 takes it for text, as it has no dot."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


_R = TypeVar("_R", bound=Record)


class NetworkConfig(Record):
    """The convolutional encoder and decoder."""

    fold: int = Field(4, ge=1, le=32, description="pixels folded into channels, per side, before the first layer")
    channels: tuple[Annotated[int, Field(ge=4)], ...] = Field(
        (64, 128),
        min_length=1,
        description="width of each stage, finest first; the grid halves between stages",
    )
    blocks: int = Field(2, ge=1, description="residual blocks a stage")
    attention: bool = Field(False, description="self-attention at the lowest resolution")

    @property
    def downsample(self) -> int:
        """Image pixels per latent position, along one side."""
        return int(self.fold * 2 ** (len(self.channels) - 1))


DecoderOutput = Literal["pixels", "logit_laplace"]


class TokenizerConfig(Record):
    """The configuration of a tokenizer, as its config.json holds it."""

    network: NetworkConfig = NetworkConfig()
    quantizer: QuantizerConfig = FSQConfig()
    size: int = Field(256, ge=8, description="image side it was trained for; `imtok encode` uses it by default")
    decoder_output: DecoderOutput = Field("pixels", description="what the decoder's channels mean; follows the losses")

    @model_serializer(mode="wrap")
    def _leave_out_pixels(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write `decoder_output` only where it is not pixels, so that files stay as they were before it existed."""
        values: dict[str, Any] = serialize(self)
        if values.get("decoder_output") == "pixels":
            del values["decoder_output"]
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size % self.network.downsample:
            raise ValueError(
                f"size {self.size} is no multiple of the downsampling {self.network.downsample} "
                f"(fold {self.network.fold} x 2^{len(self.network.channels) - 1})"
            )
        return self


# A run, `imtok stats` and `imtok eval` keep 8 bytes for each code: 128 MiB.
_MOST_CODES = 2**24


class TrainConfig(Record):
    """The configuration of a training run: with the images it decides the outcome."""

    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    start_from: str = Field("", description="tokenizer folder or finished run whose weights the run begins with")
    freeze_codes: bool = Field(
        False, description="train the decoder alone: encoder and codebook stay, and so do all tokens made with them"
    )
    images: int = Field(100_000, ge=1, description="length of the run, in training images seen")
    batch_size: int = Field(16, ge=1, le=65_536, description="training images an optimisation step")
    accumulate: int = Field(1, ge=1, description="parts a batch is computed in, one after the other, to save memory")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="moving average of the weights; 0 switches it off")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where it is found faster")
    compile: bool | Literal["auto"] = Field("auto", description="networks through torch.compile; auto: on a GPU")
    channels_last: bool | Literal["auto"] = Field("auto", description="memory order of the networks; auto: on a GPU")
    device: str = "auto"
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads; 0 takes all cores and is resolved in the saved config"
    )
    seed: int = Field(0, ge=0)
    validate_every: int = Field(0, ge=0, description="training images between validations; 0: ten a run")
    checkpoint_every: int = Field(0, ge=0, description="training images between checkpoints; 0: twenty a run")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept, besides the best")

    @model_validator(mode="before")
    @classmethod
    def _follow(cls, values: Any) -> Any:
        """Build the decoder for the output that the losses need, unless `decoder_output` is given."""
        loss, tokenizer = (values.get("loss"), values.get("tokenizer", {})) if isinstance(values, Mapping) else (0, 0)
        if not isinstance(loss, Mapping) or not isinstance(tokenizer, Mapping) or not loss.get("logit_laplace"):
            return values
        return {**values, "tokenizer": {"decoder_output": "logit_laplace", **tokenizer}}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}")
        smallest = min(self.data.crop, self.tokenizer.size)
        if smallest < self.loss.min_size:
            raise ValueError(
                f"loss.perceptual needs pictures of {self.loss.min_size} px a side or more, these are {smallest}; take "
                "larger crops or loss.perceptual=0"
            )
        self._check_decoder_output()
        if self.freeze_codes and not self.start_from:
            raise ValueError("freeze_codes needs a trained tokenizer: name it by start_from, for instance imtok-f8")
        downsample = self.tokenizer.network.downsample
        if self.data.crop % downsample:
            raise ValueError(f"data.crop {self.data.crop} is no multiple of the downsampling {downsample}")
        if self.data.crop > self.tokenizer.size:
            raise ValueError(
                f"data.crop {self.data.crop} is larger than tokenizer.size {self.tokenizer.size}; set data.crop="
                f"{self.tokenizer.size} or less too"
            )
        quantizer = self.tokenizer.quantizer
        num_codes = quantizer.num_codes * len(quantizer.codebook_ids)
        if num_codes > _MOST_CODES:
            raise ValueError(
                f"tokenizer.quantizer has {num_codes} codes in all, at most {_MOST_CODES} can be counted; several "
                "smaller codebooks say as much (quantizer.kind=product)"
            )
        return self

    def _check_decoder_output(self) -> None:
        found = self.tokenizer.decoder_output
        if found != self.loss.decoder_output:
            loss = "1" if found == "logit_laplace" else "0 and loss.l2=1"
            raise ValueError(
                f"tokenizer.decoder_output is {found}, the losses need {self.loss.decoder_output}; set "
                f"loss.logit_laplace={loss}"
            )
        if found != "pixels" and self.adversarial.enabled:
            raise ValueError("adversarial.weight needs a decoder of pixels; set it or loss.logit_laplace to 0")

    @property
    def validation_interval(self) -> int:
        """Training images between validations."""
        return self.validate_every or max(self.batch_size, self.images // 10)

    @property
    def checkpoint_interval(self) -> int:
        """Training images between checkpoints."""
        return self.checkpoint_every or max(self.batch_size, self.images // 20)

    def to_yaml(self) -> str:
        """Write the whole configuration as YAML; `load_train_config` reads it back to an equal record."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def preset_names() -> list[str]:
    """List the names that `--preset` takes; files that begin with `_` are bases of presets, and no presets."""
    files = (resources.files("imtok") / "presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if re.fullmatch(r"[^_].*\.yaml", file.name))


def preset_groups() -> dict[str, list[str]]:
    """Group the names by purpose: `cpu` (minutes on a CPU), `gpu` (published recipes), `quantizer` (one each)."""
    groups: dict[str, list[str]] = {"cpu": [], "gpu": [], "quantizer": []}
    for name in preset_names():
        groups[_preset_file(name)["group"]].append(name)
    return groups


def preset(name: str) -> dict[str, Any]:
    """Return the mapping a preset stands for; raises ConfigError on an unknown name."""
    names = preset_names()
    if name not in names:
        raise ConfigError(f"--preset {name}: unknown, expected one of {', '.join(names)}{did_you_mean(name, names)}")
    return {key: value for key, value in _preset_file(name).items() if key not in ("about", "group")}


def preset_about(name: str) -> str:
    """Return the sentence that says what a preset is for."""
    return str(_preset_file(name)["about"])


def read_config_file(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file; raises ConfigError where there is none."""
    try:
        content = _read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); give a YAML file") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        raise ConfigError(f"{path}: not valid YAML{line}; see `imtok train --help` for the form") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds a {type(content).__name__}, expected keys such as `images: 100000`")
    return content


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Parse `["tokenizer.quantizer.levels=[8,5,5,5]", …]` into the nested mapping it stands for.

    `quantizer.…`, `network.…` and `size` may leave out the leading `tokenizer.`.
    """
    result: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {setting}: expected key=value, for instance quantizer.levels=[8,5,5,5]")
        try:
            value = _read_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: the value is not valid YAML; quote it for the shell") from error
        for part in reversed(_full_key(name.strip())):
            value = {part: value}
        result = merge(result, value)
    return result


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` upon `base`, key by key; a quantizer of another kind replaces the whole quantizer."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            changes_kind = "kind" in value and "kind" in old and value["kind"] != old["kind"]
            result[key] = dict(value) if changes_kind else merge(old, value)
        else:
            result[key] = value
    return result


def lift(values: Mapping[str, Any]) -> dict[str, Any]:
    """Let a file write `quantizer:`, `network:` and `size:` at its top level, as `--set` does."""
    lifted = {key: value for key, value in values.items() if key in TokenizerConfig.model_fields}
    rest = {key: value for key, value in values.items() if key not in lifted}
    return merge(rest, {"tokenizer": lifted}) if lifted else rest


def load_train_config(values: Mapping[str, Any], origin: str = "configuration") -> TrainConfig:
    """Check a TrainConfig; raises ConfigError with one line for the first thing that is wrong."""
    values = lift(values)
    tokenizer = values.get("tokenizer")
    if isinstance(tokenizer, Mapping) and isinstance(tokenizer.get("quantizer"), Mapping):
        quantizer = _with_kind(tokenizer["quantizer"], f"{origin}: tokenizer.quantizer")
        values = {**values, "tokenizer": {**tokenizer, "quantizer": quantizer}}
    return _checked(TrainConfig, values, origin)


def load_tokenizer_config(values: Mapping[str, Any], origin: str) -> TokenizerConfig:
    """Check a TokenizerConfig; `origin` names its file in errors."""
    return _checked(TokenizerConfig, values, origin)


def _preset_file(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a preset's file, laid over the file that its `base` names, and so on."""
    assert name not in above, f"preset {name} has itself for a base"
    text = (resources.files("imtok") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    values = dict(_read_yaml(text))
    base = values.pop("base", None)
    return merge(_preset_file(base, (*above, name)), values) if base else values


def _checked(record: type[_R], values: Mapping[str, Any], origin: str) -> _R:
    try:
        return record.model_validate(values)
    except ValidationError as error:
        # Keys of the tokenizer may leave out their leading `tokenizer.`.
        also = list(TokenizerConfig.model_fields) if record is TrainConfig else []
        raise ConfigError(f"{origin}: {first_problem(error, record, also)}") from error


def _full_key(name: str) -> list[str]:
    parts = name.split(".")
    return ["tokenizer", *parts] if parts[0] in TokenizerConfig.model_fields else parts


def _with_kind(quantizer: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Find the kind of a quantizer, or of a part of one, that is given without it, from its fields.

    Misspelt fields count too. Where several kinds have all fields, the kind is the first of `fsq` and `vq`; raises
    ConfigError where it is neither.
    """
    known = dict(quantizer)
    if "kind" not in known:
        likeness = {str(kind): _likeness(known, record) for kind, record in KINDS.items()}
        likeliest = [kind for kind, found in likeness.items() if found == max(likeness.values())]
        if len(likeliest) > 1 and likeliest[0] not in ("fsq", "vq"):
            raise ConfigError(f"{place}: {' and '.join(likeliest)} have {', '.join(known)}; say which by kind")
        known = {"kind": likeliest[0], **known}
    if isinstance(known.get("part"), Mapping):
        known["part"] = _with_kind(known["part"], f"{place}.part")
    return known


def _likeness(values: Mapping[str, Any], record: type[Record]) -> tuple[int, int]:
    """Count the keys that are fields of a record, and those that nearly are."""
    names = record.model_fields
    return sum(key in names for key in values), sum(bool(difflib.get_close_matches(str(k), names)) for k in values)
