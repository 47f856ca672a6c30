"""What tests of repairs share: a tiny victim whose backdoor works, and what is measured of it."""

import functools
import tempfile

import tiny
import torch

from lit_backdoor.bundle import save_bundle
from lit_backdoor.data import Split
from lit_backdoor.stages import PoisonedTraining

ROWS = 240


def fast(parameters):
    return torch.optim.Adam(parameters, lr=3e-3)


@functools.cache
def trained():
    """The path of a net that learned a backdoor of class 0."""
    stage = PoisonedTraining(tiny.classifier(), optimizer=fast, schedule="constant")
    tiny.fit(stage, tiny.data(tiny.attack(), source=tiny.source(ROWS)), max_epochs=8)
    return str(save_bundle(f"{tempfile.mkdtemp()}/suspect", kind="suspect", module=stage.classifier).path)


def repaired(stage, epochs=1, plan=None, **options):
    """Run a repair on the root set of the same data."""
    given = {"source": tiny.source(ROWS), "split": Split(root_pool=48), **options}
    return tiny.fit(stage, tiny.data(plan, **given), max_epochs=epochs)


def measured(net):
    """ACC and ASR of a classifier, by hand."""
    rows = tiny.source(ROWS, 120).test()
    images, labels = rows.pixels.float() / 255, rows.labels
    stamped = images[labels != 0]
    stamped[:, :, 1:4, 1:4] = 1
    with torch.no_grad():
        clean, triggered = (net.eval()(x).argmax(1) for x in (images, stamped))
    return float((clean == labels).float().mean()), float((triggered == 0).float().mean())


def first_step(stage, datamodule):
    """The gradients of the first step, what was logged, and the batch."""
    kept = {}
    stage.on_before_optimizer_step = lambda optimizer: kept.update(
        {name: weight.grad.clone() for name, weight in stage.classifier.named_parameters()}
    )
    steps = tiny.recorded(stage)
    tiny.fit(stage, datamodule, max_steps=1)
    return kept, steps[0], steps[0].pop("batch")


def changed_by_the_attack(make):
    """Names of the weights that depend on the attack on the questioned data: there should be none."""
    one, two = (tiny.tensors(tiny.fit(make(), tiny.data(plan)).result()) for plan in (None, tiny.attack(rate=0.5)))
    return tiny.moved(one, two)
