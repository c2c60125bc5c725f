"""scikit-learn: `EmbeddingTransformer`, texts to vectors as the first step of a pipeline.

::

    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectorizer = HFTextVectorizer(cache=EmbeddingsCache("docs"))
    model = make_pipeline(EmbeddingTransformer(vectorizer), LogisticRegression())
    model.fit(texts, labels)  # each further fit, as in a grid search, reads vectors
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import numpy as np

from embedcache.entry import TTL
from embedcache.errors import InvalidInputError
from embedcache.vectorizers.base import BaseVectorizer
from embedcache.vectorizers.prompts import InputType
from embedcache.vectorizers.report import Matrix

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
except ImportError as error:
    raise ImportError(
        "embedcache.integrations.sklearn needs scikit-learn: pip install 'embedcache[sklearn]'"
    ) from error


# Their classes are not typed for mypy here, which takes them for Any.
class EmbeddingTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Texts to the vectors of a vectorizer. Nothing is learned: `fit` checks its input and that is all.

    Clones share the vectorizer, with its model and connections, so that a search over a grid loads one model and reads
    what another fit has computed. Processes cannot share it: of `n_jobs`, take 1, or joblib's threads.

    Args:
        vectorizer: What makes vectors, and the cache that keeps them.
        input_type: What the texts are, as in `BaseVectorizer.embed`.
        metadata: Stored beside each vector that is computed.
        ttl: Seconds that such an entry lives; None is the cache's default, `NEVER` never expires.
    """

    def __init__(
        self,
        vectorizer: BaseVectorizer,
        input_type: InputType | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
    ) -> None:
        self.vectorizer = (
            vectorizer  # kept as given, and checked by use: so scikit-learn's rules for set_params want it
        )
        self.input_type = input_type
        self.metadata = metadata
        self.ttl = ttl

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: N803, ARG002 - scikit-learn's names
        """Checks the texts.

        Raises:
            InvalidInputError: They are not a 1-D sequence of texts, or there is no vectorizer.
        """
        self._check_vectorizer()
        _texts(X)
        return self

    def transform(self, X: Any) -> Matrix:  # noqa: N803 - as above
        """The vectors of texts, float32, ``(n, d)``. All are looked up at once; each distinct miss is computed once.

        Args:
            X: A list, a 1-D array or a pandas Series of n texts.

        Raises:
            InvalidInputError: They are not, or a text is blank or not text, and the error names which.
            VectorizerError: The model cannot be loaded, or did not give one vector per text.
        """
        vectors = self._check_vectorizer().embed_many(
            _texts(X), input_type=self.input_type, metadata=self.metadata, ttl=self.ttl
        )
        if len(vectors):
            self._dims = vectors.shape[1]
        return vectors

    @property
    def _n_features_out(self) -> int:
        """How many columns `transform` gives, for `get_feature_names_out`; asks the model where none were given yet."""
        dims = getattr(self, "_dims", None)
        return self._check_vectorizer().dims if dims is None else cast("int", dims)

    def _check_vectorizer(self) -> BaseVectorizer:
        if not isinstance(self.vectorizer, BaseVectorizer):
            raise InvalidInputError(f"a vectorizer is wanted, not {type(self.vectorizer).__name__}")
        return self.vectorizer

    # ---------------------------------------------------------------------------------------- for scikit-learn

    def __sklearn_clone__(self) -> Self:
        # Left to itself, clone copies each argument, and a model with its connections cannot be copied. The rest is as
        # it would be: what set_output and the requests for metadata have set goes along, what was learned does not.
        clone = type(self)(**self.get_params(deep=False))
        for name in ("_sklearn_output_config", "_metadata_request"):
            if hasattr(self, name):
                setattr(clone, name, copy.deepcopy(getattr(self, name)))
        return clone

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def _texts(given: Any) -> Sequence[str]:
    """The texts of whatever scikit-learn hands on."""
    if isinstance(given, str | bytes) or not hasattr(given, "__len__"):
        raise InvalidInputError(f"a sequence of texts is wanted, not {type(given).__name__}")
    if isinstance(given, list | tuple):
        return given
    array = np.asarray(given, dtype=object)  # of a Series, its values
    if array.ndim != 1:
        raise InvalidInputError(f"a 1-D sequence of texts is wanted, not one of shape {array.shape}; name one column")
    return cast("list[str]", array.tolist())
