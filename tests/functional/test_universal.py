import torch

from lit_backdoor.functional.universal import batches, optimized_noise, signed_noise

IMAGES = torch.full((6, 1, 2, 2), 0.5)
LABELS = torch.arange(6)
WANTED = torch.tensor([[[1.0, -1.0], [0.02, 0.0]]])


def loss(changed, labels):
    return (changed - 0.5 - WANTED).square().mean()


def test_batches_go_through_all_rows_before_one_comes_again():
    torch.manual_seed(0)
    seen = [labels.tolist() for _, labels in batches(IMAGES, LABELS, 2, 6)]
    assert len(seen) == 6
    for rows in (seen[:3], seen[3:]):
        assert sorted(label for part in rows for label in part) == [0, 1, 2, 3, 4, 5]
    assert [len(labels) for _, labels in batches(IMAGES, LABELS, 50, 3)] == [6, 6, 6]


def test_signed_steps_go_to_the_bound_where_the_loss_falls_beyond_it():
    found = signed_noise(batches(IMAGES, LABELS, 6, 30), loss, torch.zeros(1, 2, 2), 0.1)
    torch.testing.assert_close(found[0, 0], torch.tensor([0.1, -0.1]))
    assert abs(found[0, 1, 0] - 0.02) <= 0.02 + 1e-6  # a step is a fifth of the bound
    assert found[0, 1, 1].abs() <= 0.02 + 1e-6


def test_an_optimizer_finds_the_noise_within_the_bound():
    found = optimized_noise(
        batches(IMAGES, LABELS, 6, 300), loss, torch.zeros(1, 2, 2), 0.1, lambda p: torch.optim.Adam(p, 0.005)
    )
    torch.testing.assert_close(found, WANTED.clamp(-0.1, 0.1), atol=2e-3, rtol=0)
    assert not found.requires_grad
