"""The encoding job: images to a token folder."""

from imtok.encoding.job import encode
from imtok.encoding.report import EncodeProgress, EncodeReport, FailedUnit, Skips

__all__ = ["EncodeProgress", "EncodeReport", "FailedUnit", "Skips", "encode"]
