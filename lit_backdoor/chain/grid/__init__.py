"""Grids: setups x attacks x defenses x seeds, as a graph of chains that share what they have in common."""
