import pytest
import torch

from lit_backdoor.data.sources.base import TensorRows
from lit_backdoor.data.split import Split


def rows(labels, **columns):
    return TensorRows(torch.zeros(len(labels), 3, 2, 2, dtype=torch.uint8), labels, columns)


LABELS = torch.arange(1000) % 10


def test_parts_are_disjoint_and_cover_all_rows():
    parts = Split(root_pool=0.2).assign(rows(LABELS), 10, seed=3)
    assert torch.cat(parts).sort().values.equal(torch.arange(1000))
    assert len(parts.root) == 200


def test_questioned_rows_stand_in_the_sources_order():
    questioned = Split().assign(rows(LABELS), 10, seed=0).questioned
    assert questioned.equal(questioned.sort().values)


def test_int_counts_rows_and_float_is_a_share_of_the_train_part():
    by_rows = Split(train=500, root_pool=100, root=50).assign(rows(LABELS), 10, seed=0)
    by_share = Split(train=0.5, root_pool=0.1, root=0.05).assign(rows(LABELS), 10, seed=0)
    for one, other in zip(by_rows, by_share, strict=True):
        assert one.equal(other)
    assert [len(part) for part in by_rows] == [500, 50]


@pytest.mark.parametrize("root", [37, 100, 0.05])
def test_smaller_root_is_a_prefix_and_leaves_the_questioned_set(root):
    whole = Split(root_pool=200).assign(rows(LABELS), 10, seed=1)
    part = Split(root_pool=200, root=root).assign(rows(LABELS), 10, seed=1)
    assert part.root.equal(whole.root[: len(part.root)])
    assert part.questioned.equal(whole.questioned)


def test_every_part_is_stratified():
    labels = torch.cat([torch.zeros(700), torch.ones(200), torch.full((100,), 2)]).long()
    parts = Split(train=500, root_pool=100, root=50).assign(rows(labels), 3, seed=5)
    for part in parts:
        counts = torch.bincount(labels[part], minlength=3)
        assert ((counts - torch.tensor([0.7, 0.2, 0.1]) * len(part)).abs() <= 2).all(), counts


def test_seed_decides():
    one, again, other = (Split().assign(rows(LABELS), 10, seed=seed).root for seed in (0, 0, 1))
    assert one.equal(again)
    assert not one.equal(other)


def test_no_group_is_on_both_sides():
    track = torch.randint(0, 60, (1000,), generator=torch.Generator().manual_seed(0))
    labels = track % 4
    parts = Split(root_pool=300, root=110, group="track").assign(rows(labels, track=track), 4, seed=2)
    assert len(parts.root) == 110
    assert not set(track[parts.questioned].tolist()) & set(track[parts.root].tolist())
    pool = Split(root_pool=300, group="track").assign(rows(labels, track=track), 4, seed=2)
    assert pool.questioned.equal(parts.questioned)
    assert len(pool.questioned) > 600  # at most one group is lost to the cut


def test_no_root_pool_gives_an_empty_root():
    parts = Split(root_pool=0).assign(rows(LABELS), 10, seed=0)
    assert len(parts.root) == 0
    assert len(parts.questioned) == 1000


def test_missing_class_in_the_root_set_is_warned():
    with pytest.warns(UserWarning, match="5 rows has none of 5 classes"):
        Split(root_pool=5).assign(rows(LABELS), 10, seed=0)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": 950}, "from 1 to 900 rows"),
        ({"root": 200}, "at most 100 rows"),
        ({"root_pool": 1000}, "from 1 to 0 rows"),
        ({"group": "trak"}, "Did you mean 'track'"),
    ],
)
def test_impossible_plans_say_what_is_possible(split, message):
    with pytest.raises(ValueError, match=message):
        Split(**split).assign(rows(LABELS, track=LABELS), 10, seed=0)


@pytest.mark.parametrize("split", [{"train": -1}, {"root_pool": 1.5}, {"root": 0.0}])
def test_sizes_are_checked(split):
    with pytest.raises(ValueError, match=f"split.{next(iter(split))}"):
        Split(**split)
