"""Lists of paths and URLs: their lines, the keys that these make, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from making import fill, pictures_tar
from servers import served

from imtok.data.address_lists import AddressList, _Adding, add_list
from imtok.data.containers import UNKNOWN_SIZE, LostImage
from imtok.data.file_list import FileList, GrowingFileList
from imtok.data.reading import Reading
from imtok.data.remote_files import RemoteFiles
from imtok.data.scanning import Found
from imtok.data.sources import find_sources
from imtok.errors import SourceError


def added(text: bytes, base: str = "") -> tuple[FileList, Found]:
    """The images of a list, and what else it names."""
    files = GrowingFileList()
    found = add_list(AddressList("list", base, lambda: io.BytesIO(text)), Reading(), files, remote=True)
    return files.sorted(), found


def facts(files: FileList) -> list[tuple[str, str]]:
    return [(file.key, file.address) for file in files]


@pytest.mark.parametrize(
    ("line", "key", "address"),
    [
        ("https://h/a/b.jpg", "h/a/b.jpg", ""),
        ("HTTPS://h/a/b.jpg", "h/a/b.jpg", "https://h/a/b.jpg"),
        ("https://u:pw@h/a%20b.jpg?x=1", "h/a b.jpg", ""),
        ("https://h/image?id=7\tcat/7", "cat/7", "https://h/image?id=7"),
        ("https://h/set/cat/7.png\tcat/7.png", "cat/7.png", "https://h/set/cat/7.png"),
        ("https://h/set/7.png\tcat/7.png", "cat/7.png", "https://h/set/7.png"),
        ("https://h/7.png\tcat/17.png", "cat/17.png", "https://h/7.png"),
        ("s3://b/a%20b.jpg", "b/a%20b.jpg", ""),
        ("hf://datasets/org/name/x.jpg", "datasets/org/name/x.jpg", ""),
    ],
)
def test_a_url_has_the_key_of_its_line(line: str, key: str, address: str) -> None:
    files, found = added(line.encode())
    assert facts(files) == [(key, address or line)]
    assert (files[0].size, found.urls) == (UNKNOWN_SIZE, True)


def test_paths_have_keys_as_a_folder_gives_them(tmp_path: Path) -> None:
    fill(tmp_path, ["b/1.png", "a/2.png", "3.jpg"])
    lines = f"./b/1.png\r\na/2.png\n\n{tmp_path}/3.jpg\tthree.jpg\n".encode()
    files, found = added(lines, str(tmp_path))
    assert [(file.key, Path(file.address).resolve()) for file in files] == [
        ("a/2.png", tmp_path / "a/2.png"),
        ("b/1.png", tmp_path / "b/1.png"),
        ("three.jpg", tmp_path / "3.jpg"),
    ]
    assert files[0].size == (tmp_path / "a/2.png").stat().st_size
    assert not found.urls


def test_paths_out_of_the_folder_have_absolute_keys(tmp_path: Path) -> None:
    fill(tmp_path, ["a/1.png"])
    files, _ = added(f"{tmp_path}/a/1.png\n".encode())
    (tmp_path / "lists").mkdir()
    again, _ = added(b"../a/1.png", str(tmp_path / "lists"))
    assert [file.key for file in again] == [file.key for file in files] == [str(tmp_path / "a/1.png")[1:]]


@pytest.mark.parametrize("other", ["./a/1.png", "a//1.png", "a/./1.png", "././a/1.png"])
def test_a_file_has_one_key_however_it_is_written(other: str, tmp_path: Path) -> None:
    fill(tmp_path, ["a/1.png"])
    files, _ = added(other.encode(), str(tmp_path))
    assert [file.key for file in files] == ["a/1.png"]
    with pytest.raises(SourceError, match=r"both would have the key a/1\.png"):
        added(f"a/1.png\n{other}\n".encode(), str(tmp_path))


def test_blanks_around_a_url_are_no_part_of_it() -> None:
    files, _ = added(b"  https://h/1.png \nhttps://h/2.png\t2.png\n")
    assert [file.address for file in files] == ["https://h/2.png", "https://h/1.png"]


def test_a_list_that_ends_names_by_nul_takes_any_name(tmp_path: Path) -> None:
    names = ["a\tb.png", "line\nbreak.png", "é.png"]
    fill(tmp_path, names)
    files, _ = added("\0".join(names).encode() + b"\0", str(tmp_path))
    assert sorted(file.key for file in files) == sorted(names)


def test_long_lists_are_read_in_pieces() -> None:
    lines = [f"https://host/{'x' * 50}/{number}.jpg" for number in range(5000)]
    files, _ = added("\n".join(lines).encode())
    assert sorted(file.address for file in files) == sorted(lines)


@pytest.mark.parametrize("odd", ["", "https://host/a b.jpg?x", "s3://b/x.png", "https://host/x", "https://h/x.tar"])
def test_plain_urls_are_added_as_single_lines_are(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"https://host/{number % 7}/{number:04d}.jpg" for number in range(50)] + [odd]
    together, found = added("\n".join(lines).encode())
    monkeypatch.setattr(_Adding, "add_plain", lambda *_: False)
    one_by_one, found_so = added("\n".join(lines).encode())
    assert facts(together) == facts(one_by_one)
    assert (found.containers, found.urls) == (found_so.containers, True)
    assert list(together.sizes) == [UNKNOWN_SIZE] * len(together)


def test_files_of_other_kinds_and_missing_ones_are_told_apart(tmp_path: Path) -> None:
    fill(tmp_path, ["1.png", "picture"])
    pictures_tar(tmp_path / "x.tar", ["x.png"])
    (tmp_path / "words").write_text("words")
    files, found = added(b"1.png\npicture\nx.tar\nwords\nnotes.txt\nnone.png\n", str(tmp_path))
    assert [file.key for file in files] == ["1.png", "none.png", "picture"]
    assert isinstance(files[1], LostImage)
    assert files[1].reason == "does not exist"
    assert (found.containers, found.ignored) == ([(str(tmp_path / "x.tar"), ".tar")], 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "list: holds no path and no URL"),
        (b"none.png\nnone-2.png", "list: none of its 2 paths exists, first none.png; relative paths begin at"),
        (b"1.png\nfolder\n", "list: line 2: folder: no file; give folders as a SOURCE of their own"),
        (b"1.png\nnone.tar\n", r"list: line 2: none\.tar: does not exist"),
        (b"1.png\ts/../../x.png\n", r"list: line 1: the key s/\.\./\.\./x\.png would leave its folder"),
        (b"1.png\n\thttps://h/1.png", "list: line 2: begins with a tab; a path or URL stands before the key"),
        (b"1.png\nftp://h/1.png", "list: line 2: ftp://h/1.png: nothing reads this"),
        (b"s3://key:secret@b/1.png", "list: line 1: s3://b/1.png: has a user name in it"),
        (b"PK\3\4" + bytes(900), "list: a .zip file and no list; give it without @"),
        (b"https://h/folder/", "list: line 1: https://h/folder/: a folder"),
        ("1.png\n".encode("utf-16"), "list: in UTF-16; write it as UTF-8"),
        (b"x" * 200_000, "list: a line of more than 65536 bytes"),
    ],
)
def test_what_is_no_list_of_files_is_named(text: bytes, words: str, tmp_path: Path) -> None:
    fill(tmp_path, ["1.png", "folder/2.png"])
    with pytest.raises(SourceError, match=words):
        added(text, str(tmp_path))


def test_two_lines_of_one_key_are_refused_without_secrets() -> None:
    with pytest.raises(SourceError, match=r"both would have the key h/x\.jpg") as found:
        added(b"https://h/x.jpg?id=secret-1\nhttps://h/x.jpg?id=secret-2\n")
    assert "secret" not in str(found.value)


def test_the_ways_to_name_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["p/1.png", "p/2.png"])
    for name in ("list.txt", "list.tsv"):
        (tmp_path / name).write_text("p/1.png\n")
    (tmp_path / "@p").mkdir()
    fill(tmp_path / "@p", ["3.png"])
    for argument in (tmp_path / "list.txt", f"@{tmp_path}/list.tsv"):
        assert [file.key for file in find_sources([argument]).files] == ["p/1.png"]
    monkeypatch.chdir(tmp_path)
    stream = AddressList.of_stream(io.BytesIO(b"p/1.png\0p/2.png\0"))
    for _ in range(2):  # a list of a stream can be read again
        assert [file.key for file in find_sources([stream]).files] == ["p/1.png", "p/2.png"]
    assert [file.key for file in find_sources(["@p"]).files] == ["3.png"]
    with pytest.raises(SourceError, match="@none: no such file; after @ stands a file"):
        find_sources(["@none"])
    with pytest.raises(SourceError, match="-: standard input is read by `imtok encode` alone"):
        find_sources(["-"])


def test_urls_of_a_list_are_refused_where_none_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("https://h/1.png?sig=secret\n")
    with pytest.raises(
        SourceError, match=r"line 1: https://h/1\.png: a URL; remote images are read by encode"
    ) as found:
        find_sources([tmp_path / "list.txt"])
    assert "secret" not in str(found.value)


def test_containers_of_a_list_are_looked_at(tmp_path: Path) -> None:
    data = pictures_tar(tmp_path / "x.tar", ["x.png"]).read_bytes()
    with served({"/x.tar": data}) as web, RemoteFiles() as remote:
        (tmp_path / "list.txt").write_text(f"{web.url}/x.tar?sig=secret\n")
        (found,) = find_sources([tmp_path / "list.txt"], remote=remote).containers
        assert (found.name, found.size, found.shown) == ("x", len(data), f"{web.url}/x.tar")
        assert "secret" not in repr(found)
        (tmp_path / "list.txt").write_text(f"{web.url}/none.tar\n")
        with pytest.raises(SourceError, match=r"none\.tar: does not exist"):
            find_sources([tmp_path / "list.txt"], remote=remote)
