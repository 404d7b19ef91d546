"""Figures to look at: plots, and the report as one HTML file."""

from imtok.report.comparison import comparison_page
from imtok.report.page import report_page
from imtok.report.plots import Plot, write_plots

__all__ = ["Plot", "comparison_page", "report_page", "write_plots"]
