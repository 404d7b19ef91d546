"""Token sets out: the ids that trainers read, in the layout of each, with a record of what made them."""

from typing import TYPE_CHECKING

from imtok.lazy import lazy_names

if TYPE_CHECKING:
    from imtok.export.job import ExportReport, export_tokens
    from imtok.export.options import ExportOptions

__all__ = ["ExportOptions", "ExportReport", "export_tokens"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ExportOptions": "imtok.export.options",
        "ExportReport": "imtok.export.job",
        "export_tokens": "imtok.export.job",
    },
)
