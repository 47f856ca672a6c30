"""Audits of models from outside: is there a backdoor, to which class, and how sure is that.

A chain of detectors that need a few clean images only, generated for the model at hand and run within a budget.
"""

from lit_backdoor.audit.run import run_audit

__all__ = ["run_audit"]
