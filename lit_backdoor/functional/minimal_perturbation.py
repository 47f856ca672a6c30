r"""The smallest change of latents that sends every image to one class (TAC reconstruction, Iwahana et al. 2025).

Latents are the inputs of the final linear layer, with rows w_k and biases b_k. For each class k the paper's program is

.. math:: s_k = \arg\min_s \tfrac12\|s\|^2 \quad\text{s.t.}\quad (w_k - w_j)^\top (s + \hat x_i) \ge 0
    \quad \forall\, j \ne k,\ i \le n

For one j the constraints differ in their right side alone, so the n (C-1) of them are exactly these C-1:

.. math:: (w_k - w_j)^\top s \ge m_{kj} = \max_i\,(w_j - w_k)^\top \hat x_i + b_j - b_k

The biases are ours, as are the margin, the quantile in place of the maximum, and the slack. All is done in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

__all__ = ["minimal_perturbations", "perturbation_by_nnls", "required_gains"]

_STEPS = 20_000  # at most
_CHECK_EVERY = 50
_TOLERANCE = 1e-9  # of the projected gradient at the end, relative to the largest right side
_AT_ONCE = 64  # classes whose numbers stay in a core's cache


def required_gains(
    weight: Tensor, bias: Tensor | None, latents: Tensor, margin: float = 0.0, quantile: float = 1.0
) -> Tensor:
    r"""Compute the right sides: by how much class k's logit must gain on class j's.

    .. math:: m_{kj} = \epsilon + Q_q\bigl(\{z_{ij} - z_{ik}\}_i\bigr), \qquad z = \hat x W^\top + b

    with the quantile Q_q: the smallest number that at least a share q of the images do not exceed.

    Args:
        weight: Rows w of the final linear layer, ``[C, d]``.
        bias: Its biases, ``[C]``, or None.
        latents: Its inputs for n images, ``[n, d]``.
        margin: By how much the logit must win in the end, in units of logits.
        quantile: Share q of the images that must be sent over each border, in (0, 1]; 1 is the paper's maximum.

    Returns:
        Float64 ``[C, C]``, row k for class k, with zeros on the diagonal.

    Raises:
        ValueError: If there is no image, the quantile is out of range or the shapes do not fit.
    """
    if latents.ndim != 2 or not len(latents) or latents.shape[1] != weight.shape[1]:
        raise ValueError(f"Expected latents [n, {weight.shape[1]}] of at least one image, got {tuple(latents.shape)}.")
    if not 0 < quantile <= 1:
        raise ValueError(f"Expected a quantile in (0, 1], got {quantile}.")
    logits = weight.double() @ latents.double().T + (0.0 if bias is None else bias.double()[:, None])
    count = logits.shape[1]
    rank = min(count, max(1, math.ceil(quantile * count - 1e-9)))
    return (_ranked_gaps(logits, count + 1 - rank) + margin).fill_diagonal_(0)


def _ranked_gaps(logits: Tensor, place: int) -> Tensor:
    r"""Give the largest gap, or the one at a place further down, between any two classes' logits over all images.

    A gap z_ij - z_ik that is among the largest has a large z_ij or a small z_ik, so a few images are compared of each
    class: those with its largest and its smallest logits. No gap of another image exceeds the difference of the last
    of these two; where that is not enough, all images are compared (Fagin et al. 2003, the threshold algorithm). How
    many are few enough is a guess: of two independent logits the product of their shares is the share of the gap.

    Args:
        logits: ``[C, n]``.
        place: 1 for the largest, 2 for the second largest, up to n.

    Returns:
        ``[C, C]``, at k, j the gap of z_ij over z_ik; the diagonal says nothing.
    """
    few = math.ceil(math.sqrt(place * logits.shape[1]))
    high, top = logits.topk(few, dim=1)
    low, bottom = logits.topk(few, dim=1, largest=False)
    by_image = logits.T.contiguous()  # to take images is quick by rows
    in_top = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, top, True).T.contiguous()
    found = logits.new_empty(len(logits), len(logits))
    for k, own in enumerate(logits):  # one class at a time: all pairs for all images would be large
        of_top = high - own.take(top)
        of_bottom = by_image[bottom[k]] - low[k][:, None]
        of_bottom.masked_fill_(in_top[bottom[k]], -torch.inf)  # an image is compared once
        found[k] = torch.cat((of_top, of_bottom.T), 1).topk(place, 1).values[:, -1]
        unsure = found[k] < high[:, -1] - low[k, -1]
        unsure[k] = False
        others = unsure.nonzero().flatten()
        found[k, others] = (logits[others] - own).topk(place, 1).values[:, -1]
    return found


def minimal_perturbations(
    weight: Tensor, required: Tensor, targets: Sequence[int] | None = None, slack: float | None = None
) -> Tensor:
    r"""Solve the reduced program for each class.

    Without a slack a program is a least distance problem, which `perturbation_by_nnls` solves. With one it is solved by
    its dual, `_bent`:

    .. math:: \min_{s,\, \xi \ge 0} \tfrac12 \|s\|^2 + c \sum_j \xi_j \quad\text{s.t.}\quad
        (w_k - w_j)^\top s \ge m_{kj} - \xi_j

    Args:
        weight: Rows w of the final linear layer, ``[C, d]``.
        required: m, ``[C, C]``, see `required_gains`; its diagonal is ignored.
        targets: The classes k; None for all.
        slack: Price c > 0 of a unit by which the gain on a class falls short; the constraints then bend instead of
            being infeasible. None for infinity, the paper's program.

    Returns:
        Float64 ``[C, d]``, or a row for each target, on the CPU; zeros for a class to which all images belong anyway.

    Raises:
        ValueError: If ``slack`` is not above 0, or a program is infeasible: two classes have the same weights, or a
            class's weights are a mix of others'; names them.
    """
    if slack is not None and not slack > 0:
        raise ValueError(f"Expected a slack price above 0, or None, got {slack}.")
    weight, required = weight.double().cpu(), required.double().cpu().clone().fill_diagonal_(0)
    chosen = range(len(weight)) if targets is None else targets
    if slack is None:
        return torch.stack([perturbation_by_nnls(weight, required, target) for target in chosen])
    return _bent(weight, required, slack)[[*chosen]]


def _bent(weight: Tensor, required: Tensor, slack: float) -> Tensor:
    r"""Solve the program with a slack for all classes at once, by its dual.

    .. math:: \min_{0 \le \lambda \le c} \tfrac12 \|A_k^\top \lambda\|^2 - m_k^\top \lambda, \qquad
        s_k = A_k^\top \lambda = \sum_j \lambda_j (w_k - w_j)

    by projected gradient steps with Nesterov's momentum, restarted for each class where it points uphill (O'Donoghue
    and Candes 2015). No A_k is ever stored, and some classes are solved at a time, so memory is that of a few
    ``[C, C]`` matrices.
    """
    gram, sharpest = weight @ weight.T, _sharpest(weight)
    dual = torch.cat(
        [
            _minimize(gram, required, classes, 1 / sharpest[classes], slack)
            for classes in torch.split(torch.arange(len(weight)), _AT_ONCE)
        ]
    )
    return dual.sum(1, keepdim=True) * weight - dual @ weight


def _sharpest(weight: Tensor) -> Tensor:
    r"""Bound the largest eigenvalue of each A_k^T A_k, ``[C]``, from above; for random weights by less than a percent.

    With :math:`u_j = w_j - \bar w`, the sum over j of the squares of w_k - w_j is that of the squares of u_j, which is
    the same for every class, plus C times the square of u_k: the largest eigenvalue is at most the sum of theirs.
    """
    apart = weight - weight.mean(0)
    shared: Tensor = torch.linalg.eigvalsh(apart @ apart.T)[-1]
    bound = shared + len(weight) * apart.square().sum(1)
    return bound.clamp(min=torch.finfo(weight.dtype).tiny)


def _minimize(gram: Tensor, required: Tensor, classes: Tensor, step: Tensor, slack: float) -> Tensor:
    """Solve the dual of some classes, ``[K, C]``."""
    own, required, step = gram[classes], required[classes], step[:, None]
    limit = _TOLERANCE * required.clamp(min=0).amax(1, keepdim=True).clamp(min=1e-30)

    def missing(dual: Tensor) -> Tensor:
        """Give m_k - A_k s_k, where s_k is that of class k's dual variables: minus the gradient of the dual."""
        found = torch.addmm(required, dual, gram, alpha=-1).addcmul_(dual.sum(1, keepdim=True), own)  # m_kj + w_j^T s_k
        return found.sub_(found.gather(1, classes[:, None]))

    dual = ahead = torch.zeros_like(required)
    pace = torch.ones_like(step)
    for number in range(_STEPS):
        new = torch.addcmul(ahead, step, missing(ahead)).clamp_(0, slack)
        moved = new - dual
        uphill = ((ahead - new) * moved).sum(1, keepdim=True) > 0
        new_pace = torch.where(uphill, 1.0, (1 + (1 + 4 * pace.square()).sqrt()) / 2)
        ahead = torch.addcmul(new, torch.where(uphill, 0.0, (pace - 1) / new_pace), moved)
        dual, pace = new, new_pace
        if number % _CHECK_EVERY == 0:
            further = torch.addcmul(dual, step, missing(dual)).clamp_(0, slack)
            if ((further - dual).abs() <= limit * step).all():
                break
    return dual


def perturbation_by_nnls(weight: Tensor, required: Tensor, target: int) -> Tensor:
    """Solve the reduced program for one class as a least distance problem (Lawson and Hanson 1974, ch. 23), by NNLS.

    Args:
        weight: Rows w of the final linear layer, ``[C, d]``.
        required: m, ``[C, C]``, see `required_gains`.
        target: The class k.

    Returns:
        Float64 ``[d]`` on the CPU.

    Raises:
        ValueError: If the program is infeasible; names the classes whose mix the class's weights are.
    """
    rows, wanted = weight.double().cpu().numpy(), required[target].double().cpu().numpy()
    others = np.delete(np.arange(len(rows)), target)
    ways, wanted = rows[target] - rows[others], wanted[others]
    if not ways.any(1).all():
        raise _infeasible(target, others[~ways.any(1)].tolist())
    if wanted.max() <= 0:
        return torch.zeros(rows.shape[1], dtype=torch.float64)
    scale, height = np.linalg.norm(ways, axis=1).max() or 1.0, wanted.max()
    system = np.vstack((ways.T / scale, wanted / height))
    goal = np.zeros(len(system))
    goal[-1] = 1.0
    share, distance = nnls(system, goal, maxiter=100 * len(others))
    if distance < 1e-7:  # the norm in scaled units is about its inverse
        raise _infeasible(target, others[share > 1e-6 * share.max()].tolist())
    rest = system @ share - goal
    return torch.from_numpy(-rest[:-1] / rest[-1] * height / scale)


def _infeasible(target: int, others: Iterable[int]) -> ValueError:
    named = ", ".join(map(str, others))
    return ValueError(
        f"Expected a final linear layer that can send any latent to class {target}, but its weights for class {target} "
        f"are the same as, or a mix of, those for {named}, so no perturbation does. Give the program a slack, or a "
        "suspect that was trained to tell these classes apart."
    )
