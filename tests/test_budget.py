"""Building stops before memory is touched."""

import pytest
import timm
import torch
from torch import nn

from lit_backdoor.budget import Budget


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(10**5, 10**5),
        lambda: torch.ones(10**9),
        lambda: torch.arange(10**9),
        lambda: torch.linspace(0, 1, 10**9),
        lambda: torch.eye(10**5),
        lambda: torch.zeros(2).repeat(10**9),
        lambda: torch.zeros(2).new_zeros(10**9),
        lambda: torch.zeros(1).expand(10**9).contiguous(),
        lambda: torch.zeros(10**5, 1) + torch.zeros(1, 10**5),
        lambda: [torch.zeros(1) for _ in range(10**6)],
    ],
)
def test_more_than_the_weights_fill_is_refused(make):
    with pytest.raises(ValueError, match="far larger than its weights, which hold 1,000 numbers"), Budget(1000, 2):
        make()


def test_nets_that_fill_their_weights_are_built():
    weights = timm.create_model("test_vit").state_dict()
    with Budget(sum(value.numel() for value in weights.values()), len(weights)):
        assert timm.create_model("test_vit").state_dict().keys() == weights.keys()
