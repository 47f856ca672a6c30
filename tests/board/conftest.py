import random

import pytest
from board_parts import row

from lit_backdoor.board.rows import Detection, Numbers, Relapse


@pytest.fixture
def grid():
    """Two setups, three defenses, two attacks and clean models, three seeds, with a failed and a missing cell."""
    draw = random.Random(0)
    rows = []
    for setup in ("signs", "cifar"):
        for defense in ("pgbd", "nc", "clp"):
            for attack in ("badnets", "blend", "null"):
                for seed in range(3):
                    found = Detection(draw.random() + (attack != "null"), None, attack != "null", 0, attack != "null")
                    rows.append(
                        row(
                            attack, defense, seed, draw.random(), 0.92 - 0.1 * draw.random(), setup=setup,
                            detection=found if defense == "nc" else None, relapse=Relapse(0.1, 0.9),
                        )
                    )  # fmt: skip
    rows.append(row("sig", "pgbd", 0, status="failed", error="DivergedError", before=Numbers(), after=Numbers()))
    rows.append(row("sig", "nc", 0, status="missing", before=Numbers(), after=Numbers()))
    return rows
