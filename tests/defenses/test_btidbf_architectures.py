import pytest
import torch
from btidbf_parts import architecture, data, trainer, unet

from lit_backdoor.defenses.btidbf import (
    BTIDBFAdaptiveTraining,
    BTIDBFDetection,
    BTIDBFInversion,
    BTIDBFPurification,
    BTIDBFUnlearning,
    Decoupling,
    InversionSettings,
)

NAMES = ["resnet18", "vgg16_bn", "densenet121", "vit_tiny_patch16_224", "squeezenet", "sequential"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_stage_runs(name):
    net, module = architecture(name), data(size=32, root=8)
    mask, invert = Decoupling(epochs=1), InversionSettings(epochs=1)
    stages = [
        BTIDBFInversion(net, mask, invert, unet()),
        BTIDBFUnlearning(net, mask, invert, unet(), rounds=1, unlearn_epochs=1),
        BTIDBFPurification(net, mask, invert, unet(), unet(), rounds=1, purify_epochs=1),
        BTIDBFAdaptiveTraining(net, mask, epochs=1),
    ]
    for stage in stages:
        run = trainer(stage.planned_epochs, limit_train_batches=1)
        run.fit(stage, datamodule=module)
        assert all(torch.isfinite(weight).all() for weight in stage.parameters())
    purified = stages[2].outcome().module
    tester = trainer(1)
    tester.test(BTIDBFDetection(purified), datamodule=module, verbose=False)
    assert "test/f1" in tester.callback_metrics
