"""What was compiled, what it costs, and what fell back."""

from forgec.report.report import Report

__all__ = ["Report"]
