"""ABS: units whose stimulation raises one class, and the stamps that excite them.

Liu et al., "ABS: Scanning Neural Networks for Back-doors by Artificial Brain Stimulation", CCS 2019.
"""

from lit_backdoor.defenses.abs.stimulation import ABS

__all__ = ["ABS"]
