"""The mask phase that every stage of BTI-DBF begins its rounds with (Eq. 1)."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from lit_backdoor.defenses.btidbf.settings import Decoupling
from lit_backdoor.functional.decoupling import mask_loss, soft_mask
from lit_backdoor.models import Classifier
from lit_backdoor.models.base import batch_norms, evaluating
from lit_backdoor.models.split import check_split, features_at, head_from
from lit_backdoor.stages.base import Batch
from lit_backdoor.stages.phased import Phased, Span

__all__ = ["Decoupled"]


class Decoupled(Phased):
    """Learn in ``mask`` phases which features of the `subject` are benign, on a copy of it, the `probe`.

    Args:
        decoupling: Settings of the phase.
    """

    def __init__(self, decoupling: Decoupling) -> None:
        super().__init__()
        self.decoupling = decoupling

    @property
    def subject(self) -> Classifier:
        """The classifier whose features are decoupled."""
        raise NotImplementedError

    def build_mask(self) -> None:
        """Make the probe and the mask; the subject must be there.

        Raises:
            ValueError: If the data's images are not of the subject's size, as the mask is.
        """
        self.refuse_other_size(self.subject)
        self.probe = copy.deepcopy(self.subject).requires_grad_(False).eval()
        if self.decoupling.layer is not None:
            self.subject.taps(self.subject.example(), [self.decoupling.layer])  # a layer that is not known is named
            shape = (len(self.subject.mean), self.subject.input_size, self.subject.input_size)
            self._whole_batch = check_split(self.subject.net, self.decoupling.layer, shape)
        with evaluating(self.probe):
            shape_of_features = self.features(self.probe, self.probe.example()).shape[1:]
        self.raw_mask = nn.Parameter(torch.zeros(1, *shape_of_features))

    def features(self, net: Classifier, images: Tensor) -> Tensor:
        """Give the features of images: the output of the chosen layer, else of the classifier's own split (S_a)."""
        return net.features(images) if self.decoupling.layer is None else features_at(net, self._place(net), images)

    def head(self, net: Classifier, features: Tensor) -> Tensor:
        """Give the logits for the output of `features`, by the part of the net behind it (S_b)."""
        if self.decoupling.layer is None:
            return net.head(features)
        dummy = net.example(len(features) if self._whole_batch else 1)
        return head_from(net, self._place(net), features, dummy)

    def _place(self, net: Classifier) -> str:
        """Name the chosen layer as the classifier itself, not its net, has it: the net may be behind a purifier."""
        layer = net.net.get_submodule(cast(str, self.decoupling.layer))
        places: list[str] = [name for name, module in net.named_modules() if module is layer]
        return places[0]

    @property
    def mask(self) -> Tensor:
        """The mask in [0, 1], ``[1, ...]``; no gradient flows."""
        if self.decoupling.mask == "learned":
            return soft_mask(self.raw_mask.detach())
        return torch.full_like(self.raw_mask, float(self.decoupling.mask == "ones"), requires_grad=False)

    def begin_mask(self, span: Span) -> None:
        """Copy the subject and draw the mask anew, from the seed and the round."""
        self.probe.load_state_dict(self.subject.state_dict())
        with torch.no_grad():
            if self.decoupling.start == "normal":
                generator = torch.Generator().manual_seed(1000 * self.seed + span.round)
                self.raw_mask.copy_(torch.randn(self.raw_mask.shape, generator=generator))
            else:
                self.raw_mask.zero_()

    def set_probe_mode(self, phase: str) -> None:
        """Let the probe's norms see the root set while the mask is learned; dropout stays off."""
        self.probe.eval()
        if phase == "mask" and self.decoupling.batch_norm == "train":
            for norm in batch_norms(self.probe):
                norm.train()

    def mask_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute Eq. 1 on one batch of root images; where the mask is given, only the probe's norms see it."""
        with torch.no_grad():
            features = self.features(self.probe, batch["image"])
        if self.decoupling.mask != "learned":
            return {}
        mask = soft_mask(self.raw_mask)
        loss = mask_loss(lambda part: self.head(self.probe, part), features, mask, batch["label"])
        return {"loss": loss, "mask_loss": loss, "mask_mean": mask.mean()}
