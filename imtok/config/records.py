"""The records of a configuration: `TokenizerConfig`, saved with the weights, and `TrainConfig`, which holds it.

The records of quantizers and networks stand in their packages, those of the parts of a run in `imtok.config.training`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import yaml
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from imtok.config.origin import Origin
from imtok.config.training import AdversarialConfig, DataConfig, LossConfig, OptimizerConfig
from imtok.networks.conv_config import ConvConfig
from imtok.networks.union import AnyNetworkConfig
from imtok.quantizer_config import FSQConfig, QuantizerConfig
from imtok.records import Record

NetworkConfig = ConvConfig  # its name before networks had kinds
DecoderOutput = Literal["pixels", "logit_laplace"]


class TokenizerConfig(Record):
    """The configuration of a tokenizer, as its config.json holds it."""

    network: AnyNetworkConfig = ConvConfig()
    quantizer: QuantizerConfig = FSQConfig()
    size: int = Field(256, ge=8, description="image side it was trained for; `imtok encode` uses it by default")
    decoder_output: DecoderOutput = Field("pixels", description="what the decoder's channels mean; follows the losses")
    origin: Origin | None = Field(
        None, description="published checkpoint or Hub address that the weights come from; none: trained here"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_network_kind(cls, values: Any) -> Any:
        """Take a network without its kind for `conv`, as files from before networks had kinds leave it out."""
        network = values.get("network") if isinstance(values, Mapping) else None
        return {**values, "network": {"kind": "conv", **network}} if isinstance(network, Mapping) else values

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write `decoder_output` and `origin` only where they say something, so that older files stay as they were."""
        values: dict[str, Any] = serialize(self)
        if values.get("decoder_output") == "pixels":
            del values["decoder_output"]
        if values.get("origin", self) is None:
            del values["origin"]
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.network.only_size is not None:
            if self.size != self.network.only_size:
                raise ValueError(f"size {self.size}: the networks take images of {self.network.sizes}")
        elif not self.network.takes(self.size, self.size):
            raise ValueError(
                f"size {self.size} is no multiple of the downsampling {self.network.downsample} "
                f"({self.network.summary})"
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
    start_from: str = Field(
        "", description="tokenizer folder, finished run or hf:// address, whose weights the run begins with"
    )
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
        if not isinstance(values, Mapping):
            return values
        loss, tokenizer = values.get("loss"), values.get("tokenizer", {})
        if isinstance(loss, Mapping) and loss.get("logit_laplace") and isinstance(tokenizer, Mapping):
            return {**values, "tokenizer": {"decoder_output": "logit_laplace", **tokenizer}}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}")
        adversarial = self.adversarial
        independent = adversarial.loss == "gan_qp" and adversarial.gan_qp.pairing == "independent"
        if adversarial.enabled and independent and self.batch_size == self.accumulate:
            raise ValueError(
                "independent pairs of gan_qp need two images or more in each part of a batch; raise batch_size, lower "
                "accumulate or set adversarial.gan_qp.pairing=own"
            )
        smallest = min(self.data.crop, self.tokenizer.size)
        if smallest < self.loss.min_size:
            raise ValueError(
                f"loss.perceptual needs pictures of {self.loss.min_size} px a side or more, these are {smallest}; take "
                "larger crops or loss.perceptual=0"
            )
        self._check_decoder_output()
        if self.freeze_codes and not self.start_from:
            raise ValueError("freeze_codes needs a trained tokenizer: name it by start_from, for instance imtok-f8")
        network = self.tokenizer.network
        if network.only_size is not None and self.data.crop != network.only_size:
            raise ValueError(f"data.crop {self.data.crop}: the networks take images of {network.sizes}")
        if not network.takes(self.data.crop, self.data.crop):
            raise ValueError(f"data.crop {self.data.crop} is no multiple of the downsampling {network.downsample}")
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
