"""The templates of the report."""

from __future__ import annotations

from pathlib import Path

from lit_backdoor.page.template import Section, renderer

__all__ = ["Section", "render"]

render = renderer(Path(__file__).parent / "templates")
