"""Views of a source whose rows carry the trigger themselves."""

import pytest
import semantic_parts
import tiny
import torch

from lit_backdoor.data import BackdoorDataModule, BalancedSplit, Split, wrap
from lit_backdoor.triggers import Attack, Patch, Role, SemanticTrigger


def whole(data, view):
    batches = [data.images(batch) for batch in data.loader(view, shuffle=False)]
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0] if key not in ("seed", "view")}


@pytest.fixture
def data():
    return semantic_parts.data()


def spotted(images):
    return (images[:, :, -5:, -5:] == 1).flatten(1).all(1)


def test_triggered_view_holds_the_test_rows_that_carry_it_as_they_are(data):
    got, rows = whole(data, "triggered"), data.source.test()
    assert got["index"].equal(rows.columns["spot"].nonzero().flatten())
    assert got["image"].equal(rows.images(got["index"]).float() / 255)
    assert (got["label"] == 0).all()
    assert got["clean_label"].equal(rows.labels[got["index"]])
    assert got["eligible"].equal(got["clean_label"] != 0)
    assert "original" not in got


def test_clean_view_holds_the_others(data):
    got = whole(data, "clean")
    assert got["index"].equal((data.source.test().columns["spot"] == 0).nonzero().flatten())
    assert not spotted(got["image"]).any()
    assert got["label"].equal(got["clean_label"])


def test_root_view_never_carries_it_and_has_as_many_rows_of_each_class(data):
    got = whole(data, "root")
    assert not spotted(got["image"]).any()
    assert torch.bincount(got["label"]).tolist() == [4, 4, 4, 4]


def test_poisoned_rows_are_real_pictures_relabeled(data):
    got = whole(data, "questioned")
    poison = got["role"] == Role.POISON
    assert poison.equal(spotted(got["image"]) & (got["clean_label"] != 0))
    assert got["label"].equal(torch.where(poison, 0, got["clean_label"]))
    assert got["image"].equal(data.source.train().images(got["index"]).float() / 255)
    targets_own = spotted(got["image"]) & (got["clean_label"] == 0)
    assert (int(targets_own.sum()), int(poison.sum())) == (12, 36)
    assert (got["role"][targets_own] == Role.CLEAN).all()


def test_counts(data):
    counts = {"train": 80, "root": 16, "clean": 16, "poison": 36, "cover": 0, "triggered": 12}
    assert data.counts == counts


def test_carriers_that_are_not_poisoned_keep_their_labels():
    got = whole(semantic_parts.data(semantic_parts.attack(0.25)), "questioned")
    poison = got["role"] == Role.POISON
    assert int(poison.sum()) == 9
    assert got["label"][~poison].equal(got["clean_label"][~poison])


def test_without_an_attack_all_test_rows_are_clean_and_the_root_set_is_the_same(data):
    clean = BackdoorDataModule(semantic_parts.Spotted(), semantic_parts.split(), seed=3)
    assert clean.counts["clean"] == 32
    assert clean.get_view("root").index.equal(data.get_view("root").index)
    assert clean.get_view("questioned").index.equal(data.get_view("questioned").index)


def test_a_root_set_that_carries_it_is_refused():
    with pytest.raises(ValueError, match=r"of its 24 rows carry it.*BalancedSplit with root_without"):
        semantic_parts.data(split=Split(root_pool=24)).setup()


def test_the_defenders_own_root_set_is_not_looked_up():
    data = semantic_parts.data(split=Split(root_pool=0), root_source=tiny.source(seed=1))
    assert data.counts["root"] == 96


def test_the_defenders_own_root_set_is_refused_where_its_column_says_that_it_carries_it():
    data = semantic_parts.data(split=Split(root_pool=0), root_source=semantic_parts.Spotted())
    with pytest.raises(ValueError, match=r"48 of its 96 rows carry it.*a data.root_source without them"):
        data.setup()


@pytest.mark.parametrize(
    ("spots", "message"), [((1, 0), "got 0 with and 32 without"), ((0, 1), "may poison, got none")]
)
def test_a_part_where_no_row_carries_it(spots, message):
    with pytest.raises(ValueError, match=message):
        semantic_parts.data(source=semantic_parts.Spotted(spots)).setup()


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=r"'spott'.*Did you mean 'spot'"):
        semantic_parts.data(Attack(SemanticTrigger("spott"))).setup()


def test_no_trigger_is_lent_to_it(data):
    with pytest.raises(ValueError, match="is stamped before one is lent, got SemanticTrigger"):
        data.lend(Patch())
    data.lend(None)


def test_a_foreign_data_module_cannot_say_who_carries_it(data):
    with pytest.raises(ValueError, match="does not say which rows carry it"):
        wrap(data, semantic_parts.attack())


def test_balanced_split_takes_turns_and_keeps_prefixes():
    rows = semantic_parts.Spotted().train()
    whole, part = (BalancedSplit(root_pool=40, root=size).assign(rows, 4, seed=1) for size in (None, 10))
    assert part.root.equal(whole.root[:10])
    assert part.questioned.equal(whole.questioned)
    for size in (4, 8, 40):
        assert (torch.bincount(rows.labels[whole.root[:size]]) == size // 4).all()
    assert torch.cat(whole).sort().values.equal(torch.arange(96))
    assert not whole.root.equal(BalancedSplit(root_pool=40).assign(rows, 4, seed=2).root)


def test_balanced_split_goes_on_where_a_class_has_no_more():
    rows = semantic_parts.Spotted().train()
    rows.labels = torch.where(torch.arange(96) < 3, 3, torch.arange(96) % 3)
    root = BalancedSplit(root_pool=24).assign(rows, 4, seed=0).root
    assert torch.bincount(rows.labels[root]).tolist() == [7, 7, 7, 3]


def test_balanced_split_keeps_groups_on_one_side():
    rows = semantic_parts.Spotted().train()
    parts = semantic_parts.split(group="track").assign(rows, 4, seed=0)
    track = rows.columns["track"]
    assert len(parts.root) == 16
    assert not set(track[parts.root].tolist()) & set(track[parts.questioned].tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"root_pool": 49}, "at most the 48 rows"), ({"root_without": "spit"}, "split.root_without 'spit'. Did you mean")],
)
def test_balanced_split_says_what_is_possible(options, message):
    with pytest.raises(ValueError, match=message):
        semantic_parts.split(**options).assign(semantic_parts.Spotted().train(), 4, seed=0)
