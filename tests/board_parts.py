"""A row of a benchmark for the tests of the board."""

from lit_backdoor.board.rows import Attack, Code, Defense, Env, Numbers, Row


def row(attack="badnets", defense="pgbd", seed=0, asr=0.05, acc=0.9, **more):
    """A finished row of an attack that took hold."""
    poisoned = attack != "null"
    before = Numbers(0.92, 0.9 if poisoned else None, 0.98 if poisoned else None, 0.01 if poisoned else None)
    after = Numbers(acc, 0.88, asr if poisoned else None, 0.8)
    settings = {
        "setup": "signs", "attack": Attack(attack), "defense": Defense(defense, "root", "none", "none"), "seed": seed,
        "before": before, "after": after, "control": Numbers(0.91, 0.9, 0.9 if poisoned else None, 0.05),
        "der": (max(0, 0.98 - asr) - max(0, 0.92 - acc) + 1) / 2 if poisoned and asr is not None else None,
        "seconds": {"victim": 40.0, "clean": 10.0, "control": 9.0}, "peak_mb": 900.0,
        "code": Code("0.1.0", "abc", True), "env": Env("2.9", device="2 CPU cores"),
    }  # fmt: skip
    return Row(**{**settings, **more})
