"""The comparison report: one HTML file that needs neither a network nor a server."""

from dinodp.report.files import ModelFiles, ReportFiles
from dinodp.report.page import write_report

__all__ = ["ModelFiles", "ReportFiles", "write_report"]
