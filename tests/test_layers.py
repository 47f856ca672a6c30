"""Imports go downward only, those inside functions included."""

import ast
from pathlib import Path

import lit_backdoor

PACKAGE = Path(lit_backdoor.__file__).parent
SMALL = (
    "errors",
    "budget",
    "disk",
    "memory",
    "refusals",
    "signals",
    "recipe",
    "presets",
    "bundle",
    "weights",
)  # files beside the rooms
ORDER = (
    "errors",
    ("budget", "disk", "memory", "refusals", "signals"),
    "recipe",
    "weights",
    "presets",
    "pictures",
    "functional",
    "bundle",
    "models",
    "triggers",
    "metrics",
    "data",
    "stages",
    "page",
    ("attacks", "defenses"),
    ("report", "board"),
    "hub",
    "lightning_cli",
    "chain",
    "audit",
    "purify",
    "trojai",
    ("completion", "outside"),
    "cli",
    "__main__",
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in ((names,) if isinstance(names, str) else names)}


def imported(file):
    """Names of the package's modules that a file imports anywhere; ``from lit_backdoor.x import y`` counts as x."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            if node.module == "lit_backdoor":
                yield from (f"lit_backdoor.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def modules():
    for file in sorted(PACKAGE.rglob("*.py")):
        room = file.relative_to(PACKAGE).with_suffix("").parts[0]
        if room != "__init__":
            rooms = {name.split(".")[1] for name in imported(file) if name.startswith("lit_backdoor.")}
            yield file.relative_to(PACKAGE), room, rooms & (LEVEL.keys() | {p.stem for p in PACKAGE.iterdir()})


def test_every_module_has_a_level():
    assert {room for _, room, _ in modules()} <= LEVEL.keys()


def test_imports_go_downward():
    upward = [
        f"{file} imports {other}"
        for file, room, others in modules()
        for other in others
        if other != room and LEVEL[other] >= LEVEL[room]
    ]
    assert not upward


def test_functional_and_models_know_no_lightning():
    low = [file for room in ("functional", "models", "triggers", "metrics") for file in (PACKAGE / room).rglob("*.py")]
    low += [PACKAGE / f"{name}.py" for name in SMALL]
    assert not [file for file in low if any(name.split(".")[0] == "lightning" for name in imported(file))]


def test_defenses_do_not_import_each_other():
    for kind in ("attacks", "defenses"):
        shared = {file.stem for file in (PACKAGE / kind).glob("*.py")}
        for file in (PACKAGE / kind).rglob("*.py"):
            own = file.relative_to(PACKAGE / kind).with_suffix("").parts[0]
            others = {name.split(".")[2] for name in imported(file) if name.startswith(f"lit_backdoor.{kind}.")}
            assert others - shared <= {own}, f"{file} imports {others}"
