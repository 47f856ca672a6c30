"""Long messages of parsers in one line."""

import pytest

from lit_backdoor.refusals import one_line

UNION = """Parser key "{key}":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'int'>, <class 'NoneType'>]
  Errors:
    - Expected a <class 'int'>
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: x"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (UNION.format(key="trainer.max_epochs"), "Expected trainer.max_epochs to be a whole number, got x."),
        ("Parser key \"a\":\n  - Expected a path but [1] either not accessible\n  - Expected n in [0, 1), got 2.",
         "Expected n in [0, 1), got 2."),
        ("Parser key \"data\":\n  Given value: Namespace(a=1)\n  Expected a <class 'float'>",
         "Expected data to be a number, got Namespace(a=1)."),
        ("Type Callable expects: Expected lr to be a number, got x.. Got value: Namespace(lr='x')",
         "Expected lr to be a number, got x."),
        ("File does\n  not exist", "File does not exist"),
    ],
)  # fmt: skip
def test_message_is_put_into_one_line(message, line):
    assert one_line(message) == line


def test_long_message_without_a_form_is_cut():
    assert len(one_line("x\n" * 1000)) < 310
