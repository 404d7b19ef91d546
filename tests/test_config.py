"""Presets, files and `--set` become one checked record, or one line that says what is wrong."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from making import QUANTIZERS
from pydantic import ValidationError

from imtok.config import (
    NetworkConfig,
    TokenizerConfig,
    TrainConfig,
    load_tokenizer_config,
    load_train_config,
    merge,
    parse_settings,
    preset,
    preset_about,
    preset_groups,
    preset_names,
    read_config_file,
    sources,
)
from imtok.errors import ConfigError
from imtok.quantizer_config import (
    BSQConfig,
    FSQConfig,
    GumbelConfig,
    LFQConfig,
    ProductConfig,
    ResidualConfig,
    VQConfig,
)
from imtok.quantizers import BSQ, FSQ, LFQ, GumbelQuantizer, Quantizer, ResidualQuantizer, VectorQuantizer
from imtok.records import Record
from imtok.tokenizer import build_quantizer, check_quantizer


def load(*settings: str) -> TrainConfig:
    return load_train_config(parse_settings(settings), "run.yaml")


def problem(values: dict[str, Any]) -> str:
    """The one line that is wrong with these values."""
    with pytest.raises(ConfigError) as caught:
        load_train_config(values, "run.yaml")
    text = str(caught.value)
    assert text.startswith("run.yaml: ")
    assert "\n" not in text
    return text.removeprefix("run.yaml: ")


# --- records


def test_the_records_import_no_torch() -> None:
    modules = "imtok.cli, imtok.config, imtok.quantizer_config, imtok.quantizers, imtok.networks"
    code = f"import sys, {modules}; print([name for name in ('numpy', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["quantizer.levels=[7,5,5,5,5]", "network.attention=true", "network.channels=[32,64,64]"],
        ["quantizer.kind=vq", "quantizer.metric=cosine", "quantizer.decay=0.8"],
        ["seed=7", "device=cpu", "optimizer.learning_rate=3e-4", "optimizer.betas=[0.5,0.9]", "loss.l1=0.1"],
    ],
)
def test_yaml_reads_back_to_an_equal_configuration(settings: list[str]) -> None:
    config = load(*settings)
    assert load_train_config(yaml.safe_load(config.to_yaml())) == config


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig().images = 5  # type: ignore[misc]


def test_the_downsampling_follows_from_patch_size_and_stages() -> None:
    assert NetworkConfig(fold=4, channels=(64, 128)).downsample == 8
    assert NetworkConfig(fold=1, channels=(64, 64, 64, 64, 64)).downsample == 16
    assert NetworkConfig(fold=3, channels=(64,)).downsample == 3


def test_intervals_of_zero_are_shares_of_at_least_a_batch() -> None:
    config = TrainConfig(images=1000, batch_size=10)
    assert (config.validation_interval, config.checkpoint_interval) == (100, 50)
    config = TrainConfig(images=1000, batch_size=200)
    assert (config.validation_interval, config.checkpoint_interval) == (200, 200)
    config = TrainConfig(images=1000, validate_every=7, checkpoint_every=9)
    assert (config.validation_interval, config.checkpoint_interval) == (7, 9)


# --- presets


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_configuration_with_a_quantizer(name: str) -> None:
    config = load_train_config(preset(name), name)
    assert build_quantizer(config.tokenizer.quantizer).num_codes > 1
    assert load_train_config(yaml.safe_load(config.to_yaml())) == config


def test_a_preset_overrides_its_base_with_settings_alone() -> None:
    assert preset("rotation-vq-f4") == {
        "tokenizer": {
            "size": 32,
            "network": {"patch_size": 2, "channels": [64, 128]},
            "quantizer": {
                "kind": "vq",
                "num_codes": 1024,
                "dim": 32,
                "estimator": "rotation",
                "decay": 0.99,
                "commitment_weight": 0.25,
            },
        },
        "data": {"crop": 32},
        "images": 120000,
        "batch_size": 64,
    }
    published = load_train_config(preset("vqgan-f16-1024")).adversarial  # its base has a base
    assert (published.weight, published.adaptive, published.lecam, published.loss) == (0.8, True, 0, "hinge")


def test_bases_are_no_presets_and_none_is_its_own() -> None:
    assert not [name for name in preset_names() if name.startswith("_")]
    with pytest.raises(ConfigError, match="unknown"):
        preset("_vqgan")
    with pytest.raises(AssertionError, match="has itself for a base"):
        sources._preset_file("_vqgan", ("_vqgan", "fsq-f8"))


def test_every_preset_has_a_group_and_a_purpose() -> None:
    groups = preset_groups()
    assert list(groups) == ["cpu", "cpu-long", "gpu", "quantizer"]
    assert sorted(name for names in groups.values() for name in names) == preset_names()
    assert all(preset_about(name) for name in preset_names())


def test_only_presets_for_a_gpu_need_a_download() -> None:
    for group, names in preset_groups().items():
        for name in names:
            config = load_train_config(preset(name), name)
            assert (config.loss.perceptual > 0) == (group == "gpu")
            assert config.adversarial.enabled == (group == "gpu" or name == "cpu-gan-f4")


@pytest.mark.parametrize(("name", "grid"), [("fsq-f8", 32), ("fsq-f16", 16), ("llamagen-vq-f16", 16)])
def test_the_grid_of_a_preset_is_that_of_its_name(name: str, grid: int) -> None:
    tokenizer = load_train_config(preset(name)).tokenizer
    assert tokenizer.size // tokenizer.network.downsample == grid


def test_an_unknown_preset_names_the_known_ones_and_the_nearest() -> None:
    name = preset_names()[0]
    with pytest.raises(
        ConfigError, match=rf"--preset {name}x: unknown, expected one of .*{name}.*; did you mean {name}\?"
    ):
        preset(f"{name}x")


# --- settings


def test_settings_become_a_nested_mapping_of_typed_values() -> None:
    settings = ["images=2000", "optimizer.learning_rate=0.01", "device=cpu", "data.flip=false", "data.crop = 64"]
    assert parse_settings(settings) == {
        "images": 2000,
        "optimizer": {"learning_rate": 0.01},
        "device": "cpu",
        "data": {"flip": False, "crop": 64},
    }


def test_tokenizer_settings_may_leave_out_their_first_word() -> None:
    short = parse_settings(["quantizer.levels=[8,5,5,5]", "network.fold=2", "size=128"])
    full = parse_settings(["tokenizer.quantizer.levels=[8,5,5,5]", "tokenizer.network.fold=2", "tokenizer.size=128"])
    assert short == full == {"tokenizer": {"quantizer": {"levels": [8, 5, 5, 5]}, "network": {"fold": 2}, "size": 128}}


def test_a_later_setting_wins_over_an_earlier_one() -> None:
    assert parse_settings(["images=1", "data.crop=8", "images=2", "data.flip=true"]) == {
        "images": 2,
        "data": {"crop": 8, "flip": True},
    }


def test_a_value_may_hold_an_equals_sign() -> None:
    assert parse_settings(["device=a=b"]) == {"device": "a=b"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("images", "--set images: expected key=value, for instance"),
        ("=3", "--set =3: expected key=value"),
        (" =3", "expected key=value"),
        ("images={", "--set images={: the value is not valid YAML"),
        ("device=!!python/object:os.system x", "is not valid YAML"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings([setting])


# --- merging


def test_merging_goes_key_by_key_and_changes_neither_mapping() -> None:
    base = {"images": 1, "data": {"crop": 64, "flip": True}}
    over = {"data": {"crop": 32}, "seed": 3}
    assert merge(base, over) == {"images": 1, "data": {"crop": 32, "flip": True}, "seed": 3}
    assert base == {"images": 1, "data": {"crop": 64, "flip": True}}
    assert over == {"data": {"crop": 32}, "seed": 3}


def test_lists_are_replaced_whole() -> None:
    assert merge({"levels": [8, 8, 8]}, {"levels": [5]}) == {"levels": [5]}


def test_a_quantizer_of_another_kind_replaces_the_whole_quantizer() -> None:
    base = {"tokenizer": {"quantizer": {"kind": "fsq", "levels": [8, 5]}, "size": 64}}
    merged = merge(base, parse_settings(["quantizer.kind=vq", "quantizer.num_codes=32"]))
    assert merged == {"tokenizer": {"quantizer": {"kind": "vq", "num_codes": 32}, "size": 64}}
    assert load_train_config({**merged, "data": {"crop": 32}}).tokenizer.quantizer == VQConfig(num_codes=32)


def test_a_quantizer_of_the_same_kind_keeps_its_other_fields() -> None:
    base = {"tokenizer": {"quantizer": {"kind": "vq", "dim": 16, "num_codes": 64}}}
    merged = merge(base, parse_settings(["quantizer.kind=vq", "quantizer.num_codes=32"]))
    assert load_train_config(merged).tokenizer.quantizer == VQConfig(dim=16, num_codes=32)


def test_a_quantizers_kind_follows_from_its_fields() -> None:
    assert load("quantizer.levels=[5,5]").tokenizer.quantizer == FSQConfig(levels=(5, 5))
    assert load("quantizer.num_codes=64").tokenizer.quantizer == VQConfig(num_codes=64)
    assert load("quantizer={}").tokenizer.quantizer == FSQConfig()


@pytest.mark.parametrize("name", QUANTIZERS)
def test_every_kind_is_set_and_read_back_unchanged(name: str) -> None:
    record = QUANTIZERS[name]
    settings = [f"quantizer.{key}={json.dumps(value)}" for key, value in record.model_dump(mode="json").items()]
    config = load(*settings)
    assert config.tokenizer.quantizer == record
    assert load_train_config(yaml.safe_load(config.to_yaml())) == config
    built = build_quantizer(record)
    assert (built.num_codes, built.num_codebooks) == (record.num_codes, len(record.codebook_ids))


def test_a_kind_and_a_field_suffice() -> None:
    base = {"tokenizer": {"quantizer": {"kind": "fsq", "levels": [8, 5]}}}
    lfq = load_train_config(merge(base, parse_settings(["quantizer.kind=lfq", "quantizer.dim=10"])))
    assert lfq.tokenizer.quantizer == LFQConfig(dim=10)
    residual = load("quantizer.kind=residual", "quantizer.depth=3", "quantizer.part.num_codes=64")
    assert residual.tokenizer.quantizer == ResidualConfig(depth=3, part=VQConfig(num_codes=64))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (["quantizer.dim=16"], "vq"),
        (["quantizer.entropy_group=2"], "lfq or bsq"),
        (["quantizer.temperature=1", "quantizer.dim=8"], "lfq and bsq and gumbel"),
        (["quantizer.kl_weight=0.1", "quantizer.num_codes=64"], "gumbel"),
        (["quantizer.depth=2"], "residual"),
        (["quantizer.heads=2", "quantizer.part.levels=[5,5]"], "product"),
    ],
)
def test_an_ambiguous_kind_is_requested(settings: list[str], kind: str) -> None:
    if " " not in kind:
        assert load(*settings).tokenizer.quantizer.kind == kind
        return
    message = problem(parse_settings(settings))
    assert message.startswith("tokenizer.quantizer: lfq and bsq")
    assert message.endswith("say which by kind")


def test_the_kind_of_a_part_follows_from_its_fields() -> None:
    nested = load("quantizer.heads=2", "quantizer.part.depth=2", "quantizer.part.part.levels=[5,5]")
    inner = ResidualConfig(depth=2, part=FSQConfig(levels=(5, 5)))
    assert nested.tokenizer.quantizer == ProductConfig(heads=2, part=inner)
    tokenizer = load_tokenizer_config(nested.tokenizer.model_dump(mode="json"), "config.json")
    assert tokenizer.quantizer == nested.tokenizer.quantizer


def test_fields_follow_a_choice_that_leaves_no_freedom() -> None:
    for update in ("projection", "frozen"):
        record = load(f"quantizer.codebook_update={update}").tokenizer.quantizer
        assert (record.kmeans_start, record.revival_threshold) == (False, 0.0)  # type: ignore[union-attr]
        build_quantizer(record)
    propagating = load("quantizer.estimator=index_propagation").tokenizer.quantizer
    assert propagating == VQConfig(
        metric="dot",
        estimator="index_propagation",
        codebook_update="gradient",
        kmeans_start=False,
        revival_threshold=0.0,
    )
    clustering = load("quantizer.online_clustering=true").tokenizer.quantizer
    assert clustering == VQConfig(codebook_update="gradient", revival_threshold=0.0, online_clustering=True)
    build_quantizer(propagating)
    build_quantizer(clustering)
    with pytest.raises(ConfigError, match=r"tokenizer\.quantizer: kmeans_start moves single codes"):
        load("quantizer.codebook_update=projection", "quantizer.kmeans_start=true")


def test_a_tokenizer_older_than_a_field_is_read_unchanged() -> None:
    old = {
        "kind": "vq",
        "dim": 4,
        "num_codes": 32,
        "metric": "cosine",
        "estimator": "straight_through",
        "codebook_update": "gradient",
        "decay": 0.99,
        "commitment_weight": 0.25,
        "codebook_weight": 1.0,
        "kmeans_start": True,
        "revival_threshold": 0.05,
    }
    record = load_tokenizer_config({"quantizer": old}, "config.json").quantizer
    assert record.model_dump(include=set(old)) == old
    assert record == VQConfig(dim=4, num_codes=32, metric="cosine", codebook_update="gradient")


def test_residual_scales_are_those_given_or_else_the_quantizers_own() -> None:
    def scales(config: ResidualConfig) -> list[list[float]]:
        quantizer = build_quantizer(config)
        assert isinstance(quantizer, ResidualQuantizer)
        return quantizer.scales.tolist()

    part = FSQConfig(levels=(8, 4))
    assert scales(ResidualConfig(part=part, depth=2)) == [[1, 1], [0.5, 0.5]]
    assert scales(ResidualConfig(part=part, depth=2, scales=(1.0, 0.25))) == [[1, 1], [0.25, 0.25]]


@pytest.mark.parametrize(
    ("record", "quantizer"),
    [
        (FSQConfig, FSQ),
        (VQConfig, VectorQuantizer),
        (LFQConfig, LFQ),
        (BSQConfig, BSQ),
        (GumbelConfig, GumbelQuantizer),
    ],
)
def test_a_record_has_every_field_of_its_constructor(record: type[Record], quantizer: type[Quantizer]) -> None:
    assert set(record.model_fields) - {"kind"} == set(inspect.signature(quantizer).parameters)


def test_codebook_ids_number_the_codebooks_that_several_parts_share() -> None:
    part = ResidualConfig(depth=2)
    assert part.codebook_ids == (0, 1)
    assert ResidualConfig(depth=3, shared=True).codebook_ids == (0, 0, 0)
    assert ProductConfig(part=part, heads=2).codebook_ids == (0, 1, 2, 3)
    assert ProductConfig(part=part, heads=2, shared=True).codebook_ids == (0, 1, 0, 1)


def test_a_file_may_have_tokenizer_keys_at_its_top() -> None:
    written = load_train_config({"quantizer": {"levels": [5, 5]}, "size": 64, "data": {"crop": 32}})
    assert written == load_train_config(
        {"tokenizer": {"quantizer": {"levels": [5, 5]}, "size": 64}, "data": {"crop": 32}}
    )


# --- what is refused


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("imagse=3", "imagse: unknown key; did you mean images?; known here: tokenizer, data, loss,"),
        ("optimizer.learning_rat=1", "optimizer.learning_rat: unknown key; did you mean learning_rate?"),
        (
            "network.folds=2",
            "tokenizer.network.folds: unknown key for kind conv; did you mean fold?; known here: kind, patch_size,",
        ),
        ("quantiser.levels=[8]", "quantiser: unknown key; did you mean quantizer?"),
        (
            "quantizer={kind: fsq, num_codes: 8}",
            "tokenizer.quantizer.num_codes: unknown key for kind fsq; it belongs to quantizer.kind=vq",
        ),
        ("quantizer.levls=[8]", "tokenizer.quantizer.levls: unknown key for kind fsq; did you mean levels?"),
        ("quantizer.num_codez=8", "tokenizer.quantizer.num_codez: unknown key for kind vq; did you mean num_codes?"),
        ("tokenizer.siez=8", "tokenizer.siez: unknown key; did you mean size?; known here: network, quantizer, size"),
        ("optimizer.zzz=3", "optimizer.zzz: unknown key; known here: learning_rate, betas,"),
        ("data.x.y=1", "data.x: unknown key; known here: crop, flip,"),
        (
            "quantizer={kind: lfq, decay: 0.9}",
            "tokenizer.quantizer.decay: unknown key for kind lfq; it belongs to quantizer.kind=vq; known here: kind,",
        ),
        (
            "quantizer={kind: product, part: {kind: fsq, dim: 8}}",
            "tokenizer.quantizer.part.dim: unknown key for kind fsq; it belongs to quantizer.part.kind=vq or lfq",
        ),
        (
            "quantizer={kind: residual, part: {kind: vq, dimm: 8}}",
            "tokenizer.quantizer.part.dimm: unknown key for kind vq; did you mean dim?; known here: kind, dim,",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_known_ones(setting: str, message: str) -> None:
    assert problem(parse_settings([setting])).startswith(message)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("images=0", "images 0: expected 1 or more"),
        ("images=abc", "images abc: expected a whole number"),
        ("images=1.5", "images 1.5: expected a whole number"),
        ("images.x=3", "images: expected a whole number"),
        ("seed=-1", "seed -1: expected 0 or more"),
        ("seed=2020-01-01", "seed 2020-01-01: expected a whole number"),
        ("precision=fp16", "precision fp16: expected auto, fp32 or bf16"),
        ("ema_decay=1", "ema_decay 1: expected less than 1"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate -1: expected more than 0"),
        ("optimizer.learning_rate=.nan", "optimizer.learning_rate nan: expected a finite number"),
        ("optimizer.betas=[.9]", "optimizer.betas.1: expected a value"),
        ("loss.l2=0", "loss: l1 and l2 are both 0; one must be above 0"),
        ("loss=", "loss null: expected keys of its own"),
        ("data.val_fraction=1", "data.val_fraction 1: expected less than 1"),
        ("data.crop=97", "data.crop 97 is no multiple of the downsampling 8"),
        ("data.crop=512", "data.crop 512 is larger than tokenizer.size 256"),
        ("size=30", "tokenizer: size 30 is no multiple of the downsampling 8 (patch_size 4 x 2^1)"),
        ("network.fold=0", "tokenizer.network.patch_size 0: expected 1 or more"),
        ("network.channels=[]", "tokenizer.network.channels []: expected 1 or more values"),
        (
            "network.channels=[64,2]",
            "tokenizer.network.channels.1 2: expected 4 or more",
        ),
        ("quantizer=fsq", "tokenizer.quantizer fsq: expected keys of its own"),
        ("quantizer.kind=lvq", "tokenizer.quantizer of kind lvq: expected one of"),
        ("quantizer.levels=abc", "tokenizer.quantizer.levels abc: expected a list"),
        ("quantizer.levels=[]", "tokenizer.quantizer.levels []: expected 1 or more values"),
        (
            "quantizer.num_codes=0",
            "tokenizer.quantizer.num_codes 0: expected 1 or more",
        ),
        (
            "quantizer.metric=l2",
            "tokenizer.quantizer.metric l2: expected euclidean, cosine or dot",
        ),
        ("tokenizer=3", "tokenizer 3: expected keys of its own"),
        (
            "quantizer={kind: lfq, dim: 32}",
            "tokenizer.quantizer.dim 32: expected 31 or less",
        ),
        (
            "quantizer={kind: lfq, dim: 30}",
            "tokenizer.quantizer has 1073741824 codes in all, at most 16777216 can be counted; several",
        ),
        (
            "quantizer={kind: residual, depth: 0}",
            "tokenizer.quantizer.depth 0: expected 1 or more",
        ),
        (
            "quantizer={kind: residual, part: {num_codes: 0}}",
            "tokenizer.quantizer.part.num_codes 0: expected 1 or more",
        ),
        (
            "quantizer={kind: residual, part: {kind: lvq}}",
            "tokenizer.quantizer.part of kind lvq: expected one of",
        ),
    ],
)
def test_a_bad_value_is_one_line_with_key_and_expectation(setting: str, message: str) -> None:
    assert problem(parse_settings([setting])).startswith(message)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("quantizer={kind: lfq, dim: 10, entropy_group: 3}", "entropy_group is 3, expected a divisor of dim 10"),
        ("quantizer={kind: bsq, sample_entropy_weight: 0, batch_entropy_weight: 0}", "entropy_weight above 0 with"),
        ("quantizer={kind: gumbel, final_temperature: 2}", "final_temperature 2.0 is higher"),
        ("quantizer={kind: vq, commitment_weight: 0}", "an EMA codebook with commitment_weight 0 diverges"),
        ("quantizer={kind: vq, metric: dot}", "by the greatest product the longest codes take all latents"),
    ],
)
def test_options_that_do_not_go_together_are_refused_at_once(setting: str, message: str) -> None:
    assert problem(parse_settings([setting])).startswith(f"tokenizer.quantizer: {message}")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("quantizer={kind: residual, part: {kind: gumbel, code_dim: 5}}", "no residual can be taken"),
        ("quantizer={kind: residual, depth: 3, scales: [1, 0.5]}", "there are 2 scales for 3 stages"),
    ],
)
def test_what_only_the_quantizer_refuses_is_one_line_too(setting: str, message: str) -> None:
    drawn = torch.get_rng_state()
    with pytest.raises(ConfigError, match=f"^quantizer: .*{message}") as caught:
        check_quantizer(load(setting).tokenizer.quantizer)
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), drawn)


def test_keys_that_are_not_strings_are_refused() -> None:
    assert problem({1: 2}).startswith("1: Keys should be strings")  # type: ignore[dict-item]
    assert "Keys should be strings" in problem({"tokenizer": {"quantizer": {1: 2}}})


def test_fields_of_the_other_kind_of_quantizer_are_refused() -> None:
    assert problem({"quantizer": {"kind": "vq", "levels": [8]}}).startswith("tokenizer.quantizer.levels: unknown key")


def test_a_tokenizers_own_configuration_is_checked_alike() -> None:
    config = load_tokenizer_config({"size": 64, "quantizer": {"kind": "fsq", "levels": [5, 5]}}, "config.json")
    assert config == TokenizerConfig(size=64, quantizer=FSQConfig(levels=(5, 5)))
    with pytest.raises(ConfigError, match=r"^config\.json: siez: unknown key; did you mean size\?"):
        load_tokenizer_config({"siez": 64}, "config.json")


# --- files


def test_a_file_is_read_as_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("images: 500\nquantizer:\n  levels: [5, 5]\n")
    assert read_config_file(path) == {"images": 500, "quantizer": {"levels": [5, 5]}}
    path.write_text("# nothing but a comment\n")
    assert read_config_file(path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: [1,\n", "not valid YAML at line 3"),
        (b"- 1\n- 2\n", "holds a list, expected keys such as"),
        (b"hello", "holds a str, expected keys"),
        (b"\xff\xfe\x00", r"cannot be read \(not UTF-8 text\)"),
        (b"a: !!python/name:os.system\n", "not valid YAML at line 1"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read \(No such file or directory\)"):
        read_config_file(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        read_config_file(tmp_path)


# --- found wanting


def test_an_unknown_key_is_not_suggested_as_itself() -> None:
    assert "did you mean levels?" not in problem({"quantizer": {"kind": "vq", "levels": [8]}})


@pytest.mark.parametrize(
    "setting",
    [
        "quantizer.levels=[2]",
        "quantizer.decay=2",
        "quantizer.commitment_weight=-1",
        "optimizer.betas=[2,3]",
        "optimizer.learning_rate=.inf",
    ],
)
def test_an_unusable_value_is_refused_before_the_work_starts(setting: str) -> None:
    values = parse_settings([setting])
    if setting.startswith("quantizer") and "levels" not in setting:
        values = merge({"tokenizer": {"quantizer": {"kind": "vq"}}}, values)
    problem(values)


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("optimizer.lr=1", "optimizer.learning_rate"),
        ("lr=1", "optimizer.learning_rate or adversarial.learning_rate"),
        ("opt.learning_rate=1", "optimizer.learning_rate or adversarial.learning_rate"),
        ("num_codes=5", "quantizer.num_codes or quantizer.part.num_codes"),
        ("levels=[3,3]", "quantizer.levels"),
        ("discriminator.layers=2", "adversarial.discriminator.layers"),
        ("tokenizer.num_codes=5", "quantizer.num_codes"),
        ("discriminator_layers=2", "adversarial.discriminator.layers"),
        ("epochs=3", "images?"),
        ("steps=100", "images?"),
        ("image_size=64", "size?"),
        ("codebook_size=512", "quantizer.num_codes?"),
    ],
)
def test_an_unknown_setting_gets_the_nearest_full_keys(setting: str, meant: str) -> None:
    assert f"unknown key; did you mean {meant}" in problem(parse_settings([setting]))


def test_what_is_near_to_no_key_gets_no_guess() -> None:
    assert "did you mean" not in problem(parse_settings(["xyzzy=1"]))


def test_a_value_of_several_types_names_each() -> None:
    assert problem(parse_settings(["compile=maybe"])).startswith("compile maybe: expected true or false or auto")


def test_a_file_that_is_not_yaml_gets_place_and_example(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("images: 3\nquantizer: [1, 2\n")
    with pytest.raises(ConfigError, match=r"not valid YAML at line 3, column 1 \(.*\); expected keys such as `images"):
        read_config_file(path)
