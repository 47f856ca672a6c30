"""What a parser refuses, in one line: what was expected where, what was got."""

from __future__ import annotations

import re

__all__ = ["one_line"]

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "list": "a list",
          "dict": "a mapping"}  # fmt: skip
_LONGEST = 300


def one_line(message: str) -> str:
    """Say in one line what jsonargparse says over many, with all subtypes and the whole value.

    What one of our own classes said stands as it is. A message of another form loses its line breaks only.
    """
    lines = [line.strip(" -") for line in message.splitlines()]
    said = [line for line in lines if line.startswith(("Expected ", "Unknown "))]
    ours = [line for line in said if not re.match(r"Expected a(n)? (<class|typing\.|path |dot import)", line)]
    if ours:
        return ours[0]
    if inner := re.search(r"Expected [\w.]+ to be [^\n]*?, got [^\n]*?\.(?=\.? Got value|\n|$)", message):
        return inner[0]  # a parser within this one has said it in one line
    keys = re.findall(r'Parser key "([\w.]+)"', message)
    value = re.search(
        r"(?:Given value|Got value|Expected a dot import path string): (.*?)(?:\. Got value|\n|$)", message
    )
    kinds = _kinds(message)
    if not keys or value is None or not kinds:
        text = " ".join(line for line in lines if line)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
    given = value[1]
    nested = re.fullmatch(r"NestedArg\(key='[\w.]+', val='?(.*?)'?\)", given)
    return f"Expected {'.'.join(keys)} to be {' or '.join(kinds)}, got {(nested[1] if nested else given)[:80]}."


def _kinds(message: str) -> list[str]:
    """Name the types that would do, each once; no value at all is not worth a word."""
    found = []
    for text in re.findall(r"Expected an? (?:typing\.)?(Literal\[.*?\]|<class '[\w.]+'>)(?=\W|$)", message):
        if text.startswith("Literal"):
            found += re.findall(r"'([\w.-]+)'", text)
        else:
            name = text[8:-2]
            found.append(_KINDS.get(name, name.rpartition(".")[2]))
    if "dot import path" in message:
        found.append("a class, by its class_path")
    return [kind for kind in dict.fromkeys(found) if kind != "NoneType"]
