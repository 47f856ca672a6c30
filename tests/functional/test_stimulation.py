import numpy as np
import pytest
import torch
from torch import nn

from lit_backdoor.functional.stimulation import candidates, elevations, steering_loss

FEATURES = torch.rand(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))


def test_elevations_are_those_of_a_written_out_loop():
    torch.manual_seed(0)
    last, levels = nn.Linear(4, 5), torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0]])

    def head(features):
        return last(features.amax((2, 3)).tanh())

    found = elevations(head, FEATURES, levels)
    for unit in range(4):
        rise = []
        for image in range(3):
            changed = FEATURES[image : image + 1].clone()
            changed[:, unit] = 0
            silent = head(changed)[0]
            raised = []
            for level in levels[:, unit]:
                changed[:, unit] = level
                raised.append(head(changed)[0] - silent)
            rise.append(torch.stack(raised).amax(0))
        torch.testing.assert_close(found[unit], torch.stack(rise).amin(0))


def test_candidates_lead_by_most():
    raised = torch.tensor([[1.0, 0.9, 0.0], [0.0, 5.0, 1.0], [0.2, 0.1, 3.0]])
    found = candidates(raised, 2)
    assert found.unit.tolist() == [1, 2]
    assert found.label.tolist() == [1, 2]
    assert found.lead.tolist() == pytest.approx([4.0, 2.8])
    assert len(candidates(raised, 10).unit) == 3


def test_loss_is_numpys():
    stamped = torch.rand(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    mask = torch.stack((torch.full((1, 4, 4), 0.1), torch.full((1, 4, 4), 0.5)))
    found = steering_loss(stamped, FEATURES, torch.tensor([1, 3]), mask, 0.2, 0.7)
    h, s = FEATURES.numpy(), stamped.numpy()
    for place, (unit, excess) in enumerate(((1, 0.0), (3, 0.3))):
        others = [d for d in range(4) if d != unit]
        change = np.abs(s[place][:, others] - h[:, others]).mean() / np.abs(h).mean()
        expected = -s[place][:, unit].mean() / h[:, unit].max() + 0.7 * change + 100 * excess
        assert float(found[place]) == pytest.approx(expected, rel=1e-4)
