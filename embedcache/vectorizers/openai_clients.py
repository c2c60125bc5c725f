"""The official clients of OpenAI's API: made late, kept, and their errors told in our terms.

The key is held by a closure and by the client alone, so that nothing here shows it when it is printed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from embedcache.errors import InvalidInputError, InvalidURLError, ModelUnavailableError
from embedcache.event_loops import LoopClient
from embedcache.vectorizers.openai_requests import one_line
from embedcache.vectorizers.retrying import Failure

if TYPE_CHECKING:
    import openai

DEFAULT_SERVER: Final = "https://api.openai.com/v1"
_CONNECT_SECONDS: Final = 5.0
_PORTS: Final = {"http": 80, "https": 443}
_SECRET_CHARACTERS: Final = 8
_NO_KEY: Final = "none"
"""What servers are sent that ask for no key; the client insists on one."""


def server_name(base_url: str) -> str:
    """A base URL as it is told and kept: no user, password or query, and written in one way.

    Raises:
        InvalidURLError: It is no HTTP address.
    """
    try:
        parts = urlsplit(base_url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidURLError("base_url is not an address that can be read") from error
    if parts.scheme not in _PORTS or not host:
        raise InvalidURLError("base_url starts with http:// or https:// and a host")
    shown = f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS[parts.scheme]:
        shown += f":{port}"
    return f"{parts.scheme}://{shown}{parts.path.rstrip('/')}"


class Clients:
    """The sync client, and the async client of each event loop.

    Args:
        client: A sync client to use as it is; None makes one.
        async_client: An async client to use as it is, on the event loop that it belongs to.
        api_key: For clients that are made; None is ``$OPENAI_API_KEY``.
        base_url: For clients that are made; None is ``$OPENAI_BASE_URL``, else OpenAI's own.
        timeout: Seconds that a server may be silent, for clients that are made.
        options: More of the client's own keyword arguments.

    Raises:
        InvalidInputError: The two clients ask different servers.
        InvalidURLError: The base URL cannot be read.
    """

    def __init__(
        self,
        client: openai.OpenAI | None,
        async_client: openai.AsyncOpenAI | None,
        *,
        api_key: str | None,
        base_url: str | None,
        timeout: float,
        **options: Any,
    ) -> None:
        address = base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or DEFAULT_SERVER
        for name, each in {"client": client, "async_client": async_client}.items():
            if each is not None and not (hasattr(each, "base_url") and hasattr(each, "with_options")):
                raise InvalidInputError(f"{name} is a client of OpenAI's, not {type(each).__name__}")
        servers = {server_name(str(each.base_url)) for each in (client, async_client) if each is not None}
        if len(servers) > 1:
            raise InvalidInputError(f"client and async_client ask different servers: {' and '.join(sorted(servers))}")
        self.server = servers.pop() if servers else server_name(address)
        self._given, self._given_async = client, async_client
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._client: openai.OpenAI | None = None
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClient[openai.AsyncOpenAI]] = (
            WeakKeyDictionary()
        )

        def make(kind: str) -> Any:
            module = _library()
            key = api_key or os.environ.get("OPENAI_API_KEY")
            if not key and self.server != DEFAULT_SERVER:
                key = _NO_KEY
            seconds = module.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS))
            try:
                return getattr(module, kind)(api_key=key, base_url=address, timeout=seconds, max_retries=0, **options)
            except module.OpenAIError as error:
                raise ModelUnavailableError(
                    f"no API key for {self.server}: pass api_key=… or set OPENAI_API_KEY"
                ) from error

        self._make: Callable[[str], Any] = make

    def sync(self) -> openai.OpenAI:
        """The sync client.

        Raises:
            ModelUnavailableError: The extra ``openai`` is not installed, or there is no key.
        """
        self._forget_after_fork()
        with self._lock:
            if self._client is None:
                if self._given is None and self._given_async is not None:
                    raise ModelUnavailableError(
                        "there is an async_client alone: await the async twin, such as aembed, or pass client=… too"
                    )
                # Tries are counted and timed by us, not by the client as well.
                self._client = self._make("OpenAI") if self._given is None else self._given.with_options(max_retries=0)
            return self._client

    async def on_loop(self) -> openai.AsyncOpenAI | None:
        """The running loop's async client; None where only a sync one was given.

        Raises:
            ModelUnavailableError: As `sync`.
        """
        if self._given_async is not None:
            return self._given_async.with_options(max_retries=0)
        if self._given is not None:
            return None
        self._forget_after_fork()
        loop = asyncio.get_running_loop()
        held = self._async_clients.get(loop)
        if held is None:
            made = await asyncio.to_thread(self._make, "AsyncOpenAI")  # the first one imports the library: a second
            held = self._async_clients.setdefault(loop, LoopClient(made, made.close))
            await held.close_with_loop(lambda: self._async_clients.pop(loop, None))
        return held.client

    def close(self) -> None:
        """Closes the sync client, if it is ours. The next request opens another."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._given is None:
            client.close()

    async def aclose(self) -> None:
        """Closes the running loop's client, then as `close`."""
        held = self._async_clients.pop(asyncio.get_running_loop(), None)
        if held is not None:
            await held.aclose()
        self.close()

    def _forget_after_fork(self) -> None:
        """A forked child must not speak on connections that are its parent's."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._lock = threading.Lock()  # the thread that held it may not exist here
            self._client = None
            self._async_clients.clear()


def _library() -> Any:
    try:
        # Here and not above: it takes the better part of a second, and a hit needs none of it.
        import openai
    except ImportError as error:
        raise ModelUnavailableError(
            'models behind an API need the extra "openai": pip install "embedcache[openai]"'
        ) from error
    return openai


# ------------------------------------------------------------------------------------------------ requests


def ask(client: openai.OpenAI, **request: Any) -> bytes | Failure:
    """One request, once: the reply's bytes, or how it failed.

    Raw bytes, since the client would make a Python float of every component.
    """
    import openai

    try:
        return client.embeddings.with_raw_response.create(**request).content
    except openai.APIError as error:
        return _failure(error, client.api_key)
    except openai.OpenAIError as error:
        raise _unasked(error, client.api_key) from error


async def aask(client: openai.AsyncOpenAI, **request: Any) -> bytes | Failure:
    """Async twin of `ask`."""
    import openai

    try:
        return (await client.embeddings.with_raw_response.create(**request)).content
    except openai.APIError as error:
        return _failure(error, client.api_key)
    except openai.OpenAIError as error:
        raise _unasked(error, client.api_key) from error


def _failure(error: openai.APIError, api_key: str) -> Failure:
    _conceal(error, api_key)
    response = getattr(error, "response", None)
    if response is None:
        reason = error.__cause__ or error
        said = f"{type(reason).__name__}: {reason}" if str(reason) else type(reason).__name__
        return Failure(None, "", _sentence(_without(said, api_key)), "", {}, error)
    body = error.body if isinstance(error.body, dict) else {}
    said = body.get("message") or body.get("detail") or error.message
    return Failure(
        status=response.status_code,
        code=str(body.get("code") or body.get("type") or ""),
        message=_sentence(_without(str(said), api_key)),
        body=_without(response.text, api_key),
        headers={name.lower(): value for name, value in response.headers.items()},
        cause=error,
    )


def _unasked(error: openai.OpenAIError, api_key: str) -> ModelUnavailableError:
    """What kept the client from sending anything, such as a token that it could not get."""
    _conceal(error, api_key)
    return ModelUnavailableError(f"the client sent no request: {_sentence(str(error))}")


def _conceal(error: openai.OpenAIError, api_key: str) -> None:
    """Some servers repeat the key that they refuse; it would stand in the traceback of our own error."""
    error.args = tuple(_without(str(part), api_key) for part in error.args)
    if hasattr(error, "message"):
        error.message = _without(str(error.message), api_key)


def _without(text: str, api_key: str) -> str:
    # What is shorter is no secret, such as the "none" or "EMPTY" for servers that ask for no key.
    return text.replace(api_key, "…") if len(api_key) >= _SECRET_CHARACTERS else text


def _sentence(text: str) -> str:
    line = one_line(text)
    return line if line.endswith((".", "!", "?", "…")) else f"{line}."
