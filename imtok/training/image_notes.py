"""Notes on the images of a run, before it begins: pictures that are enlarged, and validation images trained on too."""

from __future__ import annotations

from imtok.data.collection import ImageCollection
from imtok.data.pixels.enlarging import enlargement, enlarging_note


def enlarged_note(images: ImageCollection, size: int) -> str:
    """Say how many of the training images looked at are smaller than `size`; empty where none is."""
    found = enlargement(images, size)
    if found.mean_factor is None:
        return ""
    sample = "" if found.images == len(images) else f", of {found.images} looked at"
    most = found.enlarged * 2 > found.images
    hint = "; a smaller size (--set size=N) trains on them as they are" if most else ""
    return enlarging_note(found.enlarged, found.images, found.mean_factor, size) + sample + hint


def shared_note(shared: list[str], validation: int) -> str:
    """Say that validation images, with the keys `shared`, are trained on too; empty where none is."""
    if not shared:
        return ""
    which = "the validation image is" if validation == 1 else f"{len(shared)} of {validation} validation images are"
    return (
        f"{which} also trained on (first {shared[0]}), so the metrics say too little about new images; give --val "
        "images that SOURCE does not hold, or remove the copies"
    )
