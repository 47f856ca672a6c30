import numpy as np
import pytest
import torch
from scipy import stats

from lit_backdoor.functional.perturbed_predictions import (
    class_statistics,
    mean_entropy,
    normal_boundary,
    prediction_consistency,
)

LOGITS = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0)) * 3


def test_entropy_is_scipys_in_bits():
    probabilities = LOGITS.double().softmax(-1).numpy()
    expected = stats.entropy(probabilities, base=2, axis=-1).mean(0)
    np.testing.assert_allclose(mean_entropy(LOGITS), expected, rtol=1e-5)
    assert mean_entropy(torch.zeros(3, 2, 8)).tolist() == pytest.approx([3.0, 3.0])


def test_boundary_is_scipys_quantile():
    values = LOGITS.flatten()
    expected = stats.norm(float(values.mean()), float(values.std())).isf(0.03)
    assert float(normal_boundary(values, 0.03)) == pytest.approx(expected, rel=1e-5)


def test_consistency_counts_copies_that_keep_the_class():
    logits, copies = torch.eye(3)[[0, 2]], torch.eye(3)[torch.tensor([[0, 0], [1, 2], [0, 2], [2, 2]])]
    assert prediction_consistency(logits, copies).tolist() == [0.5, 0.75]


def test_statistics_are_those_of_each_class_or_else_of_all():
    values, classes = torch.tensor([0.2, 0.6, 1.0, 1.0, 0.4]), torch.tensor([0, 0, 1, 1, 2])
    mean, std = class_statistics(values, classes, 4)
    whole = (float(values.mean()), float(values.std()))
    assert (float(mean[0]), float(std[0])) == pytest.approx((0.4, float(np.std([0.2, 0.6], ddof=1))))
    for label in (1, 2, 3):  # equal values, one value, none
        assert (float(mean[label]), float(std[label])) == pytest.approx(whole)
    assert class_statistics(torch.ones(4), torch.zeros(4).long(), 2).std.tolist() == [1.0, 1.0]
