"""Every shipped configuration is read, checked and parsed as `fit` would."""

import pytest

from lit_backdoor.chain.command import sweep
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.chain.testing import build
from lit_backdoor.presets import list_configs
from lit_backdoor.triggers import Attack

NAMED = {"badnets", "badnets_a2a", "blend", "sig", "wanet", "batt", "atclean_adaptive", "filter"}


def test_promised_names_are_there():
    assert set(list_configs("attacks")) >= NAMED
    assert set(list_configs("chains")) >= {
        "demo", "atclean_cifar10_small", "atclean_cifar10", "atclean_tinyimagenet_small", "atclean_tinyimagenet",
        "collision",
    }  # fmt: skip


@pytest.mark.parametrize("name", list_configs("chains"))
def test_every_chain_composes_and_every_stage_parses(name, tmp_path):
    variants = sweep(compose(name))
    labels = [label for label, _ in variants]
    assert len(set(labels)) == len(labels)
    chain = variants[-1][1]
    plan = ChainRun(chain, name, tmp_path / "out").plan()
    assert [stage for stage, _, _ in plan] == list(chain["stages"])
    assert not (tmp_path / "out").exists()  # a plan writes nothing


@pytest.mark.parametrize("name", list_configs("attacks"))
def test_every_attack_goes_into_a_chain(name):
    chain = compose("atclean_cifar10_small", [f"data.init_args.attack={name}"])
    attack = build(chain["data"]["init_args"]["attack"], Attack)
    attack.check(10)
