"""Published tokenizers in: checkpoints of other projects become tokenizers of imtok.

`import_checkpoint(checkpoint, output)` is the job. A checkpoint may come from anywhere: nothing in it is run, and its
tensors are used only when each of them has its place in a tokenizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imtok.lazy import lazy_names

if TYPE_CHECKING:
    from imtok.interop.checkpoint import Checkpoint
    from imtok.interop.family import Conversion, Family
    from imtok.interop.job import ImportReport, import_checkpoint, read_checkpoint

__all__ = ["Checkpoint", "Conversion", "Family", "ImportReport", "import_checkpoint", "read_checkpoint"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Checkpoint": "imtok.interop.checkpoint",
        "Conversion": "imtok.interop.family",
        "Family": "imtok.interop.family",
        "ImportReport": "imtok.interop.job",
        "import_checkpoint": "imtok.interop.job",
        "read_checkpoint": "imtok.interop.job",
    },
)
