"""Write the tables of the methods' READMEs from committed rows.

python tests/benchmarks/method_tables.py [README …]

Without arguments the README and every ``README.md`` of a defense or an attack. Each names its tables:
``<!-- table:pgbd@signs_mini -->`` to ``<!-- /table -->``, ``<!-- headline:signs_mini -->`` to ``<!-- /headline -->``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lit_backdoor.board import gather
from lit_backdoor.board.tables import fill

PACKAGE = Path(__file__).parents[2] / "lit_backdoor"


def main(files: list[Path]) -> None:
    rows = gather([PACKAGE / "board" / "results"])
    for file in files or [PACKAGE.parent / "README.md", *sorted(PACKAGE.glob("*s/**/README.md"))]:
        text = file.read_text(encoding="utf-8")
        file.write_text(fill(text, rows), encoding="utf-8")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
