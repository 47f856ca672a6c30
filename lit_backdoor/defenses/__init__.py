"""Defenses, one package per paper: its stages and the wiring of its losses."""
