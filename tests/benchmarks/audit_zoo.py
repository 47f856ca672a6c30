"""Score reference models for the probability of an audit: ``lit_backdoor/audit/reference.json``.

Victims are trained by the chain, or found in the store. A model that has its scores is not audited again, but for
detectors that it lacks. Seeds 0 to 3 are the zoo's; LIRA, filters and ViTs stay out of it, to be tested on.

    python tests/benchmarks/audit_zoo.py --setup signs_mini --attack badnets blend null --seed 0 1 --detector tac btidbf
"""

import argparse
import json
import tempfile
from itertools import product
from pathlib import Path

from lit_backdoor import run_audit
from lit_backdoor.audit.calibration import REFERENCE, calibrate, read_reference
from lit_backdoor.audit.detectors import DETECTORS
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.cut import cut
from lit_backdoor.chain.folders import write_whole
from lit_backdoor.chain.run import ChainRun

PARTS = ("setup", "net", "attack", "seed")


def victim_of(setup, attack, seed, folder):
    """Train a victim, or find it; gives its bundle, its net, the data's source and its results."""
    chain = compose("fine_tune", seed=seed, setup=setup, attack=attack or "null")
    results = ChainRun(cut(chain, "victim"), "victim", folder, curves=False).run()
    classifier = chain["stages"]["victim"]["model"]["init_args"]["classifier"]["init_args"]
    net = f"{classifier.get('name', 'resnet18')}, width {classifier.get('channels') or 'its own'}"
    return folder / "victim", net, chain["data"]["init_args"]["source"], results["stages"][0]["metrics"]


def score(setup, attack, seed, detectors, rows):
    """Audit one model with the detectors that it lacks; gives the rows with its own."""
    with tempfile.TemporaryDirectory() as folder:
        bundle, net, source, metrics = victim_of(setup, attack, seed, Path(folder, "chain"))
        mark = {"setup": setup, "net": net, "attack": attack, "seed": seed}
        row = next((row for row in rows if all(row[part] == mark[part] for part in PARTS)), None)
        if row is None:
            row = {**mark, "classes": None, "poisoned": attack is not None, **metrics, "scores": {}, "found": {}}
            rows = [*rows, row]
        if wanted := [name for name in detectors if name not in row["scores"]]:
            audit = run_audit(bundle, source, Path(folder, "audit"), budget=36_000, detectors=wanted, say=print)
            row["classes"] = audit["model"]["classes"]
            for each in audit["detectors"]:
                if each["status"] == "ran":
                    row["scores"][each["name"]] = each["score"]
                    row["found"][each["name"]] = {key: each[key] for key in ("flagged", "top", "seconds")}
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setup", nargs="+", default=["signs_mini"])
    parser.add_argument("--attack", nargs="+", default=["badnets", "null"], help="null for a clean model")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--detector", nargs="+", default=[detector.name for detector in DETECTORS])
    parser.add_argument("--out", type=Path, default=REFERENCE)
    given = parser.parse_args()
    rows = read_reference(given.out)
    for setup, attack, seed in product(given.setup, given.attack, given.seed):
        rows = score(setup, None if attack == "null" else attack, seed, given.detector, rows)
        rows.sort(key=lambda row: [str(row[part]) for part in PARTS])
        lines = ",\n".join(json.dumps(row) for row in rows)
        write_whole(given.out, f'{{"format": 1, "rows": [\n{lines}\n]}}\n')
        print(
            json.dumps(
                rows[-1]
                if len(rows) == 1
                else next(r for r in rows if (r["attack"] or "null", r["seed"]) == (attack, seed))
            )
        )
    names = sorted({name for row in rows for name in row["scores"]})
    for chosen in ([name] for name in names):
        print(chosen, json.dumps(calibrate(dict.fromkeys(chosen, 0.0), rows[0]["classes"], rows)[1]))


if __name__ == "__main__":
    main()
