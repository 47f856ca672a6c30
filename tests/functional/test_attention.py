"""Attention maps against loops by hand."""

import torch

from lit_backdoor.functional.attention import attention_distance, attention_map


def test_map_is_the_normalized_sum_of_powers_over_channels():
    outputs = torch.randn(2, 3, 4, 5)
    by_hand = torch.stack([sum(channel.abs() ** 3 for channel in image).flatten() for image in outputs])
    by_hand = by_hand / by_hand.norm(dim=1, keepdim=True)
    torch.testing.assert_close(attention_map(outputs, 3), by_hand)
    tokens = outputs.flatten(2).transpose(1, 2)  # a transformer's layout
    torch.testing.assert_close(attention_map(tokens, 3), by_hand)


def test_distance_does_not_see_scale_but_place():
    outputs = torch.zeros(1, 2, 2, 2)
    outputs[0, :, 0, 0] = 1
    assert attention_distance(outputs, 7 * outputs) == 0
    torch.testing.assert_close(attention_distance(outputs, outputs.flip(3)), torch.tensor(0.5))  # 2 of 4 places
