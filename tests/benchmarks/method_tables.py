"""Write the tables of the methods' READMEs from committed rows.

python tests/benchmarks/method_tables.py [README …]

Without arguments the README and every ``README.md`` of a defense or an attack. Each names its tables:
``<!-- table:pgbd@signs_mini -->`` to ``<!-- /table -->`` and so on (`lit_backdoor.board.tables.fill`). A file that asks for
rows that are not there stays as it is, and the exit code is 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lit_backdoor.board import gather
from lit_backdoor.board.tables import fill

PACKAGE = Path(__file__).parents[2] / "lit_backdoor"


def main(files: list[Path]) -> int:
    rows, failed = gather([PACKAGE / "board" / "results"]), 0
    for file in files or [PACKAGE.parent / "README.md", *sorted(PACKAGE.glob("*s/**/README.md"))]:
        text = file.read_text(encoding="utf-8")
        try:
            file.write_text(fill(text, rows), encoding="utf-8")
        except ValueError as error:
            print(f"{file}: {error}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    raise SystemExit(main([Path(name) for name in sys.argv[1:]]))
