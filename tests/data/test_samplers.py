import pytest
import torch
from torch.utils.data import DistributedSampler

from lit_backdoor.data.samplers import ViewSampler, derive_seed


def flat(draws):
    return torch.cat([draw.rows[draw.valid] for draw in draws])


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 7, 64, 65, 100])
def test_every_row_is_valid_once_over_all_ranks(world, length):
    ranks = [list(ViewSampler(length, 8, num_replicas=world, rank=rank)) for rank in range(world)]
    assert torch.cat([flat(draws) for draws in ranks]).sort().values.equal(torch.arange(length))
    assert len({len(draws) for draws in ranks}) == 1
    for draws in zip(*ranks, strict=True):
        assert len({len(draw.rows) for draw in draws}) == 1  # all ranks see batches of one shape


def test_one_process_in_order_gives_the_rows_in_order():
    assert flat(ViewSampler(20, 8)).equal(torch.arange(20))


def test_lightning_takes_it_for_a_distributed_sampler():
    assert isinstance(ViewSampler(4, 2), DistributedSampler)


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = ViewSampler(50, 8, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return flat(sampler)

    assert order(1, 3).equal(order(1, 3))
    assert not order(1, 3).equal(order(1, 4))
    assert not order(1, 3).equal(order(2, 3))


def test_batch_seeds_differ_by_epoch_number_and_rank():
    seeds = []
    for epoch in range(3):
        for rank in range(2):
            sampler = ViewSampler(64, 4, num_replicas=2, rank=rank)
            sampler.set_epoch(epoch)
            seeds += [draw.seed for draw in sampler]
    assert len(set(seeds)) == len(seeds) == 48


def test_drop_last_leaves_out_the_incomplete_batch():
    draws = list(ViewSampler(65, 8, drop_last=True, shuffle=True))
    assert len(draws) == 8
    assert all(len(draw.rows) == 8 and draw.valid.all() for draw in draws)


@pytest.mark.parametrize("length", [1, 3, 5])
def test_fewer_rows_than_a_global_batch_still_give_one_step(length):
    ranks = [list(ViewSampler(length, 8, drop_last=True, num_replicas=2, rank=rank)) for rank in range(2)]
    assert [len(draws) for draws in ranks] == [1, 1]
    assert sum(int(draws[0].valid.sum()) for draws in ranks) == length


def test_more_steps_than_a_pass_go_on_with_a_new_order():
    draws = list(ViewSampler(16, 8, shuffle=True, steps=5))
    assert len(draws) == 5
    first, second = flat(draws[:2]), flat(draws[2:4])
    assert first.sort().values.equal(second.sort().values)
    assert not first.equal(second)
    assert len({draw.seed for draw in draws}) == 5


@pytest.mark.parametrize(("length", "batch_size"), [(0, 4), (4, 0)])
def test_sizes_are_checked(length, batch_size):
    with pytest.raises(ValueError, match="at least one row and a batch size of at least 1"):
        ViewSampler(length, batch_size)


def test_derived_seeds_fit_a_generator_and_depend_on_order():
    torch.Generator().manual_seed(derive_seed(-1, 2**70))
    assert derive_seed(1, 2) != derive_seed(2, 1)
    assert derive_seed(0) != derive_seed(0, 0)
