"""Junk for vectorizers: what they are made with, and what they are asked; and for `cache.cached`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from drawing import junk
from hypothesis import given
from hypothesis import strategies as st
from openai_server import KEY, EmbeddingServer, embedding_server
from public import public
from toy_model import vector_of
from world import KEPT, TTL, World, patient, refusal

from embedcache import NEVER, BaseVectorizer, CustomVectorizer, HFTextVectorizer, OpenAITextVectorizer

KINDS = ("HFTextVectorizer", "OpenAITextVectorizer", "CustomVectorizer")
VECTORIZERS = public(
    *(f"embedcache.vectorizers.{kind}" for kind in (*KINDS, "BaseVectorizer")),
    *(f"embedcache.vectorizers.{report}" for report in ("EmbedReport", "DriftReport", "DriftEntry")),
)
LOADS = {"load", "dims"}
"""Loading a model takes seconds, and no arguments."""


@pytest.fixture(scope="module")
def api() -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        yield server


@pytest.fixture
def asking(world: World, api: EmbeddingServer, runner: asyncio.Runner) -> Iterator[OpenAITextVectorizer]:
    made = OpenAITextVectorizer("toy", world.cache, api_key=KEY, base_url=api.base_url, max_retries=0)
    yield made
    runner.run(made.aclose())


PLAUSIBLE: dict[str, Any] = {
    "CustomVectorizer": lambda world: world.vectorizer,
    "BaseVectorizer": lambda world: world.vectorizer,
    "text": [KEPT, "a", b"a"],
    "texts": [[KEPT, "a"], ["a"], []],
    "preprocess": [None, str],
    "metadata": [None, {"a": 1}],
    "ttl": [None, 5, NEVER],
    "skip_cache": [False, True],
    "input_type": [None, "query", "document"],
    "on_progress": [None],
    "progress": [False],
    "sample": [2],
    "seed": [None, 1],
    "tolerance": [1e-3],
    # made with
    "model": ["toy"],
    "cache": lambda world: [None, world.cache],
    "single_flight": [None, "process", "shared"],
    "embed_callable": [vector_of],
    "embed_many_callable": [None],
    "cache_folder": [None],
    "revision": [None, "main"],
    "prompt": [None, "query: "],
    "truncate_dim": [None, 8],
    "normalize": [False, True],
    "device": [None, "cpu"],
    "batch_size": [64],
    "model_kwargs": [{}, {"trust_remote_code": False}],
    "api_key": [None, KEY],
    "base_url": [None, "http://localhost:1/v1"],
    "dimensions": [None, 8],
    "timeout": [5.0],
    "max_retries": [0],
    "retry_seconds": [1.0],
    "organization": [None, "ours"],
    "project": [None, "this"],
    "client": lambda _: [None],
    "async_client": lambda _: [None],
}


@pytest.mark.parametrize("name", [name for name in VECTORIZERS if VECTORIZERS[name].short_name not in LOADS])
@patient
@given(data=st.data())
def test_a_vectorizer(world: World, asking: OpenAITextVectorizer, name: str, data: st.DataObject) -> None:
    hf = HFTextVectorizer(cache=world.cache)
    made = {"HFTextVectorizer": lambda _: hf, "OpenAITextVectorizer": lambda _: asking}
    world.check(VECTORIZERS[name], data, PLAUSIBLE | made)


@pytest.mark.parametrize("name", ["embed", "aembed_many", "embed_documents", "averify"])
@patient
@given(data=st.data())
def test_one_that_asks_a_server(world: World, asking: OpenAITextVectorizer, name: str, data: st.DataObject) -> None:
    tested = VECTORIZERS[f"embedcache.vectorizers.BaseVectorizer.{name}"]
    world.check(tested, data, PLAUSIBLE | {"BaseVectorizer": lambda _: asking})


OPTIONS = [name for name in VECTORIZERS["embedcache.vectorizers.OpenAITextVectorizer"].parameters if name != "cache"]


@pytest.mark.parametrize("option", OPTIONS)
@patient
@given(value=junk)
def test_an_option_of_openai_that_is_put_to_use(api: EmbeddingServer, option: str, value: Any) -> None:
    """Clients of OpenAI's are made at the first miss, and then take the options."""
    given = {"model": "toy", "api_key": KEY, "base_url": api.base_url, "max_retries": 0, option: value}

    def embed() -> None:
        with OpenAITextVectorizer(**given) as vectorizer:
            vectorizer.embed("a")

    error = refusal(embed)
    assert error is None or str(error)


MAKERS: dict[str, Callable[[Any], BaseVectorizer]] = {
    "HFTextVectorizer": lambda cache: HFTextVectorizer(cache=cache),
    "OpenAITextVectorizer": lambda cache: OpenAITextVectorizer("toy", cache, api_key=KEY),
    "CustomVectorizer": lambda cache: CustomVectorizer(vector_of, "toy", cache),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@patient
@given(cache=junk)
def test_what_is_no_cache(make: Callable[[Any], BaseVectorizer], cache: Any) -> None:
    assert (refusal(lambda: make(cache)) is None) is (cache is None)


@patient
@given(function=junk, texts=junk)
def test_a_cached_function(world: World, function: Any, texts: Any) -> None:
    world.put_right()
    before = world.keys()

    def embed(asked: Sequence[Any]) -> np.ndarray:
        return np.array([vector_of(text) for text in asked])

    for called in (function, embed):
        error = refusal(lambda called=called: world.cache.cached("toy", ttl=TTL)(called)(texts))
        if error is not None:
            assert world.keys() == before
