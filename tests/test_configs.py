"""Every shipped configuration is read, composed and checked; those that run on the embedded signs are planned."""

import pytest
import tiny
from trigger_parts import need_extra

from lit_backdoor.chain.command import sweep
from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.fill import check
from lit_backdoor.chain.run import ChainRun
from lit_backdoor.chain.testing import build
from lit_backdoor.cli import main
from lit_backdoor.presets import METHOD_FILE, find_config, list_configs, read_config
from lit_backdoor.triggers import Attack

SETUPS = {"signs", "signs_mini", "cifar10_small", "cifar10", "tinyimagenet_small", "faces"}
ATTACKS = {
    "badnets", "badnets_a2a", "blend", "sig", "wanet", "batt", "atclean_adaptive", "filter", "bpp", "adap_blend", "adap_patch",
    "belt", "composite", "refool", "lf", "chessboard", "ctrl", "ftrojan",
}  # fmt: skip
DEFENSES = {
    "atclean", "atclean_mixed", "atclean_anchored", "atclean_detector_free", "btidbf_u", "btidbf_u_varied", "btidbf_u_fresh", "btidbf_p", "btidbf_p_varied",
    "pgbd", "pgbd_stamps", "pgbd_nt", "pgbd_nt_stamps", "pgbd_st", "tac", "tac_stamps", "nc", "pixel", "fine_tune",
    "ft_sam", "fst", "sau", "i_bau", "seam", "npd",
    "anp", "clp", "nad", "fp", "rnp", "abl", "shrink_pad", "mcr", "awm", "nab", "pdb", "moth", "mcl", "none", "pipd",
    "strip", "scale_up", "featurere", "unicorn", "februus", "abs",
}  # fmt: skip
SMALL = [
    f"data.init_args.source={tiny.SIGNS}",
    "data.init_args.attack.init_args.trigger.init_args={size: 3, place: [1, 1], pattern: white}",
]


def test_promised_names_are_there():
    assert set(list_configs("setups")) >= SETUPS
    assert set(list_configs("attacks")) >= ATTACKS
    assert {key.rpartition("/")[2] for key in list_configs("defenses")} >= DEFENSES
    assert set(list_configs("chains")) >= {"demo", "collision"}


@pytest.mark.parametrize("name", list_configs("chains"))
def test_every_chain_composes_and_its_classes_are_there(name):
    variants = sweep(compose(name))
    labels = [label for label, _ in variants]
    assert len(set(labels)) == len(labels)
    check(variants[-1][1])


@pytest.mark.parametrize("name", list_configs("defenses"))
def test_every_defense_composes_and_its_classes_are_there(name):
    check(compose(name, setup="signs_mini"))


@pytest.mark.slow
@pytest.mark.parametrize("name", list_configs("defenses"))
def test_every_defense_goes_with_every_setup_and_is_planned_on_signs(name, tmp_path):
    for setup in list_configs("setups"):
        check(compose(name, setup=setup))
    chain = compose(name, SMALL)
    plan = ChainRun(chain, name, tmp_path / "out").plan()
    assert [stage for stage, _, _ in plan] == list(chain["stages"])
    assert not (tmp_path / "out").exists()  # a plan writes nothing


@pytest.mark.slow
@pytest.mark.parametrize("name", list_configs("defenses"))
def test_dry_run_of_every_defense_passes(name, tmp_path, capsys):
    settings = [word for setting in SMALL for word in ("--set", setting)]
    assert main(["chain", name, "--setup", "signs_mini", "--dry-run", "--out", str(tmp_path / "out"), *settings]) == 0
    assert not (tmp_path / "out").exists()
    assert "signs_mini" in capsys.readouterr().out


@pytest.mark.parametrize("name", list_configs("defenses"))
def test_every_method_says_what_it_needs(name):
    folder = find_config("defenses", name).parent
    method = read_config("defenses", folder / METHOD_FILE)
    assert {"paper", "needs", "recommended"} <= set(method) <= {"paper", "needs", "recommended", "controls", "reported"}
    assert all((folder / f"{name}.yaml").is_file() for name in method.get("controls", ()))
    assert set(method["needs"]) == {"root", "questioned", "target"}
    assert find_config("defenses", method["recommended"]).parent == folder


@pytest.mark.parametrize("name", list_configs("attacks"))
def test_every_attack_goes_into_a_chain(name):
    need_extra(name)
    chain = compose("fine_tune", attack=name)
    build(chain["data"]["init_args"]["attack"], Attack).check(16)
