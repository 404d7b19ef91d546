"""Where labels come from, and that two numberings are never mixed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from making import encoded, fill, picture, write_tar

from imtok.data.archives.tars import open_tar
from imtok.data.containers import Container
from imtok.data.labels import search as label_search
from imtok.data.labels.origin import LabelChoice, Labels, find_labels
from imtok.data.reading import Reading
from imtok.data.sources import CONTAINERS, Sources, find_sources
from imtok.encoding import encode
from imtok.errors import ConfigError, SourceError
from imtok.tokens import open_tokens


def labels_of(sources: Sources, labels: Labels) -> dict[str, int | None]:
    """The labels of all images by key; keys in containers are led by the container's name."""
    found = {file.key: labels.label(file, None) for file in sources.files}
    for file in sources.containers:
        container = file.open()
        found |= {f"{file.name}:{image.key}": labels.label(image, container) for image in container.images}
    return found


def cls_tar(path: Path, texts: dict[str, bytes]) -> Path:
    """A tar of pictures `x.jpg`, each with the text of its `x.cls`."""
    members = []
    for seed, (name, text) in enumerate(texts.items()):
        members += [(f"{name}.jpg", encoded(picture(seed), "JPEG")), (f"{name}.cls", text)]
    return write_tar(path, members)


def test_top_folders_are_classes_where_every_image_lies_in_one(tmp_path: Path) -> None:
    fill(tmp_path, ["dog/x.jpg", "cat/y.jpg", "cat/deep/z.jpg"])
    sources = find_sources([tmp_path])
    labels = find_labels(sources)
    assert (labels.source, labels.class_names) == ("folders", ("cat", "dog"))
    assert labels_of(sources, labels) == {"cat/deep/z.jpg": 0, "cat/y.jpg": 0, "dog/x.jpg": 1}


def test_one_top_folder_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, ["all/x.jpg", "all/y.jpg"])
    assert find_labels(find_sources([tmp_path])).class_names == ()
    assert find_labels(find_sources([tmp_path]), "folders").class_names == ("all",)


def test_recorded_classes_keep_their_numbers(tmp_path: Path) -> None:
    fill(tmp_path, ["dog/x.jpg", "cat/y.jpg", "ape/z.jpg"])
    labels = find_labels(find_sources([tmp_path]), known=("cat", "dog"))
    assert labels.class_names == ("cat", "dog", "ape")


def test_texts_in_cls_are_names_numbered_over_all_tars(tmp_path: Path) -> None:
    tars = [cls_tar(tmp_path / "a.tar", {"0": b"dog\n"}), cls_tar(tmp_path / "b.tar", {"0": b"cat", "1": b"dog"})]
    sources = find_sources(tars)
    labels = find_labels(sources)
    assert labels.class_names == ("cat", "dog")
    assert labels_of(sources, labels) == {"a:0.jpg": 1, "b:0.jpg": 0, "b:1.jpg": 1}
    assert find_labels(sources, "cls", known=("dog",)).class_names == ("dog", "cat")


def test_numbers_in_cls_stay_and_broken_ones_are_no_labels(tmp_path: Path) -> None:
    texts = {"0": b"3", "1": b"3.0", "2": b"", "3": b"\xef\xbb\xbf7\r\n", "4": b"cat", "5": b"-1", "6": b"9" * 20}
    sources = find_sources([cls_tar(tmp_path / "a.tar", texts)])
    labels = find_labels(sources)
    assert (labels.source, labels.class_names) == ("cls", ())
    assert list(labels_of(sources, labels).values()) == [3, 3, None, 7, None, None, None]


def test_cls_beside_files_is_read_by_both_groupings(tmp_path: Path) -> None:
    fill(tmp_path, ["x.jpg", "a.b.jpg", "c.d.jpg", "bare.jpg"])
    for name, text in {"x.CLS": "1", "a.cls": "2", "c.d.cls": "3"}.items():
        (tmp_path / name).write_text(text)
    sources = find_sources([tmp_path])
    found = labels_of(sources, find_labels(sources))
    assert found == {"a.b.jpg": 2, "bare.jpg": None, "c.d.jpg": 3, "x.jpg": 1}


def test_fields_of_json_beside_images_are_labels(tmp_path: Path) -> None:
    fill(tmp_path, ["00000/000000000.jpg", "00000/000000001.jpg", "00001/000010000.jpg"])
    for name, content in {"00000/000000000": {"caption": "a cat", "class_name": "cat"}, "00001/000010000": {}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    sources = find_sources([tmp_path])
    labels = find_labels(sources)
    assert (labels.source, labels.class_names) == ("json", ("cat",))
    assert list(labels_of(sources, labels).values()) == [0, None, None]


def test_dataset_json_gives_labels_by_path(tmp_path: Path) -> None:
    for name, first in (("a", 6), ("b", 7)):
        fill(tmp_path / name, ["00000/img00000000.png", "00000/img00000001.png"])
        listed = [["00000/img00000000.png", first], ["00000\\img00000001.png", 0]]
        (tmp_path / name / "dataset.json").write_text(json.dumps({"labels": listed}))
    sources = find_sources([tmp_path / "a"])
    assert list(labels_of(sources, find_labels(sources)).values()) == [6, 0]
    both = find_sources([tmp_path / "a", tmp_path / "b"])
    assert list(labels_of(both, find_labels(both)).values()) == [6, 0, 7, 0]


def test_vectors_in_dataset_json_are_refused_with_a_word(tmp_path: Path) -> None:
    fill(tmp_path, ["x.png"])
    (tmp_path / "dataset.json").write_text('{"labels": [["x.png", [0.0, 1.0]]]}')
    labels = find_labels(find_sources([tmp_path]))
    assert labels.source == "none"
    assert "vectors" in labels.notes[0]
    with pytest.raises(ConfigError, match="vectors"):
        find_labels(find_sources([tmp_path]), "json")


def test_no_labels_in_dataset_json_are_none(tmp_path: Path) -> None:
    fill(tmp_path, ["x.png"])
    (tmp_path / "dataset.json").write_text('{"labels": null}')
    assert find_labels(find_sources([tmp_path])) == Labels("none")


@pytest.mark.parametrize("choice", ["folders", "cls", "json"])
def test_a_choice_that_finds_nothing_is_an_error(tmp_path: Path, choice: str) -> None:
    fill(tmp_path, ["x.png"])
    with pytest.raises(ConfigError, match=f"--labels {choice}"):
        find_labels(find_sources([tmp_path]), choice)  # type: ignore[arg-type]


def test_class_folders_and_numbers_of_a_tar_are_not_mixed(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["cat/x.jpg", "dog/y.jpg"])
    sources = find_sources([tmp_path / "in", cls_tar(tmp_path / "a.tar", {"0": b"5"})])
    with pytest.raises(SourceError, match=r"class folders \(cat, dog\).*never mixed.*--labels folders"):
        find_labels(sources)
    assert list(labels_of(sources, find_labels(sources, "folders")).values()) == [0, 1, None]
    assert list(labels_of(sources, find_labels(sources, "cls")).values()) == [None, None, 5]


def test_numbers_and_names_of_tars_are_not_mixed(tmp_path: Path) -> None:
    tars = [cls_tar(tmp_path / "a.tar", {"0": b"5"}), cls_tar(tmp_path / "b.tar", {"0": b"cat"})]
    for choice in ("auto", "cls"):
        with pytest.raises(SourceError, match=r"a\.tar has numbers .*b\.tar has names .*--labels"):
            find_labels(find_sources(tars), choice)  # type: ignore[arg-type]


def test_numbers_of_tars_and_dataset_json_are_not_mixed(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["x.png"])
    (tmp_path / "in" / "dataset.json").write_text('{"labels": [["x.png", 1]]}')
    with pytest.raises(SourceError, match=r"dataset\.json.*--labels"):
        find_labels(find_sources([tmp_path / "in", cls_tar(tmp_path / "a.tar", {"0": b"5"})]))


def test_a_tar_with_names_fails_in_a_job_of_numbers(tmp_path: Path) -> None:
    labels = find_labels(find_sources([cls_tar(tmp_path / "a.tar", {"0": b"5"})]))
    container = find_sources([cls_tar(tmp_path / "b.tar", {"0": b"cat"})]).containers[0].open()
    with pytest.raises(SourceError, match=r"names.*never mixed.*--labels"):
        labels.label(container.images[0], container)


def test_class_folders_in_tars_are_found_where_nothing_else_is(tmp_path: Path) -> None:
    one = write_tar(tmp_path / "a.tar", [("cat/0.png", encoded(picture(0))), ("dog/0.png", encoded(picture(1)))])
    two = write_tar(tmp_path / "b.tar", [("eel/0.png", encoded(picture(0)))])
    sources = find_sources([one, two])
    labels = find_labels(sources)
    assert labels.class_names == ("cat", "dog", "eel")
    assert labels_of(sources, labels) == {"a:cat/0.png": 0, "a:dog/0.png": 1, "b:eel/0.png": 2}


def test_rules_1_keep_their_labels(tmp_path: Path) -> None:
    fill(tmp_path / "in", ["train/cat/x.jpg", "val/cat/y.jpg"])
    sources = find_sources([tmp_path / "in", cls_tar(tmp_path / "a.tar", {"0": b"5", "1": b"3.0", "2": b"-7"})])
    labels = find_labels(sources, reading=Reading(rules=1))
    assert labels.class_names == ("train", "val")
    assert list(labels_of(sources, labels).values()) == [0, 1, 5, None, -7]


def test_no_labels_are_looked_for_where_none_are_requested(tmp_path: Path) -> None:
    fill(tmp_path, ["cat/x.jpg", "dog/y.jpg"])
    sources = find_sources([tmp_path])
    assert set(labels_of(sources, find_labels(sources, "none")).values()) == {None}


def test_json_and_upper_case_cls_in_tars_are_read(tmp_path: Path) -> None:
    image = encoded(picture(0))
    tar = write_tar(tmp_path / "a.tar", [("0.png", image), ("0.json", b'{"label": 3}'), ("1.png", image)])
    sources = find_sources([tar])
    assert labels_of(sources, find_labels(sources)) == {"a:0.png": 3, "a:1.png": None}
    tar = write_tar(tmp_path / "a.tar", [("0.x.png", image), ("0.CLS", b"4")])
    sources = find_sources([tar])
    assert labels_of(sources, find_labels(sources)) == {"a:0.x.png": 4}


def test_dataset_json_in_a_zip_comes_before_its_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("cat/0.png", "dog/1.png"):
            archive.writestr(name, encoded(picture(0)))
        archive.writestr("dataset.json", '{"labels": [["cat/0.png", 6], ["dog/1.png", 2]]}')
    sources = find_sources([tmp_path / "a.zip"])
    assert labels_of(sources, find_labels(sources)) == {"a.zip:cat/0.png": 6, "a.zip:dog/1.png": 2}
    labels = find_labels(sources, "folders")
    assert labels.class_names == ("cat", "dog")
    assert labels_of(sources, labels) == {"a.zip:cat/0.png": 0, "a.zip:dog/1.png": 1}


def test_names_that_containers_declare_must_be_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"a": ("cat", "dog"), "b": ("cat", "dog"), "c": ("dog", "cat")}

    def declaring(address: str, reading: Reading) -> Container:
        tar = open_tar(address, reading)
        return Container(tar.size, tar.images, None, class_names=names[Path(address).stem])

    monkeypatch.setitem(CONTAINERS, ".tar", declaring)
    tars = [cls_tar(tmp_path / f"{name}.tar", {"0": b"1", "1": b"9"}) for name in names]
    sources = find_sources(tars[:2])
    labels = find_labels(sources)
    assert labels.class_names == ("cat", "dog")
    assert list(labels_of(sources, labels).values()) == [1, None, 1, None]
    with pytest.raises(SourceError, match=r"names cat, dog .*names dog, cat.*--labels none"):
        find_labels(find_sources(tars))
    with pytest.raises(SourceError, match="other names"):
        find_labels(sources, "cls", known=("dog", "cat"))


def test_captions_in_json_are_no_classes(tmp_path: Path) -> None:
    image = encoded(picture(0))
    members = [(f"{i}.{kind}", data) for i in range(1001) for kind, data in (("png", image), ("json", caption(i)))]
    labels = find_labels(find_sources([write_tar(tmp_path / "a.tar", members)]))
    assert labels.source == "none"
    assert "nearly all different" in labels.notes[0]


def caption(number: int) -> bytes:
    """A .json whose field is a text of its own."""
    return json.dumps({"label": f"a picture of thing {number}"}).encode()


def late_tar(folder: Path, name: str, members: list[str]) -> list[Path]:
    """Three tars of pictures with these names, of which the second, seen by no first look, has a class number."""
    tars = []
    for number in range(3):
        beside = [(name, b"3")] if number == 1 else []
        tars.append(write_tar(folder / f"{number}.tar", [(one, encoded(picture(0))) for one in members] + beside))
    return tars


def test_a_late_tar_with_numbers_fails_among_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_search, "_CONTAINERS", 2)
    tars = late_tar(tmp_path, "x/a.cls", ["x/a.png", "y/a.png"])
    for labels, failed in ((None, 1), (None, 1), ("folders", 0)):
        report = encode(tars, tmp_path / "t", "imtok-f8", size=8, labels=labels)
        assert [unit.name for unit in report.failed] == [str(tars[1])] * failed
    assert open_tokens(tmp_path / "t").label(2) == 0


def test_a_late_tar_with_numbers_is_mentioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_search, "_CONTAINERS", 2)
    report = encode(late_tar(tmp_path, "a.cls", ["a.png"]), tmp_path / "t", "imtok-f8", size=8)
    assert report.complete
    assert [note.split(",")[0] for note in report.label_notes] == ["a container has numbers in .cls files"]


@pytest.mark.parametrize(("labels", "ignored"), [("auto", 2), ("json", 2), ("none", 4)])
def test_files_read_as_labels_are_not_counted_as_ignored(tmp_path: Path, labels: LabelChoice, ignored: int) -> None:
    fill(tmp_path / "in", ["a.png", "b.png"])
    for name in "ab":
        (tmp_path / f"in/{name}.cls").write_text("1")
        (tmp_path / f"in/{name}.json").write_text('{"label": 1}')
    report = encode([tmp_path / "in"], tmp_path / "t", "imtok-f8", size=8, labels=labels)
    assert report.ignored == ignored
