import numpy as np
import pytest
import torch
from scipy import stats

from lit_backdoor.metrics import TacFidelity, tac_fidelity


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_fidelity_against_scipy_and_numpy():
    shifts, true = draws(3, 40).relu(), draws(40, seed=1).relu()  # with ties at zero
    found = tac_fidelity(shifts, true)
    for k, shift in enumerate(shifts.numpy()):
        size = np.linalg.norm(shift) * np.linalg.norm(true)
        assert found["cosine"][k] == pytest.approx(shift @ true.numpy() / size, abs=1e-6)
        assert found["rank_correlation"][k] == pytest.approx(stats.spearmanr(shift, true.numpy()).statistic, abs=1e-6)
        for percent, count in ((1, 1), (5, 2), (10, 4)):
            best, largest = (set(np.argsort(-np.abs(v))[:count]) for v in (true.numpy(), shift))
            assert found[f"precision_{percent}"][k] == pytest.approx(len(best & largest) / count)


def test_metric_is_over_the_mean_change_of_rows_that_count():
    shifts, clean, triggered = draws(2, 9), draws(6, 9, seed=1), draws(6, 9, seed=2)
    mask = torch.tensor([True, False, True, True, False, True])
    metric = TacFidelity(shifts)
    for rows in (slice(0, 4), slice(4, 6)):
        metric.update(triggered[rows], clean[rows], mask[rows])
    expected = tac_fidelity(shifts, (triggered - clean)[mask].mean(0))
    found = metric.compute()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_nothing_counted_is_nan_and_so_is_a_zero_perturbation_or_change():
    metric = TacFidelity(draws(2, 4))
    metric.update(draws(3, 4), draws(3, 4), torch.zeros(3, dtype=torch.bool))
    assert all(value.shape == (2,) and value.isnan().all() for value in metric.compute().values())
    assert all(value.isnan().all() for value in tac_fidelity(draws(2, 4), torch.zeros(4)).values())
    of_both = tac_fidelity(torch.stack((torch.zeros(4), draws(4))), draws(4))
    assert all(value[0].isnan() and value[1] == pytest.approx(1) for value in of_both.values())


def half(rank, world_size, shifts, clean, triggered):
    metric = TacFidelity(shifts)
    metric.update(triggered[rank::world_size], clean[rank::world_size])
    return metric.compute()


def test_two_processes_give_the_same(run_ddp):
    shifts, clean, triggered = draws(2, 9), draws(6, 9, seed=1), draws(6, 9, seed=2)
    expected = half(0, 1, shifts, clean, triggered)
    for found in run_ddp(half, shifts, clean, triggered):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\[C, d\] and a true change \[d\]"):
        tac_fidelity(torch.zeros(3, 4), torch.zeros(5))
    with pytest.raises(ValueError, match=r"latents \[B, d\] of one shape"):
        TacFidelity(torch.zeros(3, 4)).update(torch.zeros(2, 4), torch.zeros(3, 4))
