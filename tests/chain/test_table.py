from rich.console import Console

from lit_backdoor.chain.command import _table


def test_the_table_shows_the_target_class_and_the_control():
    suspect = {"acc": 0.9, "acc_target": 0.95, "asr": 0.99, "ra": 0.01}
    clean = {"acc": 0.88, "acc_target": 0.84, "asr": 0.04, "ra": 0.8}
    stages = [
        {"name": name, "metrics": metrics}
        for name, metrics in (("victim", suspect), ("clean", clean), ("control", {"acc": 0.89, "asr": 0.9}))
    ]
    summary = {"before": suspect, "after": clean, "der": 0.96, "dem": 0.97}
    data = {"source": "lit_backdoor.data.SyntheticSigns"}
    console = Console(width=100)
    with console.capture() as shown:
        _table(console, {"chain": "pgbd", "seed": 1, "data": data, "stages": stages, "summary": summary})
    lines = [" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in shown.get().splitlines()]
    assert "pgbd on SyntheticSigns, seed 1" in lines
    assert "ACC ACC, target class ASR RA" in lines
    assert "before 0.900 0.950 0.990 0.010" in lines
    assert "after 0.880 0.840 0.040 0.800" in lines
    assert "control 0.890 - 0.900 -" in lines
