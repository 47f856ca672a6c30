import pytest
import tiny
import torch

from lit_backdoor.bundle import save_bundle
from lit_backdoor.data.attack_given import alike, attack_given, same_attack
from lit_backdoor.models import UNet
from lit_backdoor.triggers import Attack, GeneratorTrigger, Patch


def trained(start, target=1):
    """An attack whose trigger has weights that its description does not say."""
    torch.manual_seed(start)
    return Attack(GeneratorTrigger(UNet(base=4, downs=1, start="random")), target=target)


def test_a_bundle_gives_its_attack_with_the_weights_of_its_trigger(tmp_path):
    attack = trained(1)
    save_bundle(tmp_path / "suspect", kind="suspect", module=tiny.classifier(), attack=attack)
    found = tiny.data(str(tmp_path / "suspect")).attack
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(found.trigger(images, torch.arange(2)), attack.trigger(images, torch.arange(2)))
    assert found.target == 1


def test_a_bundle_without_an_attack_says_what_to_set(tmp_path):
    save_bundle(tmp_path / "suspect", kind="suspect", module=tiny.classifier())
    with pytest.raises(ValueError, match=r"carries none\. Set data\.attack"):
        attack_given(str(tmp_path / "suspect"))


def test_attacks_are_alike_by_description_and_the_same_by_weights_too():
    one, other = trained(1), trained(2)
    assert alike(one, other)
    assert not same_attack(one, other)
    assert same_attack(one, trained(1))
    assert not alike(one, trained(1, target=2))


def test_rates_do_not_make_another_attack():
    assert same_attack(Attack(Patch(), rate=0.1), Attack(Patch(), rate=0.2, seed=3))


def test_the_view_of_the_attacker_has_untouched_rows_with_their_roles():
    data = tiny.data(tiny.attack())
    view = data.get_view("attacker")
    batch = data.images(next(iter(data.loader("attacker", shuffle=False))), training=True)
    assert torch.equal(view.role, data.get_view("questioned").role)
    assert torch.equal(view.label, view.clean_label)
    assert int((batch["role"] == 1).sum()) > 0
    assert torch.equal(batch["image"], view.rows.images(batch["index"]).float() / 255)
