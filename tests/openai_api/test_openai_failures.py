"""What `OpenAITextVectorizer` makes of a server that puts it off, refuses, drops or babbles."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from calling import Caller
from openai_server import KEY, MODEL, EmbeddingServer, Reply, error, vector_of, vectors_of
from servers import free_port

from embedcache import EmbeddingsCache, InvalidInputError, OpenAITextVectorizer
from embedcache.errors import (
    EmbeddingFailedError,
    InvalidURLError,
    ModelBusyError,
    ModelUnavailableError,
)


class TestRetries:
    @pytest.mark.parametrize(
        ("headers", "least", "most"),
        [
            ({"retry-after": "1"}, 1.0, 1.9),
            ({"retry-after": "0.3"}, 0.3, 0.9),
            ({"retry-after-ms": "300", "retry-after": "60"}, 0.3, 0.9),
            ({}, 0.37, 1.0),
        ],
        ids=str,
    )
    def test_come_when_the_server_wants_them(
        self, make: Callable[..., Caller], api: EmbeddingServer, headers: dict[str, str], least: float, most: float
    ) -> None:
        api.replies.append(error(429, "Rate limit reached.", "rate_limit_exceeded", **headers))
        np.testing.assert_array_equal(make().embed("a"), vector_of("a"))
        (wait,) = api.waits
        assert least <= wait < most

    def test_come_at_the_moment_that_the_server_names(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        moment = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=0)
        api.replies.append(error(503, "Overloaded.", retry_after=format_datetime(moment, usegmt=True)))
        make().embed("a")
        assert abs((datetime.now(UTC) - moment).total_seconds()) < 1
        assert len(api.requests) == 2

    @pytest.mark.parametrize(
        "reply",
        [
            error(500, "The server had an error."),
            error(502, "Bad gateway."),
            error(408, "Timeout."),
            error(409, "Conflict."),
            error(400, "Not yet.", x_should_retry="true"),
            Reply(200, {"data": [1] * 1_000}, cut=True),
        ],
        ids=["500", "502", "408", "409", "the server wants it", "connection dropped in the reply"],
    )
    def test_follow_what_passes(self, make: Callable[..., Caller], api: EmbeddingServer, reply: Reply) -> None:
        api.replies.append(reply)
        np.testing.assert_array_equal(make().embed("a"), vector_of("a"))
        assert api.batches == [["a"], ["a"]]

    def test_follow_silence(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        api.replies.append(Reply(wait=1.0))
        np.testing.assert_array_equal(make(timeout=0.2).embed("a"), vector_of("a"))
        assert len(api.requests) == 2

    @pytest.mark.parametrize(
        "reply",
        [
            error(429, "You exceeded your current quota.", "insufficient_quota", retry_after="1"),
            error(500, "It will not get better.", x_should_retry="false"),
            error(404, "The model does not exist."),
            error(401, "Incorrect API key."),
        ],
        ids=["no credit", "the server does not want it", "no such model", "key refused"],
    )
    def test_do_not_follow_what_stays(self, make: Callable[..., Caller], api: EmbeddingServer, reply: Reply) -> None:
        api.replies.append(reply)
        with pytest.raises(ModelUnavailableError):
            make().embed("a")
        assert len(api.requests) == 1

    def test_are_as_many_as_said(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        api.replies.extend([error(429, "Slow down.", retry_after="0")] * 4)
        vectorizer = make(max_retries=3)
        with pytest.raises(ModelBusyError, match=r"is asked too much \(429\): Slow down\. Try again in 0 s\."):
            vectorizer.embed("a")
        assert len(api.requests) == 4
        np.testing.assert_array_equal(vectorizer.embed("a"), vector_of("a"))

    def test_are_not_waited_for_longer_than_said(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        api.replies.append(error(429, "Slow down.", retry_after="3000"))
        with pytest.raises(ModelBusyError, match=r"Try again in 3,000 s\.") as caught:
            make().embed("a")
        assert caught.value.retry_after == 3_000
        assert len(api.requests) == 1

    def test_end_when_their_time_is_over(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        api.replies.extend([error(429, "Slow down.", retry_after="0.4")] * 10)
        with pytest.raises(ModelBusyError):
            make(max_retries=9, retry_seconds=1.0).embed("a")
        assert len(api.requests) == 3

    def test_ask_only_for_what_is_still_missing(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        api.replies.extend([Reply(wait=0, status=500), Reply(wait=0, status=500)])
        texts = [f"text {n}" for n in range(20)]
        np.testing.assert_array_equal(make(batch_size=10).embed_many(texts), vectors_of(texts))
        assert api.batches == [texts[:10]] * 3 + [texts[10:]]


class TestErrors:
    @pytest.mark.parametrize(
        ("reply", "kind", "says"),
        [
            (error(401, "Incorrect API key provided."), ModelUnavailableError, r"refused the API key \(401\)"),
            (error(403, "No access."), ModelUnavailableError, r"refused the API key \(403\): No access\. Check"),
            (error(404, "No such model."), ModelUnavailableError, r"\(404\): No such model\. Check model and base_url"),
            (
                error(400, "Bad\nrequest"),
                EmbeddingFailedError,
                r"refused the text 'a' of 1 characters \(400\): Bad req",
            ),
            (Reply(404, b"<h1>Not here</h1>"), ModelUnavailableError, r"no such model or path \(404\)"),
            (Reply(200, b"<h1>Welcome</h1>"), EmbeddingFailedError, "something that is not JSON: <h1>Welcome</h1>"),
            (Reply(200, {"error": "sorry"}), EmbeddingFailedError, 'no list of embeddings: {"error": "sorry"}'),
            (Reply(200, {"data": []}), EmbeddingFailedError, "gave 0 vectors for 1 texts"),
            (Reply(200, {"data": [{"embedding": []}]}), EmbeddingFailedError, r"vectors of \[0\] components"),
            (Reply(200, {"data": [{"embedding": "%%"}]}), EmbeddingFailedError, "not a vector"),
            (Reply(200, {"data": [{"embedding": None}]}), EmbeddingFailedError, "not a vector"),
            (Reply(200, {"data": [{"embedding": {}}]}), EmbeddingFailedError, "not a vector"),
            (Reply(200, {"data": [{"embedding": [1], "index": 1}]}), EmbeddingFailedError, "numbered 1 vectors other"),
            (Reply(200, {"data": [{"embedding": [1], "index": [0]}]}), EmbeddingFailedError, "numbered 1 vectors"),
        ],
        ids=lambda value: "" if isinstance(value, Reply | type) else value,
    )
    def test_say_who_and_what(
        self,
        make: Callable[..., Caller],
        api: EmbeddingServer,
        reply: Reply,
        kind: type[Exception],
        says: str,
        cache: EmbeddingsCache,
    ) -> None:
        api.replies.append(reply)
        vectorizer = make(cache=cache)
        with pytest.raises(kind, match=says) as caught:
            vectorizer.embed("a")
        assert str(caught.value).startswith(api.base_url)
        assert "\n" not in str(caught.value)
        assert not cache.exists("a", vectorizer.model_name)

    def test_of_a_batch_of_mixed_lengths(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        api.replies.append(Reply(200, {"data": [{"embedding": [1]}, {"embedding": [1, 2]}]}))
        with pytest.raises(EmbeddingFailedError, match=r"vectors of \[1, 2\] components in one reply"):
            make().embed_many(["a", "b"])

    def test_of_a_server_that_is_not_there(self, make: Callable[..., Caller]) -> None:
        address = f"http://127.0.0.1:{free_port()}/v1"
        with pytest.raises(ModelUnavailableError, match=r"does not answer: ConnectError.* Is the address right"):
            make(base_url=address, max_retries=0).embed("a")

    def test_of_a_server_that_is_silent(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        api.delay = 1.0
        with pytest.raises(ModelUnavailableError, match="does not answer: ReadTimeout"):
            make(timeout=0.1, max_retries=0).embed("a")

    def test_never_tell_the_key(
        self, make: Callable[..., Caller], api: EmbeddingServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        api.replies.append(error(401, f"The key {KEY} is wrong."))
        api.replies.append(Reply(400, {"detail": [{"input": KEY}]}))
        vectorizer = make()
        for _ in range(2):
            with pytest.raises(Exception, match=api.base_url) as caught:
                vectorizer.embed("a")
            told = "".join(traceback.format_exception(caught.value))
            assert KEY not in told
        assert KEY not in caplog.text
        assert KEY not in repr(vectorizer.cache) + repr(vars(vectorizer.cache)) + vectorizer.cache.model_name

    def test_without_a_key(self, make: Callable[..., Caller]) -> None:
        with pytest.raises(ModelUnavailableError, match=r"no API key for https://api\.openai\.com/v1: pass api_key="):
            make(api_key=None, base_url=None).embed("a")

    def test_servers_that_are_not_openais_need_no_key(self, make: Callable[..., Caller]) -> None:
        np.testing.assert_array_equal(make(api_key=None).embed("a"), vector_of("a"))

    @pytest.mark.parametrize(
        "options",
        [
            {"batch_size": 0},
            {"batch_size": 2_049},
            {"batch_size": True},
            {"dimensions": 0},
            {"dimensions": 2.5},
            {"max_retries": -1},
            {"timeout": 0},
            {"retry_seconds": float("inf")},
        ],
        ids=str,
    )
    def test_of_arguments_name_them(self, options: dict[str, Any]) -> None:
        (name,) = options
        with pytest.raises(InvalidInputError, match=f"^{name} is a "):
            OpenAITextVectorizer(MODEL, **options)

    @pytest.mark.parametrize("address", ["localhost:8000", "ftp://host/v1", "http://", "http://host:port/v1"])
    def test_of_an_address_do_not_repeat_it(self, address: str) -> None:
        with pytest.raises(InvalidURLError, match="base_url"):
            OpenAITextVectorizer(MODEL, base_url=address)

    def test_without_the_extra_say_what_to_install(self) -> None:
        code = (
            "import sys; sys.modules['openai'] = None\n"
            "from embedcache import OpenAITextVectorizer\n"
            "try: OpenAITextVectorizer('m', api_key='k').embed('a')\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert printed.stdout.startswith("ModelUnavailableError"), printed.stderr
        assert 'pip install "embedcache[openai]"' in printed.stdout
