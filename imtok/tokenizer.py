"""The Tokenizer: an encoder, a quantizer and a decoder, saved as config.json + model.safetensors.

Images are float in [-1, 1], (B, 3, H, W), inside; uint8 is accepted at the border. Codes are int64 in [0, K),
(B, h, w), or (B, h, w, Q) where the quantizer has Q > 1 codebooks.
"""

# Axes: B batch, H x W image, h x w latent grid with h = H / downsample, K codes, Q codebooks.

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from imtok.config import TokenizerConfig, load_tokenizer_config
from imtok.config.origin import Origin
from imtok.devices import resolve_device
from imtok.errors import ConfigError, TokenizerError
from imtok.files import write_atomically
from imtok.hub import fetch_tokenizer, is_hub_address
from imtok.losses import OUTPUT_CHANNELS, output_to_images
from imtok.modes import evaluating
from imtok.networks import Decoder, Encoder
from imtok.pictures import Pictures, to_tensor
from imtok.quantizers import Quantized, Quantizer
from imtok.quantizers.base import FLAGS, TRAINING_STATE
from imtok.quantizers.record import QuantizerRecord

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_FORMAT = 1
_SHIPPED = Path(__file__).parent / "pretrained"
PRETRAINED = "imtok-f8"  # used where no tokenizer is named


class Tokenizer(nn.Module):
    """Images to codes and back.

    A `TokenizerConfig` decides the shape; `imtok.load(folder)` gives a trained one.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = _built(config.quantizer)
        self.encoder, self.decoder = build_networks(config, self.quantizer)

    def __repr__(self) -> str:
        """Describe the tokenizer in a line; `print(tokenizer.encoder)` shows the layers."""
        codebooks = "" if self.num_codebooks == 1 else f" in each of {self.num_codebooks} codebooks"
        size = self.config.size
        height, width = self.config.network.grid(size, size)
        grid = f"a grid of {height} x {width}" if self.downsample else f"a sequence of {width}"
        downsample = f"downsample {self.downsample}, " if self.downsample else ""
        return (
            f"Tokenizer({self.config.quantizer.summary}; {self.num_codes} codes{codebooks}; {downsample}"
            f"{grid} at its size of {size}; {self.device})"
        )

    @property
    def num_codes(self) -> int:
        """K, the size of a codebook."""
        return self.quantizer.num_codes

    @property
    def num_codebooks(self) -> int:
        """Q, codes at each latent position."""
        return self.quantizer.num_codebooks

    @property
    def downsample(self) -> int | None:
        """Image pixels per latent position, along one side; None where codes are a sequence (1, n)."""
        return self.config.network.downsample

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of what determines the codes: encoder, quantizer, and the identity of their configurations.

        The decoder is left out on purpose, so that a fine-tuned decoder still reads the same tokens.
        """
        digest = hashlib.sha256()
        identity = {
            "network": self.config.network.code_identity(),
            "quantizer": self.config.quantizer.code_identity(),
        }
        digest.update(_canonical(identity))
        tensors = {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        tensors |= {f"quantizer.{name}": value for name, value in self.quantizer.code_tensors().items()}
        for name, value in sorted(tensors.items()):
            digest.update(_canonical([name, str(value.dtype), list(value.shape)]))
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        """Return the decoder's raw output for images (B, 3, H, W) in [-1, 1], and what the quantizer returned."""
        quantized: Quantized = self.quantizer(self.encoder(images))
        return self.decoder(quantized.latents), quantized

    @torch.no_grad()  # and not inference mode: codes are there to be embedded and trained on
    def encode(self, images: Pictures) -> Tensor:
        """Encode images (B, 3, H, W), uint8 or float in [-1, 1], H and W multiples of `downsample`, to codes int64.

        Networks whose codes are a sequence take images of one size alone, and codes are (B, 1, n).

        A PIL image, a uint8 array (H, W, 3) or (B, H, W, 3), and a list of images or arrays of one size will do as
        well. Nothing is resized or cropped, as `imtok encode` does. Codes are (B, h, w), or (B, h, w, Q) for Q > 1
        codebooks. Raises TokenizerError on other shapes, dtypes or ranges of images.
        """
        images = self._checked_images(to_tensor(images))
        if images.shape[0] == 0:  # which torch's pixel unshuffle does not take
            height, width = self.config.network.grid(images.shape[2], images.shape[3])
            each = () if self.num_codebooks == 1 else (self.num_codebooks,)
            return torch.empty(0, height, width, *each, dtype=torch.int64, device=self.device)
        with evaluating(self):
            quantized: Quantized = self.quantizer(self.encoder(images))
        return quantized.codes

    @torch.no_grad()
    def decode(self, codes: Tensor, *, clamp: bool = True) -> Tensor:
        """Decode codes (B, h, w) int64 in [0, K) to images (B, 3, H, W) float32, clamped to [-1, 1].

        Without `clamp` images are as the decoder gives them. With Q > 1 codebooks codes are (B, h, w, Q); a residual
        quantizer also decodes those of its first stages alone, to a coarser picture. Raises TokenizerError on codes the
        codebook does not have.
        """
        if codes.ndim != (3 if self.num_codebooks == 1 else 4):
            expected = "(B, h, w)" if self.num_codebooks == 1 else f"(B, h, w, {self.num_codebooks})"
            raise TokenizerError(f"codes are {tuple(codes.shape)}, expected {expected}")
        with evaluating(self):
            try:
                latents = self.quantizer.lookup(codes.to(self.device))
            except ValueError as error:
                raise TokenizerError(f"{error}; were they made by this tokenizer?") from error
            output: Tensor = self.decoder(latents.to(next(self.parameters()).dtype))
        images = output_to_images(output, self.config.decoder_output).float()
        return images.clamp(-1, 1) if clamp else images

    def save(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into `folder`, made if needed."""
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise TokenizerError(f"{folder}: is a file, expected a folder to save into; give another name")
        for name, data in self.files().items():
            write_atomically(folder / name, data)

    def files(self) -> dict[str, bytes]:
        """Return the folder's files by name, the same bytes for the same tokenizer."""
        return {_CONFIG: self._config_text(), _WEIGHTS: self._weights()}

    def _weights(self) -> bytes:
        state = {}
        for name, value in self.state_dict().items():
            last = name.rpartition(".")[2]
            if last not in TRAINING_STATE:
                stored = value.detach().to(torch.bool) if last in FLAGS else value.detach()
                state[name] = stored.cpu().contiguous()
        return safetensors.torch.save(state)

    def _config_text(self) -> bytes:
        content = {"format": "imtok-tokenizer", "version": _FORMAT, **self.config.model_dump(mode="json")}
        return (json.dumps(content, indent=2) + "\n").encode()

    def _checked_images(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3:
            raise TokenizerError(f"images are {tuple(images.shape)}, expected (B, 3, H, W)")
        height, width = images.shape[2:]
        if not self.config.network.takes(height, width):
            raise TokenizerError(f"images are {height}x{width}, expected {self.config.network.sizes}")
        images = images.to(self.device)
        weights = next(self.parameters()).dtype
        if images.dtype == torch.uint8:
            return to_float(images).to(weights)
        if not images.is_floating_point():
            raise TokenizerError(f"images are {images.dtype}, expected uint8 or float in [-1, 1]")
        if torch.compiler.is_compiling():  # a graph that is traced cannot read values
            return images.to(weights)
        if images.isnan().any():
            raise TokenizerError("images hold NaN, expected values in [-1, 1]")
        if images.numel() and float(images.abs().max()) > 1.01:
            low, high = float(images.min()), float(images.max())
            raise TokenizerError(f"float images span [{low:.3g}, {high:.3g}], expected [-1, 1]")
        return images.to(weights)


def load(path_or_name: str | Path = PRETRAINED, device: str | torch.device = "cpu") -> Tokenizer:
    """Load the tokenizer of a tokenizer folder, a run folder or a token folder, in eval mode.

    The name of a tokenizer that comes with imtok will do as well; by default it is that one. So will an address of
    the Hugging Face Hub, `hf://ORG/NAME[@REVISION][/FOLDER]`, whose commit stands in `config.origin` then. `device` is
    cpu, cuda, cuda:N, or auto for a GPU where there is one. Raises TokenizerError where there is no tokenizer or where
    it is damaged, HubError where the Hub has none or cannot be reached, ConfigError on a device that is not there.
    """
    target = resolve_device(str(device))
    remote = fetch_tokenizer(path_or_name, (_CONFIG, _WEIGHTS)) if is_hub_address(path_or_name) else None
    folder = remote.path if remote else find_tokenizer(path_or_name)
    shown = str(remote.address if remote else folder)
    content = _read_config(folder, f"{shown}/{_CONFIG}")
    try:
        state = safetensors.torch.load((folder / _WEIGHTS).read_bytes())
    except (OSError, SafetensorError) as error:
        raise TokenizerError(
            f"{shown}/{_WEIGHTS}: cannot be read ({_brief(error)}); copy the tokenizer again"
        ) from error
    try:
        config = load_tokenizer_config(content, f"{shown}/{_CONFIG}")
        if remote:
            origin = (config.origin or Origin()).model_copy(update={"hub": str(remote.address)})
            config = config.model_copy(update={"origin": origin})
        # The file says which numbers decide: in another default dtype they would give other codes.
        tokenizer = Tokenizer(config).to(torch.float32)
    except ConfigError as error:
        text = str(error)
        place = "" if text.startswith(shown) else f"{shown}/{_CONFIG}: "
        raise TokenizerError(f"{place}{text}") from error
    try:
        tokenizer.load_state_dict(state)
    except RuntimeError as error:
        raise TokenizerError(f"{shown}/{_WEIGHTS}: its tensors do not fit {_CONFIG} beside it") from error
    return tokenizer.to(target).eval().requires_grad_(False)


def _read_config(folder: Path, shown: str) -> dict[str, Any]:
    """Read the configuration of a tokenizer folder, without its format and version."""
    try:
        content = json.loads((folder / _CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{shown}: cannot be read ({_brief(error)}); copy the tokenizer again") from error
    if not isinstance(content, dict) or content.pop("format", None) != "imtok-tokenizer":
        raise TokenizerError(f'{shown}: not a tokenizer of imtok; expected "format": "imtok-tokenizer"')
    version = content.pop("version", None)
    if version != _FORMAT:
        raise TokenizerError(f"{shown}: format version {version}, this imtok reads {_FORMAT}; update imtok")
    return content


def find_tokenizer(name: str | Path) -> Path:
    """Find the tokenizer folder that a path is or holds as `tokenizer/`, or the one of that name in imtok or the Hub.

    Raises TokenizerError where there is none, HubError where the Hub has none or cannot be reached.
    """
    if is_hub_address(name):
        return fetch_tokenizer(name, (_CONFIG, _WEIGHTS)).path
    path = Path(name)
    for folder in (path, path / "tokenizer"):
        if (folder / _CONFIG).is_file() and (folder / _WEIGHTS).is_file():
            return folder
    if not path.exists():
        names = pretrained_names()
        if str(path) in names:
            return _SHIPPED / path
        known = " or ".join(names)
        if (scheme := str(name).partition("://")[0]) != str(name):
            raise TokenizerError(f"{name}: tokenizers are not read from {scheme}://; give a folder or hf://ORG/NAME")
        raise TokenizerError(
            f"{path}: no such folder; give a folder made by `imtok train`, {known}, which comes with imtok, or "
            "hf://ORG/NAME of the Hugging Face Hub"
        )
    if (path / "checkpoints").is_dir():
        raise TokenizerError(f"{path}: this run is not finished; run the same `imtok train` again to finish it")
    raise TokenizerError(f"{path}: holds no tokenizer ({_CONFIG} and {_WEIGHTS}); give a folder made by `imtok train`")


def pretrained_names() -> list[str]:
    """List the names of the tokenizers that come with imtok."""
    return sorted(folder.name for folder in _SHIPPED.iterdir() if (folder / _CONFIG).is_file())


def build_networks(config: TokenizerConfig, quantizer: Quantizer) -> tuple[Encoder, Decoder]:
    """Return the encoder and the decoder around a quantizer, their weights newly drawn."""
    return config.network.build(quantizer.dim, quantizer.code_dim, OUTPUT_CHANNELS[config.decoder_output])


def check_quantizer(config: QuantizerRecord) -> None:
    """Raise ConfigError on a configuration that no quantizer can be built from; random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        _built(config)


def build_quantizer(config: QuantizerRecord) -> Quantizer:
    """Build the quantizer of a configuration; raises ValueError on values that it refuses."""
    return config.build()


def _built(config: QuantizerRecord) -> Quantizer:
    try:
        return config.build()
    except ValueError as error:
        raise ConfigError(f"quantizer: {error}") from error


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 images to float32 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Convert float images in [-1, 1] to uint8, rounded to the nearest level."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _brief(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).splitlines()[0]
