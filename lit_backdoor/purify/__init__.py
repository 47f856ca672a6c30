"""Purification of models from outside: a chain on a few clean images, and the weights in the file that they came in."""

from lit_backdoor.purify.choice import Choice, choose
from lit_backdoor.purify.run import purify

__all__ = ["Choice", "choose", "purify"]
