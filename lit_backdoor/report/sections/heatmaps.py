"""Grad-CAM before and after the defense (PGBD, Amula et al., ICCV 2025, Fig. 4): where the classifiers look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_backdoor.models.base import Classifier, evaluating
from lit_backdoor.report.pictures import LARGEST, data_uri, heat_uri
from lit_backdoor.report.rows import counting, pick
from lit_backdoor.report.run import Run
from lit_backdoor.report.template import Section, render

__all__ = ["grad_cam", "heatmaps", "last_map"]

_SHOWN = 6


@dataclass(frozen=True)
class _Row:
    """One kind of images through one classifier: pictures, heat over them, and the class that each is about."""

    title: str
    role: str
    pictures: list[str]
    heat: list[str]
    says: list[int]


def heatmaps(run: Run) -> Section | None:
    """Show heat maps of test images, clean and triggered, for the class that each classifier gives them."""
    if run.data.attack is None or not run.nets:
        return None
    view = run.data.get_view("triggered")
    rows = pick(view.clean_label, counting(view), _SHOWN)
    if not len(rows):
        return None
    batch = run.batch("triggered", rows)
    kinds = {"Clean": batch["original"]} if "original" in batch else {}
    kinds["Triggered"] = batch["image"]
    found = [
        _Row(title, role, [data_uri(image) for image in images], [heat_uri(heat) for heat in maps], says.tolist())
        for title, images in kinds.items()
        for role, net in run.nets.items()
        if (looked := _looked(net, images)) is not None
        for maps, says in (looked,)
    ]
    html = render(
        "heatmaps.html", rows=found, truth=batch["clean_label"].tolist(), goals=batch["label"].tolist(), run=run,
        nets=[type(getattr(net, "net", net)).__name__ for net in run.nets.values()],
        soft=max(batch["image"].shape[-2:]) > LARGEST, both=len(run.nets) == 2,
    )  # fmt: skip
    return Section("heatmaps", "Where the classifiers look", html)


def _looked(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor] | None:
    """Give the heat maps and the classes they are about; None for a net without maps to look at."""
    layer = last_map(net) if isinstance(net, Classifier) else None
    if layer is None:
        return None
    with torch.no_grad():
        says = net(images).argmax(1)
    try:
        return grad_cam(cast(Classifier, net), layer, images, says), says
    except RuntimeError:  # a foreign net may not let gradients through
        return None


def last_map(classifier: Classifier) -> str | None:
    """Name the layer behind the last convolution that gives the last feature map with a height and a width.

    Returns:
        Its name as in ``classifier.net``; None for a net without one, such as a vision transformer.
    """
    try:
        [last] = classifier.last_layers(1, "conv")
    except ValueError:
        return None
    if not isinstance(classifier.net.get_submodule(last), nn.Conv2d):  # a transformer's block
        return None
    outputs: list[tuple[str, bool]] = []

    def note(name: str, output: Any) -> None:
        outputs.append((name, isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1))

    handles = [
        layer.register_forward_hook(lambda _m, _i, output, name=name: note(name, output))
        for name, layer in classifier.net.named_modules()
        if name
    ]
    try:
        with evaluating(classifier):
            classifier(classifier.example())
    finally:
        for handle in handles:
            handle.remove()
    ran = [name for name, _ in outputs]
    maps = [name for name, is_map in outputs if is_map and ran.count(name) == 1]
    return maps[-1] if maps else None


def grad_cam(classifier: Classifier, layer: str, images: Tensor, labels: Tensor) -> Tensor:
    """Compute Grad-CAM (Selvaraju et al., ICCV 2017) at a layer, each map scaled to its own maximum.

    Args:
        classifier: In eval mode; left as it is.
        layer: Name of a layer whose output is ``[B, C, h, w]``.
        images: In [0, 1], ``[B, C, H, W]``.
        labels: The classes that the maps are about, int64 ``[B]``.

    Returns:
        Float32 ``[B, h, w]`` in [0, 1]; a map of zeros where nothing speaks for the class.

    Raises:
        RuntimeError: If no gradient reaches the layer.
    """
    from captum.attr import LayerGradCam  # takes a second to load, which only a report should pay

    method = LayerGradCam(classifier, classifier.net.get_submodule(layer))
    given = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        found = method.attribute(given, labels, relu_attributions=True)
    maps = cast(Tensor, found).detach().float()[:, 0]
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
