"""The board: one HTML page and its exports about the rows of a benchmark. It reads results only."""

from lit_backdoor.board.making import gather, row_of
from lit_backdoor.board.page import write_board
from lit_backdoor.board.rows import Row, read_rows, write_rows

__all__ = ["Row", "gather", "read_rows", "row_of", "write_board", "write_rows"]
