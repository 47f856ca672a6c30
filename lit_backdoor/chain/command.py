"""``lit-backdoor chain`` and ``demo``: compose, run, print the table, write the report."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import re
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lit_backdoor.chain.attack import attacker_of, with_attack
from lit_backdoor.chain.classes import trusted
from lit_backdoor.chain.compose import compose, variant_of
from lit_backdoor.chain.cut import cut
from lit_backdoor.chain.plan import plan_lines
from lit_backdoor.chain.relapse import with_relapse
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.chain.testing import build_data
from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.data.sources.listing import TEST_PARTS
from lit_backdoor.disk import check_claim, claim, clean_name
from lit_backdoor.page.words import title
from lit_backdoor.presets import at_home
from lit_backdoor.recipe import trusting

__all__ = ["chain_command", "print_line", "quiet", "run_chain", "sweep"]

_MOST_RUNS = 1_000  # of a sweep


def run_chain(
    name: str,
    *,
    setup: str | None = None,
    attack: str | None = None,
    seed: int | None = None,
    settings: Iterable[str] = (),
    out: str | Path | None = None,
    trust: Iterable[str] = (),
    use_cache: bool = True,
) -> dict[str, Any]:
    """Run a chain, as ``lit-backdoor chain`` does, and give what its ``results.json`` holds.

    Args:
        name: A shipped defense or chain, or a YAML file.
        setup: A shipped setup or a file; None for the chain's own, else ``signs``.
        attack: A shipped attack or a file, ``null`` for a clean model; None for the chain's own, else ``badnets``.
        seed: Replaces the chain's seed.
        settings: ``a.b.c=value`` texts.
        out: Folder to write; None for one in ``runs``.
        trust: Packages and modules whose classes bundles may name.
        use_cache: Whether victims are taken from and put into the cache.

    Raises:
        ValueError: As `compose` does, or if the chain is a sweep, which has many results.
    """
    chain = compose(name, settings, seed, setup=setup, attack=attack)
    if chain.get("sweep"):
        raise ValueError(f"Expected a chain with one result, but '{name}' is a sweep. Run: lit-backdoor chain {name}.")
    chain["trust"] = [*(chain.get("trust") or ()), *trust]
    run = ChainRun(chain, title_of(name), Path(out) if out else _folder(name, chain), use_cache=use_cache)
    with trusting(trusted(run.chain)):
        return run.run()


def chain_command(given: argparse.Namespace) -> int:
    """Run the chain that the command line asks for; gives the exit code."""
    quiet()
    console = Console(highlight=False, markup=False, emoji=False)  # what users name is no markup
    settings = [*_source_of(given.data), *given.settings]
    chain = compose(given.name, settings, given.seed, setup=given.setup, attack=given.attack)
    chain["trust"] = [*(chain.get("trust") or ()), *given.trust]
    chain = with_relapse(chain) if given.relapse else chain
    chain = cut(chain, given.until) if given.until else chain
    name, out = title_of(given.name), given.out or _folder(given.name, chain)
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
            curves=not given.no_report,
            say=lambda line: console.print(line, soft_wrap=True),
        )
        if label:
            console.rule(label)
        with trusting(trusted(run.chain)):
            if given.dry_run:
                for line in plan_lines(run):
                    console.print(line, soft_wrap=True)
                continue
            results = run.run()
            report = None if given.no_report else _report(run, _command(given, chain["seed"]))
        _table(console, results)
        console.print(f"results  {run.out / 'results.json'}", soft_wrap=True)
        if report is not None:
            console.print(f"report   {report}", soft_wrap=True)
        summaries.append({"run": label, "summary": results["summary"]})
    if summaries and summaries[0]["run"]:
        (out / "sweep.json").write_text(json.dumps({"format": 1, "chain": name, "runs": summaries}, indent=1) + "\n")
    return 0


def title_of(name: str) -> str:
    """Give a chain's name as results have it: a file's without its folder, a shipped one as it is."""
    return Path(name).stem if name.endswith((".yaml", ".yml")) else name


def _folder(name: str, chain: Mapping[str, Any]) -> Path:
    """Name the folder of a run; of a product, setup and attack belong to the name."""
    parts = [title_of(name)]
    if name != "demo" and chain.get("setup"):
        parts += [chain["setup"], chain.get("attack") or "clean"]
    return Path("runs") / f"{'-'.join(parts).replace('/', '-')}-seed{chain['seed']}"


def _source_of(folder: str | None) -> list[str]:
    """Write ``--data FOLDER`` as the setting that it stands for.

    Raises:
        ValueError: If the folder lacks a training or a test part.
    """
    if folder is None:
        return []
    within = at_home(folder)
    held_out = next((part for part in TEST_PARTS if (within / part).is_dir()), TEST_PARTS[0])
    parts = {"train": str(within / "train"), "test": str(within / held_out)}
    for path in parts.values():
        if not Path(path).is_dir():
            raise ValueError(
                f"Expected a folder for each class in {' and in '.join(parts.values())}, found no folder {path}. Put "
                "most images of each class below the first, and the rest, to measure on, below the second."
            )
    source = {"class_path": "lit_backdoor.data.sources.ImageFolderSource", "init_args": {**parts, "size": 32}}
    return [f"data.init_args.source={json.dumps(source)}"]


def sweep(chain: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Give the variants of a chain's ``sweep`` section, each with a label; one without a label where there is none.

    Raises:
        ValueError: If the section is no lists of different values by key, or a variant has a name that is not known.
    """
    axes: Mapping[str, list[Any]] = chain.pop("sweep", None) or {}
    if not isinstance(axes, Mapping) or not all(isinstance(values, list) and values for values in axes.values()):
        raise ValueError(f"Expected 'sweep' in the chain to give a list of values for each key, got {axes!r}.")
    if (count := math.prod(map(len, axes.values()))) > _MOST_RUNS:
        raise ValueError(f"Expected a sweep of at most {_MOST_RUNS:,} runs, got {count:,}. Write several chains.")
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


def _report(run: ChainRun, command: str) -> Path:
    """Write the report."""
    from lit_backdoor.report import write_report  # its libraries take a second to load

    return write_report(run.out, _data(run), command)


def _data(run: ChainRun) -> BackdoorDataModule:
    """Build the data module that the stages had: seeded by the chain, with the victim's own attack."""
    data, victim = run.chain["data"], run.results.get(attacker_of(run.chain) or "")
    arguments = {**data["init_args"], "seed": run.chain["seed"]}
    return build_data(with_attack({**data, "init_args": arguments}, victim.bundle if victim else None))


def _command(given: argparse.Namespace, seed: int) -> str:
    """Write the command line that repeats the run, wherever it writes and whatever it finds in the cache."""
    named = [(f"--{key}", getattr(given, key)) for key in ("setup", "attack", "data")]
    words = [word for key, value in named if value for word in (key, value)]
    words += [word for text in given.settings for word in ("--set", text)]
    words += [word for text in given.trust for word in ("--trust", text)]
    return shlex.join(["lit-backdoor", "chain", str(given.name), "--seed", str(seed), *words])


def _table(console: Console, results: Mapping[str, Any]) -> None:
    summary = results["summary"]
    if summary["before"] is None:
        return
    table = Table(title=title(results), title_justify="left")
    for column in ("", "ACC", "ACC, target class", "ASR", "RA"):
        table.add_column(column, justify="right" if column else "left")
    lines = {role: summary[role] for role in ("before", "after")}
    lines["control"] = next((stage["metrics"] for stage in results["stages"] if stage["name"] == "control"), None)
    for name, numbers in lines.items():
        if numbers:
            table.add_row(name, *(_share(numbers.get(key)) for key in ("acc", "acc_target", "asr", "ra")))
    console.print(table)
    rates: dict[str, Any] = {"DER": summary["der"], "DEM": summary["dem"]}
    for stage in results["stages"]:
        for key, label in (("dof", "DoF"), ("selection_precision", "selection precision")):
            if key in stage["metrics"]:
                rates[label] = stage["metrics"][key]
    console.print("  ".join(f"{label} {_share(value)}" for label, value in rates.items()))


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


def print_line(line: str) -> None:
    """Print a line at once, also where the output is no terminal."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def quiet() -> None:
    """Leave out what Lightning says at every start, so that a stage is one line."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in _EXPECTED:
        warnings.filterwarnings("ignore", f".*{text}.*")
