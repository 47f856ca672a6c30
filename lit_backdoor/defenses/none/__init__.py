"""NONE: channels that a backdoor compromised are reset, and the rows that excite them leave the training set.

Wang et al., "Training with More Confidence: Mitigating Injected and Natural Backdoors During Training", NeurIPS 2022.
"""

from lit_backdoor.defenses.none.retraining import NeuronReset

__all__ = ["NeuronReset"]
