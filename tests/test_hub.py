"""The Hub: addresses, files in the cache, offline, refusals, and tokenizers that are loaded by an address."""

from __future__ import annotations

import json
import socket
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, Hub, forbid_network, use_hub
from making import tiny

import imtok
from imtok.errors import DiskError, HubError, ImtokWarning, TokenizerError
from imtok.hub import HubAddress, Snapshot, is_hub_address, parse_address, pin, snapshot

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")

COMMIT = "0123456789" * 4


@pytest.fixture
def hub(hub_server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A stand-in for the Hub with one tokenizer, `org/tiny`, of two commits."""
    hub_server.repositories.clear()
    hub_server.requests.clear()
    hub_server.headers.clear()
    hub_server.down, hub_server.refuse = 0, ""
    use_hub(hub_server, tmp_path / "cache", monkeypatch)
    repository = hub_server.add("org/tiny", tiny(seed=1).files() | {"README.md": b"# tiny\n", "run.py": b"1/0"})
    repository.commit(tiny(seed=2).files())
    return hub_server


def commits(hub: Hub, name: str = "org/tiny") -> list[str]:
    return list(hub.repositories[name].commits)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://org/name", HubAddress("org/name")),
        ("HF://org/na.me_1/", HubAddress("org/na.me_1")),
        ("hf://org/name@v1.0/a/b", HubAddress("org/name", "v1.0", "a/b")),
        ("hf://org/name@refs/pr/3/a", HubAddress("org/name", "refs/pr/3", "a")),
        ("hf://org/name@feature%2Fx", HubAddress("org/name", "feature/x")),
        (f"hf://org/name@{COMMIT}", HubAddress("org/name", COMMIT)),
    ],
)
def test_addresses_are_read(text: str, address: HubAddress) -> None:
    assert parse_address(text) == address
    assert parse_address(Path(text)) == address  # its slashes are joined
    assert is_hub_address(text)
    assert is_hub_address(Path(text))
    assert parse_address(str(address)) == address
    assert address.is_pinned == (address.revision == COMMIT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf://name", "hf://name: expected hf://ORG/NAME"),
        ("hf://", "hf://: expected"),
        ("hf://datasets/org/name", "not a repository of models"),
        ("hf://spaces/org/name", "not a repository of models"),
        ("hf://org/na me", "expected hf://ORG/NAME"),
        ("hf://org/name@", "expected hf://ORG/NAME"),
        ("hf://org/name@../../x", "is no path inside|is no name of a branch"),
        ("hf://org/name/../../x", "is no path inside a repository"),
        ("hf://org/name/a//b", "is no path inside a repository"),
    ],
)
def test_addresses_of_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(HubError, match=message) as found:
        parse_address(text)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", ["imtok-f8", "runs/first", "/hf:/x", "s3://a/b", "C:/hf", "hf"])
def test_paths_are_no_addresses(name: str) -> None:
    assert not is_hub_address(name)


def test_a_tokenizer_is_loaded_by_its_address(hub: Hub) -> None:
    tokenizer = imtok.load("hf://org/tiny")
    assert tokenizer.fingerprint == tiny(seed=2).fingerprint
    assert imtok.load(Path("hf://org/tiny")).fingerprint == tokenizer.fingerprint
    for number, commit in enumerate(commits(hub)):
        assert imtok.load(f"hf://org/tiny@{commit}").fingerprint == tiny(seed=number + 1).fingerprint


def test_only_the_files_of_a_tokenizer_are_fetched(hub: Hub) -> None:
    imtok.load("hf://org/tiny")
    fetched = {line.rpartition("/")[2] for line in hub.requests if line.startswith("GET /org/tiny/resolve/")}
    assert fetched == {"config.json", "model.safetensors"}


def test_its_origin_names_the_commit(hub: Hub, tmp_path: Path) -> None:
    tokenizer = imtok.load("hf://org/tiny@main")
    assert tokenizer.config.origin is not None
    assert tokenizer.config.origin.hub == f"hf://org/tiny@{commits(hub)[1]}"
    tokenizer.save(tmp_path / "copy")
    assert imtok.load(tmp_path / "copy").config.origin == tokenizer.config.origin


def test_the_origin_of_an_imported_tokenizer_stays(hub: Hub) -> None:
    files = tiny(seed=1).files()
    content = json.loads(files["config.json"])
    content["origin"] = {"family": "taming", "source": "last.ckpt", "sha256": "ab", "license": "mit"}
    hub.add("org/imported", {**files, "config.json": json.dumps(content).encode()})
    origin = imtok.load("hf://org/imported").config.origin
    assert origin is not None
    assert (origin.family, origin.source, origin.sha256, origin.license) == ("taming", "last.ckpt", "ab", "mit")
    assert origin.hub == f"hf://org/imported@{commits(hub, 'org/imported')[0]}"


def test_a_tokenizer_in_a_folder_is_loaded(hub: Hub) -> None:
    files = tiny(seed=3).files()
    hub.add("org/many", {f"f8[a]/small/{name}": data for name, data in files.items()})
    tokenizer = imtok.load("hf://org/many/f8[a]/small")
    assert tokenizer.fingerprint == tiny(seed=3).fingerprint
    assert tokenizer.config.origin is not None
    assert tokenizer.config.origin.hub.endswith("/f8[a]/small")


def test_a_commit_in_the_cache_needs_no_request(hub: Hub) -> None:
    commit = commits(hub)[0]
    imtok.load(f"hf://org/tiny@{commit}")
    hub.requests.clear()
    imtok.load(f"hf://org/tiny@{commit}")
    assert hub.requests == []


def test_a_branch_is_looked_up_again(hub: Hub) -> None:
    first = imtok.load("hf://org/tiny")
    hub.repositories["org/tiny"].commit(tiny(seed=3).files())
    assert imtok.load("hf://org/tiny").fingerprint != first.fingerprint


def test_offline_the_cache_serves(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = imtok.load("hf://org/tiny").fingerprint
    forbid_network(monkeypatch)
    hub.requests.clear()
    tokenizer = imtok.load("hf://org/tiny")
    assert (tokenizer.fingerprint, hub.requests) == (fingerprint, [])
    assert tokenizer.config.origin is not None
    assert tokenizer.config.origin.hub == f"hf://org/tiny@{commits(hub)[1]}"


def test_offline_without_a_copy_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    imtok.load("hf://org/tiny")
    forbid_network(monkeypatch)
    for name in ("hf://org/other", f"hf://org/tiny@{commits(hub)[0]}"):
        with pytest.raises(HubError, match="not in the cache of this machine, and HF_HUB_OFFLINE forbids") as found:
            imtok.load(name)
        assert "\n" not in str(found.value)


def test_without_a_network_the_cache_serves_with_a_note(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = imtok.load("hf://org/tiny").fingerprint
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    with pytest.warns(ImtokWarning, match="the connection was refused.*is here and is used"):
        assert imtok.load("hf://org/tiny").fingerprint == fingerprint
    with pytest.raises(HubError, match=r"the Hub cannot be reached \(the connection was refused\)"):
        imtok.load("hf://org/other")


def test_a_failing_hub_is_no_missing_network(hub: Hub) -> None:
    imtok.load("hf://org/tiny")
    hub.down = 503
    with pytest.warns(ImtokWarning, match=r"the server fails \(HTTP 503\)"):
        imtok.load("hf://org/tiny")


def test_a_missing_repository_is_named(hub: Hub) -> None:
    with pytest.raises(HubError, match="hf://org/none: no such repository, or a private one") as found:
        imtok.load("hf://org/none")
    assert "\n" not in str(found.value)


def test_a_private_repository_needs_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/secret", tiny(seed=4).files(), private=True)
    with pytest.raises(HubError, match="or a private one; check the name, or log in"):
        imtok.load("hf://org/secret")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert imtok.load("hf://org/secret").fingerprint == tiny(seed=4).fingerprint


def test_a_gated_repository_says_where_to_ask(hub: Hub) -> None:
    hub.add("org/gated", tiny(seed=4).files(), gated=True)
    with pytest.raises(HubError, match=r"its owner must let you in; ask at https://huggingface\.co/org/gated"):
        imtok.load("hf://org/gated")


def test_a_missing_revision_is_named(hub: Hub) -> None:
    for revision in ("v9", COMMIT):
        with pytest.raises(HubError, match=f"hf://org/tiny: has no branch, tag or commit {revision}"):
            imtok.load(f"hf://org/tiny@{revision}")


def test_a_repository_of_other_files_is_named(hub: Hub) -> None:
    hub.add("org/weights", {"vq.pt": b"x", ".gitattributes": b""})
    with pytest.raises(HubError, match=r"has no config\.json; it holds vq\.pt; `imtok import` reads"):
        imtok.load("hf://org/weights")
    with pytest.raises(HubError, match=r"has no config\.json; it holds README\.md, config\.json, model\.safetensors"):
        imtok.load("hf://org/tiny/none")


def test_a_model_of_another_program_is_not_fetched(hub: Hub) -> None:
    hub.add("org/model", {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"large"})
    with pytest.raises(HubError, match=r"its config\.json is not of a tokenizer of imtok; `imtok import`"):
        imtok.load("hf://org/model")
    assert not any("resolve" in line and "safetensors" in line for line in hub.requests)


def test_half_a_tokenizer_is_refused(hub: Hub) -> None:
    hub.add("org/half", {"config.json": tiny().files()["config.json"]})
    with pytest.raises(HubError, match=r"has no model\.safetensors beside its config\.json"):
        imtok.load("hf://org/half")


def test_damage_names_the_address_and_not_the_cache(hub: Hub) -> None:
    hub.add("org/damaged", tiny().files() | {"model.safetensors": b"damaged"})
    commit = commits(hub, "org/damaged")[0]
    with pytest.raises(TokenizerError, match=rf"^hf://org/damaged@{commit}/model\.safetensors: cannot be read"):
        imtok.load("hf://org/damaged")


def test_names_that_lead_out_of_the_repository_are_ignored(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/hostile", {"../../../out.json": b"x", "/abs.json": b"x", "a\\..\\b.json": b"x", "in.json": b"y"})
    found = snapshot("hf://org/hostile", ["*.json"])
    assert [path.name for path in found.root.rglob("*.json")] == ["in.json"]
    assert not list(tmp_path.rglob("out.json"))


def test_a_snapshot_holds_what_matches(hub: Hub) -> None:
    hub.add("org/taming", {"vq/model.yaml": b"y", "vq/last.ckpt": b"c", "other/last.ckpt": b"o", "README.md": b"r"})

    def names(found: Snapshot) -> list[str]:
        return sorted(path.relative_to(found.root).as_posix() for path in found.root.rglob("*") if path.is_file())

    found = snapshot("hf://org/taming/vq/last.ckpt", ["*.yaml"])
    assert (found.repository, found.revision) == ("org/taming", commits(hub, "org/taming")[0])
    assert (found.path.read_bytes(), names(found)) == (b"c", ["vq/last.ckpt", "vq/model.yaml"])
    assert str(found.address) == f"hf://org/taming@{found.revision}/vq/last.ckpt"
    assert names(snapshot("hf://org/taming", ["*.ckpt"])) == ["other/last.ckpt", "vq/last.ckpt", "vq/model.yaml"]


def test_pin_finds_the_commit(hub: Hub) -> None:
    assert str(pin("hf://org/tiny")) == f"hf://org/tiny@{commits(hub)[1]}"
    hub.requests.clear()
    assert str(pin(f"hf://org/tiny@{COMMIT}")) == f"hf://org/tiny@{COMMIT}"
    assert hub.requests == []


def test_a_full_disk_is_the_error_of_a_disk(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device", "/cache/blob")

    monkeypatch.setattr(huggingface_hub.HfApi, "snapshot_download", full)
    with pytest.raises(DiskError, match="/cache/blob: No space left on device"):
        imtok.load("hf://org/tiny")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError, match=r"pip install 'imtok\[hf\]'"):
        imtok.load("hf://org/tiny")


def test_other_schemes_are_refused_by_name() -> None:
    with pytest.raises(TokenizerError, match=r"tokenizers are not read from s3://; give a folder or hf://ORG/NAME"):
        imtok.load("s3://bucket/tokenizer")


def test_codes_are_those_of_the_local_tokenizer(hub: Hub) -> None:
    tokenizer = imtok.load("hf://org/tiny")
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(tokenizer.encode(images), tiny(seed=2).encode(images))
