"""Analysis of token sets: `analyze(folder)` computes all statistics, `codebook_usage(tokens)` counts the codes."""

from imtok.analysis.counting import codebook_usage
from imtok.analysis.job import Analysis, analyze
from imtok.analysis.statistics import Statistics
from imtok.analysis.visualisations import Visualisations
from imtok.usage import CodebookUsage, count_by_codebook, count_codes

__all__ = [
    "Analysis",
    "CodebookUsage",
    "Statistics",
    "Visualisations",
    "analyze",
    "codebook_usage",
    "count_by_codebook",
    "count_codes",
]
