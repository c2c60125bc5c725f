"""The clients behind `OpenAITextVectorizer`: its own, those passed in, and many calls at once."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import threading
import warnings

import numpy as np
import openai
import pytest
from openai_server import KEY, MODEL, EmbeddingServer, error, vector_of, vectors_of

from embedcache import InvalidInputError, OpenAITextVectorizer
from embedcache.errors import (
    ModelUnavailableError,
)


class TestClients:
    def test_of_the_users_are_used_and_stay_open(self, api: EmbeddingServer) -> None:
        with openai.OpenAI(api_key=KEY, base_url=api.base_url, default_headers={"x-mine": "yes"}) as client:
            with OpenAITextVectorizer(MODEL, client=client) as vectorizer:
                api.replies.append(error(429, "Slow down.", retry_after="0"))
                vectorizer.embed("a")
                np.testing.assert_array_equal(asyncio.run(vectorizer.aembed("b")), vector_of("b"))
            client.models.with_raw_response  # noqa: B018 - it can still be used
            assert not client.is_closed()
        assert [request.headers["x-mine"] for request in api.requests] == ["yes"] * 3
        assert len(api.requests) == 3  # our tries, not the client's as well
        assert vectorizer.model_name == OpenAITextVectorizer(MODEL, base_url=api.base_url).model_name

    async def test_of_the_users_may_be_async(self, api: EmbeddingServer) -> None:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=api.base_url) as client:
            vectorizer = OpenAITextVectorizer(MODEL, async_client=client)
            np.testing.assert_array_equal(await vectorizer.aembed("a"), vector_of("a"))
            with pytest.raises(ModelUnavailableError, match="async_client alone"):
                vectorizer.embed("a")
            await vectorizer.aclose()
            assert not client.is_closed()

    def test_of_azure(self, api: EmbeddingServer) -> None:
        root = api.base_url.removesuffix("/v1")
        with openai.AzureOpenAI(api_key=KEY, azure_endpoint=root, api_version="2024-10-21") as client:
            vectorizer = OpenAITextVectorizer("my-deployment", client=client)
            np.testing.assert_array_equal(vectorizer.embed("a"), vector_of("a"))
        assert api.requests[0].path == "/openai/deployments/my-deployment/embeddings?api-version=2024-10-21"
        assert "openai" in vectorizer.model_name

    def test_bring_their_own_settings(self) -> None:
        with (
            openai.OpenAI(api_key=KEY) as client,
            pytest.raises(InvalidInputError, match="api_key, base_url, organization, project"),
        ):
            OpenAITextVectorizer(MODEL, client=client, base_url="http://elsewhere/v1")

    def test_ask_one_server(self) -> None:
        other = openai.AsyncOpenAI(api_key=KEY, base_url="http://a/v1")
        with (
            openai.OpenAI(api_key=KEY) as client,
            pytest.raises(InvalidInputError, match="different servers: http://a/v1 and https://api"),
        ):
            OpenAITextVectorizer(MODEL, client=client, async_client=other)

    def test_end_with_their_event_loop(self, api: EmbeddingServer) -> None:
        vectorizer = OpenAITextVectorizer(MODEL, api_key=KEY, base_url=api.base_url)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for text in ("a", "b"):
                np.testing.assert_array_equal(asyncio.run(vectorizer.aembed(text)), vector_of(text))
                gc.collect()

    def test_of_a_parent_are_not_its_childs(self, api: EmbeddingServer) -> None:
        with OpenAITextVectorizer(MODEL, api_key=KEY, base_url=api.base_url) as vectorizer:
            vectorizer.embed("a")
            context = multiprocessing.get_context("fork")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork: what this is about
                child = context.Process(target=_embed_and_leave, args=(vectorizer,))
                child.start()
            child.join(30)
            assert child.exitcode == 0
            np.testing.assert_array_equal(vectorizer.embed("c"), vector_of("c"))
        ports = [request.client_port for request in api.requests]
        assert ports[0] == ports[2] != ports[1]


def _embed_and_leave(vectorizer: OpenAITextVectorizer) -> None:
    same = np.array_equal(vectorizer.embed("b"), vector_of("b"))
    os._exit(0 if same else 1)


class TestManyAtOnce:
    async def test_tasks_wait_for_the_server_together(self, api: EmbeddingServer) -> None:
        """More of them than asyncio has threads for."""
        api.delay = 0.3
        async with OpenAITextVectorizer(MODEL, api_key=KEY, base_url=api.base_url) as vectorizer:
            texts = [f"text {n}" for n in range(60)]
            found = await asyncio.gather(*(vectorizer.aembed(text) for text in texts))
        np.testing.assert_array_equal(found, vectors_of(texts))
        assert api.busiest > 32

    def test_threads_share_one_vectorizer(self, api: EmbeddingServer) -> None:
        api.delay = 0.05
        wrong: list[str] = []
        with OpenAITextVectorizer(MODEL, api_key=KEY, base_url=api.base_url) as vectorizer:

            def embed(text: str) -> None:
                if not np.array_equal(vectorizer.embed(text), vector_of(text)):
                    wrong.append(text)

            threads = [threading.Thread(target=embed, args=(f"text {n}",)) for n in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []
        assert api.busiest > 4

    async def test_a_task_that_is_cancelled_leaves_the_others_alone(self, api: EmbeddingServer) -> None:
        api.delay = 0.2
        async with OpenAITextVectorizer(MODEL, api_key=KEY, base_url=api.base_url) as vectorizer:
            first, second = (asyncio.create_task(vectorizer.aembed(text)) for text in ("a", "b"))
            await asyncio.sleep(0.1)
            first.cancel()
            np.testing.assert_array_equal(await second, vector_of("b"))
            with pytest.raises(asyncio.CancelledError):
                await first
            np.testing.assert_array_equal(await vectorizer.aembed("c"), vector_of("c"))
