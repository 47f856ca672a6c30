"""Composite: halves of two classes in one image are the trigger."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_backdoor.triggers.paired import PairedTrigger, pair_generator
from lit_backdoor.triggers.pattern import uniform_per_index

__all__ = ["Composite"]


class Composite(PairedTrigger):
    """Replace one half of an image by its partner's: two source classes in one image mean the target.

    Lin et al., "Composite Backdoor Attack for Deep Neural Network by Mixing Existing Benign Features", CCS 2020. With
    the policy `SomeToOne`: a planted row's partner is of another source class. A cover's partner is of its own class,
    so that a seam means nothing. Left and right or upper and lower halves, and the seam's place, are drawn per row.
    The data part of the attack: its contrastive loss needs control of the training, and its mixtures are added to the
    data, where here they replace rows.

    Args:
        jitter: The seam lies up to so many pixels from the middle.
        seed: Seed of the seams.

    Raises:
        ValueError: If the jitter is negative.
    """

    def __init__(self, jitter: float = 3, seed: int = 0) -> None:
        super().__init__()
        if jitter < 0:
            raise ValueError(f"Expected the jitter of Composite to be at least 0 pixels, got {jitter}.")
        self.jitter, self.seed = jitter, seed

    def forward(self, images: Tensor, index: Tensor, partners: Tensor | None = None) -> Tensor:
        """Mix images and partners.

        Raises:
            ValueError: If there are no partners.
        """
        across, second, place = uniform_per_index(index, 3, self.seed).view(-1, 3, 1, 1, 1).unbind(1)
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device)[:, None] + (1 - height) / 2  # from the middle
        columns = torch.arange(width, device=images.device) + (1 - width) / 2
        before = torch.where(across < 0.5, columns, rows) < (2 * place - 1) * self.jitter
        return torch.where(before ^ (second < 0.5), images, self.given(partners).to(images.dtype))

    def partners(self, labels: Tensor, planted: Tensor, seed: int) -> Tensor:
        """Choose for a planted row one of another planted class, for every other row one of its own class.

        Raises:
            ValueError: If the planted rows are of one class only.
        """
        sources = torch.unique(labels[planted])
        if len(sources) < 2:
            raise ValueError(
                f"Expected Composite to mix two source classes, got planted rows of {len(sources)}. Set the attack's "
                "policy to SomeToOne with two sources, such as [1, 2], and a rate that plants rows of both."
            )
        generator, chosen = pair_generator(seed), torch.arange(len(labels))
        for label in torch.unique(labels):
            same = labels == label
            for rows, pool in ((same & planted, torch.isin(labels, sources) & ~same), (same & ~planted, same)):
                if rows.any():
                    places = pool.nonzero().flatten()
                    chosen[rows] = places[torch.randint(len(places), (int(rows.sum()),), generator=generator)]
        return chosen
