"""Unicorn: triggers inverted in a space that is learned, too.

Wang et al., "UNICORN: A Unified Backdoor Trigger Inversion Framework", ICLR 2023.
"""

from lit_backdoor.defenses.unicorn.inversion import Unicorn

__all__ = ["Unicorn"]
