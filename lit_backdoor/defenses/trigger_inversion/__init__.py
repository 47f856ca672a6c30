"""Neural Cleanse and Pixel: invert a trigger for every class, name the class whose trigger is small, unlearn it.

Wang et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks", S&P 2019. Tao et al.,
"Better Trigger Inversion Optimization in Backdoor Scanning", CVPR 2022.
"""

from lit_backdoor.defenses.trigger_inversion.neural_cleanse import NeuralCleanse
from lit_backdoor.defenses.trigger_inversion.pixel import PixelInversion
from lit_backdoor.functional.cost_schedule import CostRule

__all__ = ["CostRule", "NeuralCleanse", "PixelInversion"]
