import pytest
import torch

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.functional.martini import channel_moments
from lit_backdoor.models import AutoEncoder, ConvEncoder, RegionalTransformation, Renormalization
from lit_backdoor.triggers import RegionalTrigger

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def autoencoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoEncoder(ConvEncoder(6), size=16, width=4)


def trigger(**options):
    net = autoencoder()
    return RegionalTrigger(net, Renormalization(), RegionalTransformation(*net.map_shape, **options))


def test_transformation_starts_as_the_identity():
    net = autoencoder()
    maps = net.encode(IMAGES)
    layer = RegionalTransformation(*net.map_shape)
    assert layer.regions == 3
    assert torch.equal(layer(maps), maps)


def test_parts_are_put_together_in_the_papers_order():
    made = trigger()
    torch.nn.init.normal_(made.transformation.kernels, generator=torch.Generator().manual_seed(1))
    net = made.autoencoder
    expected = net.decode(made.transformation(net.encode(made.renormalization(IMAGES))))
    assert torch.equal(made(IMAGES), expected)
    only_decoded = RegionalTrigger(net)
    assert torch.equal(only_decoded(IMAGES, torch.arange(4)), net(IMAGES))


def test_renormalization_starts_at_the_images_statistics():
    layer = Renormalization()
    mean, std = (moment.mean(0) for moment in channel_moments(IMAGES))
    layer.start_at(mean, std)
    for found, wanted in zip(channel_moments(layer(IMAGES)), (mean, std), strict=True):
        torch.testing.assert_close(found, wanted.expand(4, 3))


def test_gradients_reach_both_layers_and_nothing_else():
    made = trigger().train()
    assert not made.autoencoder.training
    made(IMAGES).sum().backward()
    reached = {name for name, weight in made.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert reached == {"renormalization.mean", "renormalization.std", "transformation.kernels"}


def test_bundle_rebuilds_the_trigger(tmp_path):
    made = trigger(regions=2, kernel=1)
    torch.nn.init.normal_(made.transformation.kernels, generator=torch.Generator().manual_seed(1))
    save_bundle(tmp_path / "a", kind="trigger", module=made)
    again = open_bundle(tmp_path / "a").build()
    assert torch.equal(again(IMAGES), made(IMAGES))


def test_more_regions_than_positions_are_refused():
    with pytest.raises(ValueError, match="from 1 to 8 regions per side .* got 9"):
        trigger(regions=9)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="16x16 px, for which the decoder was trained, got 32x32"):
        trigger()(torch.rand(1, 3, 32, 32))


def test_half_precision_is_kept():
    made = trigger()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made(IMAGES).dtype == torch.float32
