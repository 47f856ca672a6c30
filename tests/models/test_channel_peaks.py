import tiny
import torch
from torch import nn

from lit_backdoor.models.channel_peaks import logits_and_peaks


def test_peaks_are_the_maxima_of_the_layers_outputs():
    net, images = tiny.classifier().eval(), torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    named = {name: layer for name, layer in net.net.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    with torch.no_grad():
        logits, peaks = logits_and_peaks(net, list(named.values()), images)
        outputs = net.taps(images, named)
    torch.testing.assert_close(logits, net(images).detach())
    for found, output in zip(peaks, outputs.values(), strict=True):
        assert torch.equal(found, output.flatten(2).max(2).values)
