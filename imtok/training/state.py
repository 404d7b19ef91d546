"""Everything of a run that must survive a restart, in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from imtok.config import TrainConfig
from imtok.devices import Precision
from imtok.errors import ConfigError
from imtok.joint_batch import JointBatch
from imtok.losses import LossTerm, loss_terms
from imtok.tokenizer import Tokenizer
from imtok.training.adversarial import Adversary
from imtok.training.checkpoint import RandomState, Stateful, collect, distribute, pack, unpack
from imtok.training.ema import EMA
from imtok.training.initial import initial_tokenizer
from imtok.training.metric_accumulator import MetricAccumulator
from imtok.training.optimizer import Optimizer
from imtok.training.skipped_steps import SkippedSteps


class TrainState:
    """The networks with their EMA, the optimizers, and how far they have come; `train_step` changes it."""

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        *,
        resumed: bool = False,
        extra_losses: Sequence[LossTerm] = (),
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """`resumed`: a checkpoint follows, so that nothing is read from where the run once started."""
        self.config, self.device = config, device
        self.joint = JointBatch(config.batch_size, config.accumulate, rank, ranks)
        self.precision = _precision(config)
        self.tokenizer = (Tokenizer(config.tokenizer) if resumed else initial_tokenizer(config)).to(device).train()
        self.ema = EMA(self.tokenizer, config.ema_decay)
        if config.freeze_codes:
            for part in (self.tokenizer.encoder, self.tokenizer.quantizer):
                part.eval().requires_grad_(False)
        settings = config.optimizer
        self.optimizer = Optimizer(
            (parameter for parameter in self.tokenizer.parameters() if parameter.requires_grad),
            settings.learning_rate,
            settings.betas,
            settings.weight_decay,
        )
        self.extra_losses = extra_losses
        self.losses = _losses(config, extra_losses, device)
        self._check_names()
        self.adversary: Adversary | None = None
        if config.adversarial.enabled:
            self.adversary = Adversary(config.adversarial, config.data.crop, device, self.precision, self.joint)
        self._arrange()
        self.seen = 0  # training images
        self.steps = 0
        self.place: Mapping[str, Any] | None = None  # in a stream, after the last batch
        self.skipped = SkippedSteps(device)
        self.metrics = MetricAccumulator(self.tokenizer.num_codebooks, self.tokenizer.num_codes, device)

    @property
    def middle(self) -> float:
        """Training images seen at the middle of the next step, so that neither first nor last has a rate of 0."""
        return self.seen + self.config.batch_size / 2

    @property
    def progress(self) -> float:
        """Share of the run that is done at the middle of the next step."""
        return min(1.0, self.middle / self.config.images)

    def to_bytes(self, facts: dict[str, Any]) -> bytes:
        """Pack everything as one file; `facts` are values of JSON, which `restore` returns."""
        state = collect(self._parts()) | self._place_fact() | {"seen": self.seen, "steps": self.steps, **facts}
        return pack(state | self.adversary.state_dict() if self.adversary else state)

    def restore(self, data: bytes) -> dict[str, Any]:
        """Go back to what `to_bytes` packed, and return all facts.

        Raises SafetensorError, ValueError or KeyError on damaged data, which has changed nothing then.
        """
        state = unpack(data)
        if self.adversary:
            self.adversary.load_state_dict(state)
        distribute(state, self._parts())
        self.seen, self.steps, self.place = state["seen"], state["steps"], state.get("place")
        return {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)}

    def agreed(self) -> list[Tensor]:
        """Return the tensors that must be the same, bit for bit, in all processes."""
        networks = [self.tokenizer, self.ema.model, *([self.adversary.discriminator] if self.adversary else [])]
        return [tensor for network in networks for tensor in network.state_dict().values()]

    def _place_fact(self) -> dict[str, Any]:
        """Name the place in a stream; runs without a stream have none in their checkpoints."""
        return {} if self.place is None else {"place": self.place}

    def _parts(self) -> dict[str, Stateful]:
        """Everything with a state by the name it has in a checkpoint; the adversary names its own parts."""
        return {
            "tokenizer": self.tokenizer,
            "average": self.ema.model,
            "optimizer": self.optimizer,
            "window": self.metrics,
            "skipped": self.skipped,
            "random": RandomState(self.device),
        }

    def _check_names(self) -> None:
        """Raise ConfigError where two losses would have one name in the log."""
        names = [*(term.name for term in self.losses), *self.tokenizer.quantizer.loss_weights]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"several losses are called {', '.join(twice)}; give each extra loss a name of its own")

    def _arrange(self) -> None:
        """Set memory order and compilation, which change neither the weights nor their names."""
        networks = [*self.tokenizer.encoder.compilable, *self.tokenizer.decoder.compilable]
        if self.adversary:
            networks.append(self.adversary.discriminator)
        for network in networks:
            if self.config.channels_last is True:
                network.to(memory_format=torch.channels_last)
            if self.config.compile is True:
                network.compile()


def _losses(config: TrainConfig, extra: Sequence[LossTerm], device: torch.device) -> list[LossTerm]:
    """Build and load all terms; raises ConfigError where one needs another decoder than the tokenizer has."""
    terms = [*loss_terms(config.loss), *extra]
    for term in terms:
        if term.decoder_output != config.tokenizer.decoder_output:
            raise ConfigError(
                f"loss {term.name}: needs a decoder of {term.decoder_output}, this run's gives "
                f"{config.tokenizer.decoder_output}; set tokenizer.decoder_output or leave the loss out"
            )
        term.load(device)
    return terms


def _precision(config: TrainConfig) -> Precision:
    if config.precision == "auto":
        raise ValueError("precision is still auto; resolve the configuration before training")
    return config.precision
