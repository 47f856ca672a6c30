"""The templates of the page, and what they may call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lit_backdoor.report import words

__all__ = ["Section", "render"]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its anchor.
        title: Its heading; empty for the head of the page.
        html: What stands below.
    """

    name: str
    title: str
    html: Markup


def render(template: str, **values: Any) -> Markup:
    """Fill a template; all text is escaped."""
    return Markup(_environment().get_template(template).render(**values))


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {name: getattr(words, name) for name in ("call", "count", "duration", "label", "percent")}
    environment.filters |= {"number": words.number, "short": words.short}
    environment.globals |= {"DASH": words.DASH}
    return environment
