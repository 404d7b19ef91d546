"""The Hugging Face Hub: addresses of its model repositories, and copies of their files on this machine.

    hf://ORG/NAME[@REVISION][/FOLDER]

REVISION is a branch, a tag or a commit, and without one the newest commit of `main`. Files come through
huggingface_hub, which keeps them in its cache and takes a token from the environment or from `hf auth login`. A
repository is never trusted: only files that are requested by name come, and none of them is executed.
"""

from __future__ import annotations

import glob
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from imtok.data.remote_errors import described
from imtok.errors import DiskError, HubError, ImtokWarning, is_disk_error
from imtok.version import __version__

CONNECT_SECONDS = 10.0  # until the Hub answers
_LISTED = 6  # names of files in a message

T = TypeVar("T")

_START = re.compile(r"hf:/{1,2}(?!/)", re.IGNORECASE)  # a Path has one slash of the two
_PARTS = re.compile(
    r"(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<path>.*))?"
)
_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_REVISION = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_./+-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAddress:
    """An address of a model repository, or of a folder or file in it."""

    repository: str  # ORG/NAME
    revision: str = ""  # empty: the newest commit of `main`
    path: str = ""  # below the repository, without slashes at its ends

    def __str__(self) -> str:
        plain = self.revision if self.revision.startswith("refs/") else self.revision.replace("/", "%2F")
        revision = f"@{plain}" if plain else ""
        return f"hf://{self.repository}{revision}" + (f"/{self.path}" if self.path else "")

    @property
    def is_pinned(self) -> bool:
        """True where the revision is a whole commit, which never means anything else later."""
        return _COMMIT.fullmatch(self.revision) is not None

    def may_mean(self, pinned: HubAddress) -> bool:
        """Return whether this address, which may be of `main`, stands or stood for the commit of `pinned`."""
        revisions = ("", "main", pinned.revision)
        return replace(self, revision="") == replace(pinned, revision="") and self.revision in revisions


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository at one commit, in the cache of this machine."""

    address: HubAddress  # pinned to the commit
    root: Path  # folder of the repository
    path: Path  # the folder or file that the address names

    @property
    def repository(self) -> str:
        """The repository, ORG/NAME."""
        return self.address.repository

    @property
    def revision(self) -> str:
        """The commit, 40 hexadecimal digits."""
        return self.address.revision


def is_hub_address(name: str | Path) -> bool:
    """Say whether a name is an address of the Hub; as a Path, which joins its slashes, it is one too."""
    return _START.match(str(name)) is not None


def parse_address(name: str | Path) -> HubAddress:
    """Read an address of the Hub; raises HubError where it is none of a model repository."""
    text = str(name)
    parts = _PARTS.fullmatch(_START.sub("", text, count=1))
    repository = parts["repository"] if parts else ""
    if repository.startswith(("datasets/", "spaces/")):
        raise HubError(f"{text}: not a repository of models; expected hf://ORG/NAME")
    if parts is None or not is_hub_address(name) or not _NAME.fullmatch(repository):
        raise HubError(f"{text}: expected hf://ORG/NAME, hf://ORG/NAME@REVISION or hf://ORG/NAME/FOLDER")
    revision, path = unquote(parts["revision"] or ""), (parts["path"] or "").strip("/")
    if parts["revision"] is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise HubError(f"{text}: {revision} is no name of a branch, tag or commit")
    if path and not _is_inside(path):
        raise HubError(f"{text}: {path} is no path inside a repository")
    return HubAddress(repository, revision, path)


def snapshot(name: str | Path, patterns: Sequence[str]) -> Snapshot:
    """Fetch the files below an address that match `patterns`, such as `*.json`, and return where they are.

    An address may name a file: then it is fetched, and patterns hold in its folder. They hold for whole paths below
    the folder, of which `*` matches slashes too. Files that are here are not fetched again. Where the Hub cannot be
    reached, the files of an earlier call serve, with an ImtokWarning. Raises HubError where there is no such
    repository, revision or file, where access is refused, or where nothing is here and nothing can be fetched, and
    DiskError where the disk refuses.
    """
    address = parse_address(name)
    exact = not any(map(glob.has_magic, patterns))
    if address.is_pinned and exact and (found := _cached(address, patterns)):
        return found
    try:
        commit, names = _list(address)
        chosen = _chosen(address, names, patterns)
        if not chosen:
            raise NothingThere(f"{address}: has no {' or '.join(patterns)}; {_holds(names)}")
        return _at(_download(address, chosen, commit), address)
    except Unreachable as error:
        reason, forbidden = str(error), error.forbidden
    if found := _cached(address, patterns):
        if not forbidden:
            _warn(f"{address}: the Hub cannot be reached ({reason}); commit {found.revision[:12]} is here and is used")
        return found
    why = "HF_HUB_OFFLINE forbids to fetch it" if forbidden else f"the Hub cannot be reached ({reason})"
    raise HubError(f"{address}: not in the cache of this machine, and {why}; fetch it once while there is a network")


def pin(name: str | Path) -> HubAddress:
    """Return an address with the commit that it means now; raises HubError as `snapshot` does."""
    address = parse_address(name)
    return address if address.is_pinned else snapshot(name, ["config.json"]).address


def fetch_tokenizer(name: str | Path, files: Sequence[str] = ("config.json", "model.safetensors")) -> Snapshot:
    """Fetch the files of a tokenizer of imtok, and nothing else; raises HubError as `snapshot` does.

    The first file is looked at before the others are fetched, as other programs' models may be large.
    """
    config, *others = files
    hint = "`imtok import` reads published checkpoints of other programs"
    try:
        found = snapshot(name, [config])
    except NothingThere as error:
        raise HubError(f"{error}; {hint}") from None
    if found.path.is_file():
        raise HubError(f"{found.address}: a file, expected the folder of a tokenizer; {hint}")
    if b"imtok-tokenizer" not in (found.path / config).read_bytes():
        raise HubError(f"{found.address}: its {config} is not of a tokenizer of imtok; {hint}")
    whole = snapshot(str(found.address), [config, *others])
    if missing := [file for file in others if not (whole.path / file).is_file()]:
        raise HubError(f"{found.address}: has no {missing[0]} beside its {config}, so it is no tokenizer")
    return whole


def client() -> Any:
    """Return huggingface_hub's client, which finds endpoint and token itself; raises HubError without the package."""
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise HubError("hf:// needs a package that is not installed; pip install 'imtok[hf]'") from None
    return HfApi(library_name="imtok", library_version=__version__)


class NothingThere(HubError):
    """A repository that holds none of the requested files."""


class Unreachable(Exception):
    """The Hub gives no answer, which may pass; `forbidden` where the person allows no questions."""

    def __init__(self, reason: str, *, forbidden: bool = False) -> None:
        super().__init__(reason)
        self.forbidden = forbidden


def answer_of(address: HubAddress, call: Callable[[], T]) -> T:
    """Return what a call of huggingface_hub returns; its errors become HubError, DiskError or Unreachable.

    The library's texts stay behind: they are long, and may hold a URL with its signature.
    """
    from huggingface_hub import errors

    place = f"hf://{address.repository}"
    try:
        return call()
    except errors.GatedRepoError:
        text = f"{place}: its owner must let you in; ask at https://huggingface.co/{address.repository}, then log in"
    except errors.RepositoryNotFoundError:
        text = f"{place}: no such repository, or a private one; check the name, or log in by `hf auth login`"
    except errors.RevisionNotFoundError:
        text = f"{place}: has no branch, tag or commit {address.revision}; check it at the Hub"
    except errors.HFValidationError:
        text = f"{place}: no name that the Hub allows; expected hf://ORG/NAME"
    except errors.OfflineModeIsEnabled:
        raise Unreachable("HF_HUB_OFFLINE is set", forbidden=True) from None
    except errors.LocalEntryNotFoundError as error:
        reason = described(error.__cause__).reason if error.__cause__ else "and nothing is here"
        raise Unreachable(reason) from None
    except Exception as error:
        if isinstance(error, ValueError) and "metadata" in str(error):  # of a card, as the Hub's own words say
            raise HubError(f"{place}: the Hub refuses the card: {' '.join(str(error).split())[:300]}") from None
        if isinstance(error, OSError) and is_disk_error(error):
            raise DiskError(
                Path(error.filename or "cache of huggingface_hub"), str(error.strerror), error.errno
            ) from None
        found = described(error)
        if not found.permanent:
            raise Unreachable(found.reason) from None
        text = f"{address}: {found.reason}; {found.advice}"
    raise HubError(text)


def _list(address: HubAddress) -> tuple[str, list[str]]:
    """Return the commit that an address means now, and the files of the repository then."""
    api = client()
    revision = address.revision or None
    info = answer_of(address, lambda: api.model_info(address.repository, revision=revision, timeout=CONNECT_SECONDS))
    return str(info.sha), [file.rfilename for file in info.siblings or () if _is_inside(file.rfilename)]


def _download(address: HubAddress, names: Sequence[str], commit: str) -> Path:
    """Fetch files that are not here yet; the library also records which commit a branch means, for later calls.

    Its progress bars are shown on a terminal alone, and where something is to be fetched.
    """
    from huggingface_hub import try_to_load_from_cache

    api = client()
    found = [try_to_load_from_cache(address.repository, name, revision=commit) for name in names]
    with without_bars(all(isinstance(path, str) for path in found)):
        root = answer_of(
            address,
            lambda: api.snapshot_download(
                address.repository,
                revision=address.revision or None,
                allow_patterns=[glob.escape(name) for name in names],
                etag_timeout=CONNECT_SECONDS,
            ),
        )
    return Path(root)


@contextmanager
def without_bars(quiet: bool = False) -> Iterator[None]:
    """Keep the library's progress bars away within the block where `quiet`, or where no terminal would show them."""
    utils: Any = importlib.import_module("huggingface_hub.utils")
    quiet = (quiet or not sys.stderr.isatty()) and not utils.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an environment variable may fix it
        if quiet:
            utils.disable_progress_bars()
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if quiet:
                utils.enable_progress_bars()


def _cached(address: HubAddress, patterns: Sequence[str]) -> Snapshot | None:
    """Return what is here already, None where a pattern without `*` has no file or nothing matches."""
    api = client()
    try:
        root = answer_of(
            address,
            lambda: api.snapshot_download(
                address.repository,
                revision=address.revision or None,
                allow_patterns=[f"{glob.escape(address.path)}/{each}" if address.path else each for each in patterns],
                local_files_only=True,
            ),
        )
    except Unreachable:
        return None
    found = _at(Path(root), address)
    names = [file.relative_to(root).as_posix() for file in found.root.rglob("*") if file.is_file()]
    if not _chosen(address, names, patterns) or (address.path and not found.path.exists()):
        return None
    folder = found.path.parent if found.path.is_file() else found.path
    exact = [pattern for pattern in patterns if not glob.has_magic(pattern)]
    return found if all((folder / name).is_file() for name in exact) else None


def _at(root: Path, address: HubAddress) -> Snapshot:
    return Snapshot(replace(address, revision=root.name), root, root / address.path)


def _chosen(address: HubAddress, names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Choose from the names of a repository the file of an address, and what matches below its folder."""
    named = [name for name in names if name == address.path]
    folder = address.path.rpartition("/")[0] if named else address.path
    below = {name: name.removeprefix(f"{folder}/") for name in names if not folder or name.startswith(f"{folder}/")}
    matching = [name for name, rest in below.items() if any(fnmatchcase(rest, pattern) for pattern in patterns)]
    return list(dict.fromkeys(named + matching))


def _holds(names: Sequence[str]) -> str:
    """List some of the files that a repository holds."""
    shown = [name for name in names if not name.startswith(".")]
    more = f" and {len(shown) - _LISTED} others" if len(shown) > _LISTED else ""
    return f"it holds {', '.join(shown[:_LISTED])}{more}" if shown else "it is empty"


def _is_inside(path: str) -> bool:
    """Return whether a path of a repository stays inside of it."""
    return "\\" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def _warn(text: str) -> None:
    warnings.warn(text, ImtokWarning, stacklevel=3)
