"""Class folders: which folders of a key name classes, and which are splits or shards.

- The top folder of a key names its class, however deep the image lies below it.
- Where all top folders are splits (`train`, `val`, `test`, ...), the second level names the classes. Flat images of a
  split, and those in a lone folder such as `test/images`, have no class.
- Shard folders are no classes: numbers of four digits or more whose images continue the number (`00001/000010007.jpg`
  of img2dataset, `00000/img00000007.png` of StyleGAN), or count on from it (`01000/01007.png` of FFHQ). Classes may be
  numbers too: `7/00123.png`, or `00042/00000_00003.png` of GTSRB.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_SPLIT = re.compile(r"(train|training|val|valid|validation|test|testing|dev|eval)[-_ ]?(set|\d{2,4})?", re.IGNORECASE)
_LONE = {"images", "image", "imgs", "img", "data", "all", "unknown", "unlabeled", "unlabelled"}
_SHARD, _NUMBERED = re.compile(r"\d{4,}"), re.compile(r"[A-Za-z_-]*(\d+)")
_BLOCK = 1000  # images in a folder of FFHQ
_MANY = 1000  # classes; above, a class with fewer than two images is no class


@dataclass(frozen=True)
class ClassFolders:
    """Folders that name classes, by their paths: `cat`, or `train/cat` below a split."""

    classes: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def class_of(self, key: str) -> str | None:
        """Return the name of an image's class, None where it lies in no class folder."""
        parts = key.split("/", 2)
        top = self.classes.get(parts[0]) if len(parts) > 1 else None
        return top if top is not None or len(parts) < 3 else self.classes.get(f"{parts[0]}/{parts[1]}")


@dataclass
class FolderTally:
    """The folders that hold the images of some keys."""

    images: Counter[tuple[str, str]] = field(default_factory=Counter)  # by top folder and second folder, "" for none
    flat: int = 0  # images in no folder
    first_flat: str = ""
    shards: list[bool] = field(default_factory=lambda: [True, True])  # whether top and second folders may be shards

    def add(self, keys: Iterable[str]) -> FolderTally:
        """Count some keys; returns itself."""
        last, last_count = "", 0  # images that follow each other mostly lie in one folder
        for key in keys:
            folder, slash, _ = key.rpartition("/")
            if not slash:
                self.first_flat = self.first_flat or key
                self.flat += 1
                continue
            if folder != last:
                self._count(last, last_count)
                last, last_count = folder, 0
            last_count += 1
            if self.shards[0] or (self.shards[1] and "/" in folder):
                self._look(key)
        self._count(last, last_count)
        return self

    def _count(self, folder: str, count: int) -> None:
        top, _, rest = folder.partition("/")
        if count:
            self.images[top, rest.partition("/")[0]] += count

    def _look(self, key: str) -> None:
        """See whether the folders of an image are no shards."""
        top, _, rest = key.partition("/")
        second, deeper, name = rest.partition("/")
        if self.shards[0]:
            self.shards[0] = _in_shard(top, key)
        if self.shards[1] and deeper:
            self.shards[1] = _in_shard(second, name)

    @staticmethod
    def union(tallies: Iterable[FolderTally]) -> FolderTally:
        """Return the folders of several tallies in one."""
        whole = FolderTally()
        for tally in tallies:
            whole.images.update(tally.images)
            whole.flat += tally.flat
            whole.first_flat = whole.first_flat or tally.first_flat
            whole.shards = [one and other for one, other in zip(whole.shards, tally.shards, strict=True)]
        return whole

    @property
    def tops(self) -> list[str]:
        """Top folders, sorted."""
        return sorted({top for top, _ in self.images})

    def find_classes(self, *, force: bool = False) -> tuple[ClassFolders | None, tuple[str, ...]]:
        """Find the class folders, None where there are none, and what to say about folders that are none.

        `force` takes folders for classes that would otherwise be none; a layout of splits stays one.
        """
        tops = self.tops
        if not tops:
            return None, ()
        splits = all(_SPLIT.fullmatch(top) for top in tops)
        classes = self._below_splits() if splits else {top: top for top in tops}
        if splits and not classes:
            note = f"folders {_listed(tops)} are splits and hold no class folders"
            return (ClassFolders({top: top for top in tops}), ()) if force else (None, (note,))
        reason = self._no_classes(set(classes.values()), self.shards[1 if splits else 0])
        if reason and not force:
            return None, (reason,) if reason != "one folder" else self._wrapped(tops)
        return ClassFolders(classes, self._notes(classes, splits)), ()

    def _below_splits(self) -> dict[str, str]:
        """Map `train/cat` to `cat`; a lone folder of images below a split is no class."""
        second: dict[str, set[str]] = {}
        for top, name in self.images:
            second.setdefault(top, set()).update({name} - {""})
        return {
            f"{top}/{name}": name
            for top, names in second.items()
            for name in names
            if len(names) > 1 or name.lower() not in _LONE
        }

    def _no_classes(self, names: set[str], shards: bool) -> str:
        """Give the reason why folders are no classes; empty where they are."""
        count = self.images.total()
        if shards:
            return f"folders {_listed(sorted(names))} are shards by the numbers of their images, and no classes"
        if len(names) < 2:
            return "one folder"
        if self.flat > count:
            return f"{self.flat:,} of {self.flat + count:,} images lie in no folder, so the others name no classes"
        if len(names) > _MANY and count < 2 * len(names):
            return f"{len(names):,} folders hold {count:,} images, so they name no classes"
        return ""

    def _wrapped(self, tops: list[str]) -> tuple[str, ...]:
        """Return a word on folders below the only one, which look like classes."""
        below = sorted({second for _, second in self.images if second})
        if len(below) < 2 or self.shards[1]:
            return ()
        return (
            f"all images lie in {tops[0]}; give that folder itself to have its folders {_listed(below)} as classes",
        )

    def _notes(self, classes: Mapping[str, str], splits: bool) -> tuple[str, ...]:
        notes = []
        if splits:
            notes.append(f"{_listed(self.tops)} are splits, the folders in them are the classes")
        if self.flat:
            others = f" and {self.flat - 1:,} others" if self.flat > 1 else ""
            notes.append(f"{self.first_flat}{others} in no class folder, without a label")
        if splits:
            outside = [
                (f"{top}/{second}" if second else top, count)
                for (top, second), count in sorted(self.images.items())
                if f"{top}/{second}" not in classes
            ]
            notes += [
                f"{count:,} {'image' if count == 1 else 'images'} of {path} in no class folder, without a label"
                for path, count in outside
            ]
        names = sorted(set(classes.values()))
        twins = [name for name, times in Counter(name.casefold() for name in names).items() if times > 1]
        if twins:
            alike = [name for name in names if name.casefold() == twins[0]]
            notes.append(f"{_listed(alike)} differ in the case of letters alone and are {len(alike)} classes")
        return tuple(notes)


def _in_shard(folder: str, key: str) -> bool:
    """Return whether a folder is a number that the name of its image continues or counts on from."""
    if not _SHARD.fullmatch(folder):
        return False
    match = _NUMBERED.fullmatch(key.rsplit("/", 1)[-1].split(".", 1)[0])
    if match is None:
        return False
    digits = match[1]
    continues = digits.startswith(folder) and len(digits) > len(folder)
    return continues or (len(digits) == len(folder) and int(digits) // _BLOCK * _BLOCK == int(folder))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} others" if len(names) > 3 else "")
