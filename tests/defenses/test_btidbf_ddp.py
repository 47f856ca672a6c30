import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lit_backdoor.bundle import open_bundle, save_bundle
from lit_backdoor.models import TimmClassifier


@pytest.mark.slow
def test_two_processes_train_in_turn(tmp_path):
    torch.manual_seed(0)
    net = TimmClassifier("resnet18", num_classes=4, input_size=16, channels=4)
    before = save_bundle(tmp_path / "victim", kind="suspect", module=net)
    source = {"num_classes": 4, "train_per_class": 16, "test_per_class": 4, "size": 16}
    attack = {"trigger": {"class_path": "lit_backdoor.triggers.Patch", "init_args": {"size": 3, "place": [1, 1]}}}
    config = {
        "seed_everything": 1,
        "trainer": {
            "max_epochs": 3, "accelerator": "cpu", "devices": 2, "strategy": "ddp_find_unused_parameters_true",
            "logger": False, "default_root_dir": str(tmp_path), "limit_val_batches": 0, "enable_progress_bar": False,
        },
        "model": {
            "class_path": "lit_backdoor.defenses.btidbf.BTIDBFUnlearning",
            "init_args": {
                "suspect": str(before.path), "decoupling": {"epochs": 1}, "inversion": {"epochs": 1},
                "generator": {"class_path": "lit_backdoor.models.UNet", "init_args": {
                    "base": 4, "downs": 2, "attention": "none", "start": "small"}},
                "rounds": 1, "unlearn_epochs": 1,
            },
        },
        "data": {
            "class_path": "lit_backdoor.data.BackdoorDataModule",
            "init_args": {
                "source": {"class_path": "lit_backdoor.data.SyntheticSigns", "init_args": source},
                "attack": {"class_path": "lit_backdoor.triggers.Attack", "init_args": attack},
                "split": {"root_pool": 24}, "batch_size": 6,
            },
        },
    }  # fmt: skip
    (tmp_path / "stage.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "lit_backdoor", "fit", "--config", "stage.yaml", "--out", "clean"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    after = open_bundle(tmp_path / "clean", "suspect").build().state_dict()
    moved = [not torch.equal(value, after[name]) for name, value in net.state_dict().items() if "weight" in name]
    assert all(moved)
