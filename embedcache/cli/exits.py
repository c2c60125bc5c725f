"""Exit codes of the command, and which error ends it with which: the one place that decides."""

from __future__ import annotations

from enum import IntEnum

from embedcache.errors import (
    CacheUnavailableError,
    CorpusError,
    DashboardUnavailableError,
    EmbedcacheError,
    EmbeddedServerError,
    InvalidInputError,
    ReadOnlyError,
    ServerReplyError,
    TransferError,
    VectorizerError,
)


class Exit(IntEnum):
    """What the command ends with. `docs/cli.md` tells them to people."""

    DONE = 0
    NOTHING = 1  # there is no such entry, or something was found that is not well
    USAGE = 2  # typer's own code for arguments that cannot be read
    UNAVAILABLE = 3  # the server, the model, or the dashboard's packages
    REFUSED = 4  # by the server, by read-only, or not confirmed
    FILE = 5
    INCOMPLETE = 6  # it ended half-way; what was done stays
    INTERRUPTED = 130


class RefusedError(EmbedcacheError):
    """Something that deletes or changes entries was not confirmed. Nothing was done."""


class InterruptedWorkError(Exception):
    """Somebody pressed Ctrl+C during long work, which ended between two of its steps.

    It is none of the package's errors: those are failures, and the audit log tells the two apart.
    """


_CODES: tuple[tuple[type[Exception], Exit], ...] = (
    (InvalidInputError, Exit.USAGE),
    (CacheUnavailableError, Exit.UNAVAILABLE),
    (EmbeddedServerError, Exit.UNAVAILABLE),
    (DashboardUnavailableError, Exit.UNAVAILABLE),
    (VectorizerError, Exit.UNAVAILABLE),
    (ReadOnlyError, Exit.REFUSED),
    (ServerReplyError, Exit.REFUSED),
    (RefusedError, Exit.REFUSED),
    (TransferError, Exit.FILE),
    (CorpusError, Exit.FILE),
    (InterruptedWorkError, Exit.INTERRUPTED),
    (ImportError, Exit.USAGE),  # of an extra that is not installed
    (EmbedcacheError, Exit.INCOMPLETE),  # what has no code of its own ended something half-way
    (OSError, Exit.FILE),
)


def code_of(error: Exception) -> Exit:
    """The code for an error; work that an interruption ended half-way was interrupted."""
    if isinstance(error.__cause__, InterruptedWorkError):
        return Exit.INTERRUPTED
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.INCOMPLETE)


def words_of(error: Exception) -> str:
    """What an error says, for people."""
    if isinstance(error, OSError) and not isinstance(error, EmbedcacheError):
        return f"{error.filename or 'a file'} cannot be used: {error.strerror or error}"
    return str(error)
