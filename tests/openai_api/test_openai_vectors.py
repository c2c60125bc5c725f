"""`OpenAITextVectorizer` with the official client and a server that speaks the protocol, sync and async."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from calling import Caller
from openai_server import DIMENSIONS, KEY, MODEL, EmbeddingServer, embedding_server, error, vector_of, vectors_of
from servers import Server

from embedcache import EmbeddingsCache, OpenAITextVectorizer
from embedcache.errors import (
    EmbeddingFailedError,
    InvalidTextError,
)


class TestVectors:
    def test_are_asked_for_once_and_then_read(
        self, make: Callable[..., Caller], api: EmbeddingServer, cache: EmbeddingsCache
    ) -> None:
        vectorizer = make(cache=cache)
        texts = ["a b", "c", "a b", "d"]
        for _ in range(2):
            np.testing.assert_array_equal(vectorizer.embed_many(texts), vectors_of(texts))
        np.testing.assert_array_equal(vectorizer.embed("c"), vector_of("c"))
        (request,) = api.requests
        assert request.body == {"model": MODEL, "input": ["a b", "c", "d"], "encoding_format": "base64"}
        assert request.path == "/v1/embeddings"
        assert request.headers["authorization"] == f"Bearer {KEY}"

    def test_keep_the_order_of_the_texts_whatever_that_of_the_reply(
        self, make: Callable[..., Caller], api: EmbeddingServer
    ) -> None:
        api.shuffled = True
        texts = [f"text {n}" for n in range(20)]
        np.testing.assert_array_equal(make().embed_many(texts), vectors_of(texts))

    def test_may_come_without_numbers_in_the_order_of_the_texts(
        self, make: Callable[..., Caller], api: EmbeddingServer
    ) -> None:
        api.numbered = False
        np.testing.assert_array_equal(make().embed_many(["a", "b"]), vectors_of(["a", "b"]))

    def test_are_as_long_as_asked_for(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        vectorizer = make(dimensions=3)
        assert vectorizer.embed("a").shape == (3,)
        assert vectorizer.cache.dims == 3
        assert [request.body["dimensions"] for request in api.requests] == [3]

    def test_of_another_length_than_asked_for_are_refused(
        self, make: Callable[..., Caller], api: EmbeddingServer
    ) -> None:
        api.knows_dimensions = False
        with pytest.raises(EmbeddingFailedError, match="was asked for 3 components and gave 8"):
            make(dimensions=3).embed("a")

    def test_tell_their_length_before_any_is_asked_for(self, api: EmbeddingServer) -> None:
        with OpenAITextVectorizer(MODEL, api_key=KEY, base_url=api.base_url) as vectorizer:
            assert [vectorizer.dims, vectorizer.dims] == [DIMENSIONS] * 2
        assert len(api.requests) == 1

    @pytest.mark.parametrize(("way", "asked"), [("ignored", ["base64"] * 2), ("refused", ["base64", "float", "float"])])
    def test_come_from_servers_that_do_not_know_base64(
        self, make: Callable[..., Caller], api: EmbeddingServer, way: str, asked: list[str]
    ) -> None:
        api.base64 = way
        vectorizer = make()
        for text in ("a", "b"):
            np.testing.assert_array_equal(vectorizer.embed(text), vector_of(text))
        assert [request.body["encoding_format"] for request in api.requests] == asked

    def test_of_bytes_there_are_none(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        with pytest.raises(InvalidTextError, match="embeds str, not bytes"):
            make().embed(b"image")
        assert api.requests == []


class TestBatches:
    def test_are_as_large_as_said_and_each_is_stored_when_it_is_there(
        self, make: Callable[..., Caller], api: EmbeddingServer, cache: EmbeddingsCache
    ) -> None:
        texts = [f"text {n}" for n in range(250)]
        api.refuses = texts[-1]
        vectorizer = make(cache=cache, batch_size=100)
        with pytest.raises(EmbeddingFailedError):
            vectorizer.embed_many(texts)
        assert [len(batch) for batch in api.batches[:3]] == [100, 100, 50]
        assert cache.mexists(texts, vectorizer.model_name) == [True] * 200 + [False] * 50
        api.refuses = ""
        api.requests.clear()
        np.testing.assert_array_equal(vectorizer.embed_many(texts), vectors_of(texts))
        assert [len(batch) for batch in api.batches] == [50]  # one bad text is no limit of the server's
        assert {text for batch in api.batches for text in batch} == set(texts[200:])

    def test_may_be_larger_than_a_chunk(self, make: Callable[..., Caller], api: EmbeddingServer) -> None:
        texts = [f"text {n}" for n in range(1_000)]
        make(batch_size=600).embed_many(texts)
        assert [len(batch) for batch in api.batches] == [600, 400]

    def test_are_kept_below_what_a_request_may_have_in_tokens(
        self, make: Callable[..., Caller], api: EmbeddingServer
    ) -> None:
        texts = ["x" * 400_000, "y" * 400_000, "z" * 400_000]  # more than 100,000 tokens each, by the estimate
        make().embed_many(texts)
        assert [len(batch) for batch in api.batches] == [2, 1]

    def test_that_a_server_finds_too_large_are_halved_until_it_takes_them(
        self, make: Callable[..., Caller], api: EmbeddingServer
    ) -> None:
        api.most_texts = 30
        texts = [f"text {n}" for n in range(100)]
        vectorizer = make()
        np.testing.assert_array_equal(vectorizer.embed_many(texts), vectors_of(texts))
        assert [len(batch) for batch in api.batches] == [100, 50, 25, 25, 50, 25, 25]
        api.requests.clear()
        vectorizer.embed_many(texts)  # by now it is known
        assert [len(batch) for batch in api.batches] == [25] * 4

    def test_with_too_many_tokens_are_halved_and_the_next_are_whole_again(
        self, make: Callable[..., Caller], api: EmbeddingServer
    ) -> None:
        api.most_tokens = 15
        vectorizer = make()
        vectorizer.embed_many(["one two three four"] + [f"{n} two three four" for n in range(6)])
        assert [len(batch) for batch in api.batches] == [7, 4, 2, 2, 3]
        vectorizer.embed_many([f"{n}" for n in range(7)])
        assert len(api.batches[-1]) == 7

    def test_lose_nothing_of_a_text_that_is_refused_but_its_name(
        self, make: Callable[..., Caller], api: EmbeddingServer
    ) -> None:
        """The error tells which text it is, by its start alone."""
        api.refuses = "bad " * 5_000
        with pytest.raises(EmbeddingFailedError) as caught:
            make().embed_many(["a", "b", api.refuses, "c"])
        assert "refused the text 'bad bad bad bad bad bad bad bad bad bad '… of 20,000 characters" in str(caught.value)
        assert "maximum context length is 8192 tokens" in str(caught.value)
        assert len(str(caught.value)) < 500

    def test_are_not_halved_where_the_server_says_which_text_it_is(
        self, make: Callable[..., Caller], api: EmbeddingServer
    ) -> None:
        api.replies.append(error(400, "Invalid 'input[1]': maximum input length is 8192 tokens."))
        with pytest.raises(EmbeddingFailedError, match="refused the text 'b' of 1 characters"):
            make().embed_many(["a", "b", "c"])
        assert len(api.requests) == 1


class TestIdentity:
    def test_two_that_differ_never_share_an_entry(self, api: EmbeddingServer, cache: EmbeddingsCache) -> None:
        with embedding_server() as other:
            made = [
                OpenAITextVectorizer(MODEL, cache, api_key=KEY, base_url=address, dimensions=dimensions)
                for address in (api.base_url, other.base_url, api.base_url + "/proxy")
                for dimensions in (None, 4, 8)
            ]
            made.append(OpenAITextVectorizer("another", cache, api_key=KEY, base_url=api.base_url))
            names = {vectorizer.model_name for vectorizer in made}
            assert len(names) == len(made)
            for vectorizer in made[:6] + made[9:]:
                assert not vectorizer.embed_report(["a"]).hits[0]
                assert vectorizer.embed_report(["a"]).hits[0]
                vectorizer.close()

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({}, MODEL),
            ({"base_url": "https://API.openai.com:443/v1/"}, MODEL),
            ({"dimensions": 256}, f"{MODEL}?dimensions=256"),
            ({"base_url": "http://localhost:8000/v1/"}, f"{MODEL}?base_url=http%3A%2F%2Flocalhost%3A8000%2Fv1"),
            (
                {"base_url": "https://user:secret@host/v1?key=secret#secret"},
                f"{MODEL}?base_url=https%3A%2F%2Fhost%2Fv1",
            ),
            ({"base_url": "http://[::1]:80/v1"}, f"{MODEL}?base_url=http%3A%2F%2F%5B%3A%3A1%5D%2Fv1"),
            ({"api_key": "secret", "organization": "o", "project": "p", "timeout": 3, "batch_size": 9}, MODEL),
        ],
    )
    def test_is_the_model_and_what_changes_its_vectors(self, options: dict[str, Any], name: str) -> None:
        assert OpenAITextVectorizer(MODEL, **options).model_name == name

    def test_knows_the_address_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
        assert OpenAITextVectorizer(MODEL).model_name == f"{MODEL}?base_url=http%3A%2F%2Felsewhere%2Fv1"


class TestTokens:
    def test_are_those_that_the_server_counted(self, make: Callable[..., Caller], cache: EmbeddingsCache) -> None:
        vectorizer = make(cache=cache, batch_size=2)
        vectorizer.embed_many(["one", "one two three", "one two three four five"])
        assert cache.stats("1h").tokens_computed == 9
        vectorizer.embed("six seven", skip_cache=True)  # nobody counts these
        assert cache.stats("1h").tokens_computed == 9

    def test_are_estimated_where_the_server_does_not_count(
        self, make: Callable[..., Caller], api: EmbeddingServer, cache: EmbeddingsCache
    ) -> None:
        api.counted = False
        make(cache=cache).embed("twelve chars")
        assert cache.stats("1h").tokens_computed == 3


def test_a_hit_needs_neither_server_nor_library(valkey: Server, cache: EmbeddingsCache) -> None:
    cache.set("a", MODEL, np.arange(3))
    code = (
        "import sys; from embedcache import EmbeddingsCache, OpenAITextVectorizer\n"
        f"vectorizer = OpenAITextVectorizer({MODEL!r}, EmbeddingsCache('o', redis_url={valkey.url!r}))\n"
        "print(vectorizer.embed('a').tolist(), 'openai' in sys.modules, 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[0.0, 1.0, 2.0] False False", done.stderr
