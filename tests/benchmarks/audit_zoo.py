"""Score reference models for the probability of an audit: ``lit_backdoor/audit/reference.json``.

Nothing is trained here. The models are the victims of finished chains, such as the cells of the grid ``audit_zoo``, and
those of committed rows, which have TAC's p-value on the defender's root set. A poisoned one whose attack did not take (ASR
below .8) is left out. A model is not scored again, but for detectors that it lacks. Development seeds only; LIRA, filters
and ViTs stay out of the zoo, to be tested on.

    python tests/benchmarks/audit_zoo.py --rows lit_backdoor/board/results/cifar10_small.jsonl
    lit-backdoor grid audit_zoo --out runs/zoo
    python tests/benchmarks/audit_zoo.py --chains runs/zoo --detector tac btidbf

With ``--judge FILE`` nothing is scored: what an audit says of the models of that file, which are not in the zoo, is
counted. Such a file is written by ``--out FILE``, starting from ``{"format": 1, "rows": []}``.

    python tests/benchmarks/audit_zoo.py --judge tests/benchmarks/held_out.json
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

REFERENCE = Path(__file__).parents[2] / "lit_backdoor" / "audit" / "reference.json"
TOOK = 0.8
MARK = ("setup", "net", "attack", "target", "seed")
SUREST = 12.0  # as an audit cuts scores


def from_rows(path):
    """Give the models of committed rows on which TAC's detection was measured; the setup is small CIFAR-10."""
    for row in map(json.loads, path.read_text().splitlines()):
        name, _, variant = row["defense"]["name"].partition("@")
        attack = None if row["attack"]["name"] == "null" else row["attack"]["name"].partition("@")[0]
        if name != "tac_stamps" or "detection" not in variant or (attack and row["before"]["asr"] < TOOK):
            continue
        found = row["metrics"]["detect"]
        label = found.get("target_class")
        yield {
            "setup": row["setup"],
            "net": "resnet18, width 16" + (", 24 epochs" if "victim24" in variant else ""),
            "attack": attack,
            "target": row["attack"]["target"],
            "seed": row["seed"],
            "classes": 10,
            "poisoned": attack is not None,
            "acc": row["before"]["acc"],
            "asr": row["before"]["asr"],
            "from": f"row of commit {row['code']['commit']}",
            "scores": {"tac": round(min(SUREST, -math.log10(max(found["p_value"], 10**-SUREST))), 6)},
            "found": {"tac": {"flagged": [] if label is None else [int(label)], "top": int(found["top_class"])}},
        }


def from_chains(folders):
    """Give the victims of finished chains that count: bundle, images of the setup, and what the row says of it."""
    from lit_backdoor.chain.compose import compose

    for file in sorted(file for folder in folders for file in folder.rglob("results.json")):
        results = json.loads(file.read_text())
        stage = next((each for each in results["stages"] if each["name"] == "victim"), None)
        if stage is None or not results["setup"] or (results["attack"] and stage["metrics"]["asr"] < TOOK):
            continue
        chain = compose("fine_tune", setup=results["setup"], attack=results["attack"] or "null")
        bundle = file.parent / stage["bundle"]
        net = json.loads((bundle / "bundle.json").read_text())["model"]["init_args"]
        row = {
            "setup": results["setup"],
            "net": f"{net['name']}, width {net['channels'] or 'its own'}",
            "attack": results["attack"],
            "target": results["data"]["target"],
            "seed": results["seed"],
            "classes": net["num_classes"],
            "poisoned": bool(results["attack"]),
            "acc": stage["metrics"]["acc"],
            "asr": stage["metrics"].get("asr"),
            "from": f"bundle {stage['hash'][:16]}",
            "scores": {},
            "found": {},
        }
        yield bundle, chain["data"]["init_args"]["source"], row


def score(row, bundle, source, wanted):
    """Add the scores of further detectors to a row, on the setup's clean test images."""
    from lit_backdoor import run_audit

    with tempfile.TemporaryDirectory() as folder:
        audit = run_audit(bundle, source, Path(folder, "audit"), budget=1e6, detectors=wanted, say=print)
    for each in audit["detectors"]:
        if each["status"] == "ran":
            row["scores"][each["name"]] = each["score"]
            row["found"][each["name"]] = {key: each[key] for key in ("flagged", "top", "seconds")}


def write(rows, path):
    """Write the rows in order, a line for each."""
    lines = ",\n".join(json.dumps(row) for row in sorted(rows, key=lambda row: [str(row[part]) for part in MARK]))
    part = path.with_suffix(".part")
    part.write_text(f'{{"format": 1, "rows": [\n{lines}\n]}}\n')
    part.replace(path)


def verdict_of(row, reference):
    """Say what an audit makes of a model's scores: its probability, its verdict and which tops are right."""
    from lit_backdoor.audit.calibration import calibrate
    from lit_backdoor.audit.detectors import DETECTORS, Finding, confirm
    from lit_backdoor.audit.verdict import decide

    tops = {name: found["top"] for name, found in row["found"].items()}
    findings = [
        Finding(
            each, "ran", score=row["scores"][each.name], top=tops[each.name],
            statistics=(1 - 10 ** -row["scores"][each.name],),  # read of an inversion only: the share that it sends
            flagged=tuple(row["found"][each.name]["flagged"]) if each.suspicious == "small" else (),
        )
        for each in DETECTORS if each.name in row["scores"]
    ]  # fmt: skip
    confirm(findings)
    probability, said = calibrate(row["scores"], tops, row["classes"], reference)
    right = {name: top == row["target"] for name, top in tops.items()}
    return probability, decide(findings, probability, said["detectors"]), right


def judge(path):
    """Print the verdicts on the models of a file, by group, setup and attack, and the quality of the probability."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    from lit_backdoor.audit.calibration import calibrate, read_reference

    reference, lines, judged = read_reference(), {}, {}
    for scores in ({"tac": 1.0}, {"tac": 1.0, "btidbf": 1.0}):
        said = calibrate(scores, {}, 10, reference)[1]
        print(
            "left out one at a time:", {key: said[key] for key in ("detectors", "models", "auroc", "log_loss", "brier")}
        )
    for row in json.loads(path.read_text())["rows"]:
        probability, verdict, right = verdict_of(row, reference)
        alone = calibrate({"tac": row["scores"]["tac"]}, {}, row["classes"], reference)[0]
        lines.setdefault((row["group"], row["setup"], row["attack"] or "clean"), []).append((verdict, right))
        judged.setdefault(row["group"], []).append((row["poisoned"], probability, alone))
    for (group, setup, attack), found in lines.items():
        counts = {name: [verdict for verdict, _ in found].count(name) for name in ("clean", "suspicious", "backdoored")}
        right = {name: sum(each[name] for _, each in found) for name in found[0][1]}
        print(f"group {group}, {setup}, {attack}: {counts}; class right: {right if attack != 'clean' else '-'}")
    for group, found in judged.items():
        truth, *kinds = zip(*found, strict=True)
        share = sum(truth) / len(truth)
        weight = [0.5 / share if poisoned else 0.5 / (1 - share) for poisoned in truth]
        for name, values in zip(("all detectors", "tac alone"), kinds, strict=True):
            print(
                f"group {group}, {len(truth)} models, {name}: AUROC {roc_auc_score(truth, values):.2f}, "
                f"log loss {log_loss(truth, values, sample_weight=weight):.2f}, "
                f"Brier {brier_score_loss(truth, values, sample_weight=weight):.2f}"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", nargs="*", type=Path, default=[], help="folders of grids or chains")
    parser.add_argument("--rows", nargs="*", type=Path, default=[], help="files of rows")
    parser.add_argument("--detector", nargs="+", default=["tac", "btidbf", "nc", "pixel", "martini"])
    parser.add_argument("--out", type=Path, default=REFERENCE)
    parser.add_argument("--judge", type=Path, help="file of scored models: count what audits say of them")
    given = parser.parse_args()
    if given.judge:
        judge(given.judge)
        return
    rows = {tuple(row[part] for part in MARK): row for row in json.loads(given.out.read_text())["rows"]}
    for row in (row for path in given.rows for row in from_rows(path)):
        rows.setdefault(tuple(row[part] for part in MARK), row)
    write(rows.values(), given.out)
    for bundle, source, new in from_chains(given.chains):
        row = rows.setdefault(tuple(new[part] for part in MARK), new)
        if wanted := [name for name in given.detector if name not in row["scores"]]:
            score(row, bundle, source, wanted)
            print(json.dumps(row))
            write(rows.values(), given.out)
    print(f"{len(rows)} models, {sum(row['poisoned'] for row in rows.values())} of them poisoned, in {given.out}")


if __name__ == "__main__":
    main()
