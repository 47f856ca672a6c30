"""Detection of triggered inputs by a detector that is there already, such as a suspect behind a purifier."""

from __future__ import annotations

from typing import ClassVar

from lit_backdoor.models import Frozen, InputDetector
from lit_backdoor.stages.input_table import InputTable
from lit_backdoor.stages.inputs import Takes

__all__ = ["InputDetection"]


class InputDetection(InputTable):
    """Flag inputs by a detector: a `Purified` suspect flags those whose predicted class changes when they are purified.

    The score is then how much of the first predicted class's probability is lost.

    Args:
        purified: Path of a bundle that holds a `Purified` suspect or another detector, or such a net.
        table: CSV file of inputs that ``predict`` writes; None puts ``inputs.csv`` under ``default_root_dir``.

    Raises:
        ValueError: When run, if the suspect has no purifier.
    """

    takes: ClassVar[Takes] = {"purified": ("suspect", "detector")}

    def __init__(self, purified: str | InputDetector, table: str | None = None) -> None:
        super().__init__(table)
        self.given(purified=purified)

    def build(self) -> None:
        """Open the detector."""
        net = self.open("purified")
        if not isinstance(net, InputDetector):
            raise ValueError(
                f"Expected a suspect behind a purifier, or another detector of inputs, got {type(net).__name__}. Make "
                "one, for example by lit_backdoor.defenses.btidbf.BTIDBFPurification."
            )
        self.net = Frozen(net)
