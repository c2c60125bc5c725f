"""Junk for what connects caches and vectorizers to other libraries, but for Dask and Ray, which are with warming."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding
from llama_index.core import MockEmbedding
from public import public
from sentence_transformers import SentenceTransformer
from world import World, patient

from embedcache import NEVER, HFTextVectorizer
from embedcache.integrations.langchain import CachedEmbeddings
from embedcache.integrations.llamaindex import CachedEmbedding
from embedcache.integrations.prometheus import ProcessCollector, SharedCollector
from embedcache.integrations.sentence_transformers import cached_encode
from embedcache.integrations.sklearn import EmbeddingTransformer

OTHERS = ("langchain", "llamaindex", "sentence_transformers", "sklearn", "prometheus", "opentelemetry")
INTEGRATIONS = public(*(f"embedcache.integrations.{name}" for name in OTHERS))


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return HFTextVectorizer().load()


PLAUSIBLE: dict[str, Any] = {
    "vectorizer": lambda world: [world.vectorizer],
    "cache": lambda world: [world.cache],
    "caches": lambda world: [(world.cache,)],
    "connection": lambda world: [world.connection],
    "metadata": [None, {"a": 1}],
    "ttl": [None, 5, NEVER],
    "input_type": [None, "query"],
    "model_name": ["toy"],
    "queries_apart": [False, True],
    "names": [["c"], []],
    "text": ["a"],
    "texts": [["a", "b"], []],
    # LangChain and LlamaIndex
    "CachedEmbeddings": lambda world: CachedEmbeddings(world.vectorizer),
    "CachedEmbedding": lambda world: CachedEmbedding(world.vectorizer),
    "embeddings": [DeterministicFakeEmbedding(size=3)],
    "embedding": [MockEmbedding(embed_dim=3)],
    "options": [{}],
    # Sentence Transformers
    "model": [],
    "prompt_name": [None],
    "prompt": [None, "query: "],
    "normalize_embeddings": [False, True],
    "truncate_dim": [None, 8],
    "batch_size": [32],
    # scikit-learn
    "EmbeddingTransformer": lambda world: EmbeddingTransformer(world.vectorizer),
    "X": [["a", "b"], np.array(["a"])],
    "y": [None],
    # monitoring
    "ProcessCollector": lambda world: ProcessCollector(world.cache),
    "SharedCollector": lambda world: SharedCollector(world.cache),
    "tracer_provider": [None],
    "meter_provider": [None],
}


SENTENCES = [name for name in INTEGRATIONS if "sentence_transformers" in name]


@pytest.mark.parametrize("name", sorted(INTEGRATIONS.keys() - set(SENTENCES)))
@patient
@given(data=st.data())
def test_an_integration(world: World, name: str, data: st.DataObject) -> None:
    world.check(INTEGRATIONS[name], data, PLAUSIBLE)


@pytest.mark.model
@pytest.mark.parametrize("name", SENTENCES)
@patient
@given(data=st.data())
def test_a_loaded_model(world: World, model: SentenceTransformer, name: str, data: st.DataObject) -> None:
    encode = cached_encode(model, world.cache, model_name="toy")
    world.check(INTEGRATIONS[name], data, PLAUSIBLE | {"model": [model], "CachedEncode": lambda _: encode})
