"""TFRecord files, read without TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from fraud.errors import BadInput

_LENGTH = struct.Struct("<QI")
_CHECKSUM_BYTES = 4
_LONGEST = 1 << 26


def read_records(path: Path, most: int) -> Iterator[bytes]:
    """The first records of an uncompressed TFRecord file. Checksums are not verified.

    Raises:
      BadInput: the file is cut short or is no such file.
    """
    with open(path, "rb") as file:
        for number in range(most):
            header = file.read(_LENGTH.size)
            if not header:
                return
            length = _LENGTH.unpack(header)[0] if len(header) == _LENGTH.size else _LONGEST + 1
            record = file.read(length) if length <= _LONGEST else b""
            if len(record) != length or len(file.read(_CHECKSUM_BYTES)) != _CHECKSUM_BYTES:
                raise BadInput(f"{path}: record {number + 1} is cut short, or this is no TFRecord")
            yield record
