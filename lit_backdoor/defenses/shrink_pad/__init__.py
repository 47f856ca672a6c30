"""ShrinkPad: images are shrunk and padded at a random place before the suspect sees them.

Li et al., "Backdoor Attack in the Physical World", ICLR Workshop 2021 (arXiv:2104.02361).
"""

from lit_backdoor.defenses.shrink_pad.stage import ShrinkPad
from lit_backdoor.defenses.shrink_pad.transform import ShrinkAndPad

__all__ = ["ShrinkAndPad", "ShrinkPad"]
