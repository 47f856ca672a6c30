import pytest
import torch


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def index():
    return torch.tensor([3, 141, 59, 26, 53_589, 7])
