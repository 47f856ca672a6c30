"""Run the chains behind the README's tables, one after the other, and write the tables.

python tests/benchmarks/tables.py run --out runs/tables [--only atclean_cifar10_small] [--seeds 1 2 3]
python tests/benchmarks/tables.py write

``run`` skips what ``results.csv`` beside this file has already, and appends to it: one row per run, stage and metric.
``write`` replaces what stands between ``<!-- table:NAME -->`` and ``<!-- /table:NAME -->`` in the README.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from plan import (
    ADAPTIVE,
    CLEAN,
    CLEANED,
    DETECTING,
    FACES,
    INVERT,
    LABELS,
    LONG,
    NAMES,
    NC,
    NT,
    PAPER,
    PAPER_DETECTION,
    PGBD,
    PIXEL,
    PLAN,
    SMALL,
    ST,
    TAC,
    TARGETS,
    P,
    U,
    settings,
)  # fmt: skip

HERE = Path(__file__).parent
CSV = HERE / "results.csv"
README = HERE.parents[1] / "README.md"
FIELDS = ("chain", "attack", "seed", "stage", "metric", "value", "seconds", "hardware", "commit")


def run(out: Path, only: str | None, attacks: list[str] | None, seeds: list[int]) -> None:
    done = {(row["chain"], row["attack"], row["seed"]) for row in read()}
    for seed in seeds:
        for chain, attack in PLAN:
            wanted = (only is None or chain == only) and (attacks is None or attack in attacks)
            if not wanted or (chain, attack, str(seed)) in done:
                continue
            folder = out / f"{chain}-{attack}-seed{seed}"
            name, _, variant = chain.partition("@")
            command = [sys.executable, "-m", "lit_backdoor", "chain", name, "--seed", str(seed), "--out", str(folder)]
            if chain != "demo":
                command += ["--set", f"data.init_args.attack={attack}", "--trust-cache"]
            for setting in settings(name, variant, attack):
                command += ["--set", setting]
            print(" ".join(command[2:]), flush=True)
            started = time.monotonic()
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "log.txt").open("w") as log:
                code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
            print(f"  exit code {code}, {time.monotonic() - started:.0f} s", flush=True)
            if code == 0:
                append(chain, attack, seed, json.loads((folder / "results.json").read_text()))


def append(chain: str, attack: str, seed: int, results: dict) -> None:
    git = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    new = not CSV.exists()
    with CSV.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        for stage in results["stages"]:
            for metric, value in stage["metrics"].items():
                if isinstance(value, int | float):
                    row = (chain, attack, seed, stage["name"], metric, round(value, 6), stage["seconds"])
                    writer.writerow(dict(zip(FIELDS, (*row, results["hardware"], commit), strict=True)))


def read() -> list[dict[str, str]]:
    if not CSV.exists():
        return []
    with CSV.open(newline="") as file:
        return list(csv.DictReader(file))


def values() -> dict[tuple[str, str, str, str], list[float]]:
    found = defaultdict(list)
    for row in read():
        found[row["chain"], row["attack"], row["stage"], row["metric"]].append(float(row["value"]))
    return found


def cell(found: dict, chain: str, attack: str, stage: str, metric: str) -> str:
    numbers = found.get((chain, attack, stage, metric))
    if not numbers:
        nothing = attack == "null" and metric not in ("acc", "flagged_share")
        return "-" if nothing or (attack == "badnets_a2a" and metric == "acc_target") else "not run"
    spread = f" ± {statistics.stdev(numbers):.3f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.3f}{spread}"


def seeds_of(chain: str, attack: str) -> str:
    return ", ".join(sorted({row["seed"] for row in read() if (row["chain"], row["attack"]) == (chain, attack)})) or "-"


def defense_table(chains: Sequence[str], *more: tuple[str, str, str]) -> str:
    """One row per chain and planned attack.

    Args:
        chains: The chains; all but the first are named in their rows.
        more: Further columns: a stage, one of its numbers, and its heading.
    """
    found = values()
    figures = any(chain.partition("@")[0] in PAPER for chain in chains)
    head = ["attack", "seeds", "ACC before", "ASR before", "ACC after", "ASR after", "RA after"]
    head += [heading for _, _, heading in more]
    head += ["fine-tuning alone: ACC", "ASR"] + (["paper (full size), ACC/ASR %"] if figures else [])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for chain in chains:
        name, _, variant = chain.partition("@")
        for attack in (attack for planned, attack in PLAN if planned == chain):
            cells = [NAMES[attack] + LABELS.get(variant or name, ""), seeds_of(chain, attack)]
            cells += [cell(found, chain, attack, "victim", metric) for metric in ("acc", "asr")]
            cells += [cell(found, chain, attack, CLEANED.get(name, "clean"), metric) for metric in ("acc", "asr", "ra")]
            cells += [cell(found, chain, attack, stage, metric) for stage, metric, _ in more]
            cells += [cell(found, chain, attack, "control", metric) for metric in ("acc", "asr")]
            cells += [PAPER.get(name, {}).get(attack, "-")] if figures else []
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def detection_table() -> str:
    """(D), by the purifier of (P)."""
    found = values()
    names = ("precision", "recall", "f1", "auroc", "flagged_share")
    lines = [
        "| attack | seeds | precision | recall | F1 | AUROC | clean images flagged |",
        "|---|---|---|---|---|---|---|",
    ]
    for attack in (attack for chain, attack in PLAN if chain == P):
        cells = [
            "-" if attack == "null" and name != "flagged_share" else cell(found, P, attack, "detect", name)
            for name in names  # without triggered images there is nothing to find
        ]
        lines.append(f"| {NAMES[attack]} | {seeds_of(P, attack)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def targets_table() -> str:
    """How often a detector's class is the attack's, over targets and seeds, and that of clean models."""
    found = values()
    detectors = {
        INVERT: ("BTI-DBF", "invert"), TAC: ("TAC", "detect"), NC: ("Neural Cleanse", "detect"),
        PIXEL: ("Pixel", "detect"),
    }  # fmt: skip
    lines = [
        "| detector | attack | runs | class found | most suspicious class right | FD | seconds | paper, FD/DSR % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for chain, attack, variant, label in _detected():
        name, stage = detectors[chain]
        runs = [(f"{chain}@{variant}target{target}", attack, stage) for target in TARGETS]
        seconds = [float(row["seconds"]) for row in read() if (row["chain"], row["attack"], row["stage"]) in runs]
        metric = "flagged_classes" if attack == "null" else "target_found"
        right, top, distances = (
            [n for run in runs for n in found.get((*run, m), [])] for m in (metric, "target_top", "feature_distance")
        )
        cells = [name, NAMES[attack] + label, str(len(right)), _share(right), _share(top)]
        cells[3] += " flagged" if attack == "null" and right else ""
        cells.append(f"{statistics.mean(distances):.3g}" if distances else "-")
        cells.append(f"{statistics.median(seconds):.0f}" if seconds else "not run")
        cells.append("-" if label else PAPER_DETECTION.get((chain, attack), "-"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _detected() -> list[tuple[str, str, str, str]]:
    """List the rows of detection: chain, attack, variant, and what the attack's name gets behind it."""
    more = [(TAC, "sig", "", ""), (TAC, LONG[1], LONG[0], LABELS["victim24"])]
    return [(chain, attack, "", "") for chain, attack in DETECTING] + more + [(*pair, "", "") for pair in CLEAN]


def _share(numbers: list[float]) -> str:
    return f"{sum(n > 0 for n in numbers)} of {len(numbers)}" if numbers else "-"


def fidelity_table(attacks: list[str]) -> str:
    """What TAC's program reconstructs, against the true change of latents; whatever is made of it afterwards."""
    chain = f"{TAC}@shifted"
    names = ("tac_cosine", "tac_cosine_other", "tac_rank_correlation", "tac_precision_1", "tac_precision_5",
             "tac_precision_10")  # fmt: skip
    lines = [
        "| attack | seeds | cosine | largest of another class | rank correlation | precision, top 1 % | 5 % | 10 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for attack in attacks:
        cells = [cell(values(), chain, attack, "detect", name) for name in names]
        lines.append(f"| {NAMES[attack]} | {seeds_of(chain, attack)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rows_table(rows: list[tuple[str, str, str, str]]) -> str:
    """Rows of (label, chain, attack, stage), ACC, ASR and RA each, and DoF where the stage has a generator's images."""
    found = values()
    lines = ["| | attack | seeds | ACC | ASR | RA | DoF |", "|---|---|---|---|---|---|---|"]
    for label, chain, attack, stage in rows:
        cells = [cell(found, chain, attack, stage, metric) for metric in ("acc", "asr", "ra")]
        cells.append(cell(found, chain, attack, "generate", "dof") if stage == "clean" else "-")
        lines.append(f"| {label} | {NAMES[attack]} | {seeds_of(chain, attack)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    ablations, kinds = [], (
        "given", "victim24", "rate1", "windows", "given_windows", "shifted", "given_shifted", "tie", "given_tie",
    )  # fmt: skip
    for attack in ("badnets", "blend"):
        ablations += [
            ("ATClean", SMALL, attack, "clean"),
            ("generated images alone (Eq. 4 to the letter)", f"{SMALL}_letter", attack, "clean"),
            ("untrained generator", f"{SMALL}_untrained", attack, "clean"),
            ("clean fine-tuning alone", SMALL, attack, "control"),
        ]
    ablations.append(("an oracle's selection", f"{SMALL}_oracle@precise", "badnets_a2a", "clean"))
    collision = [
        ("case 1: trigger 1 alone", "collision", "badnets", "victim"),
        ("case 2: then trigger 2, true labels", "collision", "badnets", "collision"),
        ("case 3: then clean images", "collision", "badnets", "clean_images"),
        ("case 4: then a random trigger, true labels", "collision", "badnets", "random_trigger"),
    ]
    dof, found = ("generate", "dof", "DoF"), ("detect", "target_found", "target found")
    own = {
        stage: [
            (kind, "acc_target", f"target class: ACC {when}") for kind, when in (("victim", "before"), (stage, "after"))
        ]
        for stage in ("tune", "sanitize")
    }
    return {
        "demo": defense_table(["demo"], dof),
        "atclean_cifar10_small": defense_table([SMALL], dof),
        "ablations": rows_table(ablations),
        "detector_free": defense_table([f"{SMALL}_detector_free"], dof),
        "tinyimagenet": defense_table(["atclean_tinyimagenet_small"], dof),
        "collision": rows_table(collision),
        "btidbf_u": defense_table([U, f"{U}@no_pull", f"{U}@root5", f"{U}@root5_batch32"]),
        "btidbf_p": defense_table([P, f"{P}@root5"]),
        "btidbf_d": detection_table(),
        "targets": targets_table(),
        "tac": defense_table([TAC, *(f"{TAC}@{kind}" for kind in kinds)], found, *own["tune"]),
        "tac_fidelity": fidelity_table(["badnets", "blend", "sig", "wanet"]),
        "pgbd": defense_table([PGBD, f"{PGBD}@plain", f"{PGBD}@rate1", ST, ADAPTIVE], *own["sanitize"]),
        "pgbd_nt": defense_table([NT, f"{NT}@lambda03", f"{NT}@rate1"], *own["sanitize"]),
        "faces": defense_table(FACES),
        "nc": defense_table([NC, PIXEL], found),
    }


def write() -> None:
    text = README.read_text()
    for name, table in tables().items():
        start, end = f"<!-- table:{name} -->", f"<!-- /table:{name} -->"
        if start in text:
            before, _, rest = text.partition(start)
            text = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    README.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "write", "print"))
    parser.add_argument("--out", type=Path, default=Path("runs/tables"))
    parser.add_argument("--only", help="one chain")
    parser.add_argument("--attacks", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    given = parser.parse_args()
    if given.action == "run":
        run(given.out, given.only, given.attacks, given.seeds)
    elif given.action == "write":
        write()
    else:
        for name, table in tables().items():
            print(f"{name}\n{table}\n")


if __name__ == "__main__":
    main()
