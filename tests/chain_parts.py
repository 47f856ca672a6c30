"""What the tests of running chains share."""

from lit_backdoor.chain.compose import compose
from lit_backdoor.chain.run import ChainRun

NAMES = ["victim", "select", "generate", "clean"]


def again(file, out, settings=(), **options):
    return ChainRun(compose(file, settings), "tiny", out, **{"use_cache": False, **options}).run()


def statuses(results):
    return [stage["status"] for stage in results["stages"]]


def lasting(results):
    return [(stage["name"], stage["hash"], stage["key"], stage["metrics"]) for stage in results["stages"]]
