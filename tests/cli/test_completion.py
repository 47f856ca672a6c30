import shutil
import subprocess

import pytest

from lit_backdoor.cli import main
from lit_backdoor.completion import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_each_shell_names_commands_flags_and_configurations(shell, capsys):
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("chain", "grid", "--setup", "setup", "cifar10_small", "pgbd_stamps", "atclean/paper", "laptop"):
        assert word in script, word
    assert "configs/" not in script


def test_an_unknown_shell_is_refused(capsys):
    assert main(["--print-completion", "cmd"]) == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [("lit-backdoor cha", "chain"), ("lit-backdoor chain --attack badnets_a", "badnets_a2a"), ("lit-backdoor chain pgbd_nt_", "pgbd_nt_stamps")],
)  # fmt: skip
def test_bash_completes(line, wanted, tmp_path, capsys):
    assert main(["--print-completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    asked = f'COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}; _shtab_lit_backdoor; echo "${{COMPREPLY[@]}}"'
    code = f". {tmp_path / 'script'}; {asked}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert wanted in done.stdout.split()
