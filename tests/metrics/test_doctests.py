import doctest
import importlib
import pkgutil

import pytest
import torch

import lit_backdoor.functional
import lit_backdoor.metrics

PACKAGES = (lit_backdoor.functional, lit_backdoor.metrics)
MODULES = [info.name for package in PACKAGES for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name):
    result = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch})
    assert result.failed == 0


@pytest.mark.parametrize("name", lit_backdoor.metrics.__all__)
def test_every_metric_shows_an_example(name):
    assert ">>> " in (getattr(lit_backdoor.metrics, name).__doc__ or "")
