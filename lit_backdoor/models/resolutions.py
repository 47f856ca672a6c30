"""The blocks of a net by the resolution of their outputs."""

from __future__ import annotations

from lit_backdoor.models.base import Classifier, evaluating

__all__ = ["last_of_each_size"]


def last_of_each_size(classifier: Classifier) -> list[str]:
    """Name the last block at each resolution, in forward order: the ends of a ResNet's groups.

    A transformer, whose blocks all have as many tokens, has one. A net without blocks is taken by its convolutions.
    """
    try:
        blocks = classifier.last_layers(len(classifier.layer_names()), "block")
    except ValueError:  # no blocks
        blocks = classifier.last_layers(len(classifier.layer_names()), "conv")
    with evaluating(classifier):
        outputs = classifier.taps(classifier.example(), blocks)
    last: dict[tuple[int, ...], str] = {}
    for name in blocks:  # the last first
        size = tuple(outputs[name].shape[2:]) if outputs[name].ndim == 4 else tuple(outputs[name].shape[1:2])
        last.setdefault(size, name)
    return list(last.values())[::-1]
