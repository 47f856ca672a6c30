import torch
from torch import nn

from lit_backdoor.models.frozen import Frozen


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.trained = nn.Linear(3, 3)
        self.held = Frozen(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)))


def test_the_state_dict_holds_nothing_of_it_and_loads_strictly():
    stage = Stage()
    assert list(stage.state_dict()) == ["trained.weight", "trained.bias"]
    assert stage.load_state_dict(Stage().state_dict(), strict=True).missing_keys == []
    assert not stage.held.state_dict()


def test_other_missing_keys_are_still_named():
    state = Stage().state_dict()
    del state["trained.bias"]
    assert Stage().load_state_dict(state, strict=False).missing_keys == ["trained.bias"]


def test_train_leaves_it_in_eval_mode():
    stage = Stage().train()
    assert stage.trained.training
    assert not any(module.training for module in stage.held.modules())
    assert torch.equal(stage.held(torch.ones(2, 3)), stage.held(torch.ones(2, 3)))


def test_gradients_reach_its_input_and_not_its_weights():
    stage = Stage()
    x = torch.ones(2, 3, requires_grad=True)
    stage.held(x).sum().backward()
    assert x.grad is not None
    assert not any(weight.requires_grad for weight in stage.held.parameters())


def test_it_follows_dtype_and_device():
    stage = Stage().to(torch.float64)
    assert stage.held.module[0].weight.dtype == torch.float64
    assert stage.to("meta").held.module[0].weight.is_meta
