"""Neural attention distillation: the suspect is fine-tuned toward the attention maps of a fine-tuned copy.

Li et al., "Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural Networks", ICLR 2021.
"""

from lit_backdoor.defenses.nad.distillation import NAD

__all__ = ["NAD"]
