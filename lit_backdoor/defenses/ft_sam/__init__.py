"""FT-SAM: fine-tuning by sharpness-aware minimization, which changes the weights that carry a backdoor more.

Zhu et al., "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization", ICCV 2023.
"""

from lit_backdoor.defenses.ft_sam.fine_tune import SAMFineTune

__all__ = ["SAMFineTune"]
