"""What the tokens say about the codebook."""

from imtok.analysis.usage import CodebookUsage, count_codes

__all__ = ["CodebookUsage", "count_codes"]
