"""FST: fine-tuning that shifts features by pushing a new classifier layer away from the suspect's.

Min et al., "Towards Stable Backdoor Purification through Feature Shift Tuning", NeurIPS 2023.
"""

from lit_backdoor.defenses.fst.fine_tune import FeatureShiftTuning

__all__ = ["FeatureShiftTuning"]
