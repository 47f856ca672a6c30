import pytest
import tiny

from lit_backdoor.audit.limit import OutOfTimeError, TimeLimit, time_limit
from lit_backdoor.stages import FineTune


def test_training_stops_when_the_time_is_over():
    stage = FineTune(tiny.classifier())
    with pytest.raises(OutOfTimeError), time_limit(0.0):
        tiny.fit(stage, tiny.data(), callbacks=[TimeLimit()], max_epochs=2)
    assert stage.global_step == 1


def test_no_limit_is_no_limit():
    unlimited = tiny.fit(FineTune(tiny.classifier()), tiny.data(), max_epochs=3, callbacks=[TimeLimit()])
    with time_limit(1000.0):
        ample = tiny.fit(FineTune(tiny.classifier()), tiny.data(), max_epochs=3, callbacks=[TimeLimit()])
    assert unlimited.global_step == ample.global_step == 3
