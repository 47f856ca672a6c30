"""The stage that puts ShrinkPad before a suspect."""

from __future__ import annotations

from lit_backdoor.defenses.shrink_pad.transform import ShrinkAndPad
from lit_backdoor.models import Classifier, Purified
from lit_backdoor.stages.one_shot import OneShot

__all__ = ["ShrinkPad"]


class ShrinkPad(OneShot):
    """Put `ShrinkAndPad` before a suspect; nothing is trained and no data is needed.

    Args:
        suspect: Path of a suspect bundle, or a classifier.
        pixels: How many pixels images lose in height and width. Paper: 4; BTI-DBF's comparison: 2.

    Raises:
        ValueError: If ``pixels`` is not positive; when run, if the suspect's images are not larger than it.
    """

    def __init__(self, suspect: str | Classifier, pixels: int = 4) -> None:
        super().__init__(suspect)
        self.transform = ShrinkAndPad(pixels)

    def work(self) -> None:
        """Compose the two."""
        self.transform(self.classifier.example())  # refuses images that are too small
        self.classifier = Purified(self.transform, self.classifier)
