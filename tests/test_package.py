import subprocess
import sys

import pytest

import lit_backdoor


def test_every_public_name_loads():
    assert all(getattr(lit_backdoor, name) is not None for name in lit_backdoor.__all__)
    assert set(lit_backdoor.__all__) <= set(dir(lit_backdoor))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = lit_backdoor.nothing


def test_import_is_lazy():
    code = "import sys, lit_backdoor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
