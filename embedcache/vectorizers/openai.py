"""Models behind OpenAI's embeddings API, or behind any server that speaks it, through a cache."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy.typing as npt
from cachetools import LRUCache

from embedcache.arguments import check_seconds, check_whole
from embedcache.entry import Text
from embedcache.errors import EmbeddingFailedError, InvalidInputError, InvalidTextError
from embedcache.vectorizers.base import CHUNK_TEXTS, BaseVectorizer, SingleFlightMode
from embedcache.vectorizers.identity import identity
from embedcache.vectorizers.openai_clients import DEFAULT_SERVER, Clients, aask, ask
from embedcache.vectorizers.openai_requests import MAX_TEXTS, Ask, Embedded, EmbeddingRequests, Wait
from embedcache.vectorizers.prompts import InputType

if TYPE_CHECKING:
    import openai

    from embedcache.cache import EmbeddingsCache

_COUNTS_KEPT: Final = 64


class OpenAITextVectorizer(BaseVectorizer):
    """Texts to vectors by a model behind OpenAI's embeddings API, through a cache.

    Any server that speaks this API will do: vLLM, Ollama, Text Embeddings Inference, Azure OpenAI. Each distinct text
    that is missing is sent once. A request that the server puts off, fails or drops is sent again, when the server
    wants it; each of its tries begins within `retry_seconds` of the first. A hit needs neither the server nor the
    client's library.

    `model_name`, the name under which entries are kept, holds the model, `dimensions` and, unless it is OpenAI's own,
    the server's address: another server's model of the same name has entries of its own. User, password and query of
    the address are not in it, nor is the key.

    Args:
        model: The model's name; on Azure, the deployment's.
        cache: Where vectors are kept; None computes every time.
        api_key: None is ``$OPENAI_API_KEY``. A server that is not OpenAI's may need none.
        base_url: The server, such as ``http://localhost:8000/v1``; None is ``$OPENAI_BASE_URL``, else OpenAI's own.
        dimensions: Components of the vectors, for models that can shorten them; None is the model's own number.
        batch_size: Texts per request, at most 2,048. Each request's vectors are stored before the next is sent.
        timeout: Seconds that the server may be silent; connecting may take 5 of them.
        max_retries: Tries after the first, of each request.
        retry_seconds: Seconds from the first try of a request within which another may begin.
        organization: Who pays; None is ``$OPENAI_ORG_ID``.
        project: For which project; None is ``$OPENAI_PROJECT_ID``.
        client: An `openai.OpenAI` or `openai.AzureOpenAI` of yours, used as it is and never closed; what is said of the
            server above, and `timeout`, are its own.
        async_client: The same, async. Where there is a `client` alone, async calls use it in threads.
        single_flight: As in `BaseVectorizer`.

    Raises:
        InvalidInputError: An argument cannot be used.
    """

    def __init__(
        self,
        model: str,
        cache: EmbeddingsCache | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        dimensions: int | None = None,
        batch_size: int = CHUNK_TEXTS,
        timeout: float = 60.0,
        max_retries: int = 5,
        retry_seconds: float = 120.0,
        organization: str | None = None,
        project: str | None = None,
        client: openai.OpenAI | None = None,
        async_client: openai.AsyncOpenAI | None = None,
        single_flight: SingleFlightMode | None = "process",
    ) -> None:
        super().__init__(model, cache, single_flight=single_flight)
        check_whole("batch_size", batch_size, 1, MAX_TEXTS)
        check_whole("max_retries", max_retries, 0)
        if dimensions is not None:
            check_whole("dimensions", dimensions, 1)
        check_seconds("timeout", timeout)
        check_seconds("retry_seconds", retry_seconds)
        own = {"api_key": api_key, "base_url": base_url, "organization": organization, "project": project}
        for name, value in own.items():
            _check_header(name, value)
        if (client is not None or async_client is not None) and any(value is not None for value in own.values()):
            raise InvalidInputError(f"a client brings its own {', '.join(own)}: pass these, or a client")
        self._clients = Clients(client, async_client, timeout=timeout, **own)
        server = self._clients.server
        self._model_name = identity(model, base_url=None if server == DEFAULT_SERVER else server, dimensions=dimensions)
        self._requests = EmbeddingRequests(server, dimensions, batch_size, max_retries, retry_seconds)
        self._chunk_texts = batch_size
        self._asked: dict[str, Any] = {"model": model} | ({} if dimensions is None else {"dimensions": dimensions})
        self._dims = dimensions
        self._lock = threading.Lock()
        self._token_counts: LRUCache[int, int] = LRUCache(_COUNTS_KEPT)

    @property
    def model_name(self) -> str:
        """The name under which entries are kept: the model's, and the options and server that change its vectors."""
        return self._model_name

    @property
    def dims(self) -> int:
        """Length of the vectors; found by embedding one word where nothing was embedded yet."""
        if self._dims is None:
            self.embed("dimension", skip_cache=True)
        if self._dims is None:
            raise EmbeddingFailedError(f"{self._clients.server} gave no vector")
        return self._dims

    # ---------------------------------------------------------------------------------------- computing

    def _prepare(self) -> None:
        self._clients.sync()

    def _compute(self, texts: Sequence[Text]) -> npt.ArrayLike:
        client = self._clients.sync()
        plan = self._requests.embed(_only_str(texts, self.model))
        try:
            step = next(plan)
            while True:
                match step:
                    case Ask(batch, encoding):
                        step = plan.send(ask(client, input=batch, encoding_format=encoding, **self._asked))
                    case Wait(seconds):
                        time.sleep(seconds)
                        step = plan.send(None)
        except StopIteration as end:
            return self._learn(texts, end.value)

    async def _atimed(self, texts: Sequence[Text], input_type: InputType | None) -> tuple[npt.ArrayLike, float]:
        """On the event loop itself: a request costs it nothing while it waits, where threads would soon run out."""
        client = await self._clients.on_loop()
        if client is None:
            return await super()._atimed(texts, input_type)
        start = perf_counter()
        plan = self._requests.embed(_only_str(texts, self.model))
        try:
            step = next(plan)
            while True:
                match step:
                    case Ask(batch, encoding):
                        step = plan.send(await aask(client, input=batch, encoding_format=encoding, **self._asked))
                    case Wait(seconds):
                        await asyncio.sleep(seconds)
                        step = plan.send(None)
        except StopIteration as end:
            return self._learn(texts, end.value), perf_counter() - start

    def _learn(self, texts: Sequence[Text], embedded: Embedded) -> npt.ArrayLike:
        """Keeps what is asked for later: the dimension, and what the server counted."""
        self._dims = embedded.vectors.shape[1]
        if embedded.tokens is not None:
            with self._lock:
                self._token_counts[hash(tuple(texts))] = embedded.tokens
        return embedded.vectors

    def _count_tokens(self, texts: Sequence[Text]) -> int:
        """As the server counted them when it embedded these texts; an estimate where it did not say."""
        with self._lock:
            counted = self._token_counts.pop(hash(tuple(texts)), None)
        return super()._count_tokens(texts) if counted is None else counted

    # ---------------------------------------------------------------------------------------- the end

    def close(self) -> None:
        """Closes the connections to the model's server that are ours. The next request opens others."""
        self._clients.close()

    async def aclose(self) -> None:
        """Async twin of `close`; closes the running loop's connections as well, which end with the loop otherwise."""
        await self._clients.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _only_str(texts: Sequence[Text], model: str) -> list[str]:
    for text in texts:
        if isinstance(text, bytes):
            raise InvalidTextError(f"the model {model!r} embeds str, not bytes")
    return [text for text in texts if isinstance(text, str)]


def _check_header(name: str, value: object) -> None:
    """Whether a value can be sent; it is not shown, for it may be a key."""
    if value is not None and not (isinstance(value, str) and value.isascii() and value.isprintable()):
        words = "other characters" if isinstance(value, str) else type(value).__name__
        raise InvalidInputError(f"{name} is a str of printable ASCII characters, or None; this one is {words}")
