import math

import pytest
import torch

from lit_backdoor.functional.contrast import model_contrast


def test_contrast_is_the_formula():
    own, positive, negative = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for z, plus, minus in zip(own, positive, negative, strict=True):
        one, two = (math.exp(float(z @ w / (z.norm() * w.norm())) / 0.3) for w in (plus, minus))
        total -= math.log(one / (one + two))
    assert float(model_contrast(own, positive, negative, 0.3)) == pytest.approx(total / 5, rel=1e-4)


def test_nothing_is_learned_where_both_are_the_same():
    own = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    other = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))
    [slope] = torch.autograd.grad(model_contrast(own, other, other), own)
    assert float(slope.abs().max()) < 1e-6
