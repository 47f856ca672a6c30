"""Trigger inversion alone, whose result is a trigger (BTI-DBF, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from lit_backdoor.defenses.btidbf.inverting import Generator, Inverting
from lit_backdoor.defenses.btidbf.settings import Decoupling, InversionSettings
from lit_backdoor.models import Classifier, Frozen
from lit_backdoor.stages.base import Outcome
from lit_backdoor.stages.evaluation import Evaluator, TriggerEvaluator
from lit_backdoor.triggers import GeneratorTrigger

__all__ = ["BTIDBFInversion"]


class BTIDBFInversion(Inverting):
    """Invert a suspect's trigger; the result is a `Trigger` that stamps what was found (BTI-DBF, Sec. 3.2).

    Features are decoupled by a mask on a copy of the suspect, then a generator moves the remaining, backdoor features
    of root images as far as it can within a bound on pixels. No class is scanned: the target is the class that
    generated images are sent to. Its test reports the feature distance (FD) to the attack's trigger.

    Deviations from the paper: distances are means, not norms, and the bound is soft (see `inversion_loss`); images are
    in [0, 1]; votes are without the release's noise. By default the generator has a pattern at a fixed place and tau
    holds by a hinge: few epochs suffice, where the release's plain U-Net and 30 epochs are not affordable.

    Args:
        suspect: Path of a suspect bundle, or a classifier; frozen.
        decoupling: Settings of the mask (Eq. 1).
        inversion: Settings of the generator (Eq. 2).
        generator: The net to train, or several to choose from by the votes; default a `WarpField`, which finds warps,
            and a `PatternedUNet`.

    Raises:
        ValueError: When run, if ``max_epochs`` contradicts the phases.
    """

    kind: ClassVar[str | None] = "trigger"

    def __init__(
        self,
        suspect: str | Classifier,
        decoupling: Decoupling | None = None,
        inversion: InversionSettings | None = None,
        generator: Generator | Sequence[Generator] | None = None,
    ) -> None:
        super().__init__(decoupling, inversion or InversionSettings(epochs=6), generator)
        self.given(suspect=suspect)

    @property
    def subject(self) -> Classifier:
        """The suspect."""
        return self.net.module

    def build(self) -> None:
        """Open the suspect and make the nets."""
        self.net = Frozen(self.open_classifier())
        self.build_inversion()

    def evaluator(self) -> Evaluator:
        """Compare the recovered with the true trigger, once a generator was chosen."""
        if self.target < 0:
            return Evaluator()
        return TriggerEvaluator(self.attached_data, self.subject, self.generator)

    def result(self) -> GeneratorTrigger:
        """Give the trigger."""
        return GeneratorTrigger(cast(Generator, self.generator))

    def outcome(self) -> Outcome:
        """Export the trigger; vote first in a run that was cut short."""
        if self.target < 0:
            self.vote()
        return super().outcome()
