"""Tables and figures of a run or of several, as a page, as Markdown, as CSV and in W&B."""

from longtag.report.write import write_report

__all__ = ["write_report"]
