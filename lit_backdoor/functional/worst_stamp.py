"""The stamp that moves a batch of images most, searched by gradient ascent in a random window (ours)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["random_window", "worst_stamp"]


def random_window(height: int, width: int, smallest: float) -> Tensor:
    """Draw a window of an image: its area's logarithm is uniform, so that small ones are as likely as large ones.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        smallest: Smallest share of the area, in (0, 1]; the largest is 1.

    Returns:
        Bool mask ``[1, 1, H, W]``. Draws come from torch's global generator of the CPU.
    """
    share = float(torch.empty(()).uniform_(math.log(smallest), 0).exp())
    tall = min(1.0, (share * float(torch.empty(()).uniform_(0.67, 1.5))) ** 0.5)
    wide = min(1.0, share / tall)
    sides = []
    for size, part in ((height, share / wide), (width, wide)):
        length = min(size, max(2, round(size * part)))
        start = int(torch.randint(size - length + 1, ()))
        place = torch.arange(size)
        sides.append((place >= start) & (place < start + length))
    rows, columns = sides
    return torch.logical_and(rows[:, None], columns)[None, None]


def worst_stamp(
    images: Tensor,
    movement: Callable[[Tensor], Tensor],
    budget: float = 0.2,
    steps: int = 5,
    smallest: float = 0.015,
    whole: float = 0.0,
    coarsest: float = 1.0,
    shared: int | None = None,
) -> Tensor:
    r"""Put the stamp on a batch of images that moves them most: the same change of pixels on all of them, or on groups.

    The change lies in a window of random place and size, of a share a of the area, and is bounded by
    :math:`\epsilon = \min(1, b / \sqrt a)` in each pixel: a patch may paint over what it covers, a pattern over the
    whole image is faint. From a random start it goes up by the sign of the gradient; where ``coarsest`` is above 1, on
    a coarser grid, between whose points it is interpolated: the worst change of single pixels is noise.

    Args:
        images: x in [0, 1], ``[B, C, H, W]``.
        movement: What to maximize, from stamped images to a scalar.
        budget: b, the bound on a change of the whole image, in (0, 1].
        steps: Steps of the ascent, of 2.5 times the bound together.
        smallest: Smallest share of the area that a window has.
        whole: Share of the searches, in [0, 1], whose window is the whole image.
        coarsest: Largest distance of the grid's points in pixels, >= 1; its logarithm is drawn uniformly from 0 on.
        shared: Images in a row that get one stamp; None for the whole batch. Each group has a window of its own.

    Returns:
        Stamped images in [0, 1], without gradient. Draws come from torch's global generator of the CPU.
    """
    _, channels, height, width = images.shape
    group = torch.arange(len(images)) // (shared or len(images))
    windows = torch.cat([_window(height, width, smallest, whole) for _ in range(int(group[-1]) + 1)])
    bound = (budget / windows.double().mean((1, 2, 3), keepdim=True).sqrt()).clamp(max=1)
    step, bound = (2.5 * bound / steps).to(images), bound.to(images)
    window, places = windows.to(images), group.to(images.device)
    change = bound * (2 * torch.rand(len(windows), channels, *_grid(height, width, coarsest)).to(images) - 1)

    def stamped(change: Tensor) -> Tensor:
        if change.shape[-2:] != (height, width):
            change = F.interpolate(change, (height, width), mode="bilinear", align_corners=False)
        return torch.clamp(images + (window * change)[places], 0, 1)

    for _ in range(steps):
        change.requires_grad_(True)
        [slope] = torch.autograd.grad(movement(stamped(change)), change)
        change = torch.clamp(change.detach() + step * slope.sign(), -bound, bound)
    return stamped(change.detach())


def _window(height: int, width: int, smallest: float, whole: float) -> Tensor:
    covers = whole > 0 and float(torch.rand(())) < whole  # no draw where there is no choice
    return random_window(height, width, 1.0 if covers else smallest)


def _grid(height: int, width: int, coarsest: float) -> tuple[int, int]:
    if coarsest == 1:
        return height, width
    distance = float(torch.empty(()).uniform_(0, math.log(coarsest)).exp())
    return max(1, round(height / distance)), max(1, round(width / distance))
