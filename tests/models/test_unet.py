import pytest
import torch

from lit_backdoor.models.unet import CBAM, SpatialAttention, UNet
from lit_backdoor.recipe import recipe


def images(height=32, width=32, batch=2):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def moved(net):
    """Give every weight a value of its own, so that nothing hides behind zeros."""
    generator = torch.Generator().manual_seed(1)
    for weight in net.parameters():
        weight.data += 0.2 * torch.randn(weight.shape, generator=generator)
    return net


@pytest.mark.parametrize("size", [(32, 32), (60, 64), (33, 31), (28, 28), (8, 9)])
@pytest.mark.parametrize("output", ["residual", "direct"])
def test_keeps_shape_and_range_at_any_size(size, output):
    result = moved(UNet(base=4, output=output, start="small"))(images(*size))
    assert result.shape == (2, 3, *size)
    assert result.min() >= 0
    assert result.max() <= 1


def test_starts_as_the_identity_and_learns_from_there():
    net = UNet(base=4, start="identity")
    assert torch.equal(net(images()), images())
    net(images()).square().sum().backward()
    assert net.last.weight.grad.abs().sum() > 0


def test_a_small_start_is_close_to_the_identity_but_not_it():
    torch.manual_seed(0)
    change = (UNet(base=4, start="small")(images()) - images()).abs()
    assert 0 < change.max() < 0.05


def test_a_random_start_changes_images():
    torch.manual_seed(0)
    assert (UNet(start="random")(images()) - images()).abs().mean() > 0.02


def test_the_bound_holds():
    assert (moved(UNet(base=4, start="random", bound=0.1))(images()) - images()).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("attention", ["spatial", "cbam", "none"])
def test_images_of_a_batch_do_not_mix(attention):
    net = moved(UNet(base=4, attention=attention, start="random")).train()
    torch.testing.assert_close(net(images())[:1], net(images()[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["spatial", "cbam", "none"])
def test_every_weight_gets_a_gradient(attention):
    net = moved(UNet(base=4, attention=attention, start="small"))
    net(images()).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in net.parameters())


def test_spatial_attention_follows_its_formula():
    layer = SpatialAttention(4)
    x = torch.rand(2, 4, 3, 3)
    assert torch.equal(layer(x), x)
    layer.gamma.data.fill_(0.5)
    query, key, value = layer.query_key_value(x).flatten(2).chunk(3, dim=1)
    weights = (query.transpose(1, 2) @ key / 2).softmax(-1)
    seen = (value @ weights.transpose(1, 2)).view_as(x)
    torch.testing.assert_close(layer(x), x + 0.5 * layer.project(seen))


def test_cbam_only_scales():
    x = torch.rand(2, 4, 3, 3)
    scale = CBAM(4)(x) / x
    assert scale.min() > 0
    assert scale.max() < 1


@pytest.mark.parametrize("downs", [1, 2, 4])
def test_depth_can_be_chosen_and_the_recipe_makes_the_same_net(downs):
    net = UNet(base=4, downs=downs, attention="cbam", start="small")
    again = UNet(**recipe(net)["init_args"])
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(images()), net(images()))


def test_runs_under_bfloat16_and_gives_floats():
    with torch.autocast("cpu", torch.bfloat16):
        assert UNet(base=4)(images()).dtype == torch.float32


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"attention": "spatail"}, "Did you mean 'spatial'"),
        ({"output": "residul"}, "Did you mean 'residual'"),
        ({"start": "zero"}, "Unknown start 'zero'"),
        ({"output": "direct", "start": "identity"}, "no residual"),
        ({"bound": 0.0}, r"bound in \(0, 1\]"),
        ({"downs": 0}, "downs from 1 to 16"),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        UNet(**kwargs)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="at least 8x8 px, got 7x32"):
        UNet()(images(7, 32))
