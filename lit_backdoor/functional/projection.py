"""Points of many dimensions brought to the plane, to be looked at."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, smacof
from sklearn.metrics import pairwise_distances
from torch import Tensor

from lit_backdoor.errors import one_of

__all__ = ["Projection", "plane"]

Projection = Literal["mds", "tsne"]
_PERPLEXITY = 30.0


def plane(points: Tensor, method: Projection = "mds") -> Tensor:
    """Bring points to two dimensions; the same points always come to the same places.

    Both methods start from the two principal components. ``mds`` keeps distances as well as it can (metric MDS by
    SMACOF), so far apart is far apart; ``tsne`` keeps neighbors (t-SNE), and its distances between groups mean nothing.

    Args:
        points: ``[N, d]``, N and d at least 2.
        method: ``mds`` or ``tsne``.

    Returns:
        Float64 ``[N, 2]``, centered.

    Raises:
        ValueError: If the method is unknown, the shape does not fit or a value is not finite.
    """
    one_of("projection", method, get_args(Projection))
    if points.ndim != 2 or min(points.shape) < 2:
        raise ValueError(f"Expected at least 2 points of at least 2 dimensions, got shape {list(points.shape)}.")
    if not points.isfinite().all():
        raise ValueError("Expected points whose values are finite.")
    given = points.detach().double().cpu().numpy()
    if (given == given[0]).all():
        return torch.zeros(len(given), 2, dtype=torch.float64)
    start = PCA(2, svd_solver="full").fit_transform(given)
    if method == "mds":
        found = smacof(pairwise_distances(given), init=start, n_init=1)[0]
    else:
        perplexity = min(_PERPLEXITY, (len(given) - 1) / 3)
        found = TSNE(perplexity=perplexity, init=start / start[:, 0].std() * 1e-4, random_state=0).fit_transform(given)
    return torch.from_numpy(np.asarray(found - found.mean(0), dtype=np.float64))
