"""BTI-DBF (D): detect triggered inputs by the purifier of (P) (App. A)."""

from __future__ import annotations

from lit_backdoor.stages.input_detection import InputDetection

__all__ = ["BTIDBFDetection"]


class BTIDBFDetection(InputDetection):
    """Flag test inputs whose predicted class changes when the purifier of BTI-DBF (P) is put before the suspect.

    Args:
        purified: Path of the bundle that `BTIDBFPurification` exported, or a purified suspect.
        table: CSV file of inputs that ``predict`` writes; None puts ``inputs.csv`` under ``default_root_dir``.
    """
