"""Examples in a file, for more of them than fit in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import numpy as np

BLOCK = 8192
"""Rows that are read together."""
BUFFER_BLOCKS = 32
"""Blocks that are in memory together while rows are shuffled: a quarter of a million rows."""


class Streamed:
    """A matrix in a temporary file, of which only the rows that are asked for are in memory.

    The file has no name, so nothing is left of it when the process ends, however it ends. It is in
    the folder for temporary files, which TMPDIR names.

    Attributes:
      shape: rows and columns.
      dtype: of the values.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed when it is collected)
        self.shape, self.dtype = (0, 0), np.dtype(np.float32)

    def append(self, rows: np.ndarray) -> None:
        """Adds rows at the end, which must have the columns and the type of those before."""
        rows.tofile(self._file)
        self.shape, self.dtype = (self.shape[0] + rows.shape[0], rows.shape[1]), rows.dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Reads the given rows: indices in any order, or a boolean mask."""
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        values = np.empty((rows.size, self.shape[1]), self.dtype)
        places = np.argsort(rows, kind="stable")
        blocks = rows[places] // BLOCK
        begins = np.flatnonzero(np.diff(blocks, prepend=-1))
        for begin, of_block in zip(begins, np.split(places, begins[1:]), strict=False):
            first = int(blocks[begin]) * BLOCK
            values[of_block] = self._read(first)[rows[of_block] - first]
        return values

    def _read(self, first: int) -> np.ndarray:
        """Reads a block that begins at a row."""
        self._file.flush()
        width = self.shape[1] * self.dtype.itemsize
        size = min(BLOCK, self.shape[0] - first) * width
        read = b"".join(_exactly(self._file.fileno(), size, first * width))
        return np.frombuffer(read, self.dtype).reshape(-1, self.shape[1])


def _exactly(file: int, size: int, offset: int) -> Iterator[bytes]:
    """Reads a part of a file; a single read may return less."""
    while size:
        part = os.pread(file, size, offset)
        if not part:
            raise OSError("the temporary file of the examples is shorter than what was written")
        yield part
        size, offset = size - len(part), offset + len(part)


def windows(rows: np.ndarray, total: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Divides rows into parts that are read together, each from blocks all over the file.

    Args:
      rows: the rows to read, ascending.
      total: the number of rows of the file.
      random: chooses the blocks.

    Yields:
      The rows of `BUFFER_BLOCKS` blocks, ascending.
    """
    edges = np.searchsorted(rows, np.arange(0, total + BLOCK, BLOCK))
    blocks = random.permutation(edges.size - 1)
    for begin in range(0, blocks.size, BUFFER_BLOCKS):
        some = np.sort(blocks[begin : begin + BUFFER_BLOCKS])
        yield np.concatenate([rows[edges[block] : edges[block + 1]] for block in some])
