"""FeatureRE: triggers inverted in feature space, and features that are flipped.

Wang et al., "Rethinking the Reverse-engineering of Trojan Triggers", NeurIPS 2022.
"""

from lit_backdoor.defenses.featurere.flip import FeatureFlip
from lit_backdoor.defenses.featurere.flipped import Flipped
from lit_backdoor.defenses.featurere.inversion import FeatureRE

__all__ = ["FeatureFlip", "FeatureRE", "Flipped"]
