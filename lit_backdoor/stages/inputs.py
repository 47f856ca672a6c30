"""What a stage is given: the data module of its run, and nets as bundles or as objects."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_backdoor.bundle import Bundle, open_bundle
from lit_backdoor.functional.precision import no_autocast
from lit_backdoor.models import Classifier
from lit_backdoor.models.base import evaluating

__all__ = ["Batch", "StageInputs", "Takes"]

Batch = dict[str, Any]
Takes = Mapping[str, tuple[str, ...]]


class StageInputs(pl.LightningModule):
    """A LightningModule that opens the nets it was given, and makes passes of its own over the data of its run.

    Attributes:
        takes: The arguments that may name a bundle, and the kinds that will do; chains check their wiring by it.
        arguments: What was given for these arguments: the path of a bundle, a net, or a value.
        built: Whether the stage has made its nets.
    """

    takes: ClassVar[Takes] = {"suspect": ("suspect",), "target": ("targets", "trigger")}

    def __init__(self) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {}
        self.built = False
        self._opened: dict[str, Bundle] = {}

    def __getattr__(self, name: str) -> Any:
        """Say of a net that is not there that no Trainer has run the stage yet."""
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if name.startswith("_") or self.__dict__.get("built", True):
                raise
            raise AttributeError(
                f"{error}: nets are made when a Trainer runs the stage. Call fit or predict first."
            ) from None

    @property
    def seed(self) -> int:
        """Seed of the run: the data module's, or 0 where it has none."""
        return int(getattr(self.attached_data, "seed", 0) or 0)

    @property
    def attached_trainer(self) -> pl.Trainer | None:
        """The Trainer that runs the stage; None where there is none yet."""
        try:
            return self.trainer
        except RuntimeError:  # Lightning's way to say so
            return None

    @property
    def attached_data(self) -> Any:
        """The data module of the run, whatever its class; None without a Trainer or for plain loaders."""
        return getattr(self.attached_trainer, "datamodule", None)

    @property
    def data(self) -> Any:
        """The data module of the run.

        Raises:
            ValueError: If the Trainer was given plain loaders.
        """
        datamodule = self.attached_data
        if datamodule is None or not hasattr(datamodule, "loader"):
            raise ValueError(
                f"{type(self).__name__} makes passes of its own over the data: give the Trainer datamodule= a "
                "BackdoorDataModule (or RootDataModule) instead of loaders."
            )
        return datamodule

    def passes(self, view: str, *nets: nn.Module, precise: bool = False) -> Iterator[Batch]:
        """Go once over all rows of a view in order, in every process, prepared and on the stage's device.

        Until the pass ends, gradients are off and the precision is the Trainer's.

        Args:
            view: One of the data module's views.
            *nets: Nets that are in eval mode during the pass, and as before after it.
            precise: Whether the pass is made in full precision, whatever the Trainer's.
        """
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            forward = self.trainer.precision_plugin.forward_context
            stack.enter_context(no_autocast(torch.empty(0, device=self.device)) if precise else forward())
            for net in nets:
                stack.enter_context(evaluating(net))
            for batch in self.data.loader(view, shuffle=False, world_size=1, rank=0):
                yield self.data.images({k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()})

    def label_root(self) -> None:
        """Let the suspect, as it was given, label root images that have no labels (data-free defense)."""
        view = getattr(self.attached_data, "get_view", None)
        if view is not None and "suspect" in self.arguments and view("root").unlabeled:
            labeler = self.open_classifier().to(self.device).eval()
            parts = [labeler(batch["image"]).argmax(1)[batch["valid"]] for batch in self.passes("root")]
            self.data.set_root_labels(torch.cat(parts).cpu(), guessed=True)

    def given(self, **arguments: Any) -> None:
        """Note arguments that may name bundles, without making nets among them parts of the stage."""
        self.arguments |= arguments

    @property
    def sources(self) -> Mapping[str, Bundle]:
        """The bundles that the stage has opened so far, by argument; an export notes their hashes."""
        return MappingProxyType(self._opened)

    def bundle(self, name: str) -> Bundle | None:
        """Open the bundle that an argument names; None where it names none.

        Raises:
            ValueError: If it is of a kind that does not serve.
        """
        given = self.arguments[name]
        if not isinstance(given, str | PathLike):
            return None
        if name not in self._opened:
            self._opened[name] = open_bundle(Path(given), self.takes[name])
        return self._opened[name]

    def open(self, name: str) -> nn.Module:
        """Take a net that was given: build it from its bundle, or copy the object, which stays as it is.

        Raises:
            ValueError: If what was given is neither, or the bundle is of a kind that does not serve, or a report that
                comes without a trigger.
        """
        value, bundle = self.arguments[name], self.bundle(name)
        if isinstance(value, nn.Module):
            return copy.deepcopy(value)
        if bundle is None:
            raise ValueError(f"Expected {name} as a net or the path of a bundle, got a {type(value).__name__}.")
        if bundle.kind == "targets" and bundle.info["model"] is None:
            raise ValueError(
                f"Expected {name} of {type(self).__name__} to be a report on target classes with a trigger, such as "
                f"Neural Cleanse or Pixel write; the one at {value} has none. PGBD and TAC's fine-tunes need none."
            )
        return bundle.build()

    def open_classifier(self, name: str = "suspect") -> Classifier:
        """Take a suspect that was given; images of another size than its own are warned of.

        Raises:
            ValueError: If it is no classifier or has weights that are not finite, or the data has classes that it does
                not know.
        """
        found = self.open(name)
        if not isinstance(found, Classifier):
            raise ValueError(
                f"Expected {name} to be a Classifier or the path of a bundle, got a {type(found).__name__}. Wrap a net "
                "of your own: lit_backdoor.models.wrap_classifier(net, split=..., num_classes=..., ...)."
            )
        broken = [key for key, value in found.state_dict().items() if not value.isfinite().all()]
        if broken:
            raise ValueError(
                f"Expected finite weights in {name}, but {len(broken)} of its tensors hold NaN or infinity, such as "
                f"'{broken[0]}'. Train or import it anew."
            )
        classes = getattr(self.attached_data, "num_classes", None)
        if isinstance(classes, int) and classes > found.num_classes:
            raise ValueError(
                f"Expected a suspect for the data's {classes} classes, got one for {found.num_classes}. Give the data "
                "that it was trained for, or another suspect."
            )
        self.warn_of_size(found)
        return found

    def other_size(self, classifier: Classifier) -> tuple[int, int] | None:
        """Height and width of the data's images where they are not the classifier's, else None."""
        size, side = getattr(self.attached_data, "image_size", None), classifier.input_size
        return size if isinstance(size, tuple) and size != (side, side) else None

    def refuse_other_size(self, classifier: Classifier) -> None:
        """Check that the data's images are of the classifier's size.

        Raises:
            ValueError: If they are not.
        """
        if size := self.other_size(classifier):
            side = classifier.input_size
            raise ValueError(
                f"Expected images of the suspect's size, {side}x{side}, got {size[0]}x{size[1]}. Bring the data to "
                f"that size: data.init_args.stored_size={side}."
            )

    def warn_of_size(self, classifier: Classifier) -> None:
        """Warn where the data's images are not of the classifier's size: most nets run on them all the same."""
        if size := self.other_size(classifier):
            side = classifier.input_size
            warnings.warn(
                f"The classifier is for images of {side}x{side}, the data has {size[0]}x{size[1]}: what is measured "
                "holds for the latter. To bring the data to the classifier's size set "
                f"data.init_args.stored_size={side}.",
                stacklevel=2,
            )
