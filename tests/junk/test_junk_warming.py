"""Junk for warming, here and on the machines of Dask and Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.dataframe
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from public import public
from toy_model import vector_of
from world import TTL, World, patient, tell

from embedcache import NEVER, CustomVectorizer, EmbeddingsCache
from embedcache.integrations.dask import EmbedFrame, EmbedTexts, WarmTexts
from embedcache.integrations.ray import EmbedBatch
from embedcache.warming import CacheSettings, VectorizerSettings, WarmReport

WARMING = public("embedcache.warming", "embedcache.integrations.dask", "embedcache.integrations.ray")


def toy(model: str, cache: EmbeddingsCache) -> CustomVectorizer:
    """What the settings below make, here and in processes."""
    return CustomVectorizer(vector_of, model, cache)


def vectorizer_settings(_world: World | None = None) -> VectorizerSettings:
    return VectorizerSettings("toy", f"{__name__}:toy", cache=CacheSettings("c", TTL))


def frames() -> Sequence[Any]:
    return [dask.dataframe.from_pandas(pd.DataFrame({"text": ["a", "b"]}), npartitions=1)]


REPORT = WarmReport(1, 1, 0, 0, 0, (), 0.5, dry_run=False)
PLAUSIBLE: dict[str, Any] = {
    "corpus": ["corpus.txt", "corpus.csv"],
    "vectorizer": lambda world: [world.vectorizer],
    "column": ["text"],
    "metadata": [(), ["page"]],
    "limit": [None, 5],
    "file_format": [None, "csv"],
    "ttl": [None, 5, NEVER],
    "input_type": [None, "query"],
    "batch": [None, 3],
    "processes": [1],
    "dry_run": [False, True],
    "tell": [tell],
    "texts": [["a", "b"], [{"text": "a"}], []],
    "EmbedTexts.__call__.texts": [["a", "b"], []],
    "reports": [[REPORT], []],
    # settings
    "CacheSettings": lambda _: CacheSettings("c", TTL),
    "VectorizerSettings": vectorizer_settings,
    "name": ["c"],
    "redis_url": [None],
    "dtype": ["float32"],
    "layout": ["packed"],
    "connection_kwargs": [{}, {"db": 0}],
    "model": ["toy"],
    "kind": ["huggingface", f"{__name__}:toy"],
    "options": [{}],
    "cache": [CacheSettings("c", TTL)],
    "line": [vectorizer_settings().to_json()],
    # Dask and Ray
    "settings": [vectorizer_settings()],
    "embed": [EmbedTexts(vectorizer_settings())],
    "into": ["vector"],
    "frame": [pd.DataFrame({"text": ["a", "b"]})],
    "embed_frame.frame": lambda _: frames(),
    "EmbedTexts": lambda _: EmbedTexts(vectorizer_settings()),
    "EmbedFrame": lambda _: EmbedFrame(EmbedTexts(vectorizer_settings())),
    "WarmTexts": lambda _: WarmTexts(vectorizer_settings()),
    "EmbedBatch": lambda _: EmbedBatch(vectorizer_settings()),
    "batch.numpy": [{"text": np.array(["a", "b"])}],
}


@pytest.mark.parametrize("name", WARMING)
@patient
@given(data=st.data())
def test_warming(world: World, name: str, data: st.DataObject) -> None:
    world.check(WARMING[name], data, PLAUSIBLE | ({"batch": PLAUSIBLE["batch.numpy"]} if "EmbedBatch" in name else {}))
