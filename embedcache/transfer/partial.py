"""What an export has read so far, kept beside its file so that one that ended half-way can go on.

The file ``NAME.partial`` holds which entries are to be exported, then batch by batch what the server held under them.
Each part has its length and a checksum before it: one that was cut off ends what is taken over. Nothing of it depends
on the server, which may have been started anew since, nor on the format of the export.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgpack
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from embedcache.errors import TransferError
from embedcache.transfer.operations import FoundValues
from embedcache.transfer.whole_files import OWNER_ONLY, writing

Digests = npt.NDArray[np.uint8]
"""The SHA-256s that end keys, shape ``(n, 32)``."""

_MAGIC: Final = b"embedcache partial export 1\n"
_PART: Final = struct.Struct("<QQ")
_DIGEST_BYTES: Final = 32


def partial_path(path: Path) -> Path:
    """Where what was read for an export to this file is kept."""
    return path.with_name(f"{path.name}.partial")


class PartialExport:
    """An export's beginning.

    Attributes:
        digests: Of the keys that it is of, in the order in which they are exported; None until `begin`.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self.digests: Digests | None = None

    def take_up(self, cache_name: str, asked: Digests | None) -> None:
        """Reads what an earlier export to this file was of; `digests` is None where there is nothing to go on with.

        Args:
            cache_name: The cache that is exported now.
            asked: Which entries; None is all of the cache.

        Raises:
            TransferError: It was of another cache or of other entries, or the file is something else.
        """
        start = self._file.read(len(_MAGIC))
        if not _MAGIC.startswith(start):
            raise TransferError(f"{self._path} is not the beginning of an export; remove it, or export to another file")
        header, keys = self._read_part(), self._read_part()
        if header is None or keys is None:
            return
        of_cache, of_all = msgpack.unpackb(header)
        digests = np.frombuffer(keys, np.uint8).reshape(-1, _DIGEST_BYTES)
        same = asked is None if of_all else asked is not None and np.array_equal(_sorted(asked), _sorted(digests))
        if of_cache != cache_name or not same:
            raise TransferError(
                f"{self._path} is the beginning of an export of {'' if of_cache == cache_name else 'another cache'}"
                f"{'other entries' if of_cache == cache_name else ''}; remove it, or export to another file"
            )
        self.digests = digests

    def begin(self, cache_name: str, digests: Digests, *, of_all: bool) -> None:
        """Writes down what is to be exported, in the place of all that was there."""
        with writing(self._path):
            self._file.seek(0)
            self._file.truncate()
            self._file.write(_MAGIC)
        self._write_part([msgpack.packb((cache_name, of_all))])
        self._write_part([np.ascontiguousarray(digests).tobytes()])
        self.digests = digests

    def batches(self) -> Iterator[tuple[list[bytes | None], list[int], float]]:
        """What was read, as `add` got it: values, milliseconds left, and the server's time. What follows is cut off."""
        while (part := self._read_part()) is not None:
            values, milliseconds, now = msgpack.unpackb(part)
            yield values, milliseconds, now
        self._file.truncate()

    def add(self, found: FoundValues) -> None:
        """Keeps what was read under the next keys."""
        self._write_part([msgpack.packb((found.values, found.milliseconds, found.now))])

    def remove(self) -> None:
        """Removes the file."""
        self._path.unlink(missing_ok=True)

    def _read_part(self) -> bytes | None:
        """The next part; None, and the file stands before it, where it is not whole."""
        at = self._file.tell()
        head = self._file.read(_PART.size)
        if len(head) == _PART.size:
            size, checksum = _PART.unpack(head)
            if size <= os.fstat(self._file.fileno()).st_size - at:
                part = self._file.read(size)
                if len(part) == size and xxh3_64_intdigest(part) == checksum:
                    return part
        self._file.seek(at)
        return None

    def _write_part(self, pieces: Iterable[bytes]) -> None:
        part = b"".join(pieces)
        with writing(self._path):
            self._file.write(_PART.pack(len(part), xxh3_64_intdigest(part)))
            self._file.write(part)
            self._file.flush()


@contextmanager
def partial_export(path: Path) -> Iterator[PartialExport]:
    """The beginning of an export to this file, which nobody else uses meanwhile. It stays when the block ends.

    Raises:
        TransferError: It cannot be written, or another process exports to the same file.
    """
    kept = partial_path(path)
    with writing(kept):
        file = os.fdopen(os.open(kept, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, OWNER_ONLY), "r+b")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TransferError(f"another export to {path} is going on; wait for it, or choose another name") from error
        try:
            yield PartialExport(kept, file)
        finally:
            if not os.fstat(file.fileno()).st_size:  # nothing was begun
                kept.unlink(missing_ok=True)


def _sorted(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The same in one order: a server that was started anew lists keys in another."""
    return digests[np.lexsort(digests.T[::-1])]
