"""ATClean: remove a backdoor by training on images whose features collide with the trigger's.

Train a suspect, select the rows it fits best, train a generator whose images collide with them in the suspect's last
layers, and fine-tune the suspect on generated images under their true labels.
"""

from lit_backdoor.defenses.atclean.anchored import AnchoredUnlearningFineTune
from lit_backdoor.defenses.atclean.detector_free import DetectorFreeGenerator
from lit_backdoor.defenses.atclean.generator import CollisionGenerator, UntrainedGenerator

__all__ = ["AnchoredUnlearningFineTune", "CollisionGenerator", "DetectorFreeGenerator", "UntrainedGenerator"]
