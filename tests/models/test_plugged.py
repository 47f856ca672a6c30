"""A classifier with a layer put before one of its layers."""

import pytest
import tiny
import torch

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import Plugged


def test_plug_is_the_identity_at_first_and_changes_logits_by_its_weights():
    plain, images = tiny.classifier().eval(), torch.rand(3, 3, 16, 16)
    plugged = Plugged(tiny.classifier(), "layer4.1.conv1").eval()
    torch.testing.assert_close(plugged(images), plain(images), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(plugged.head(plugged.features(images)), plugged(images))
    with torch.no_grad():
        plugged.plug[0].weight.zero_()
    assert not torch.allclose(plugged(images), plain(images), rtol=1e-2)


def test_bundle_rebuilds_it(tmp_path):
    plugged, images = Plugged(tiny.classifier(), "layer4.1.conv1").eval(), torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        plugged.plug[0].weight.normal_()
    save_bundle(tmp_path / "plugged", kind="suspect", module=plugged)
    assert torch.equal(open_bundle(tmp_path / "plugged").build().eval()(images), plugged(images))


def test_layers_that_are_no_convolutions_are_refused():
    with pytest.raises(ValueError, match="to be a Conv2d, got a BatchNorm2d"):
        Plugged(tiny.classifier(), "bn1")
