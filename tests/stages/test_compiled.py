import pytest
import tiny
import torch
from torch._dynamo.testing import CompileCounter

from lit_backdoor.bundle import open_bundle
from lit_backdoor.stages import CompiledNets, FineTune


def tuned(victim, **options):
    stage = FineTune(victim)
    tiny.fit(stage, tiny.data(batch_size=12), limit_train_batches=3, **options)
    return stage


@pytest.mark.slow
def test_compiled_run_gives_the_weights_of_a_plain_one_under_the_same_keys(victim, tmp_path):
    counter = CompileCounter()
    plain, compiled = tuned(victim), tuned(victim, callbacks=[CompiledNets(backend=counter)])
    assert counter.frame_count >= 1
    one, two = plain.state_dict(), compiled.state_dict()
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value)
    compiled.export(tmp_path / "bundle")
    assert type(open_bundle(tmp_path / "bundle").build()) is type(plain.result())


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="reduce-overhead"):
        CompiledNets(mode="reduce_overhead")
