import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, uniform_filter

from lit_backdoor.functional.martini import (
    LossWeights,
    channel_moments,
    content_loss,
    norm_loss,
    renormalize,
    smooth_loss,
    ssim_loss,
)

DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.rand(4, 3, 12, 10, generator=DRAW)


def test_moments_are_numpys():
    mean, std = channel_moments(IMAGES)
    np.testing.assert_allclose(mean, IMAGES.numpy().mean((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(std, IMAGES.numpy().std((2, 3)), rtol=1e-5)


def test_every_image_gets_the_same_statistics():
    mean, std = torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.1, 0.2, 0.05])
    for found, wanted in zip(channel_moments(renormalize(IMAGES, mean, std)), (mean, std), strict=True):
        torch.testing.assert_close(found, wanted.expand(4, 3))


def test_own_statistics_change_nothing():
    image = IMAGES[:1]
    mean, std = channel_moments(image)
    torch.testing.assert_close(renormalize(image, mean[0], std[0]), image)


def test_a_flat_channel_is_not_amplified():
    flat = torch.full((1, 3, 4, 4), 0.3)
    made = renormalize(flat, torch.tensor([0.1, 0.2, 0.3]), torch.ones(3))
    torch.testing.assert_close(made, torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand_as(flat), atol=1e-4, rtol=0)


def ssim_reference(x, y):
    """SSIM's formula with a 5x5 Gaussian window of deviation 1.5 (Wang et al. 2004), reflected at the border."""

    def blur(image):
        return gaussian_filter(image, 1.5, mode="mirror", truncate=1.4, axes=(2, 3))  # 2 pixels to each side

    x, y = x.astype(np.float64), y.astype(np.float64)
    mx, my = blur(x), blur(y)
    vx, vy, both = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return (((2 * mx * my + c1) * (2 * both + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


def test_ssim_loss_is_one_minus_ssim_and_falls_with_likeness():
    other = torch.rand(IMAGES.shape, generator=DRAW)
    near = (IMAGES + 0.1 * (other - 0.5)).clamp(0, 1)
    assert ssim_loss(IMAGES, near).item() == pytest.approx(1 - ssim_reference(IMAGES.numpy(), near.numpy()), abs=1e-4)
    assert ssim_loss(IMAGES, IMAGES).item() == pytest.approx(0, abs=1e-4)
    assert ssim_loss(IMAGES, near) < ssim_loss(IMAGES, other)


def test_content_loss_does_not_depend_on_the_encoders_scale():
    a, b = (torch.randn(2, 5, 4, 4, generator=DRAW) for _ in range(2))
    expected = 255**2 * ((a - b) ** 2).mean() / (a**2).mean()
    torch.testing.assert_close(content_loss(a, b), expected)
    torch.testing.assert_close(content_loss(7 * a, 7 * b), expected)


def test_smooth_loss_is_the_difference_from_the_neighborhood():
    inner = (IMAGES.numpy() - uniform_filter(IMAGES.numpy(), (1, 1, 3, 3)))[..., 1:-1, 1:-1]
    flat = torch.full((1, 1, 5, 5), 0.7)
    assert smooth_loss(flat).item() == pytest.approx(0, abs=1e-6)  # borders average the pixels that are there
    spike = torch.zeros(1, 1, 7, 7)
    spike[..., 3, 3] = 1
    assert smooth_loss(spike).item() == pytest.approx(255**2 * ((8 / 9) ** 2 + 8 / 81) / 49, rel=1e-5)
    assert smooth_loss(IMAGES).item() == pytest.approx(255**2 * (inner**2).mean(), rel=0.2)


def test_norm_loss_counts_pixels_from_0_to_255():
    of_all = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.2, 0.2, 0.2])
    loss = norm_loss(torch.tensor([0.6, 0.5, 0.4]), torch.tensor([0.2, 0.2, 0.5]), *of_all)
    assert loss.item() == pytest.approx(255 * (0.2 / 3 + 0.3 / 3), rel=1e-5)


def test_losses_are_full_precision_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = [ssim_loss(IMAGES, IMAGES.flip(3)), content_loss(IMAGES, IMAGES.flip(3)), smooth_loss(IMAGES)]
    full = [ssim_loss(IMAGES, IMAGES.flip(3)), content_loss(IMAGES, IMAGES.flip(3)), smooth_loss(IMAGES)]
    torch.testing.assert_close(half, full)


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match=r"weights.smooth >= 0, got -1"):
        LossWeights(smooth=-1)
