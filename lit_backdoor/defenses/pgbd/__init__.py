"""PGBD: fine-tune while activations are kept off the vectors to the target class's prototype; NT: without the target.

Amula et al., "Prototype Guided Backdoor Defense via Activation Space Manipulation", ICCV 2025 (arXiv:2503.20925).
"""

from lit_backdoor.defenses.pgbd.anchored import AnchoredStampPGBD
from lit_backdoor.defenses.pgbd.known_target import PGBD
from lit_backdoor.defenses.pgbd.mapped import MappedPGBD
from lit_backdoor.defenses.pgbd.mapping import TeacherMapping
from lit_backdoor.defenses.pgbd.no_target import NTPGBD
from lit_backdoor.defenses.pgbd.settings import Geometry
from lit_backdoor.defenses.pgbd.stamped import StampNTPGBD, StampPGBD
from lit_backdoor.defenses.pgbd.synthesized import STPGBD

__all__ = [
    "NTPGBD",
    "PGBD",
    "STPGBD",
    "AnchoredStampPGBD",
    "Geometry",
    "MappedPGBD",
    "StampNTPGBD",
    "StampPGBD",
    "TeacherMapping",
]
