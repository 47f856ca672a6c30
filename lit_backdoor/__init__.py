"""Backdoor attacks on image classifiers and defenses against them, as PyTorch Lightning stages."""

__version__ = "0.1.0"
