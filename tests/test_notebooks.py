"""The notebooks run, from the first cell to the last, and are stored without outputs."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import lit_backdoor

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_stored(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    package = Path(lit_backdoor.__file__).parents[1]  # the kernel is to import what this process imported
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH")))))

    def execute(name):
        notebook = nbformat.read(ROOT / "notebooks" / name, 4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
        return [output for cell in notebook.cells for output in cell.get("outputs", ())]

    return execute


def results(outputs):
    """What cells end with, where that is a dictionary."""
    texts = [output.get("data", {}).get("text/plain", "") for output in outputs]
    return [ast.literal_eval(text) for text in texts if text.startswith("{")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_quickstart_plants_and_removes_a_backdoor(run):
    outputs = run("quickstart.ipynb")
    rates = results(outputs)[-1]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert rates["before"]["asr"] > 0.8
    assert rates["after"]["asr"] < rates["before"]["asr"] / 2
    assert rates["after"]["acc"] > rates["before"]["acc"] - 0.1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_project_of_ones_own_is_poisoned_and_cleaned(run):
    poisoned, rates, inverted, detected = results(run("your_project.ipynb"))
    assert poisoned == rates["before"]
    assert set(poisoned) == {"val_acc", "val/asr", "val/ra"}
    assert poisoned["val/asr"] > 0.9
    assert rates["after"]["val/asr"] < 0.3
    assert rates["after"]["val_acc"] > 0.9
    assert inverted["target_class"] == detected["top_class"] == 0
