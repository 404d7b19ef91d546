"""Addresses of sources: paths of this machine, `file://`, and URLs of what lies elsewhere.

A URL may carry a user name and a password, or a signature after its `?`. It is used as it was given, but only its
redacted form may be stored, logged or shown.
"""

from __future__ import annotations

from pathlib import PurePath
from urllib.parse import unquote

from imtok.errors import SourceError

STORES = ("s3", "gs", "hf")
REMOTE_SCHEMES = ("http", "https", *STORES)


def scheme_of(address: str) -> str:
    """Return the scheme of an address in lower case; empty for a path of this machine."""
    scheme, separator, _ = address.partition("://")
    return scheme.lower() if separator else ""


def is_remote(address: str) -> bool:
    """Say whether an address is one of another machine, of a scheme that imtok reads."""
    return scheme_of(address) in REMOTE_SCHEMES


def plain_address(argument: str) -> str:
    """Return an address with its scheme in lower case, and a `file://` URL as the path that it stands for.

    Raises SourceError for what is never read: chains of fsspec, commands, passwords in an address of a store.
    """
    scheme, _, rest = argument.partition("://")
    if "://" not in argument:
        return argument
    shown = redacted(argument)
    if scheme.lower() == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost"):
            raise SourceError(f"{shown}: a file of another machine; write file:///PATH or the path alone")
        return unquote(slash + path)
    if is_remote(argument):
        if "::" in argument:
            raise SourceError(f"{shown}: chains by :: are not read; give the address of the tar alone")
        host = rest.partition("/")[0]
        if not host:
            raise SourceError(f"{shown}: names no {'bucket' if scheme.lower() in STORES else 'host'}; give all of it")
        if scheme.lower() in STORES and "@" in host:
            raise SourceError(
                f"{shown}: has a user name in it; keys belong where {scheme}:// looks for them, see README"
            )
    return f"{scheme.lower()}://{rest}"


def redacted(address: str) -> str:
    """Return an address without user name, password and query; a path of this machine as it is."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    host, slash, path = rest.partition("/")
    port = host.rpartition("@")[2].partition(":")[2]
    if port and not port.isdigit():  # a password with a slash in it, as no host looks so
        host, slash, path = rest.rpartition("@")[2].partition("/")
    place = f"{host.rpartition('@')[2]}{slash}{path}".partition("?")[0]
    if scheme.lower() not in STORES:  # in which # is a letter of a name
        place = place.partition("#")[0]
    return f"{scheme}://{place}"


def file_name(address: str) -> str:
    """Return the last part of an address, as a file of this machine would have it."""
    if scheme_of(address) in ("http", "https"):
        return unquote(redacted(address).rpartition("/")[2])
    return PurePath(address).name
