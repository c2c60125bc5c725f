"""What a process needs to know to make a cache and a vectorizer of its own: plain values, and no live connection.

They go to other processes and machines, which open what they need where they are. ::

    settings = VectorizerSettings("BAAI/bge-m3", cache=CacheSettings("docs", redis_url="redis://10.0.0.1:6379"))
    vectorizer = settings.shared()  # one per process, however often it is asked for
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, Final, Self

from embedcache.arguments import check_kind, check_plain, check_text, shown
from embedcache.cache import EmbeddingsCache
from embedcache.entry_layout import LayoutName
from embedcache.errors import InvalidInputError
from embedcache.vectorizers.base import BaseVectorizer
from embedcache.vectorizers.huggingface import DEFAULT_MODEL


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How to open a cache, wherever it is needed. The arguments are those of `EmbeddingsCache`.

    Args:
        name: Prefix of the cache's keys.
        ttl: Default TTL in seconds, or None.
        redis_url: The server. None means that of the process that opens it: ``$EMBEDCACHE_URL`` there, else its user's
            embedded server; so no password is sent along.
        dtype: How vectors are stored.
        layout: How entries lie on the server.
        connection_kwargs: Settings of clients that are strings, numbers, booleans or None.

    Raises:
        InvalidInputError: A setting is not such a value.
    """

    name: str = "embedcache"
    ttl: int | None = None
    redis_url: str | None = field(default=None, repr=False)  # it may hold a password
    dtype: str = "float32"
    layout: LayoutName = "packed"
    connection_kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_plain("connection_kwargs", self.connection_kwargs)
        fields = ("name", "ttl", "redis_url", "dtype", "layout")
        check_plain("the cache's settings", {name: getattr(self, name) for name in fields})

    def open(self) -> EmbeddingsCache:
        """The cache, with a connection of its own.

        Raises:
            InvalidInputError: A setting cannot be used.
        """
        return EmbeddingsCache(
            self.name,
            self.ttl,
            redis_url=self.redis_url,
            connection_kwargs=self.connection_kwargs,
            dtype=self.dtype,
            layout=self.layout,
        )


@dataclass(frozen=True, slots=True)
class VectorizerSettings:
    """How to make a vectorizer and its cache, wherever they are needed.

    Args:
        model: The model's name or folder.
        kind: Who computes: ``huggingface`` (`HFTextVectorizer`), ``openai`` (`OpenAITextVectorizer`), or a function of
            yours as ``module:function``. It is called as ``function(model, cache, **options)`` and returns a
            `BaseVectorizer`; the module must be one that the other process can import, and so not a program's main one.
        options: More keyword arguments of these: strings, numbers, booleans, None, and lists and dicts of them.
        cache: How to open the cache.

    Raises:
        InvalidInputError: A setting is not such a value, or the kind is none.
    """

    model: str = DEFAULT_MODEL
    kind: str = "huggingface"
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # there may be an API key among them
    cache: CacheSettings = field(default_factory=CacheSettings)

    def __post_init__(self) -> None:
        check_plain("options", self.options)
        check_text("model", self.model)
        check_text("kind", self.kind)
        check_kind("cache", self.cache, CacheSettings)
        if self.kind not in _KINDS and not _is_reference(self.kind):
            raise InvalidInputError(f"a kind is huggingface, openai or module:function, not {shown(self.kind)}")

    def open(self) -> BaseVectorizer:
        """The vectorizer, with a cache of its own. No model is loaded yet.

        Raises:
            InvalidInputError: A setting cannot be used, or there is no such function.
        """
        return self.using(self.cache.open())

    def using(self, cache: EmbeddingsCache) -> BaseVectorizer:
        """The vectorizer, over a cache that is open already. No model is loaded yet.

        Raises:
            InvalidInputError: An option cannot be used, or there is no such function.
        """
        make = _KINDS.get(self.kind) or self.kind
        module, _, name = make.partition(":")
        try:
            function = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InvalidInputError(f"there is no {make!r} to be imported here: {error}") from error
        try:
            vectorizer = function(self.model, cache, **self.options)
        except TypeError as error:
            raise InvalidInputError(f"{make} does not take these options: {error}") from error
        if not isinstance(vectorizer, BaseVectorizer):
            raise InvalidInputError(f"{make} gave a {type(vectorizer).__name__}, not a BaseVectorizer")
        return vectorizer

    @contextmanager
    def opened(self) -> Iterator[BaseVectorizer]:
        """As `open`; in the end, the vectorizer and its cache are closed."""
        vectorizer = self.open()
        with ExitStack() as stack:
            if vectorizer.cache is not None:
                stack.callback(vectorizer.cache.close)
            close = getattr(vectorizer, "close", None)
            if callable(close):
                stack.callback(close)
            yield vectorizer

    def shared(self) -> BaseVectorizer:
        """The vectorizer that all who have these settings use in this process; made by the first of them.

        It stays open as long as the process runs. Threads may use it at the same time. Unless the options say
        otherwise, its `single_flight` is ``shared``: others with these settings are at work elsewhere.
        """
        key = self.to_json()
        with _shared_lock:
            if key not in _shared:
                _shared[key] = self.open()
                if "single_flight" not in self.options:
                    _shared[key].single_flight = "shared"
            return _shared[key]

    def to_json(self) -> str:
        """The settings as one line. It may hold a password."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        """What `to_json` wrote.

        Raises:
            InvalidInputError: The line is something else.
        """
        try:
            fields = json.loads(line)
            return cls(**fields | {"cache": CacheSettings(**fields["cache"])})
        except InvalidInputError:
            raise
        except (TypeError, ValueError, LookupError, RecursionError):
            # Not the cause's words: they may hold a password.
            raise InvalidInputError(f"{cls.__name__}.from_json reads what to_json wrote, which this is not") from None


_KINDS: Final[Mapping[str, str]] = {
    "huggingface": "embedcache.vectorizers:HFTextVectorizer",
    "openai": "embedcache.vectorizers:OpenAITextVectorizer",
}
_shared: Final[dict[str, BaseVectorizer]] = {}
_shared_lock: Final = threading.Lock()


def _is_reference(kind: str) -> bool:
    module, colon, name = kind.partition(":")
    return bool(colon) and all(map(str.isidentifier, module.split("."))) and name.isidentifier()
