"""The sections of the board, each a function of its rows."""
