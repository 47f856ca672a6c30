"""Channel-Lipschitz pruning: channels whose Lipschitz bound stands out in their layer are pruned, without any data.

Zheng et al., "Data-free Backdoor Removal based on Channel Lipschitzness", ECCV 2022.
"""

from lit_backdoor.defenses.clp.pruning import CLP

__all__ = ["CLP"]
