"""Attacks that control training, one file each."""
