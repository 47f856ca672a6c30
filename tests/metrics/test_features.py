import pytest
import torch

from lit_backdoor.metrics import DegreeOfFeatureCollisions, FeatureDistance, degree_of_feature_collisions


def test_dof_does_not_depend_on_scale():
    logits = torch.randn(8, 5)
    assert degree_of_feature_collisions(logits, 30 * logits).item() == pytest.approx(1)
    assert degree_of_feature_collisions(logits, -logits).item() == pytest.approx(-1)


def test_dof_of_zero_logits_is_zero():
    assert degree_of_feature_collisions(torch.zeros(2, 3), torch.ones(2, 3)) == 0


@pytest.mark.parametrize("metric", [DegreeOfFeatureCollisions(), FeatureDistance()])
def test_shapes_must_agree(metric):
    with pytest.raises(ValueError, match="one shape"):
        metric.update(torch.zeros(2, 3), torch.zeros(2, 4))
