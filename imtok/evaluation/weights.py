"""The published weights that metrics need: found by name, in a file that is named or in torch's cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imtok.errors import ConfigError

if TYPE_CHECKING:  # whoever shows metrics loads no torch
    from imtok.weights import PublishedWeights

# Converted from TensorFlow's Inception of 2015-12-05; the digits are also those of pytorch-fid's file.
_INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)


def _inception() -> PublishedWeights:
    from imtok.weights import PublishedWeights

    return PublishedWeights("Inception's weights", _INCEPTION)


def _vgg16() -> PublishedWeights:
    from imtok.losses.backbone import VGG16

    return VGG16.published


def _alexnet() -> PublishedWeights:
    from imtok.losses.backbone import ALEXNET

    return ALEXNET.published


WEIGHTS: dict[str, Callable[[], PublishedWeights]] = {"alexnet": _alexnet, "inception": _inception, "vgg16": _vgg16}


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights on this machine."""

    path: Path
    sha256: str
    published: bool  # the hash begins as the name of the published file says

    def __str__(self) -> str:
        return f"sha256 {self.sha256[:8]}" + ("" if self.published else ", not the published file")


def find_weights(name: str, named: Mapping[str, Path], *, needed_by: str, fetch: bool = True) -> WeightsFile:
    """Find the weights of this name: the file `named`, or the one in torch's cache, with `fetch` fetched into it.

    `needed_by` names the metrics, in messages. Raises ConfigError where the file is absent, and where the one in the
    cache is not the published one: a download by other hands may have been cut short.
    """
    from imtok.weights import fetched, file_sha256

    published = WEIGHTS[name]()
    remedy = f"put that file there or name it by --weights {name}=PATH"
    if name in named:
        path = named[name]
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; {name}=PATH names {published.title}, as {published.url} has them")
    elif fetch:
        path = fetched(published, needed_by=f"{needed_by} needs", remedy=remedy)
    else:
        path = published.cached
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; {needed_by} needs {published.title}: {remedy}")
    digest = file_sha256(path)
    genuine = digest.startswith(published.digest)
    if not genuine and name not in named:
        raise ConfigError(f"{path}: its SHA-256 begins with {digest[:8]}, expected {published.digest}; remove the file")
    return WeightsFile(path, digest, genuine)


def parse_weights(texts: list[str]) -> dict[str, Path]:
    """Parse `NAME=PATH` of the command line. Raises ConfigError on another form or an unknown name."""
    named = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise ConfigError(f"--weights {text}: expected NAME=PATH")
        if name not in WEIGHTS:
            raise ConfigError(f"--weights {text}: unknown weights {name}, expected one of {', '.join(WEIGHTS)}")
        named[name] = Path(path)
    return named
