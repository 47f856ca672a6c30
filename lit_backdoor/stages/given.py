"""A suspect that is there already: a chain starts from its bundle."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from lit_backdoor.models import Classifier
from lit_backdoor.stages.base import Stage

__all__ = ["GivenSuspect"]


class GivenSuspect(Stage):
    """Take a suspect from its bundle, whoever made it, as the victim of a chain; run by ``predict``.

    Args:
        suspect: Path of a suspect bundle, or a classifier; it does not change.
        digest: Hash that the bundle must have, so that a chain's results are not taken for those of another suspect
            that was put in its place; None takes any.

    Raises:
        ValueError: When run, if the bundle has another hash.
    """

    views: ClassVar[tuple[str, ...]] = ()
    verb: ClassVar[Literal["fit", "predict"]] = "predict"

    def __init__(self, suspect: str | Classifier, digest: str | None = None) -> None:
        super().__init__()
        self.given(suspect=suspect)
        self.digest = digest

    def build(self) -> None:
        """Open the suspect."""
        bundle = self.bundle("suspect")
        if bundle is not None and self.digest not in (None, bundle.hash):
            raise ValueError(
                f"Expected the suspect with the hash {self.digest} at {bundle.path}, got {bundle.hash}. Name the new "
                "one by its own hash, or leave digest out."
            )
        self.classifier = self.open_classifier()

    def result(self) -> Classifier:
        """Give the suspect."""
        return self.classifier

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Do nothing: the suspect is there."""
