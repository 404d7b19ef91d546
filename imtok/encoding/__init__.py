"""The encoding job: images to a token folder."""

from typing import TYPE_CHECKING

from imtok.lazy import lazy_names

if TYPE_CHECKING:
    from imtok.encoding.job import encode
    from imtok.encoding.report import EncodeProgress, EncodeReport, FailedUnit, Skips
    from imtok.encoding.status import EncodeStatus, read_status

__all__ = ["EncodeProgress", "EncodeReport", "EncodeStatus", "FailedUnit", "Skips", "encode", "read_status"]

_REPORT = ("EncodeProgress", "EncodeReport", "FailedUnit", "Skips")
# `imtok status` needs no torch, which the job loads.
__getattr__, __dir__ = lazy_names(
    __name__,
    {"encode": "imtok.encoding.job", "EncodeStatus": "imtok.encoding.status", "read_status": "imtok.encoding.status"}
    | dict.fromkeys(_REPORT, "imtok.encoding.report"),
)
