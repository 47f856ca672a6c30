"""TAC reconstruction: the change that a trigger makes in latent space, found by a convex program, and made harmless.

Iwahana et al., "Robust Backdoor Removal by Reconstructing Trigger-Activated Changes in Latent Representation", 2025.
The program is the paper's; its test and its loss are not public, so those here are ours and say so.
"""

from lit_backdoor.defenses.tac.anchored import AnchoredTACStampFineTune
from lit_backdoor.defenses.tac.detection import TACDetection, TACOutlierDetection
from lit_backdoor.defenses.tac.fine_tune import TACFineTune, TACMovementFineTune
from lit_backdoor.defenses.tac.program import Program
from lit_backdoor.defenses.tac.pruning import TACPruning
from lit_backdoor.defenses.tac.stamped import TACStampFineTune

__all__ = [
    "AnchoredTACStampFineTune",
    "Program",
    "TACDetection",
    "TACFineTune",
    "TACMovementFineTune",
    "TACOutlierDetection",
    "TACPruning",
    "TACStampFineTune",
]
