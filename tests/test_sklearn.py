"""`EmbeddingTransformer` among scikit-learn's own: pipelines, clones, grids, its checks of estimators."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers import Server
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from toy_model import Model, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache, HFTextVectorizer, InvalidInputError
from embedcache.errors import InvalidTextError
from embedcache.integrations.sklearn import EmbeddingTransformer

COOKING = [
    "Bread is baked in an oven.",
    "Boil the pasta for ten minutes.",
    "Fry the onions in butter.",
    "Salt the soup.",
]
COMPUTERS = [
    "A cache keeps vectors.",
    "The server has no memory left.",
    "Compile the program.",
    "Restart the database.",
]
TEXTS, LABELS = COOKING + COMPUTERS, [0] * len(COOKING) + [1] * len(COMPUTERS)


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("sklearn", redis_url=valkey.url) as cache:
        yield cache


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def transformer(cache: EmbeddingsCache, model: Model) -> EmbeddingTransformer:
    return EmbeddingTransformer(CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model))


@pytest.mark.parametrize("container", [list, tuple, np.array, pd.Series, lambda texts: np.array(texts, dtype=object)])
def test_texts_come_in_all_of_sklearns_ways(transformer: EmbeddingTransformer, model: Model, container: Any) -> None:
    vectors = transformer.fit_transform(container(["b", "a", "b"]))
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, [vector_of(text) for text in ("b", "a", "b")])
    assert model.asked == ["b", "a"]
    assert np.array_equal(transformer.transform(container(["a"])), [vector_of("a")])
    assert model.asked == ["b", "a"]


def test_names_of_features(transformer: EmbeddingTransformer, model: Model) -> None:
    expected = [f"embeddingtransformer{n}" for n in range(32)]
    assert transformer.get_feature_names_out().tolist() == expected  # asks the model
    assert model.asked == ["dimension"]
    transformer.fit_transform(["a"])
    assert transformer.get_feature_names_out().tolist() == expected
    frame = transformer.set_output(transform="pandas").transform(["a"])
    assert frame.columns.tolist() == expected


def test_a_clone_shares_the_vectorizer(transformer: EmbeddingTransformer) -> None:
    transformer.set_params(ttl=60, metadata={"a": 1})
    other = clone(transformer)
    assert other is not transformer
    assert other.vectorizer is transformer.vectorizer
    assert other.get_params() == transformer.get_params()
    other.set_params(ttl=5)
    assert transformer.ttl == 60
    (inner, _) = clone(make_pipeline(transformer, LogisticRegression()))
    assert inner.vectorizer is transformer.vectorizer


def test_a_clone_has_what_set_output_was_told(transformer: EmbeddingTransformer) -> None:
    other = clone(transformer.set_output(transform="pandas"))
    assert isinstance(other.transform(["a"]), pd.DataFrame)
    other.set_output(transform="default")
    assert isinstance(transformer.transform(["a"]), pd.DataFrame)


def test_a_pipeline_in_a_grid_computes_each_text_once(
    transformer: EmbeddingTransformer, cache: EmbeddingsCache, model: Model
) -> None:
    pipeline = make_pipeline(transformer.set_params(metadata={"by": "sklearn"}), LogisticRegression(max_iter=2_000))
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 10.0]}, cv=2, error_score="raise")
    search.fit(TEXTS, LABELS)
    assert search.predict(TEXTS).tolist() == LABELS
    assert sorted(model.asked) == sorted(TEXTS)
    entry = cache.get(TEXTS[0], "toy")
    assert entry is not None
    assert entry["metadata"] == {"by": "sklearn"}


def test_a_column_of_a_frame(transformer: EmbeddingTransformer) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "size": [1, 2]})
    columns = ColumnTransformer([("vector", transformer, "text"), ("size", "passthrough", ["size"])])
    assert columns.fit_transform(frame).shape == (2, 33)
    assert columns.get_feature_names_out()[0] == "vector__embeddingtransformer0"
    with pytest.raises(InvalidInputError, match=r"not one of shape \(2, 1\); name one column"):
        transformer.fit(frame[["text"]])


def test_types_of_input(cache: EmbeddingsCache) -> None:
    transformer = EmbeddingTransformer(HFTextVectorizer(cache=cache), input_type="poem")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="an input type is"):
        transformer.transform(["a"])


@pytest.mark.parametrize("given", ["one text", None, 3, iter(["a"]), [["a"]], np.array([[1.0]]), np.array(1)])
def test_what_are_no_texts(transformer: EmbeddingTransformer, model: Model, given: Any) -> None:
    with pytest.raises(InvalidInputError):
        transformer.fit_transform(given)
    assert model.asked == []


def test_a_text_that_is_missing_is_named(transformer: EmbeddingTransformer) -> None:
    with pytest.raises(InvalidTextError, match="item 1"):
        transformer.transform(pd.Series(["a", None]))
    with pytest.raises(InvalidInputError, match="a vectorizer is wanted, not NoneType"):
        EmbeddingTransformer(None).fit(["a"])  # type: ignore[arg-type]


def test_it_shows_itself_in_a_notebook(transformer: EmbeddingTransformer) -> None:
    with config_context(display="diagram"):
        assert "EmbeddingTransformer" in transformer._repr_html_()


def test_sklearns_checks_of_estimators(transformer: EmbeddingTransformer) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator_checks.check_estimator(transformer)
    # scikit-learn itself leaves the rest out, for it feeds matrices of numbers
    assert [each.category for each in caught] == [SkipTestWarning]


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_mixin_order",
        "check_get_params_invariance",  # check_set_params copies each argument, which a model cannot be
    ],
)
def test_those_of_its_checks_that_feed_nothing(transformer: EmbeddingTransformer, check: str) -> None:
    getattr(estimator_checks, check)("EmbeddingTransformer", transformer)
