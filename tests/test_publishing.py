"""Publishing: the card of a run, and a push that is one commit or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_server import TOKEN, Hub, forbid_network, use_hub
from making import fill, tiny
from typer.testing import CliRunner

import imtok
from imtok.cli import app
from imtok.config import TrainConfig
from imtok.errors import ConfigError, HubError, ImtokError, TokenizerError, TrainingError
from imtok.evaluation import METRICS, evaluate_tokenizers
from imtok.publishing import gather, push
from imtok.publishing.licenses import license_metadata
from imtok.tokenizer import Tokenizer
from imtok.training.best import Best

# The library passes bytes to its HTTP client in a way that this client no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

VALIDATION = {"val/psnr": 21.25, "val/ssim": 0.625, "val/usage": 0.5, "val/perplexity": 40.0}


def finished_run(folder: Path, tokenizer: Tokenizer | None = None, **settings: Any) -> Path:
    """The files of a finished run, without its training."""
    tokenizer = tokenizer or tiny(seed=1)
    config = TrainConfig(tokenizer=tokenizer.config, data={"crop": 16}, images=4000, **settings)  # type: ignore[arg-type]
    folder.mkdir()
    (folder / "config.yaml").write_text(config.to_yaml())
    (folder / "metrics.jsonl").write_text(json.dumps({"images": 4000, **VALIDATION}) + "\n")
    tokenizer.save(folder / "tokenizer")
    return folder


def card_of(path: Path | str, license: str = "mit", **options: Any) -> str:  # noqa: A002
    return push(path, "me/first", license=license, dry_run=True, **options).card


def metadata(card: str) -> Any:
    return yaml.safe_load(card.split("---\n")[1])


@pytest.fixture
def hub(hub_server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """An empty stand-in for the Hub, and a token that may write."""
    pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    hub_server.repositories.clear()
    hub_server.requests.clear()
    hub_server.down, hub_server.refuse, hub_server.card_error = 0, "", ""
    use_hub(hub_server, tmp_path / "cache", monkeypatch)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub_server


def test_the_metadata_of_a_card_is_what_the_hub_reads(tmp_path: Path) -> None:
    found = metadata(card_of(finished_run(tmp_path / "run")))
    assert found == {"license": "mit", "library_name": "imtok", "tags": ["imtok", "image-tokenizer", "fsq", "conv"]}


def test_a_card_states_tokenizer_recipe_and_metrics(tmp_path: Path) -> None:
    card = card_of(finished_run(tmp_path / "run"), data="12 photographs of my garden")
    assert "4 x 4 tokens of 125 codes, 111 bits" in card  # 16 log2(125)
    assert tiny(seed=1).fingerprint in card
    assert "12 photographs of my garden" in card
    assert "4,000 training images in batches of 16" in card
    assert "| PSNR | 21.25 dB |" in card
    assert "| codes used | 50.0% |" in card
    assert "on at most 256 images held out" in card
    assert "shorter side 32, centre crop 32x32, fp32, uint8 RGB; PSNR mean over images" in card
    assert 'imtok.load("hf://me/first")' in card


def test_the_configuration_of_a_card_trains_again(tmp_path: Path) -> None:
    card = card_of(finished_run(tmp_path / "run"))
    text = card.partition("```yaml\n")[2].partition("```")[0]
    assert TrainConfig.model_validate(yaml.safe_load(text)) == gather(tmp_path / "run").config


def test_a_card_holds_no_paths_of_the_machine(tmp_path: Path) -> None:
    tiny(seed=1).save(tmp_path / "secret" / "start")
    run = finished_run(
        tmp_path / "run",
        start_from=str(tmp_path / "secret" / "start"),
        loss={"perceptual_weights": "/home/me/vgg.pt"},
    )
    card = card_of(run)
    assert str(tmp_path) not in card
    assert "start_from: start\n" in card
    assert "perceptual_weights: vgg.pt\n" in card


def test_a_card_carries_the_origin_on(tmp_path: Path) -> None:
    tokenizer = tiny(seed=1)
    origin = {"family": "taming", "source": "last.ckpt", "sha256": "ab" * 32, "license": "cc-by-nc-4.0"}
    hub = f"hf://org/base@{'0' * 40}"
    tokenizer.config = tokenizer.config.model_validate(
        {**tokenizer.config.model_dump(mode="json"), "origin": {**origin, "hub": hub}}
    )
    tokenizer.save(tmp_path / "imported")
    report = push(tmp_path / "imported", "me/first", license="mit", dry_run=True)
    for value in ("taming", "last.ckpt", "ab" * 32, "cc-by-nc-4.0", hub, "They are as they were there"):
        assert value in report.card
    assert metadata(report.card)["base_model"] == "org/base"
    assert "the weights come from others under cc-by-nc-4.0; check that mit is yours to give" in report.notes
    further = tokenizer.config.origin.after_training(freeze_codes=True)  # type: ignore[union-attr]
    tokenizer.config = tokenizer.config.model_copy(update={"origin": further})
    tuned = card_of(finished_run(tmp_path / "run", tokenizer))
    assert "imtok trained their decoder further" in tuned
    assert "trained_further" not in tuned.partition("## Data")[0]
    assert metadata(tuned)["base_model_relation"] == "finetune"


def test_words_of_others_do_not_format_the_card(tmp_path: Path) -> None:
    tokenizer = tiny(seed=1)
    hostile = {"family": "x|y\n# heading", "source": "<script>alert(1)</script>", "license": "[a](http://b)"}
    tokenizer.config = tokenizer.config.model_validate({**tokenizer.config.model_dump(mode="json"), "origin": hostile})
    tokenizer.save(tmp_path / "imported")
    card = card_of(tmp_path / "imported", data="a\n---\n# b <img>")
    assert "\n# heading" not in card
    assert "\n# b" not in card
    assert "<script>" not in card.replace("\\<script\\>", "")
    assert r"\[a\](http://b)" in card


def test_the_best_tokenizer_has_its_own_metrics(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    best = Best(run / "best")
    best.take({"images": 2000, **VALIDATION, "val/psnr": 22.5}, tiny(seed=1))
    best.write()
    assert "| PSNR | 22.50 dB |" in card_of(run / "best")
    assert "| PSNR | 21.25 dB |" in card_of(run)
    assert "| PSNR | 21.25 dB |" in card_of(run / "tokenizer")


def test_an_evaluation_stands_with_its_protocol(tmp_path: Path) -> None:
    tiny(seed=1).save(tmp_path / "tokenizer")
    tiny(seed=2).save(tmp_path / "other")
    fill(tmp_path / "pictures", (f"{number}.png" for number in range(4)))
    results = evaluate_tokenizers(
        [tmp_path / "tokenizer", tmp_path / "other"], [tmp_path / "pictures"], output=tmp_path / "eval"
    )
    card = card_of(tmp_path / "tokenizer", evaluations=[tmp_path / "eval"])
    assert card.count("Protocol: ") == 1
    psnr = METRICS["psnr"].format(float(results[0].metrics["psnr"] or 0))
    assert f"| PSNR | {psnr} (" in card
    assert "4 images. In brackets: 95 % by bootstrap" in card
    assert "PIL bicubic to shorter side 32" in card


def test_an_evaluation_of_other_weights_is_refused(tmp_path: Path) -> None:
    """The fingerprint leaves the decoder out, but metrics are of the decoder too."""
    tokenizer = tiny(seed=1)
    tokenizer.save(tmp_path / "tokenizer")
    fill(tmp_path / "pictures", ["0.png", "1.png"])
    evaluate_tokenizers([tmp_path / "tokenizer"], [tmp_path / "pictures"], output=tmp_path / "eval")
    with torch.no_grad():
        next(tokenizer.decoder.parameters()).add_(1)
    tokenizer.save(tmp_path / "tuned")
    with pytest.raises(ConfigError, match="with other weights than this tokenizer's; measure this one"):
        card_of(tmp_path / "tuned", evaluations=[tmp_path / "eval"])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"x\.json: holds no results"):
        card_of(tmp_path / "tuned", evaluations=[tmp_path / "x.json"])


def test_licences_are_named_as_the_hub_does() -> None:
    assert license_metadata("MIT") == {"license": "mit"}
    assert license_metadata("My Own 1.0") == {"license": "other", "license_name": "my-own-1.0"}
    with pytest.raises(ConfigError, match="--license is empty"):
        license_metadata("  ")


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    tiny(seed=1).save(run / "best")
    (run / "tokenizer").rename(tmp_path / "away")
    for path in (run, run / "best"):
        with pytest.raises(TrainingError, match="this run is not finished"):
            card_of(path)
    with pytest.raises(TokenizerError, match="no such folder"):
        card_of(tmp_path / "none")


def test_a_push_is_one_commit_that_loads(hub: Hub, tmp_path: Path) -> None:
    report = push(finished_run(tmp_path / "run"), "me/first", license="mit")
    repository = hub.repositories["me/first"]
    assert len(repository.commits) == 2  # the first is made with the repository
    assert report.address == f"hf://me/first@{repository.branches['main']}"
    assert report.url == f"{hub.url}/me/first/tree/{repository.branches['main']}"
    files = repository.commits[repository.branches["main"]]
    assert set(files) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    assert files["README.md"].decode() == report.card
    assert files["model.safetensors"] == (tmp_path / "run/tokenizer/model.safetensors").read_bytes()
    assert not repository.private
    loaded = imtok.load(report.address)
    assert loaded.fingerprint == tiny(seed=1).fingerprint


def test_the_same_push_again_adds_no_commit(hub: Hub, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    first = push(run, "me/first", license="mit")
    assert push(run, "hf://me/first", license="mit").address == first.address
    assert len(hub.repositories["me/first"].commits) == 2


def test_a_push_to_a_branch_leaves_main_alone(hub: Hub, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    first = push(run, "me/first", license="mit").address
    tiny(seed=2).save(tmp_path / "other")
    push(tmp_path / "other", "me/first", license="mit", revision="v2")
    assert imtok.load("hf://me/first").fingerprint == imtok.load(first).fingerprint == tiny(seed=1).fingerprint
    assert imtok.load("hf://me/first@v2").fingerprint == tiny(seed=2).fingerprint


def test_private_is_private_or_refused(hub: Hub, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    push(run, "me/hidden", license="mit", private=True)
    assert hub.repositories["me/hidden"].private
    push(run, "me/first", license="mit")
    tiny(seed=2).save(tmp_path / "other")
    with pytest.raises(HubError, match="is public already, and --private was given"):
        push(tmp_path / "other", "me/first", license="mit", private=True)
    assert len(hub.repositories["me/first"].commits) == 2


def test_a_push_without_a_token_says_so(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path / "run")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="a push needs a token that may write; log in by `hf auth login`"):
        push(run, "me/first", license="mit")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError) as found:
        push(run, "me/first", license="mit")
    assert "hf_wrong" not in str(found.value)
    assert hub.repositories == {}


@pytest.mark.parametrize("refused", ["/preupload/", "/lfs/", "/commit/"])
def test_a_refused_push_publishes_nothing(hub: Hub, tmp_path: Path, refused: str) -> None:
    run = finished_run(tmp_path / "run")
    hub.refuse = refused
    with pytest.raises(HubError, match=r"access is refused \(HTTP 403\)|nothing was published") as found:
        push(run, "me/first", license="mit")
    assert "\n" not in str(found.value)
    assert [set(files) for files in hub.repositories["me/first"].commits.values()] == [{".gitattributes"}]
    hub.refuse = ""
    assert imtok.load(push(run, "me/first", license="mit").address).fingerprint == tiny(seed=1).fingerprint


def test_a_card_that_the_hub_refuses_is_quoted(hub: Hub, tmp_path: Path) -> None:
    hub.card_error = '"license" must be one of [apache-2.0]'
    with pytest.raises(HubError, match=r'the Hub refuses the card: .*"license" must be one of'):
        push(finished_run(tmp_path / "run"), "me/first", license="mit")


def test_offline_nothing_is_pushed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_network(monkeypatch)
    with pytest.raises(HubError, match="nothing was published, as HF_HUB_OFFLINE is set"):
        push(finished_run(tmp_path / "run"), "me/first", license="mit")
    assert hub.repositories == {}


@pytest.mark.parametrize("name", ["first", "me/first/x", "me/first@v1", "datasets/me/first"])
def test_a_target_is_a_repository(name: str, tmp_path: Path) -> None:
    tiny(seed=1).save(tmp_path / "tokenizer")
    with pytest.raises(ImtokError, match="expected"):
        push(tmp_path / "tokenizer", name, license="mit", dry_run=True)


def test_the_command_prints_the_address(hub: Hub, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    result = CliRunner().invoke(app, ["push", str(run), "me/first", "--license", "mit"])
    assert (result.exit_code, result.stdout) == (0, f"hf://me/first@{hub.repositories['me/first'].branches['main']}\n")
    assert "note: the card says nothing about the images that it was trained on" in result.stderr


def test_the_command_shows_the_card_and_asks_nothing(hub: Hub, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    result = CliRunner().invoke(app, ["push", str(run), "me/first", "--license", "mit", "--dry-run"])
    assert (result.exit_code, hub.requests) == (0, [])
    assert result.stdout == card_of(run)


def test_the_command_needs_a_licence(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["push", str(finished_run(tmp_path / "run")), "me/first"])
    assert result.exit_code == 2
    assert "--license" in result.stderr
