"""Texts to requests of OpenAI's embeddings API, and replies to vectors.

As elsewhere, the work is a generator that does no I/O: it yields `Ask` and `Wait`, and is sent a reply's bytes or a
`Failure`; the sync and the async way of `embedcache.vectorizers.openai` carry them out.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from embedcache.errors import (
    EmbeddingFailedError,
    ModelBusyError,
    ModelUnavailableError,
    VectorizerError,
)
from embedcache.vectorizers.retrying import Failure, pause, retry_after

R = TypeVar("R")

MAX_TEXTS: Final = 2_048
"""Texts of one request, by the API's reference."""
MAX_TOKENS: Final = 300_000
"""Tokens of one request, by the API's reference."""
_BYTES_PER_TOKEN: Final = 3
"""Rather too few: English has 4, Chinese and Japanese 3. A request that is too long all the same comes back refused,
and is halved."""

_REFUSED: Final = frozenset({400, 413, 422})
_NOT_LET_IN: Final = frozenset({401, 403})
_NOT_FOUND: Final = 404
_BUSY: Final = 429
_TOO_MANY_TOKENS: Final = "max_tokens_per_request"
_ONE_INPUT: Final = re.compile(r"input\[(\d+)\]")
_SHOWN: Final = 300
_TEXT_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class Ask:
    """Send these texts; answered by the reply's bytes, or a `Failure`."""

    texts: Sequence[str]
    encoding: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Let these seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a model gave.

    Attributes:
        vectors: float32, shape (n, d).
        tokens: How many tokens the server counted; None where it did not say.
    """

    vectors: npt.NDArray[np.float32]
    tokens: int | None


Exchange: TypeAlias = Generator[Ask | Wait, Any, R]


class EmbeddingRequests:
    """The requests of one model on one server, with what that server turned out not to take.

    Args:
        server: The server's address, as errors name it.
        dimensions: How many components are asked for; None leaves it to the model.
        batch_size: Texts per request.
        max_retries: Tries after the first, of each request.
        retry_seconds: Seconds from the first try of a request within which another may begin.
    """

    def __init__(
        self, server: str, dimensions: int | None, batch_size: int, max_retries: int, retry_seconds: float
    ) -> None:
        self._server = server
        self._dimensions = dimensions
        self._batch_size = batch_size
        self._max_retries = max_retries
        self._retry_seconds = retry_seconds
        self._encoding = "base64"  # a quarter of the bytes of numbers in decimals, and no parsing of them

    def embed(self, texts: Sequence[str]) -> Exchange[Embedded]:
        """The vectors of texts, one or more, in order.

        A request that is refused is halved, and its halves asked anew: servers have limits of their own for texts per
        request, and say so in words of their own. Where it is one text that cannot be embedded, this finds it.

        Raises:
            ModelUnavailableError: The server cannot be reached, or lets nobody in.
            EmbeddingFailedError: It refused a text, or gave something other than one vector for each.
        """
        batches = deque(_batches(texts, self._batch_size))
        parts: list[Embedded] = []
        taken = self._batch_size
        while batches:
            batch = batches.popleft()
            reply = yield from self._ask(batch)
            if not isinstance(reply, Failure):
                parts.append(_read(reply, len(batch), self._server))
                continue
            if not _may_be_halved(reply, batch):
                raise _error(reply, batch, self._server) from reply.cause
            half = -(-len(batch) // 2)
            if reply.code != _TOO_MANY_TOKENS:
                taken = min(taken, half)
            batches.extendleft((batch[half:], batch[:half]))
        # Now, when all of it was taken: a text that is refused in a batch of any size is no limit of the server's.
        self._batch_size = min(self._batch_size, taken)
        return self._joined(parts)

    def _ask(self, batch: Sequence[str]) -> Exchange[bytes | Failure]:
        end = monotonic() + self._retry_seconds
        retries = 0
        while True:
            encoding = self._encoding
            reply: bytes | Failure = yield Ask(batch, encoding)
            if not isinstance(reply, Failure):
                return reply
            if encoding == "base64" and _refuses_base64(reply):
                self._encoding = "float"
                continue
            seconds = pause(reply, retries, end - monotonic()) if retries < self._max_retries else None
            if seconds is None:
                return reply
            retries += 1
            yield Wait(seconds)

    def _joined(self, parts: list[Embedded]) -> Embedded:
        dimensions = sorted({part.vectors.shape[1] for part in parts})
        if len(dimensions) > 1:
            raise EmbeddingFailedError(f"{self._server} gave vectors of {dimensions} components in one go")
        if self._dimensions is not None and dimensions != [self._dimensions]:
            raise EmbeddingFailedError(
                f"{self._server} was asked for {self._dimensions} components and gave {dimensions[0]}: it or the model"
                " does not know `dimensions`. Leave it out, or name a model that does."
            )
        counted = [part.tokens for part in parts if part.tokens is not None]
        tokens = sum(counted) if len(counted) == len(parts) else None
        return Embedded(np.concatenate([part.vectors for part in parts]), tokens)


def _batches(texts: Sequence[str], batch_size: int) -> Iterator[Sequence[str]]:
    """The texts in order, as many to a batch as one request may have."""
    batch: list[str] = []
    tokens = 0
    for text in texts:
        own = len(text.encode()) // _BYTES_PER_TOKEN + 1
        if batch and (len(batch) >= batch_size or tokens + own > MAX_TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += own
    if batch:
        yield batch


# ------------------------------------------------------------------------------------------------ replies


def _read(content: bytes, count: int, server: str) -> Embedded:
    try:
        reply = json.loads(content)
    except ValueError as error:
        raise EmbeddingFailedError(f"{server} answered with something that is not JSON: {_shown(content)}") from error
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise EmbeddingFailedError(f"{server} answered with no list of embeddings: {_shown(content)}")
    if len(data) != count:
        raise EmbeddingFailedError(f"{server} gave {len(data)} vectors for {count} texts")
    rows = [_vector(item.get("embedding"), server) for item in _in_order(data, server)]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or lengths == {0}:
        raise EmbeddingFailedError(f"{server} gave vectors of {sorted(lengths)} components in one reply")
    usage = reply.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return Embedded(np.stack(rows), tokens if isinstance(tokens, int) and tokens > 0 else None)


def _in_order(data: list[dict[str, Any]], server: str) -> list[dict[str, Any]]:
    """The reply's items in the order of the texts: by their index, which some servers leave out."""
    places = [item.get("index") for item in data]
    if all(place is None for place in places):
        return data
    at = {place: item for place, item in zip(places, data, strict=True) if isinstance(place, int)}
    if at.keys() != set(range(len(data))):
        raise EmbeddingFailedError(f"{server} numbered {len(data)} vectors otherwise than from 0 to {len(data) - 1}")
    return [at[place] for place in range(len(data))]


def _vector(given: object, server: str) -> npt.NDArray[np.float32]:
    """One vector: base64 of little-endian float32, or a list of numbers."""
    try:
        if isinstance(given, str):
            return np.frombuffer(b64decode(given, validate=True), "<f4").astype(np.float32, copy=False)
        vector = np.asarray(given, np.float32)
    except (binascii.Error, ValueError, TypeError) as error:
        raise EmbeddingFailedError(f"{server} gave something that is not a vector: {error}") from error
    if vector.ndim != 1:
        raise EmbeddingFailedError(f"{server} gave something that is not a vector: shape {vector.shape}")
    return vector


# ------------------------------------------------------------------------------------------------ failures


def _refuses_base64(failure: Failure) -> bool:
    words = failure.body.lower()
    return failure.status in _REFUSED and ("encoding_format" in words or "base64" in words)


def _may_be_halved(failure: Failure, batch: Sequence[str]) -> bool:
    return failure.status in _REFUSED and len(batch) > 1 and _ONE_INPUT.search(failure.message) is None


def _error(failure: Failure, batch: Sequence[str], server: str) -> VectorizerError:
    """A failure in our own words: who, what, and what to do."""
    said = failure.message
    if failure.status is None:
        return ModelUnavailableError(f"{server} does not answer: {said} Is the address right, and the server up?")
    if failure.status in _NOT_LET_IN:
        return ModelUnavailableError(f"{server} refused the API key ({failure.status}): {said} Check the key's rights.")
    if failure.status == _NOT_FOUND:
        return ModelUnavailableError(f"{server} has no such model or path (404): {said} Check model and base_url.")
    if failure.status in _REFUSED:
        return EmbeddingFailedError(f"{server} refused {_which(failure, batch)} ({failure.status}): {said}")
    if failure.status == _BUSY:
        seconds = retry_after(failure.headers)
        when = "later" if seconds is None else f"in {seconds:,.0f} s"
        return ModelBusyError(f"{server} is asked too much (429): {said} Try again {when}.", retry_after=seconds)
    return ModelUnavailableError(f"{server} failed ({failure.status}): {said} Try again later.")


def _which(failure: Failure, batch: Sequence[str]) -> str:
    """The text that a refusal is about, where that can be told."""
    named = _ONE_INPUT.search(failure.message)
    place = int(named[1]) if named else 0
    if (named is None and len(batch) > 1) or place >= len(batch):
        return f"{len(batch)} texts"
    text = batch[place]
    start = repr(text[:_TEXT_SHOWN]) + ("…" if len(text) > _TEXT_SHOWN else "")
    return f"the text {start} of {len(text):,} characters"


def one_line(text: str) -> str:
    """The start of what somebody else wrote, fit for one line of a message."""
    printable = "".join(character if character.isprintable() else " " for character in text[: 4 * _SHOWN])
    line = " ".join(printable.split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"


def _shown(content: bytes) -> str:
    return one_line(content.decode(errors="replace")) or "nothing"
