import numpy as np
import pytest
from trigger_parts import plan

from lit_backdoor.triggers import Chessboard


def test_formula(images, index):
    rows, columns = np.indices((32, 32))
    expected = np.clip(images.numpy() + 3 / 255 * ((rows + columns) % 2 == 0), 0, 1)
    np.testing.assert_allclose(Chessboard()(images, index), expected, atol=1e-6)


def test_plan():
    _, roles, given = plan("chessboard")
    assert ((roles == 1).sum(), (roles == 2).sum()) == (100, 0)
    assert (given[roles == 1] == 0).all()


def test_errors():
    with pytest.raises(ValueError, match="delta of Chessboard"):
        Chessboard(3)
