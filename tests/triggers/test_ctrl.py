import pytest
import torch
from trigger_parts import plan

from lit_backdoor.triggers import Ctrl, FTrojan


def test_weaker_in_training_than_at_test_time(images, index):
    assert torch.equal(Ctrl(0.2, test_magnitude=0.4).poison(images, index), FTrojan(0.2)(images, index))
    torch.testing.assert_close(Ctrl(0.2, test_magnitude=0.4)(images, index), FTrojan(0.4)(images, index))


def test_only_the_target_class_is_planted_and_no_label_changes():
    labels, roles, given = plan("ctrl")
    assert ((roles == 1).sum(), (roles == 2).sum()) == (80, 0)
    assert (labels[roles == 1] == 0).all()
    assert torch.equal(given, labels)


def test_errors():
    with pytest.raises(ValueError, match="magnitude of Ctrl"):
        Ctrl(50)
    with pytest.raises(ValueError, match="test_magnitude of Ctrl"):
        Ctrl(test_magnitude=100)
