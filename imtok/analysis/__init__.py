"""What the tokens say about the codebook: `analyze(folder)`, and `codebook_usage(tokens)` for an open data set."""

from imtok.analysis.figures import Figures
from imtok.analysis.job import Analysis, analyze, count_part
from imtok.analysis.pictures import Pictures
from imtok.analysis.usage import CodebookUsage, codebook_usage, count_by_codebook, count_codes

__all__ = [
    "Analysis",
    "CodebookUsage",
    "Figures",
    "Pictures",
    "analyze",
    "codebook_usage",
    "count_by_codebook",
    "count_codes",
    "count_part",
]
