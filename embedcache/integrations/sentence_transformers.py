"""Sentence Transformers: `cached_encode` gives a loaded model's `encode` a cache.

::

    from sentence_transformers import SentenceTransformer

    encode = cached_encode(SentenceTransformer("all-MiniLM-L6-v2"), EmbeddingsCache("docs"))
    encode(["What is AI?", "What is a cache?"])  # as model.encode, computed once
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import xxhash

from embedcache.arguments import check_switch, check_text, check_whole
from embedcache.cache import EmbeddingsCache
from embedcache.entry import TTL, Text
from embedcache.errors import InvalidInputError, InvalidTextError
from embedcache.vectorizers.base import BaseVectorizer, OneTextOptions
from embedcache.vectorizers.identity import identity
from embedcache.vectorizers.planning import wanted
from embedcache.vectorizers.report import Matrix, Vector

_locks: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()


def cached_encode(
    model: Any,
    cache: EmbeddingsCache | None = None,
    *,
    model_name: str | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
    normalize_embeddings: bool = False,
    truncate_dim: int | None = None,
    batch_size: int = 32,
    metadata: Mapping[str, Any] | None = None,
    ttl: TTL = None,
) -> CachedEncode:
    """`encode` of a loaded model, through a cache.

    A loaded model does not say which revision it is, nor whether it was trained further. So entries lie under a name
    that has a digest of its weights and of what else makes it up: the model, changed, finds none of its old vectors.
    It is taken once, here, in about 30 ms for 90 MB of weights; wrap a model again after you have changed it.

    Args:
        model: A `SentenceTransformer`.
        cache: Where vectors are kept; None is ``EmbeddingsCache()``.
        model_name: The name to keep them under in place of the digest, such as that of an `HFTextVectorizer` whose
            entries are to be shared. Change it whenever the model's vectors do. Options become part of it.
        prompt_name: As `encode` takes it, and part of the name as the prompt that it stands for.
        prompt: As `encode` takes it; part of the name where it is not the model's own default.
        normalize_embeddings: As `encode` takes it; part of the name.
        truncate_dim: As `encode` takes it, or the model's own; part of the name.
        batch_size: As `encode` takes it.
        metadata: Stored beside each vector that is computed.
        ttl: Seconds that such an entry lives; None is the cache's default, `NEVER` never expires.

    Raises:
        InvalidInputError: An argument cannot be used, or the model's weights cannot be read and there is no name.
    """
    if not callable(getattr(model, "encode", None)) or not hasattr(model, "prompts"):
        raise InvalidInputError(f"a loaded SentenceTransformer is wanted, not {type(model).__name__}")
    wanted(metadata, ttl, None)
    for option, value in {"model_name": model_name, "prompt_name": prompt_name, "prompt": prompt}.items():
        if value is not None:
            check_text(option, value)
    check_switch("normalize_embeddings", normalize_embeddings)
    if truncate_dim is not None:
        truncate_dim = check_whole("truncate_dim", truncate_dim)
    batch_size = check_whole("batch_size", batch_size)
    default = _default_prompt(model)
    if prompt is None:
        prompt = default if prompt_name is None else _named_prompt(model, prompt_name)
    truncate_dim = model.truncate_dim if truncate_dim is None else truncate_dim
    name = identity(
        _name(model) if model_name is None else model_name,
        weights=_digest(model) if model_name is None else None,
        normalize=bool(normalize_embeddings),
        prompt=None if prompt == default else prompt,
        no_prompt=prompt == "" and default != "",
        truncate_dim=truncate_dim,
    )
    options = {
        "prompt": prompt,
        "normalize_embeddings": normalize_embeddings,
        "truncate_dim": truncate_dim,
        "batch_size": batch_size,
    }
    vectorizer = LoadedModelVectorizer(model, name, EmbeddingsCache() if cache is None else cache, options)
    return CachedEncode(vectorizer, {"metadata": metadata, "ttl": ttl})


class CachedEncode:
    """What `cached_encode` returns: call it as `encode`.

    Attributes:
        vectorizer: What it goes by; its `model_name` is the name under which entries are kept.
    """

    def __init__(self, vectorizer: BaseVectorizer, options: OneTextOptions) -> None:
        self.vectorizer = vectorizer
        self._options = options

    def __call__(self, texts: str | Sequence[str] | npt.NDArray[np.str_]) -> Vector | Matrix:
        """The vectors, as `encode` gives them: float32, ``(n, d)`` for n texts and ``(d,)`` for a single `str`.

        Raises:
            InvalidInputError: A text is blank, or not text; nothing was computed.
        """
        if isinstance(texts, str):
            return self.vectorizer.embed(texts, **self._options)
        if isinstance(texts, np.ndarray):
            texts = cast("list[str]", texts.tolist())
        return self.vectorizer.embed_many(texts, **self._options)


class LoadedModelVectorizer(BaseVectorizer):
    """Texts to vectors by a model that is in memory.

    Args:
        model: A `SentenceTransformer`.
        name: The name under which entries are kept.
        cache: Where they are kept.
        options: What `encode` is called with.
    """

    def __init__(self, model: Any, name: str, cache: EmbeddingsCache, options: Mapping[str, Any]) -> None:
        super().__init__(name, cache)
        self._transformer = model
        self._encode = options
        # Of the model and not of this object: the tokenizer's settings are shared, and two threads make it fail.
        self._one_at_a_time = _locks.setdefault(model, threading.Lock())

    @property
    def dims(self) -> int:
        """Length of the vectors."""
        return cast("int", self._encode["truncate_dim"] or self._transformer.get_embedding_dimension())

    def _compute(self, texts: Sequence[Text]) -> npt.ArrayLike:
        for text in texts:
            if isinstance(text, bytes):
                raise InvalidTextError(f"the model {self.model!r} embeds str, not bytes")
        computed = self._transformer.encode(list(texts), show_progress_bar=False, convert_to_numpy=True, **self._encode)
        return cast("npt.ArrayLike", computed)


def _default_prompt(model: Any) -> str:
    """What the model puts before a text where nobody names a prompt."""
    name = model.default_prompt_name
    return "" if name is None else str(model.prompts.get(name) or "")


def _named_prompt(model: Any, name: str) -> str:
    if name not in model.prompts:
        raise InvalidInputError(f"the model has no prompt named {name!r}; it has {sorted(model.prompts)}")
    return str(model.prompts[name] or "")


def _name(model: Any) -> str:
    """Where the model was loaded from, for people who read the name; the digest is what tells models apart."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    return str(getattr(config, "_name_or_path", "") or "sentence-transformer")


def _digest(model: Any) -> str:
    """A digest of the weights, of how the modules are set up, of the length of text and of the default prompt.

    xxh3, for its speed, of 128 bits: two models alike by chance are not to be expected, and whoever could make two on
    purpose chooses the models.
    """
    import torch  # as heavy as it is, it is there: the model is loaded

    weights = model.state_dict()
    if not weights:
        raise InvalidInputError("the model's weights cannot be read, so nothing tells it from others: say model_name=…")
    # Neither says it all: a module's settings lack what it was told after it was loaded.
    settings = (str(model), getattr(model, "max_seq_length", None), _default_prompt(model))
    digest = xxhash.xxh3_128(repr(settings).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
