"""Two more stages that start from the cleaned suspect, and a part of a chain."""

import pytest
import tiny

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.cut import cut
from lit_backdoor.chain.relapse import with_relapse
from lit_backdoor.chain.run import ChainRun


def test_relapse_stages_start_from_the_cleaned_suspect_and_are_measured(file, tmp_path):
    chain = with_relapse(compose(file, ["stages.clean.trainer.max_epochs=1"]))
    assert list(chain["stages"])[-2:] == ["relapse_clean", "relapse_poisoned"]
    chain["stages"]["clean"] = {"model": {"class_path": "lit_backdoor.stages.FineTune"},
                                "inputs": {"model.suspect": "victim"}, "trainer": {"max_epochs": 1}}  # fmt: skip
    del chain["stages"]["select"], chain["stages"]["generate"]
    results = ChainRun(chain, "tiny", tmp_path / "out", use_cache=False).run()
    stages = {stage["name"]: stage for stage in results["stages"]}
    for name in ("relapse_clean", "relapse_poisoned"):
        assert stages[name]["inputs"] == {"model.suspect": "clean"}
        assert stages[name]["metrics"]["asr"] is not None
    assert stages["relapse_clean"]["hash"] != stages["relapse_poisoned"]["hash"]
    assert results["summary"]["stages"]["after"] == "clean"


def test_clean_model_has_no_backdoor_that_could_return(file):
    assert list(with_relapse(compose(file, ["data.init_args.attack=null"]))["stages"])[-1] == "relapse_clean"


@pytest.mark.parametrize(
    ("changes", "said"), [({"summary": {}}, "summary.after"), ({"summary": {"before": "victim"}}, "summary.after")]
)
def test_chain_that_cleans_nothing_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        with_relapse(tiny.chain(**changes))


def test_part_of_a_chain_has_what_a_stage_needs(file):
    chain = compose(file)
    assert list(cut(chain, "generate")["stages"]) == ["victim", "select", "generate"]
    assert cut(chain, "generate")["summary"] == {"before": "victim", "after": None}
    assert list(cut(chain, "victim")["stages"]) == ["victim"]
    with pytest.raises(ValueError, match="Did you mean 'clean'"):
        cut(chain, "clen")
