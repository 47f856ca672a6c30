"""The templates of a page, and what they may call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lit_backdoor.page import words

__all__ = ["Section", "renderer"]


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        name: Its anchor.
        title: Its heading; empty for the head of the page.
        html: What is below the heading.
    """

    name: str
    title: str
    html: Markup


def renderer(folder: Path, **filters: Callable[..., Any]) -> Callable[..., Markup]:
    """Give a function that fills a template of a folder, or a shared one; all text is escaped.

    Args:
        folder: The templates.
        **filters: What they may call besides the functions of `words`.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent / "templates"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    written = ("call", "count", "duration", "label", "number", "percent", "short")
    environment.filters |= {name: getattr(words, name) for name in written} | filters
    environment.globals |= {"DASH": words.DASH}

    def render(template: str, **values: Any) -> Markup:
        return Markup(environment.get_template(template).render(**values))

    return render
