"""What the tokens say about the codebook: `analyze(folder)`, and `codebook_usage(tokens)` for an open data set."""

from imtok.analysis.usage import CodebookUsage, analyze, codebook_usage, count_by_codebook, count_codes

__all__ = ["CodebookUsage", "analyze", "codebook_usage", "count_by_codebook", "count_codes"]
