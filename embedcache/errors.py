"""Every error that embedcache raises.

::

    EmbedcacheError
    ├── InvalidInputError (ValueError)       what was passed in; raised before anything is written
    │   ├── InvalidTextError                 empty, blank, not text, not UTF-8, too long
    │   ├── InvalidModelNameError            empty, not text, too long
    │   ├── InvalidEmbeddingError            not 1-D, empty, not finite, of another dimension
    │   ├── InvalidMetadataError             not JSON, too large, too deep
    │   ├── InvalidTTLError                  not a whole number of seconds above zero
    │   ├── InvalidNameError                 a cache name that cannot be one
    │   ├── InvalidURLError                  a server address that cannot be read
    │   └── ForeignKeyError                  a key outside the cache's namespace
    ├── ReadOnlyError                        a write, on a cache or connection that was opened read-only
    ├── removal.RemovalStoppedError          a removal, or other change to many entries, that ended half-way
    ├── CacheUnavailableError (ConnectionError)   the server is not there or does not answer
    ├── ServerReplyError                     the server answered with an error
    ├── ClientRefusedError (TypeError)       a Redis client that cannot be used as passed in
    ├── EmbeddedServerError                  the embedded server cannot be found or started
    ├── DashboardUnavailableError            what the dashboard needs is not installed
    ├── TransferError                        a file cannot be written, or is not a whole export
    ├── CorpusError                          a file of texts cannot be read
    ├── WarmingStoppedError                  a warming that ended half-way
    └── VectorizerError
        ├── ModelUnavailableError            the model cannot be loaded, or its server cannot be used
        │   └── ModelBusyError               its server asks to come back later
        └── EmbeddingFailedError             the model gave something that is not one vector per text, or refused it

Input errors that come from one item of a batch carry its index, as ``error.index`` and in the message.
"""

from __future__ import annotations


class EmbedcacheError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidInputError(EmbedcacheError, ValueError):
    """An argument cannot be used. Nothing was written.

    Attributes:
        index: Position of the item in the batch, or None for a single call.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message if index is None else f"item {index}: {message}")
        self.index = index


class InvalidTextError(InvalidInputError):
    """The text is empty, blank, not a str or bytes, not encodable as UTF-8, or too long."""


class InvalidModelNameError(InvalidInputError):
    """The model name is empty, not a str, not encodable as UTF-8, or too long."""


class InvalidEmbeddingError(InvalidInputError):
    """The embedding is not one finite, non-empty 1-D vector of the expected dimension."""


class InvalidMetadataError(InvalidInputError):
    """The metadata is not a JSON object, or is too large or too deeply nested."""


class InvalidTTLError(InvalidInputError):
    """The TTL is not a whole number of seconds above zero."""


class InvalidNameError(InvalidInputError):
    """The cache name is empty, not a str, or not encodable as UTF-8."""


class InvalidURLError(InvalidInputError):
    """The server's URL cannot be read, or its scheme is not one that we speak."""


class ForeignKeyError(InvalidInputError):
    """A key outside the cache's namespace was given to a method that changes entries."""


class ReadOnlyError(EmbedcacheError):
    """The cache or connection was opened read-only, and this would have changed something. Nothing was sent."""


class CacheUnavailableError(EmbedcacheError, ConnectionError):
    """The server cannot be reached, or did not answer in time."""


class ServerReplyError(EmbedcacheError):
    """The server answered a command with an error.

    Attributes:
        code: The first word of the server's message, such as ``NOSCRIPT`` or ``WRONGTYPE``.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.split(" ", 1)[0]


class ClientRefusedError(EmbedcacheError, TypeError):
    """A Redis client of the wrong kind was passed in."""


class EmbeddedServerError(EmbedcacheError):
    """The embedded server cannot be found, started or attached to."""


class DashboardUnavailableError(EmbedcacheError):
    """The dashboard cannot be started: its packages or its files are not installed."""


class TransferError(EmbedcacheError):
    """An export cannot be written, or a file cannot be restored from.

    Attributes:
        row: Which row of the file is at fault, counted from 1, or None where it is the file as a whole.
        reason: What is wrong, without the row.
    """

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message if row is None else f"row {row:,}: {message}")
        self.row = row
        self.reason = message


class CorpusError(EmbedcacheError):
    """A file of texts cannot be read, or not from some row on.

    Attributes:
        row: From which row on, counted from 1, or None where it is the file as a whole.
    """

    def __init__(self, message: str, *, row: int | None = None) -> None:
        super().__init__(message if row is None else f"row {row:,}: {message}")
        self.row = row


class WarmingStoppedError(EmbedcacheError):
    """The warming of a cache ended half-way, for none of the other reasons. What it stored stays."""


class VectorizerError(EmbedcacheError):
    """A vectorizer cannot do its work."""


class ModelUnavailableError(VectorizerError):
    """The model cannot be used: it cannot be fetched or loaded, or its server does not answer or lets nobody in."""


class ModelBusyError(ModelUnavailableError):
    """The model's server limits how much it is asked, or has too much to do. Later it will answer.

    Attributes:
        retry_after: Seconds after which the server wants to be asked again, or None where it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EmbeddingFailedError(VectorizerError):
    """The model returned something other than one finite vector per text, or refused a text."""
