"""Every grid that the package ships can be planned: names are known, chains compose."""

import pytest

from lit_backdoor.cli import main
from lit_backdoor.presets import list_configs


@pytest.mark.slow
@pytest.mark.parametrize("name", list_configs("grids"))
def test_grid_is_planned(name, tmp_path, capsys):
    assert main(["grid", name, "--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert "to run" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
