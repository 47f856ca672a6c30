"""Attacks that are data alone: triggers, label policies and the plan that puts them together."""

from lit_backdoor.triggers.base import (
    AllToAll,
    AllToOne,
    Attack,
    CleanLabel,
    LabelPolicy,
    OneToOne,
    Role,
    Trigger,
)

__all__ = ["AllToAll", "AllToOne", "Attack", "CleanLabel", "LabelPolicy", "OneToOne", "Role", "Trigger"]
