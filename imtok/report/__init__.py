"""The report: plots, and all statistics as one HTML file."""

from imtok.report.pages import comparison_page, report_page
from imtok.report.plot import Plot

__all__ = ["Plot", "comparison_page", "report_page"]
