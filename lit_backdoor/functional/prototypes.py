"""Class prototypes, the vectors between them, and the loss that keeps images off these (PGBD, Amula et al., ICCV 2025).

Everything is computed in float32 at least.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from lit_backdoor.errors import one_of
from lit_backdoor.functional.precision import full

__all__ = [
    "activation_shifts",
    "class_prototypes",
    "prototype_vectors",
    "sanitization_loss",
    "smoothed",
    "vector_alignment",
]


def class_prototypes(features: Tensor, labels: Tensor, num_classes: int, centroids: int = 3, seed: int = 0) -> Tensor:
    """Compute a prototype of each class: the plain mean of the centroids that K-means finds in it (Sec. 5).

    It is the class's mean only where the clusters are of one size. A class with fewer rows than centroids gets as many
    centroids as rows, with a warning.

    Args:
        features: Activations, ``[N, ...]``; flattened.
        labels: Classes, int64 ``[N]``.
        num_classes: Number of classes C.
        centroids: Centroids per class. Paper: 3.
        seed: Seed of K-means.

    Returns:
        Float32 ``[C, d]`` on the features' device; NaN for a class that has no rows.

    Raises:
        ValueError: If there is not at least one centroid.
    """
    if centroids < 1:
        raise ValueError(f"Expected at least one centroid per class, got {centroids}.")
    rows, classes = full(features.detach()).flatten(1).cpu(), labels.cpu()
    prototypes = torch.full((num_classes, rows.shape[1]), torch.nan)
    few = []
    for label in sorted(set(classes.tolist())):
        own = rows[classes == label]
        if len(own) < centroids:
            few.append(label)
        means = KMeans(min(centroids, len(own)), n_init=1, random_state=seed).fit(own.numpy())
        prototypes[label] = torch.from_numpy(means.cluster_centers_).mean(0)
    if few:
        warnings.warn(
            f"Expected at least {centroids} root images of each class, one per centroid; classes {few} have fewer, and "
            "as many centroids as images.",
            stacklevel=2,
        )
    return prototypes.to(features.device)


def prototype_vectors(prototypes: Tensor, leads: Tensor) -> Tensor:
    r"""Give the vectors from each class to where its triggered images are led (Eq. 1): :math:`V_c = P_{g(c)} - P_c`.

    Args:
        prototypes: ``[C, d]``.
        leads: The class g(c) for each class c, int64 ``[T, C]``; one row for each map g. A class led to itself gets a
            vector of zeros.

    Returns:
        ``[T, C, d]``.
    """
    return prototypes[leads] - prototypes


def activation_shifts(
    triggered: Tensor, triggered_labels: Tensor, clean: Tensor, clean_labels: Tensor, num_classes: int
) -> Tensor:
    r"""Measure where the trigger really moves each class: :math:`V_c^{gt}`, mean triggered minus mean clean (Fig. 2).

    It takes the attack to know this, so it is for diagnosis only. Rows need not be pairs.

    Args:
        triggered: Activations of triggered images, ``[N, ...]``; flattened.
        triggered_labels: Their true classes, int64 ``[N]``.
        clean: Activations of images without the trigger, ``[M, ...]``.
        clean_labels: Their classes, int64 ``[M]``.
        num_classes: Number of classes C.

    Returns:
        Float32 ``[C, d]``; NaN for a class without rows of both kinds.
    """
    return _class_means(triggered, triggered_labels, num_classes) - _class_means(clean, clean_labels, num_classes)


def _class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    rows = full(features.detach()).flatten(1)
    sums = rows.new_zeros(num_classes, rows.shape[1]).index_add_(0, labels, rows)
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]


def vector_alignment(vectors: Tensor, shifts: Tensor) -> Tensor:
    r"""Compare the vectors with the true shifts, class by class: :math:`\cos(V_c^P, V_c^{gt})` (Fig. 2).

    Args:
        vectors: :math:`V^P`, of `prototype_vectors`, ``[..., C, d]``.
        shifts: :math:`V^{gt}`, of `activation_shifts`, ``[C, d]``.

    Returns:
        ``[..., C]`` in [-1, 1]; NaN where one of the two is zero, as for a class led to itself, or not known.
    """
    vectors, shifts = full(vectors), full(shifts)
    cosines = F.cosine_similarity(vectors, shifts.expand_as(vectors), dim=-1)
    there = vectors.ne(0).any(-1) & shifts.ne(0).any(-1)
    return torch.where(there, cosines, torch.nan)


def sanitization_loss(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    vectors: Tensor,
    form: str = "cos",
    reduction: str = "mean",
) -> Tensor:
    r"""Penalize activations that lie in a vector's direction from their class's prototype (Eq. 2 and 3, closed form).

    .. math:: L_s = \cos(\nabla_{f(x)} \lVert f(x) - P_c \rVert^2, V_c) = \cos(f(x) - P_c, V_c)

    The gradient is with respect to the activation, as in the release, so no second backward pass is needed. Rows whose
    vector is zero, those of the target class, are skipped; in the release they count as a constant. So are rows that
    lie on their prototype, as that of a class of one image does: they have no direction.

    Args:
        features: Activations f(x), ``[B, ...]``; flattened.
        labels: Classes c, int64 ``[B]``.
        prototypes: P, ``[C, d]``.
        vectors: V, ``[T, C, d]``; the T losses of a row are added.
        form: ``cos``, the paper's; or ``abs``, the release's absolute cosine, which also forbids the way back.
        reduction: ``mean`` over the rows that count, or ``sum`` (release).

    Returns:
        Scalar; 0 where no row counts.

    Raises:
        ValueError: If form or reduction is unknown.
    """
    one_of("form of the sanitization loss", form, ("cos", "abs"))
    one_of("reduction", reduction, ("mean", "sum"))
    own, along = prototypes[labels], vectors[:, labels]
    moved = full(features).flatten(1) - own
    apart = moved.norm(dim=1) > 1e-3 * own.norm(dim=1)
    moved = torch.where(apart[:, None], moved, 1.0)  # a cosine's gradient has no bound at zero
    cosines = F.cosine_similarity(moved.expand_as(along), along, dim=-1)
    counted = along.ne(0).any(-1) & apart
    found = torch.where(counted, cosines.abs() if form == "abs" else cosines, 0.0).sum()
    return found if reduction == "sum" else found / counted.any(0).sum().clamp(min=1)


def smoothed(new: Tensor, old: Tensor, weight: float) -> Tensor:
    """Weigh a new value against the old one: ``weight * new + (1 - weight) * old``, as the release does with alpha."""
    return weight * new + (1 - weight) * old
