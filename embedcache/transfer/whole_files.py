"""Files that are there whole or not at all, and that only their owner may read.

What is written lies in a file beside the target, which takes the target's name when it is complete and on the disk.
On Linux that file has no name until then, so that even a process that is killed leaves nothing behind.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from embedcache.errors import TransferError

OWNER_ONLY: Final = 0o600
BUFFER_BYTES: Final = 1024 * 1024
"""Python's own 8 KiB would mean a call of the system for each line of a few hundred dimensions."""
_LONGEST_PART: Final = 50  # characters of the target's name in that of a draft: a name has 255 bytes at most


class Draft:
    """A file in the making.

    Attributes:
        path: The name that it will have.
        file: What to write to; it can be read from too.
        before_naming: Called when all is on the disk and the name is free, just before the file gets it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name: Path | None = None
        self.file = self._open()
        self.before_naming: Callable[[], None] = lambda: None

    def begin_again(self) -> BinaryIO:
        """Starts over with an empty file; returns what was written so far, to read from and to close."""
        written = self.file
        self._forget_name()
        self.file = self._open()
        return written

    def finish(self, *, replace: bool) -> None:
        """Puts what was written on the disk and gives it its name.

        Raises:
            TransferError: Another file has got that name meanwhile, and is not to be replaced.
        """
        self.file.flush()
        os.fsync(self.file.fileno())
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            if self._name is None:
                self._name = self._free_name()
                # By its descriptor, which is the only way to a file without a name. Only where a folder is given too
                # does Python follow the link that /proc has there.
                source = f"/proc/self/fd/{self.file.fileno()}"
                os.link(source, self._name.name, dst_dir_fd=folder, follow_symlinks=True)
            if not replace:
                check_free(self.path)
            # First, for nobody can tell afterwards whether what is kept there belongs to a file that has been moved.
            self.before_naming()
            self._name.replace(self.path)
            self._name = None
            os.fsync(folder)  # a name, too, is on the disk only when its folder is
        finally:
            os.close(folder)

    def abandon(self) -> None:
        """Closes it; where it was not finished, nothing is left of it."""
        with suppress(OSError):  # what a full disk did not take may well be lost now
            self.file.close()
        self._forget_name()

    def _open(self) -> BinaryIO:
        nameless = getattr(os, "O_TMPFILE", 0)
        if nameless and Path("/proc/self/fd").is_dir():
            with suppress(OSError):  # some file systems know no nameless files
                return os.fdopen(os.open(self.path.parent, nameless | os.O_RDWR, OWNER_ONLY), "w+b", BUFFER_BYTES)
        self._name = self._free_name()
        return os.fdopen(os.open(self._name, os.O_CREAT | os.O_EXCL | os.O_RDWR, OWNER_ONLY), "w+b", BUFFER_BYTES)

    def _free_name(self) -> Path:
        return self.path.parent / f".{self.path.name[:_LONGEST_PART]}.{secrets.token_hex(8)}.part"

    def _forget_name(self) -> None:
        if self._name is not None:
            self._name.unlink(missing_ok=True)
            self._name = None


@contextmanager
def whole_file(path: Path, *, replace: bool) -> Iterator[Draft]:
    """A file to write, which gets its name at the end of the block. Where the block raises, nothing is left of it.

    Args:
        path: Its name.
        replace: Whether a file that has that name already may go.

    Raises:
        TransferError: It cannot be written, or there is one of that name.
    """
    if not replace:
        check_free(path)
    with writing(path):
        draft = Draft(path)
    try:
        yield draft
        with writing(path):
            draft.finish(replace=replace)
    finally:
        draft.abandon()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Translates what the file system refuses while a file is written.

    Raises:
        TransferError: It refused.
    """
    try:
        yield
    except OSError as error:
        raise TransferError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that you may write to and that has room"
        ) from error


def check_free(path: Path) -> None:
    """Checks that nothing has this name.

    Raises:
        TransferError: Something has.
    """
    if os.path.lexists(path):
        raise TransferError(f"there is a file {path} already, and it is kept; choose another name")
