"""``lit-backdoor chain`` and ``demo``: compose, run, print the table, write the report."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lit_backdoor.chain.compose import compose, variant_of
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.chain.testing import build_data
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.disk import check_claim, claim, clean_name
from lit_backdoor.report import write_report

__all__ = ["run_chain", "sweep"]


def run_chain(given: argparse.Namespace) -> int:
    """Run the chain that the command line asks for; gives the exit code."""
    _quiet()
    console = Console(highlight=False, markup=False, emoji=False)  # what users name is no markup
    chain = compose(given.name, given.settings, given.seed)
    name = clean_name(Path(given.name).stem)
    out = given.out or Path("runs") / f"{name}-seed{chain['seed']}"
    summaries = []
    variants = sweep(chain)
    if variants[0][0]:
        check_claim(out)
        if not given.dry_run:
            claim(out)
    for label, variant in variants:
        run = ChainRun(
            variant,
            name,
            out / label if label else out,
            launcher=given.launcher,
            use_cache=not given.no_cache,
            trust_cache=given.trust_cache,
            say=lambda line: console.print(line, soft_wrap=True),
        )
        if label:
            console.rule(label)
        if given.dry_run:
            for stage, verb, class_path in run.plan():
                console.print(f"{stage}: {verb} {class_path}")
            continue
        results = run.run()
        report = write_report(run.out, _data(variant), _command(given, chain["seed"]))
        _table(console, results)
        console.print(f"results  {run.out / 'results.json'}\nreport   {report}", soft_wrap=True)
        summaries.append({"run": label, "summary": results["summary"]})
    if summaries and summaries[0]["run"]:
        (out / "sweep.json").write_text(json.dumps({"format": 1, "chain": name, "runs": summaries}, indent=1) + "\n")
    return 0


def sweep(chain: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Give the variants of a chain's ``sweep`` section, each with a label; one without a label where there is none.

    Raises:
        ValueError: If the section is no lists of different values by key, or a variant has a name that is not known.
    """
    axes: Mapping[str, list[Any]] = chain.pop("sweep", None) or {}
    if not isinstance(axes, Mapping) or not all(isinstance(values, list) and values for values in axes.values()):
        raise ValueError(f"Expected 'sweep' in the chain to give a list of values for each key, got {axes!r}.")
    for key, values in axes.items():
        if any(value in values[:place] for place, value in enumerate(values)):
            raise ValueError(f"Expected each value of the sweep over '{key}' once, got {values!r}.")
    variants, labels = [], Counter[str]()
    for chosen in itertools.product(*axes.values()):
        settings = {str(key): value for key, value in zip(axes, chosen, strict=True)}
        text = ",".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in settings.items())
        label = clean_name(text) if text else ""
        labels[label] += 1  # values may be written alike
        variants.append((label if labels[label] == 1 else f"{label},{labels[label]}", variant_of(chain, settings)))
    return variants


def _short(value: Any) -> str:
    """Write a value as part of a folder's name: of something described at length the class alone."""
    named = value.get("class_path") if isinstance(value, Mapping) else None
    return re.sub(r"[^\w.+-]+", "_", str(named).rpartition(".")[2] if named else str(value))[:60]


def _data(chain: Mapping[str, Any]) -> BackdoorDataModule:
    """Build the data module that the stages had: seeded by the chain."""
    arguments = {**chain["data"]["init_args"], "seed": chain["seed"]}
    return build_data({**chain["data"], "init_args": arguments})


def _command(given: argparse.Namespace, seed: int) -> str:
    """Write the command line that repeats the run, wherever it writes and whatever it finds in the cache."""
    settings = [word for text in given.settings for word in ("--set", text)]
    return shlex.join(["lit-backdoor", "chain", str(given.name), "--seed", str(seed), *settings])


def _table(console: Console, results: Mapping[str, Any]) -> None:
    summary = results["summary"]
    if summary["before"] is None:
        return
    table = Table(title=f"{results['chain']}, seed {results['seed']}", title_justify="left")
    for column in ("", "ACC", "ASR", "RA"):
        table.add_column(column, justify="right" if column else "left")
    for role in ("before", "after"):
        if summary[role]:
            table.add_row(role, *(_share(summary[role][key]) for key in ("acc", "asr", "ra")))
    console.print(table)
    numbers: dict[str, Any] = {"DER": summary["der"], "DEM": summary["dem"]}
    for stage in results["stages"]:
        for key, label in (("dof", "DoF"), ("selection_precision", "selection precision")):
            if key in stage["metrics"]:
                numbers[label] = stage["metrics"][key]
    console.print("  ".join(f"{label} {_share(value)}" for label, value in numbers.items()))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


_EXPECTED = (
    "does not have many workers",
    "LightningCLI's args parameter",
    "Checkpoint directory .* exists and is not empty",
    "The number of training batches .* is smaller than the logging interval",
    "module\\(s\\) in eval mode at the start of training",  # frozen nets are meant to be
    "predict returned None",
    "isinstance\\(treespec, LeafSpec\\)",  # Lightning 2.6 on torch 2.13 and later
)


def _quiet() -> None:
    """Leave out what Lightning says at every start, so that one line a stage stands out."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in _EXPECTED:
        warnings.filterwarnings("ignore", f".*{text}.*")
