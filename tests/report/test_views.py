"""Sections that ask the classifiers anew: heat maps, logits on a plane, vectors against true shifts."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lit_backdoor.data import BackdoorDataModule
from lit_backdoor.data.sources import SyntheticSigns
from lit_backdoor.data.split import Split
from lit_backdoor.functional.prototypes import class_prototypes
from lit_backdoor.models import Purified, TimmClassifier, UNet, wrap_classifier
from lit_backdoor.page.words import signed
from lit_backdoor.report import write_report
from lit_backdoor.report.pictures import heat_uri
from lit_backdoor.report.run import Run
from lit_backdoor.report.sections.heatmaps import grad_cam, heatmaps, last_map
from lit_backdoor.report.sections.projection import projection
from lit_backdoor.report.sections.vectors import vectors
from lit_backdoor.triggers import AllToAll, OneToOne

SECTIONS = pytest.mark.parametrize("section", [heatmaps, projection, vectors])


def run(folder, **nets):
    """Open a run; nets given stand for its own."""
    found = Run(folder.write(), folder.results, folder.data, "")
    if nets:
        found.__dict__["nets"] = {role: net.eval() for role, net in nets.items()}
    return found


def text(section):
    return " ".join(re.sub(r"<[^>]+>", " ", str(section.html)).split())


def suspects(folder):
    folder.suspect("victim", {"acc": 0.9, "asr": 1.0})
    folder.summary({"acc": 0.9, "asr": 1.0})
    return folder


def resnet(seed=0, name="resnet18"):
    torch.manual_seed(seed)
    return TimmClassifier(name, num_classes=16, input_size=32, channels=4).eval()


def vit():
    torch.manual_seed(0)
    args = {"depth": 2, "num_heads": 2}
    return TimmClassifier("vit_tiny_patch16_224", 16, 32, channels=32, net_args=args).eval()


def wrapped(net):
    mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    return wrap_classifier(net, split="2", num_classes=16, input_size=32, mean=mean, std=std).eval()


def one_convolution():
    layers = nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 16)
    return wrapped(nn.Sequential(*layers))


def perceptron():
    layers = nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, 16)
    return wrapped(nn.Sequential(*layers))


# What is missing leaves a section out, and fails nothing.


@SECTIONS
def test_nothing_to_ask(empty_chain, data, section):
    assert section(run(empty_chain(data))) is None


@SECTIONS
def test_no_attack_is_known(empty_chain, signs, section):
    assert section(run(suspects(empty_chain(signs())))) is None


@SECTIONS
@pytest.mark.parametrize("policy", [AllToAll(), OneToOne(5)])
def test_attacks_of_labels(empty_chain, signs, corner_attack, section, policy):
    folder = suspects(empty_chain(signs(rows=24, attack=corner_attack(policy=policy, rate=0.05))))
    assert section(run(folder)) is not None


@SECTIONS
@pytest.mark.parametrize("net", [vit, one_convolution, perceptron])
def test_foreign_nets(empty_chain, data, section, net):
    found = section(run(suspects(empty_chain(data)), before=net(), after=net()))
    if section is heatmaps:
        assert ("left out" in text(found)) == (net is not one_convolution)
    assert (found is None) == (section is vectors and net is perceptron)


# Heat maps.


@pytest.mark.parametrize("net", [resnet, one_convolution])
def test_heat_is_that_of_the_formula(net):
    net = net()
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 5, 7, 15])
    layer = last_map(net)
    maps = []
    for image, label in zip(images, labels, strict=True):
        found = {}
        handle = net.net.get_submodule(layer).register_forward_hook(
            lambda _m, _i, out, found=found: found.update(out=out)
        )
        logits = net(image[None])
        handle.remove()
        [gradient] = torch.autograd.grad(logits[0, label], found["out"])
        heat = (gradient.mean((2, 3), keepdim=True) * found["out"]).sum(1).relu()[0]
        maps.append(heat / heat.max() if heat.max() > 0 else heat)
    found = grad_cam(net, layer, images, labels)
    torch.testing.assert_close(found, torch.stack(maps), rtol=1e-4, atol=1e-5)
    assert found.amax() == 1


def test_last_map_is_behind_the_last_convolution():
    assert last_map(resnet()) == "layer4"
    assert last_map(one_convolution()) == "1"
    assert last_map(Purified(UNet(base=4, downs=1), resnet())) == "layer4"
    assert last_map(vit()) is None
    assert last_map(perceptron()) is None


def test_grad_cam_leaves_the_net_as_it_was():
    net = resnet().requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    grad_cam(net, "layer4", torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))
    assert not net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_heat_picture_is_clearest_where_it_is_hottest():
    heat = torch.zeros(4, 4)
    heat[1, 2] = 1
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(heat_uri(heat).partition(",")[2]))))
    assert pixels.shape == (32, 32, 4)
    assert np.unravel_index(pixels[..., 0].argmax(), (32, 32)) in [(y, x) for y in range(8, 16) for x in range(16, 24)]
    assert pixels[12, 20, 3] < pixels[30, 2, 3]


def test_heat_maps_of_clean_and_triggered_before_and_after(chain):
    html = str(heatmaps(run(chain)).html)
    assert html.count('class="hot"') == 6 * 2 * 2
    assert "Triggered, before" in html
    assert "after the defense" in html


# Logits on the plane.


def test_points_of_every_kind_before_and_after(chain, data):
    section = projection(run(chain))
    plots = re.findall(r"<svg viewBox=\"0 0 .*?</svg>", str(section.html), re.S)
    assert len(plots) == 2
    paths = re.findall(r'<path d="([^"]*)" class="mark-of (\w+)(?: class-(\d))?"', plots[0])
    counts = {style: sum(d.count("M") for d, own, _ in paths if own == style) for _, style, _ in paths}
    assert counts == {"clean": 30, "poison": 27, "made": 27, "target": 3}  # 3 images each of 10 of the 16 classes
    assert {number for _, style, number in paths if style == "clean"} == set("0123456789")  # a color per class
    assert f"of the target class “{data.class_names[3]}”" in text(section)
    assert len(str(section.html)) < 100_000


def test_all_to_all_has_no_target_to_mark(empty_chain, signs, corner_attack):
    section = projection(run(suspects(empty_chain(signs(attack=corner_attack(policy=AllToAll()))))))
    assert "mark-of target" not in section.html
    assert "of the target class" not in text(section)


def test_generated_images_without_an_attack(empty_chain, signs):
    folder = suspects(empty_chain(signs()))
    folder.generator()
    section = projection(run(folder))
    assert "Generated" in text(section)
    assert "Triggered" not in text(section)


def test_tsne_is_an_option(chain):
    html = write_report(chain.write(), chain.data, projection="tsne").read_text()
    assert "t-SNE" in html
    assert "metric MDS" not in html
    with pytest.raises(ValueError, match="projection 'pca'"):
        write_report(chain.path, chain.data, projection="pca")


def test_logits_that_are_not_finite_are_not_drawn(empty_chain, data):
    net = resnet()
    net.final_linear.weight.data.fill_(torch.nan)
    assert projection(run(suspects(empty_chain(data)), before=net)) is None


# Vectors against true shifts.


def test_mean_and_classes_are_those_of_the_formula(empty_chain, signs, corner_attack):
    data = signs(4, rows=40, attack=corner_attack())
    folder = suspects(empty_chain(data))
    net = TimmClassifier("resnet18", num_classes=4, input_size=32, channels=4).eval()
    said = text(vectors(run(folder, before=net)))
    layer = net.last_layers(1)[0]
    prototypes, shifts = [], []
    with torch.no_grad():
        for label in range(4):
            parts = {}
            for name in ("root", "clean", "triggered"):
                batch = next(data.images(b) for b in data.loader(name, batch_size=999, shuffle=False))
                images = batch["image"][batch["clean_label"] == label][:32]
                parts[name] = net.taps(images, [layer])[layer].flatten(1)
            prototypes.append(class_prototypes(parts["root"], torch.zeros(len(parts["root"])).long(), 1, seed=1)[0])
            shifts.append((parts["triggered"].mean(0) - parts["clean"].mean(0)).double().numpy())
    cosines = []
    for label in range(3):
        along = (prototypes[3] - prototypes[label]).double().numpy()
        cosines.append(along @ shifts[label] / np.linalg.norm(along) / np.linalg.norm(shifts[label]))
    for label, cosine in enumerate(cosines):
        assert f"{data.class_names[label]}: {cosine:.2f}" in said
    assert signed(np.mean(cosines), ".2f") in said


def test_layers_stand_in_forward_order(chain):
    html = str(vectors(run(chain)).html)
    assert html.count("cosine of direction and true shift") == 2  # wide and narrow
    names = resnet().last_layers(3)
    assert html.index(names[2]) < html.index(names[1]) < html.index(names[0])
    assert html.count("mean asr") == html.count("mean ra") == 3 * 2


def test_only_layers_that_both_nets_have_are_compared(empty_chain, data):
    html = str(vectors(run(suspects(empty_chain(data)), before=resnet(), after=one_convolution())).html)
    assert "mean asr" in html
    assert "mean ra" not in html


def test_root_set_of_other_classes_has_no_prototypes(empty_chain, corner_attack):
    root = SyntheticSigns(8, 12, 3, 32)
    data = BackdoorDataModule(SyntheticSigns(16, 12, 3, 32), Split(root_pool=0), corner_attack(), root_source=root)
    assert vectors(run(suspects(empty_chain(data)))) is None
    bare = BackdoorDataModule(SyntheticSigns(16, 12, 3, 32), Split(root_pool=0), corner_attack())
    assert vectors(run(suspects(empty_chain(bare)))) is None
