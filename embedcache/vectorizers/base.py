"""`BaseVectorizer`: what users call, and the narrow seam by which a subclass says how vectors are made.

What a call does is a plan (`embedcache.vectorizers.planning`) that is carried out sync or async
(`embedcache.vectorizers.steps`); the async driver has models compute in a thread, so that the event loop goes on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict, Unpack, get_args

import numpy.typing as npt

from embedcache.arguments import check_choice, check_kind
from embedcache.cache import EmbeddingsCache
from embedcache.entry import TTL, Text
from embedcache.keyspace import encode_model_name
from embedcache.vectorizers.losses import Loss
from embedcache.vectorizers.planning import Preprocess, Wanted, embed_many, embed_one, wanted
from embedcache.vectorizers.progress import OnProgress
from embedcache.vectorizers.prompts import InputType, check_input_type
from embedcache.vectorizers.report import EmbedReport, Matrix, Vector
from embedcache.vectorizers.steps import arun, run
from embedcache.vectorizers.threads import in_thread

if TYPE_CHECKING:
    from embedcache.vectorizers.drift_report import DriftReport

CHUNK_TEXTS: Final = 256
"""Texts computed and stored at a time: what a crash may lose, and how often progress is reported."""

SingleFlightMode: TypeAlias = Literal["process", "shared"]

_CHARACTERS_PER_TOKEN: Final = 4


class OneTextOptions(TypedDict, total=False):
    """The options of `BaseVectorizer.embed`, but for the input type."""

    preprocess: Preprocess | None
    metadata: Mapping[str, Any] | None
    ttl: TTL
    skip_cache: bool


class ManyTextsOptions(OneTextOptions, total=False):
    """The options of `BaseVectorizer.embed_many`, but for the input type."""

    on_progress: OnProgress | None
    progress: bool


class BaseVectorizer(ABC):
    """Texts to vectors through a cache. A subclass says how vectors are made: `_compute` and `dims`.

    Where the cache's server is not there, or refuses (memory is full, say), vectors are computed and returned all the
    same, with one warning per outage; where the cache is read-only, those that it lacks are computed,
    returned and not kept.

    Args:
        model: The model's name.
        cache: Where vectors are kept; None computes every time. It may be set later, as `.cache`.
        single_flight: Whether callers that lack the same text at the same time wait for the one of them that came
            first, and who they are: ``process`` is all threads and event loops of this process, ``shared`` all
            processes that use the cache, too, at two round trips more before texts are computed and one after; None has
            each compute it. If the first one's model fails, the others compute for themselves.

    Raises:
        InvalidInputError: The model's name, the cache or `single_flight` cannot be used.
    """

    _chunk_texts: int | None = None
    """How many texts `_compute` takes at a time; None is `CHUNK_TEXTS`."""

    def __init__(
        self,
        model: str,
        cache: EmbeddingsCache | None = None,
        *,
        single_flight: SingleFlightMode | None = "process",
    ) -> None:
        encode_model_name(model)
        check_choice("single_flight", single_flight, get_args(SingleFlightMode), may_be_none=True)
        if cache is not None:
            check_kind("cache", cache, EmbeddingsCache)
        self.model = model
        self.cache = cache
        self.single_flight = single_flight
        self._lookups = Loss("embedding without the cache", "the cache is back")
        self._locks = Loss("embedding without the locks of shared flights", "flights are shared again")
        self._stores = Loss("embedding, and storing nothing of it", "vectors are stored again")
        self._one_at_a_time: AbstractContextManager[Any] = nullcontext()

    @property
    def model_name(self) -> str:
        """The name under which entries are kept: all that changes a vector is in it."""
        return self.model

    def model_name_for(self, input_type: InputType | None) -> str:  # noqa: ARG002 - for those that tell them apart
        """The name under which entries of this type are kept: `model_name`, unless the model tells them apart.

        A subclass whose model does overrides this and `_compute_as`.
        """
        return self.model_name

    @property
    @abstractmethod
    def dims(self) -> int:
        """Length of this vectorizer's vectors. May load the model."""

    # ---------------------------------------------------------------------------------------- for subclasses

    @abstractmethod
    def _compute(self, texts: Sequence[Text]) -> npt.ArrayLike:
        """The vectors of these texts, shape (n, d), in an array that nobody changes later; never called with none.

        Called from several threads at once, unless `_one_at_a_time` is a lock.
        """

    def _compute_as(self, texts: Sequence[Text], input_type: InputType) -> npt.ArrayLike:  # noqa: ARG002 - as above
        """As `_compute`, of texts of a type for which `model_name_for` has another name."""
        return self._compute(texts)

    def _prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Called before `_compute`, for what is done once, such as loading a model: no text's cost."""

    def _count_tokens(self, texts: Sequence[Text]) -> int:
        """How many tokens these texts have, for reckoning what hits save.

        An estimate, by OpenAI's rule of thumb for English: 4 characters each
        (https://help.openai.com/en/articles/4936856). A subclass that knows says so.
        """
        return sum(-(-len(text) // _CHARACTERS_PER_TOKEN) for text in texts if isinstance(text, str))

    def _timed(self, texts: Sequence[Text], input_type: InputType | None) -> tuple[npt.ArrayLike, float]:
        """What the model gives, and the seconds it took, without those in which it was loaded or busy with others."""
        self._prepare()
        with self._one_at_a_time:
            start = perf_counter()
            computed = self._compute(texts) if input_type is None else self._compute_as(texts, input_type)
            return computed, perf_counter() - start

    async def _atimed(self, texts: Sequence[Text], input_type: InputType | None) -> tuple[npt.ArrayLike, float]:
        """Async twin of `_timed`: a thread, for models that compute. One that only waits for a server overrides it."""
        return await in_thread(partial(self._timed, texts, input_type))

    # ---------------------------------------------------------------------------------------- for users

    def embed(
        self,
        text: Text,
        *,
        preprocess: Preprocess | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
        input_type: InputType | None = None,
    ) -> Vector:
        """The vector of one text: from the cache, or computed and stored there.

        Args:
            text: What to embed; not blank.
            preprocess: Applied to the text first; its result is what is embedded and under which it is kept.
            metadata: Stored beside a vector that is computed now.
            ttl: Seconds that such an entry lives; None is the cache's default, `NEVER` never expires.
            skip_cache: Compute, and neither read nor write the cache.
            input_type: What the text is, for models that embed a ``query`` otherwise than a ``document``: each is an
                entry of its own. A model that makes no difference keeps one entry.

        Returns:
            float32, shape ``(d,)``, the caller's own to change.

        Raises:
            InvalidInputError: The text, metadata, TTL or input type cannot be used.
            VectorizerError: The model cannot be loaded, or gave no vector.
        """
        wants = self._wanted(metadata, ttl, input_type)
        return run(embed_one(self, text, preprocess, wants, skip_cache=skip_cache))

    async def aembed(
        self,
        text: Text,
        *,
        preprocess: Preprocess | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
        input_type: InputType | None = None,
    ) -> Vector:
        """Async twin of `embed`.

        A text that is being computed when the caller is cancelled is computed and stored all the same, for there may be
        others who wait for it, unless `single_flight` is None.
        """
        wants = self._wanted(metadata, ttl, input_type)
        return await arun(embed_one(self, text, preprocess, wants, skip_cache=skip_cache))

    def embed_many(
        self,
        texts: Sequence[Text],
        *,
        preprocess: Preprocess | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
        input_type: InputType | None = None,
        on_progress: OnProgress | None = None,
        progress: bool = False,
    ) -> Matrix:
        """The vectors of many texts. All are looked up at once, and each distinct miss is computed once.

        Misses are computed and stored in chunks of `CHUNK_TEXTS`, so that an interruption keeps what was done.

        Args:
            texts: What to embed; may repeat.
            preprocess: As in `embed`.
            metadata: As in `embed`, for each vector that is computed now.
            ttl: As in `embed`.
            skip_cache: As in `embed`.
            input_type: As in `embed`.
            on_progress: Called with how many distinct texts are done, and of how many: after the look-up and after
                each chunk.
            progress: Whether to show a progress bar, with tqdm, which the extras ``hf`` and ``progress`` bring.

        Returns:
            float32, shape ``(n, d)``, row i the vector of text i.

        Raises:
            InvalidInputError: An argument cannot be used; nothing was computed or written.
            VectorizerError: The model cannot be loaded, or did not give one vector per text.
        """
        wants = self._wanted(metadata, ttl, input_type)
        plan = embed_many(self, texts, preprocess, wants, on_progress, skip_cache=skip_cache, progress=progress)
        return run(plan).vectors

    async def aembed_many(
        self,
        texts: Sequence[Text],
        *,
        preprocess: Preprocess | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
        input_type: InputType | None = None,
        on_progress: OnProgress | None = None,
        progress: bool = False,
    ) -> Matrix:
        """Async twin of `embed_many`; of a cancelled caller's chunk, see `aembed`."""
        wants = self._wanted(metadata, ttl, input_type)
        plan = embed_many(self, texts, preprocess, wants, on_progress, skip_cache=skip_cache, progress=progress)
        return (await arun(plan)).vectors

    def embed_report(
        self,
        texts: Sequence[Text],
        *,
        preprocess: Preprocess | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
        input_type: InputType | None = None,
        on_progress: OnProgress | None = None,
        progress: bool = False,
    ) -> EmbedReport:
        """As `embed_many`, telling of each text whether it was a hit and how long it took."""
        wants = self._wanted(metadata, ttl, input_type)
        return run(embed_many(self, texts, preprocess, wants, on_progress, skip_cache=skip_cache, progress=progress))

    async def aembed_report(
        self,
        texts: Sequence[Text],
        *,
        preprocess: Preprocess | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
        input_type: InputType | None = None,
        on_progress: OnProgress | None = None,
        progress: bool = False,
    ) -> EmbedReport:
        """Async twin of `embed_report`."""
        wants = self._wanted(metadata, ttl, input_type)
        plan = embed_many(self, texts, preprocess, wants, on_progress, skip_cache=skip_cache, progress=progress)
        return await arun(plan)

    # ---------------------------------------------------------------------------------------- queries and documents

    def embed_query(self, text: Text, **options: Unpack[OneTextOptions]) -> Vector:
        """As `embed`, of a text that is searched for."""
        return self.embed(text, input_type="query", **options)

    async def aembed_query(self, text: Text, **options: Unpack[OneTextOptions]) -> Vector:
        """Async twin of `embed_query`."""
        return await self.aembed(text, input_type="query", **options)

    def embed_document(self, text: Text, **options: Unpack[OneTextOptions]) -> Vector:
        """As `embed`, of a text that is searched in."""
        return self.embed(text, input_type="document", **options)

    async def aembed_document(self, text: Text, **options: Unpack[OneTextOptions]) -> Vector:
        """Async twin of `embed_document`."""
        return await self.aembed(text, input_type="document", **options)

    def embed_documents(self, texts: Sequence[Text], **options: Unpack[ManyTextsOptions]) -> Matrix:
        """As `embed_many`, of texts that are searched in."""
        return self.embed_many(texts, input_type="document", **options)

    async def aembed_documents(self, texts: Sequence[Text], **options: Unpack[ManyTextsOptions]) -> Matrix:
        """Async twin of `embed_documents`."""
        return await self.aembed_many(texts, input_type="document", **options)

    def verify(
        self,
        sample: int = 100,
        *,
        seed: int | None = None,
        tolerance: float = 1e-3,
        on_progress: OnProgress | None = None,
    ) -> DriftReport:
        """Embeds a sample of the cache's entries anew, and tells how far the stored vectors lie off.

        For caches that outlive a model's update, a changed prompt or a bug: nothing is written, no TTL restarted, and
        nothing counted. Entries under other names than this vectorizer's own are left alone.

        Args:
            sample: How many entries at most, from 1 to 20,000; where the model tells queries from documents, of each.
            seed: Chooses the entries; the same one chooses the same ones while the cache stays as it is. None chooses
                at random.
            tolerance: The cosine distance (1 - cos) that is let pass, beside that of the entry's own dtype. The same
                model stays within 0.001 on other hardware or at half precision; another revision, prompt or model does
                not.
            on_progress: Called with how many of the entries are done, and of how many.

        Raises:
            InvalidInputError: There is no cache, or an argument cannot be used.
            CacheUnavailableError: The cache's server cannot be reached.
            ModelUnavailableError: The model cannot be used. A text that it refuses is in the report instead.
        """
        from embedcache.vectorizers import drift  # as late as the connection, which it imports

        return run(drift.comparing(self, sample, seed, tolerance, on_progress))

    async def averify(
        self,
        sample: int = 100,
        *,
        seed: int | None = None,
        tolerance: float = 1e-3,
        on_progress: OnProgress | None = None,
    ) -> DriftReport:
        """Async twin of `verify`."""
        from embedcache.vectorizers import drift  # as in `verify`

        return await arun(drift.comparing(self, sample, seed, tolerance, on_progress))

    # ---------------------------------------------------------------------------------------- for the plan

    @property
    def _chunk_size(self) -> int:
        return CHUNK_TEXTS if self._chunk_texts is None else self._chunk_texts

    def _wanted(self, metadata: Mapping[str, Any] | None, ttl: TTL, input_type: InputType | None) -> Wanted:
        if input_type is not None:
            check_input_type(input_type)
            if self.model_name_for(input_type) == self.model_name:
                input_type = None
        return wanted(metadata, ttl, input_type)
