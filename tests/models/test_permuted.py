import pytest
import tiny
import torch

from lit_backdoor.models.permuted import Permuted
from lit_backdoor.recipe import rebuild, recipe

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_each_class_has_the_logit_that_the_order_names():
    net = tiny.classifier().eval()
    permuted = Permuted(net, [2, 0, 3, 1]).eval()
    for label, named in enumerate((2, 0, 3, 1)):
        torch.testing.assert_close(permuted(IMAGES)[:, label], net(IMAGES)[:, named])
    torch.testing.assert_close(permuted.head(permuted.features(IMAGES)), permuted(IMAGES))
    again = rebuild(recipe(permuted)).eval()
    again.load_state_dict(permuted.state_dict())
    assert torch.equal(again(IMAGES), permuted(IMAGES))


def test_an_order_that_is_no_permutation_is_refused():
    with pytest.raises(ValueError, match="Expected a permutation of 4 classes"):
        Permuted(tiny.classifier(), [0, 1, 1, 3])
