"""Milliseconds of MARTINI's parts: regions in a loop against one grouped convolution, and a reconstruction step.

python tests/benchmarks/bench_martini.py [--batch 32] [--channels 32] [--side 16] [--rounds 20]

The package convolves regions in a loop. The grouped convolution here is the alternative: regions of one size, unfolded
into channels. It needs regions of equal size, so both are measured on one that divides, 3 regions of a side of 15.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_backdoor.functional.martini import (
    LossWeights,
    channel_moments,
    content_loss,
    norm_loss,
    smooth_loss,
    ssim_loss,
)
from lit_backdoor.functional.regional import identity_kernels, regional_conv
from lit_backdoor.models import AutoEncoder, ConvEncoder, RegionalTransformation, Renormalization, TimmClassifier
from lit_backdoor.triggers import RegionalTrigger


def grouped(features: Tensor, kernels: Tensor) -> Tensor:
    """Convolve all regions at once, one group for each."""
    regions = len(kernels)
    batch, channels, height, width = features.shape
    h, w = height // regions, width // regions
    folded = features.view(batch, channels, regions, h, regions, w).permute(0, 2, 4, 1, 3, 5)
    weight = kernels.reshape(-1, *kernels.shape[-3:])
    result = F.conv2d(folded.reshape(batch, -1, h, w), weight, padding="same", groups=regions**2)
    return result.view(batch, regions, regions, channels, h, w).permute(0, 3, 1, 4, 2, 5).reshape(features.shape)


def milliseconds(work: Callable[[], None], rounds: int) -> float:
    work()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--side", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    torch.manual_seed(0)
    features = torch.randn(given.batch, given.channels, given.side, given.side)
    kernels = identity_kernels(given.channels, 3).requires_grad_()
    apart = float((regional_conv(features, kernels) - grouped(features, kernels)).detach().abs().max())
    print(f"{given.batch}x{given.channels}x{given.side}x{given.side}, 9 regions, {torch.get_num_threads()} threads:")
    for name, convolve in (("loop", regional_conv), ("grouped", grouped)):
        there = milliseconds(lambda convolve=convolve: convolve(features, kernels), given.rounds)
        both = milliseconds(lambda convolve=convolve: convolve(features, kernels).sum().backward(), given.rounds)
        print(f"  {name:8} forward {there:6.2f} ms, with backward {both:6.2f} ms")
    print(f"  largest difference {apart:.1e}")
    for precision in (None, torch.bfloat16):
        print(
            f"  reconstruction step ({precision or 'float32'}): {reconstruction(given.batch, given.rounds, precision):.1f} ms"
        )


def reconstruction(batch: int, rounds: int, precision: torch.dtype | None) -> float:
    """Time one step of the whole objective against a ResNet-18 of width 16 at 32 px."""
    images, weights = torch.rand(batch, 3, 32, 32), LossWeights()
    suspect = TimmClassifier(channels=16).eval().requires_grad_(False)
    codec = AutoEncoder(ConvEncoder())
    trigger = RegionalTrigger(codec, Renormalization(), RegionalTransformation(*codec.map_shape))
    of_all = [moment.mean(0) for moment in channel_moments(images)]
    trained = [weight for weight in trigger.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(trained, 1e-3)
    maps = codec.encode(images)

    def step() -> None:
        with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            made = trigger(images)
            layer = trigger.renormalization
            keeping = weights.content * content_loss(maps, codec.encode(made)) + weights.ssim * ssim_loss(images, made)
            keeping = (
                keeping + weights.smooth * smooth_loss(made) + weights.norm * norm_loss(layer.mean, layer.std, *of_all)
            )
            loss = F.cross_entropy(suspect(made).float(), torch.zeros(batch).long()) + 0.05 * keeping
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return milliseconds(step, rounds)


if __name__ == "__main__":
    main()
