import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_backdoor.functional.grad_cam import head_cam

FEATURES = torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(0))


def test_weights_of_a_linear_head_are_those_of_the_predicted_class():
    last = nn.Linear(5, 7)
    found = head_cam(lambda h: last(h.mean((2, 3))), FEATURES, (6, 9))
    classes = last(FEATURES.mean((2, 3))).argmax(1)
    maps = torch.einsum("bd,bdhw->bhw", last.weight[classes], FEATURES)[:, None].relu()
    maps = F.interpolate(maps, (6, 9), mode="bilinear").detach()
    torch.testing.assert_close(found, maps / maps.amax((1, 2, 3), keepdim=True))


def test_it_works_in_inference_mode_and_leaves_the_head_without_gradients():
    last = nn.Linear(5, 7)
    with torch.inference_mode():
        found = head_cam(lambda h: last(h.mean((2, 3))), FEATURES.clone(), (3, 3))
    assert found.max() == 1
    assert last.weight.grad is None


def test_features_without_places_are_refused():
    with pytest.raises(ValueError, match=r"Expected features \[B, D, h, w\] for Grad-CAM, got \[4, 5\]"):
        head_cam(nn.Linear(5, 7), FEATURES[..., 0, 0], (3, 3))
