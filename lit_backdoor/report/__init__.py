"""One HTML page about a finished chain, made from its ``results.json`` and its bundles."""

from lit_backdoor.report.page import write_report

__all__ = ["write_report"]
