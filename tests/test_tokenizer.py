"""Images to codes and back, the folder a tokenizer is saved in, and what its fingerprint covers."""

from __future__ import annotations

import copy
import errno
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from making import QUANTIZERS
from PIL import Image
from torch import Tensor, nn

import imtok
from imtok.config import NetworkConfig, TokenizerConfig
from imtok.errors import ConfigError, DiskError, ImtokError, TokenizerError
from imtok.quantizer_config import (
    BSQConfig,
    FSQConfig,
    LFQConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
)
from imtok.tokenizer import Tokenizer, find_tokenizer, to_float, to_uint8

NETWORK = NetworkConfig(fold=2, channels=(8, 12), blocks=1)


def make(name: str = "fsq", seed: int = 0, **options: Any) -> Tokenizer:
    torch.manual_seed(seed)
    config = TokenizerConfig(network=NETWORK, quantizer=QUANTIZERS[name], size=16)
    return Tokenizer(config.model_copy(update=options)).eval()


def pictures(batch: int = 2, height: int = 16, width: int = 12, seed: int = 0) -> Tensor:
    """(B, 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def nudge(parameter: Tensor) -> None:
    with torch.no_grad():
        parameter.view(-1)[0] += 1e-3


# --- images and codes


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_and_images_have_the_shapes_and_ranges_promised(name: str) -> None:
    tokenizer = make(name)
    codes = tokenizer.encode(pictures())
    each = () if tokenizer.num_codebooks == 1 else (tokenizer.num_codebooks,)
    assert (codes.shape, codes.dtype) == ((2, 4, 3, *each), torch.int64)
    assert tokenizer.encode(pictures(batch=0)).shape == (0, 4, 3, *each)
    assert 0 <= codes.min() <= codes.max() < tokenizer.num_codes
    images = tokenizer.decode(codes)
    assert (images.shape, images.dtype) == ((2, 3, 16, 12), torch.float32)
    assert -1 <= images.min() <= images.max() <= 1
    assert tokenizer.downsample == 4


@pytest.mark.parametrize("name", QUANTIZERS)
def test_decoding_codes_is_the_clamped_reconstruction_of_forward(name: str) -> None:
    tokenizer = make(name)
    with torch.no_grad():
        reconstruction, quantized = tokenizer(to_float(pictures()))
    assert torch.equal(tokenizer.encode(pictures()), quantized.codes)
    assert torch.equal(tokenizer.decode(quantized.codes), reconstruction.clamp(-1, 1))


def test_bytes_and_floats_of_a_picture_give_equal_codes() -> None:
    tokenizer = make()
    assert torch.equal(tokenizer.encode(pictures()), tokenizer.encode(to_float(pictures())))


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_float(levels)
    assert floats.dtype == torch.float32
    assert floats[[0, 255]].tolist() == [-1, 1]
    assert torch.equal(to_uint8(floats), levels)
    assert to_uint8(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_encoding_in_training_mode_learns_nothing_and_changes_no_code(name: str) -> None:
    tokenizer = make(name)
    before, rng = copy.deepcopy(tokenizer.state_dict()), torch.get_rng_state()
    expected = tokenizer.encode(pictures())
    tokenizer.train()
    assert torch.equal(tokenizer.encode(pictures()), expected)
    tokenizer.decode(expected)
    assert all(module.training for module in tokenizer.modules())
    assert all(torch.equal(value, before[key]) for key, value in tokenizer.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)


def test_training_mode_is_restored_after_an_error() -> None:
    tokenizer = make().train()
    with pytest.raises(TokenizerError):
        tokenizer.decode(torch.full((1, 2, 2), -1))
    assert tokenizer.training
    assert tokenizer.encoder.training


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_loss_on_the_reconstruction_trains_encoder_and_decoder(name: str) -> None:
    tokenizer = make(name).train()
    images, quantized = tokenizer(to_float(pictures()))
    (images.square().mean() + quantized.loss).backward()
    for part in (tokenizer.encoder, tokenizer.decoder):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 16, 16), r"images are \(3, 16, 16\), expected \(B, 3, H, W\)"),
        (torch.zeros(1, 1, 16, 16), r"images are \(1, 1, 16, 16\), expected \(B, 3, H, W\)"),
        (torch.zeros(1, 3, 16, 18), "images are 16x18, expected multiples of 4"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.int64), "images are torch.int64, expected uint8 or float"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.bool), "images are torch.bool, expected uint8 or float"),
        (torch.arange(3 * 16 * 16.0).view(1, 3, 16, 16), r"float images span \[0, 767\], expected \[-1, 1\]"),
        (torch.full((1, 3, 16, 16), -2.0), r"float images span \[-2, -2\], expected \[-1, 1\]"),
        (torch.full((1, 3, 16, 16), torch.inf), r"float images span \[inf, inf\]"),
    ],
)
def test_images_that_do_not_fit_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        make().encode(images)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.full((1, 2, 2), 175), r"codes span \[175, 175\], expected \[0, 175\); were they made by this tokenizer"),
        (torch.full((1, 2, 2), -1), r"codes span \[-1, -1\]"),
        (torch.zeros(1, 2, 2), "codes must be integers, got torch.float32"),
        (torch.zeros(2, 2, dtype=torch.int64), r"codes are \(2, 2\), expected \(B, h, w\)"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes: Tensor, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        make().decode(codes)


def test_codes_without_a_matching_codebook_axis_are_refused() -> None:
    with pytest.raises(TokenizerError, match=r"codes are \(1, 2, 2\), expected \(B, h, w, 3\)"):
        make("residual").decode(torch.zeros(1, 2, 2, dtype=torch.int64))
    with pytest.raises(TokenizerError, match=r"codes are \(1, 2, 2, 1\), expected \(B, h, w\)"):
        make("lfq").decode(torch.zeros(1, 2, 2, 1, dtype=torch.int64))


def test_the_first_stages_of_a_residual_decode_alone() -> None:
    tokenizer = make("residual")
    codes = tokenizer.encode(pictures())
    coarse = tokenizer.decode(codes[..., :1])
    assert coarse.shape == (2, 3, 16, 12)
    assert not torch.equal(coarse, tokenizer.decode(codes))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32])
def test_codes_as_stored_in_shards_decode_alike(dtype: torch.dtype) -> None:
    tokenizer = make()
    codes = tokenizer.encode(pictures())
    assert torch.equal(tokenizer.decode(codes.to(dtype)), tokenizer.decode(codes))


# --- the folder


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_loaded_tokenizer_is_the_saved_one_bit_for_bit(name: str, tmp_path: Path) -> None:
    tokenizer = make(name).train()
    tokenizer(to_float(pictures()))  # so that moving averages are not those of the start
    tokenizer.save(tmp_path / "deep" / "down")
    loaded = imtok.load(tmp_path / "deep" / "down")
    assert loaded.config == tokenizer.config
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    ours, theirs = tokenizer.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs)
    stored = safetensors.torch.load((tmp_path / "deep" / "down" / "model.safetensors").read_bytes())
    assert {name.rpartition(".")[2] for name in ours.keys() - stored} <= {"age", "latents_seen"}  # a run's alone
    assert all(torch.equal(ours[key], theirs[key]) for key in stored)
    codes = tokenizer.encode(pictures(seed=5))
    assert torch.equal(loaded.encode(pictures(seed=5)), codes)
    assert torch.equal(loaded.decode(codes), tokenizer.decode(codes))
    assert loaded.fingerprint == tokenizer.fingerprint


def test_a_shared_codebook_is_stored_once(tmp_path: Path) -> None:
    make("residual-shared").save(tmp_path)
    stored = safetensors.torch.load((tmp_path / "model.safetensors").read_bytes())
    assert [name for name in stored if name.endswith("codebook")] == ["quantizer.parts.0.codebook"]


def test_saving_writes_the_same_bytes_each_time_and_nothing_else(tmp_path: Path) -> None:
    make().save(tmp_path / "one")
    make().save(str(tmp_path / "two"))
    imtok.load(tmp_path / "one").save(tmp_path / "three")
    one, two, three = (
        {path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("one", "two", "three")
    )
    assert one == two == three == make().files()
    assert sorted(one) == ["config.json", "model.safetensors"]


def test_the_configuration_on_disk_is_json_that_names_its_format(tmp_path: Path) -> None:
    make().save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "format": "imtok-tokenizer",
        "version": 1,
        "network": {"fold": 2, "channels": [8, 12], "blocks": 1, "attention": False},
        "quantizer": {"kind": "fsq", "levels": [7, 5, 5]},
        "size": 16,
    }


def test_a_tokenizer_is_found_in_the_folder_that_holds_it(tmp_path: Path) -> None:
    make().save(tmp_path / "run" / "tokenizer")
    assert find_tokenizer(tmp_path / "run") == tmp_path / "run" / "tokenizer"
    assert imtok.load(tmp_path / "run").fingerprint == make().fingerprint


def test_a_refusing_disk_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DiskError, match=f"^{tmp_path}.*: File too large; make room"):
            make().save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(keep * len(data))])

    return damage


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "weights cut at the end": (r"model\.safetensors: cannot be read", cut("model.safetensors", 0.99)),
    "weights cut in the header": (r"model\.safetensors: cannot be read", cut("model.safetensors", 0.01)),
    "weights empty": (r"model\.safetensors: cannot be read", cut("model.safetensors", 0)),
    "weights missing": (r"holds no tokenizer \(config\.json and model", lambda f: (f / "model.safetensors").unlink()),
    "configuration missing": (r"holds no tokenizer", lambda f: (f / "config.json").unlink()),
    "configuration cut": (r"config\.json: cannot be read", cut("config.json", 0.5)),
    "configuration empty": (r"config\.json: cannot be read", cut("config.json", 0)),
    "configuration binary": (
        r"config\.json: cannot be read",
        lambda f: write(f / "config.json", b"\xff\xfe\0"),
    ),
    "other JSON": (r"config\.json: not a tokenizer of imtok", edit(lambda _: {"architectures": ["VQModel"]})),
    "a JSON list": (r"config\.json: not a tokenizer of imtok", edit(lambda _: [1, 2])),
    "a later version": (r"config\.json: format version 2, this imtok reads 1", edit(lambda c: c | {"version": 2})),
    "no version": (
        r"config\.json: format version None",
        edit(lambda c: {k: v for k, v in c.items() if k != "version"}),
    ),
    "another network": (
        r"model\.safetensors: its tensors do not fit config\.json",
        edit(lambda c: c | {"network": c["network"] | {"blocks": 2}}),
    ),
    "another dimension": (
        r"model\.safetensors: its tensors do not fit config\.json",
        edit(lambda c: c | {"quantizer": {"kind": "fsq", "levels": [7, 5]}}),
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused_with_the_files_name(name: str, tmp_path: Path) -> None:
    message, damage = DAMAGES[name]
    make().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(TokenizerError, match=message) as caught:
        imtok.load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_unknown_keys_in_the_configuration_are_refused_by_name(tmp_path: Path) -> None:
    make().save(tmp_path)
    edit(lambda c: c | {"siez": 8})(tmp_path)
    with pytest.raises(ImtokError, match=rf"^{tmp_path}/config\.json: siez: unknown key; did you mean size\?"):
        imtok.load(tmp_path)


def test_a_folder_without_a_tokenizer_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=f"^{tmp_path}/none: no such folder; give a folder made by `imtok train`"):
        imtok.load(tmp_path / "none")
    with pytest.raises(TokenizerError, match=f"^{tmp_path}: holds no tokenizer"):
        imtok.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(TokenizerError, match="this run is not finished; run the same `imtok train` again"):
        imtok.load(tmp_path)


def test_a_quantizer_that_cannot_be_built_is_a_configuration_error() -> None:
    unsafe = ResidualConfig(depth=3, scales=(1.0, 0.5))
    with pytest.raises(ConfigError, match=r"quantizer: there are 2 scales for 3 stages"):
        Tokenizer(TokenizerConfig(network=NETWORK, quantizer=unsafe, size=16))


# --- the fingerprint


@pytest.mark.parametrize("name", QUANTIZERS)
def test_equal_tokenizers_have_equal_fingerprints_and_others_do_not(name: str) -> None:
    assert make(name).fingerprint == make(name).fingerprint
    assert make(name).fingerprint != make(name, seed=1).fingerprint
    others = QUANTIZERS.keys() - {"frozen", "clustering"}  # which begin with the codebook of "vq"
    assert len({make(other).fingerprint for other in others}) == len(others)
    assert len(make(name).fingerprint) == 64


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_decoder_may_be_tuned_without_a_new_fingerprint(name: str) -> None:
    tokenizer = make(name)
    before = tokenizer.fingerprint
    for parameter in tokenizer.decoder.parameters():
        nudge(parameter)
    assert tokenizer.fingerprint == before
    assert tokenizer.train().fingerprint == before


@pytest.mark.parametrize("name", QUANTIZERS)
def test_every_tensor_of_the_encoder_is_in_the_fingerprint(name: str) -> None:
    tokenizer = make(name)
    seen = {tokenizer.fingerprint}
    for parameter in tokenizer.encoder.parameters():
        nudge(parameter)
        seen.add(tokenizer.fingerprint)
    assert len(seen) == 1 + len(list(tokenizer.encoder.parameters()))


def test_the_fingerprint_has_the_codebook_without_its_statistics() -> None:
    tokenizer = make("vq")
    before = tokenizer.fingerprint
    nudge(tokenizer.quantizer.cluster_size)  # type: ignore[arg-type]
    nudge(tokenizer.quantizer.embed_sum)  # type: ignore[arg-type]
    tokenizer.quantizer.started.fill_(True)  # type: ignore[operator]
    assert tokenizer.fingerprint == before
    nudge(tokenizer.quantizer.codebook)  # type: ignore[arg-type]
    assert tokenizer.fingerprint != before


def test_what_only_training_reads_is_not_in_the_fingerprint() -> None:
    def fingerprint(**options: Any) -> str:
        return make("vq", quantizer=QUANTIZERS["vq"].model_copy(update=options)).fingerprint

    assert fingerprint() == fingerprint(decay=0.5, estimator="straight_through", revival_threshold=0.0)
    assert make("vq").fingerprint == make("vq", size=32).fingerprint
    assert fingerprint() == fingerprint(entropy_weight=0.1, commitment_weight=1.0, kmeans_start=False)
    assert fingerprint() != fingerprint(metric="cosine")
    for name, options in {
        "lfq": {"temperature": 1.0, "entropy_group": 6, "entropy_weight": 0.0},
        "gumbel": {"temperature": 2.0, "straight_through": False, "kl_weight": 0.0},
        "residual": {"quantizer_dropout": 0.0},
    }.items():
        other = QUANTIZERS[name].model_copy(update=options)
        assert make(name, quantizer=other).fingerprint == make(name).fingerprint


def test_every_tensor_that_decides_codes_is_in_the_fingerprint() -> None:
    for name, tensors in {
        "simvq": ["codebook", "projection.weight", "projection.bias"],
        "frozen": ["codebook"],
        "ibq": ["codebook"],
        "gumbel": ["projection.weight", "projection.bias", "codebook"],
        "residual": ["parts.0.codebook", "parts.2.codebook"],
        "product": ["parts.1.codebook"],
        "residual-shared": ["parts.0.codebook"],
    }.items():
        tokenizer = make(name)
        seen = {tokenizer.fingerprint}
        known = dict(tokenizer.quantizer.named_parameters()) | dict(tokenizer.quantizer.named_buffers())
        for tensor in tensors:
            nudge(known[tensor])
            seen.add(tokenizer.fingerprint)
        assert len(seen) == 1 + len(tensors), name


def test_how_codes_are_composed_is_in_the_fingerprint() -> None:
    lfq = LFQConfig(dim=6)
    records: list[QuantizerConfig] = [
        lfq,
        BSQConfig(dim=6),
        ProductConfig(part=LFQConfig(dim=3), heads=2),
        ProductConfig(part=LFQConfig(dim=3), heads=2, shared=True),
        ResidualConfig(part=lfq, depth=2),
        ResidualConfig(part=lfq, depth=3),
        ResidualConfig(part=lfq, depth=3, scales=(1.0, 0.5, 0.2)),
    ]
    assert len({make(quantizer=record).fingerprint for record in records}) == len(records)
    written_out = ResidualConfig(part=lfq, depth=3, scales=(1.0, 0.5, 0.25))
    assert make(quantizer=written_out).fingerprint == make(quantizer=records[5]).fingerprint


def test_levels_are_in_the_fingerprint() -> None:
    assert make().fingerprint != make(quantizer=FSQConfig(levels=(5, 7, 5))).fingerprint


def test_the_fingerprint_is_equal_on_all_machines_and_versions() -> None:
    """Token sets on disk carry it: when this fails, they no longer match the tokenizer that made them."""
    for name, expected in [
        ("fsq", "0fef9dcdc64b8b79abd694027e89770c3ccf73d71bdace890a0c02a613621c68"),
        ("vq", "697f98a057fcc86f1d7bd542e649f8f147b1a4169007ce42c3465b8800fde857"),
    ]:
        tokenizer = make(name)
        for tensor in tokenizer.state_dict().values():
            if tensor.is_floating_point():
                nn.init.constant_(tensor, 0.5)
        assert tokenizer.fingerprint == expected


# --- found wanting


def test_codes_can_be_embedded_and_trained_on() -> None:
    codes = make().encode(pictures())
    nn.Embedding(175, 4)(codes).sum().backward()


def test_decoded_images_can_be_changed_in_place() -> None:
    tokenizer = make()
    tokenizer.decode(tokenizer.encode(pictures())).mul_(2)


def test_images_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(TokenizerError, match="NaN"):
        make().encode(torch.full((1, 3, 16, 16), torch.nan))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_of_any_float_type_are_encoded(dtype: torch.dtype) -> None:
    images = torch.zeros(1, 3, 16, 16, dtype=dtype)
    assert torch.equal(make().encode(images), make().encode(images.float()))


def test_a_quantizer_refused_on_loading_names_the_file(tmp_path: Path) -> None:
    make().save(tmp_path)
    edit(lambda c: c | {"quantizer": {"kind": "fsq", "levels": [2, 2, 2]}})(tmp_path)
    with pytest.raises(ImtokError, match=rf"^{tmp_path}/config\.json"):
        imtok.load(tmp_path)


def test_weights_that_cannot_be_opened_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make().save(tmp_path)
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "model.safetensors":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(TokenizerError, match=r"model\.safetensors: cannot be read \(Permission denied\)"):
        imtok.load(tmp_path)


def test_a_bfloat16_tokenizer_has_a_fingerprint() -> None:
    assert len(make().bfloat16().fingerprint) == 64


def test_saving_where_a_file_is_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ImtokError, match=f"^{tmp_path}/taken"):
        make().save(tmp_path / "taken")


# --- manners


def test_pictures_of_pillow_and_numpy_give_the_codes_of_tensors() -> None:
    tokenizer, images = make(), pictures()
    expected = tokenizer.encode(images)
    arrays = images.permute(0, 2, 3, 1).numpy()
    pillow = [Image.fromarray(array) for array in arrays]
    for given in (arrays, arrays[:, ::-1][:, ::-1], list(arrays), pillow, [pillow[0], arrays[1]], tuple(pillow)):
        assert torch.equal(tokenizer.encode(given), expected)
    assert torch.equal(tokenizer.encode(pillow[0]), expected[:1])
    assert torch.equal(tokenizer.encode(arrays[1]), expected[1:])
    gray = Image.new("L", (16, 16), 9)
    assert torch.equal(tokenizer.encode(gray), tokenizer.encode(gray.convert("RGB")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Image.new("RGBA", (16, 16)), "mode RGBA, expected RGB"),
        (Image.new("RGB", (18, 16)), "16x18, expected multiples of 4"),
        ([Image.new("RGB", (16, 16)), Image.new("RGB", (8, 16))], "sizes 16x8 and 16x16, expected one size"),
        ([], "sizes none, expected one size"),
        (np.zeros((16, 16, 3)), "float64 of shape"),
        (np.zeros((16, 16), np.uint8), "expected a PIL image or a uint8 array"),
        (np.zeros((3, 16, 16), np.uint8), "expected uint8"),
        ([torch.zeros(3, 16, 16)], "a tensor .B, 3, H, W. is given by itself"),
        (["a.png"], "a picture is str"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(given: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        make().encode(given)


def test_a_tokenizer_prints_itself_in_a_line() -> None:
    found = repr(make("residual"))
    assert "\n" not in found
    for part in ("Tokenizer(residual of", "codes in each of", "downsample 4", "4 x 4", "size of 16", "cpu"):
        assert part in found


def test_a_tokenizer_is_loaded_to_the_device_given() -> None:
    assert imtok.load(device=torch.device("cpu")).device == torch.device("cpu")
    with pytest.raises(ConfigError, match="not a device"):
        imtok.load(device="abacus")


class Encoding(nn.Module):
    """`Tokenizer.encode` as the forward of a module."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, images: Tensor) -> Tensor:
        return self.tokenizer.encode(images)


class Decoding(Encoding):
    """`Tokenizer.decode` as the forward of a module."""

    def forward(self, images: Tensor) -> Tensor:
        return self.tokenizer.decode(images)


@pytest.mark.parametrize("name", ["fsq", "vq"])
def test_encode_and_decode_are_exported_for_any_batch(name: str) -> None:
    tokenizer = make(name).requires_grad_(False)
    images, other = (to_float(pictures(batch, width=16, seed=batch)) for batch in (2, 3))
    codes, expected = tokenizer.encode(images), tokenizer.encode(other)
    batch = ({0: torch.export.Dim("batch", min=2)},)
    encode = torch.export.export(Encoding(tokenizer).eval(), (images,), dynamic_shapes=batch).module()
    assert torch.equal(encode(other), expected)
    decode = torch.export.export(Decoding(tokenizer).eval(), (codes,), dynamic_shapes=batch).module()
    assert torch.equal(decode(expected), tokenizer.decode(expected))


@pytest.mark.parametrize("name", ["fsq", "vq"])
def test_encode_and_decode_are_one_graph(name: str) -> None:
    tokenizer, images = make(name), to_float(pictures())
    encode = torch.compile(Encoding(tokenizer).eval(), fullgraph=True, backend="eager")
    decode = torch.compile(Decoding(tokenizer).eval(), fullgraph=True, backend="eager")
    codes = tokenizer.encode(images)
    assert torch.equal(encode(images), codes)
    assert torch.equal(decode(codes), tokenizer.decode(codes))
    # torch leaves the gradient off, as the graph has it, where an error ends the graph.
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        with pytest.raises(ValueError, match="NaN or infinite"):
            encode(images * float("nan"))
        with pytest.raises(ValueError, match=r"expected \[0, \d+\)"):
            decode(codes - 1000)
    assert torch.is_grad_enabled()
