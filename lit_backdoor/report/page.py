"""Writing of the page: each section looks whether the folder has something for it to show."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.functional.projection import Projection
from lit_backdoor.report.run import Run
from lit_backdoor.report.sections.gallery import gallery
from lit_backdoor.report.sections.heatmaps import heatmaps
from lit_backdoor.report.sections.history import history
from lit_backdoor.report.sections.projection import projection as logits
from lit_backdoor.report.sections.scores import scores
from lit_backdoor.report.sections.settings import settings
from lit_backdoor.report.sections.stages import stages
from lit_backdoor.report.sections.targets import targets
from lit_backdoor.report.sections.vectors import vectors
from lit_backdoor.report.sections.verdict import verdict
from lit_backdoor.report.template import Section, render

__all__ = ["SECTIONS", "write_report"]

# A new kind of result is one more function here, in the order of the page.
SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    verdict, gallery, heatmaps, logits, vectors, history, scores, targets, stages, settings,
)  # fmt: skip


def write_report(
    folder: Path, data: BackdoorDataModule, command: str | None = None, projection: Projection = "mds"
) -> Path:
    """Write ``report.html`` about a finished chain: one file, without scripts, that needs no network.

    Equal runs give equal files, but for the seconds that their stages took.

    Args:
        folder: The chain's folder, with ``results.json`` and its bundles; what is missing is left out.
        data: The chain's data module, for the pictures and for the roles of the rows.
        command: The command line that repeats the run; by default the chain by its name and seed.
        projection: How logits are brought to the plane: ``mds`` or ``tsne``.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If there is no ``results.json``.
        ValueError: If a bundle is damaged.
    """
    results = json.loads((folder / "results.json").read_text())
    command = command or f"lit-backdoor chain {results['chain']} --seed {results['seed']}"
    run = Run(folder, results, data, command, projection)
    sections = [section for make in SECTIONS if (section := make(run)) is not None]
    target, part = folder / "report.html", folder / f".report.html.{os.getpid()}.part"
    page = render("page.html", title=run.title, sections=sections)
    part.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")  # classes may be folders of undecodable names
    part.rename(target)
    return target
