"""Engines: they run command lines, one for each node of a grid, and say how those ended; no more is taken on trust."""
