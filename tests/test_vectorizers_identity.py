"""Two vectorizers that differ in anything that changes a vector never share an entry; those that do not, do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from remembering import RememberingModel
from servers import Server

from embedcache import EmbeddingsCache, HFTextVectorizer, InvalidInputError
from embedcache.errors import InvalidModelNameError
from embedcache.keyspace import MAX_MODEL_NAME_BYTES
from embedcache.vectorizers.identity import identity


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("v", redis_url=valkey.url) as cache:
        yield cache


# ------------------------------------------------------------------------------------------------ the name

values = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
options = st.dictionaries(st.sampled_from(["prompt", "revision", "truncate_dim", "a&b"]), values, max_size=3)


def said(given: Mapping[str, Any]) -> dict[str, str]:
    """What is to be told apart: an option that says nothing is as good as none, and a number is what it is written."""
    return {
        name: str(value) for name, value in given.items() if value is not None and value is not False and value != ""
    }


class TestIdentity:
    def test_of_plain_use_is_the_models_name(self) -> None:
        assert identity("some/model") == "some/model"
        assert identity("some/model", prompt=None, normalize=False, revision="") == "some/model"

    def test_names_each_option_by_alphabet(self) -> None:
        assert (
            identity("some/model", truncate_dim=64, prompt="query: ") == "some/model?prompt=query%3A+&truncate_dim=64"
        )

    def test_does_not_take_zero_for_nothing(self) -> None:
        assert identity("m", dimensions=0) == "m?dimensions=0"

    @given(st.text("a?=&%3F", min_size=1, max_size=6), options, st.text("a?=&%3F", min_size=1, max_size=6), options)
    def test_property_is_one_for_one_model_and_options_alone(
        self, model: str, some: dict[str, Any], other: str, others: dict[str, Any]
    ) -> None:
        same = (model, said(some)) == (other, said(others))
        assert (identity(model, **some) == identity(other, **others)) == same

    def test_of_a_model_named_like_an_option_is_its_own(self) -> None:
        assert identity("m?normalize=True") != identity("m", normalize=True)

    def test_takes_dicts_in_any_order(self) -> None:
        one, other = {"a": 1, "b": [1, 2.5, None]}, {"b": [1, 2.5, None], "a": 1}
        assert identity("m", config=one) == identity("m", config=other)
        assert identity("m", config=one) != identity("m", config={**one, "a": 2})

    def test_takes_numbers_of_numpy_for_what_they_are(self) -> None:
        assert identity("m", dimensions=np.int64(64)) == identity("m", dimensions=64)

    def test_of_long_options_fits_a_name_and_still_tells_them_apart(self) -> None:
        names = {identity("m", prompt=letter * 5_000, normalize=True) for letter in "abä"}
        assert len(names) == 3
        assert all(len(name.encode()) <= MAX_MODEL_NAME_BYTES and "normalize=True" in name for name in names)

    def test_of_what_has_no_name_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match=r"config\['a'\].* changes vectors, and a value of type object"):
            identity("m", config={"a": object()})
        with pytest.raises(InvalidInputError, match="surrogates"):
            identity("m", prompt="\ud800")

    @pytest.mark.model
    def test_takes_dtypes_of_torch_by_either_name(self) -> None:
        import torch

        assert identity("m", model_kwargs={"dtype": torch.float16}) == identity("m", model_kwargs={"dtype": "float16"})


# ------------------------------------------------------------------------------------------------ of HFTextVectorizer

CHANGES: list[dict[str, Any]] = [
    {},
    {"prompt": "query: "},
    {"prompt": "passage: "},
    {"prompt": ""},
    {"truncate_dim": 64},
    {"truncate_dim": 128},
    {"normalize": True},
    {"revision": "main"},
    {"revision": "v2"},
    {"prompt": "query: ", "normalize": True},
    {"backend": "onnx"},
    {"backend": "openvino"},
    {"trust_remote_code": True},
    {"prompts": {"query": "q: "}},
    {"prompts": {"query": "query: "}},
    {"prompts": {"query": "q: "}, "default_prompt_name": "query"},
    {"model_kwargs": {"dtype": "float16"}},
    {"model_kwargs": {"dtype": "bfloat16"}},
    {"config_kwargs": {"num_hidden_layers": 3}},
    {"processor_kwargs": {"model_max_length": 64}},
]
SAME: list[dict[str, Any]] = [
    {"device": "cpu"},
    {"batch_size": 3},
    {"cache_folder": "elsewhere"},
    {"token": "hf_secret"},
    {"similarity_fn_name": "dot"},
    {"model_kwargs": {"device_map": "auto", "token": "hf_secret"}},
    {"single_flight": None},
    {"prompt": None, "normalize": False},
]


def test_each_option_that_changes_vectors_is_in_the_name() -> None:
    names = [HFTextVectorizer("some/model", **each).model_name for each in CHANGES]
    assert len(set(names)) == len(CHANGES)
    assert names[0] == "some/model"


def test_no_two_that_differ_share_an_entry(cache: EmbeddingsCache) -> None:
    """Each keeps a vector of its own under one text, and reads that: no model is needed for hits."""
    vectorizers = [HFTextVectorizer("some/model", cache, **each) for each in CHANGES]
    for number, vectorizer in enumerate(vectorizers):
        cache.set("the text", vectorizer.model_name, [number, 1.0])
    for number, vectorizer in enumerate(vectorizers):
        assert vectorizer.embed("the text").tolist() == [number, 1]
        assert not vectorizer.loaded


@pytest.mark.parametrize("same", SAME)
def test_what_leaves_vectors_alone_is_not_in_the_name(same: dict[str, Any]) -> None:
    assert HFTextVectorizer("some/model", **same).model_name == "some/model"


def test_secrets_are_never_in_the_name() -> None:
    secret = {"token": "hf_secret"}
    made = HFTextVectorizer("some/model", backend="onnx", model_kwargs={**secret, "a": 1}, **secret)
    assert made.model_name == "some/model?backend=onnx&model_kwargs=%7B%22a%22%3A+1%7D"


def test_what_cannot_be_named_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'modules' changes vectors, and a value of type object"):
        HFTextVectorizer("some/model", modules=[object()])
    with pytest.raises(InvalidModelNameError):
        HFTextVectorizer("m" * 1_000, prompt="a prompt of any length")


def test_a_folder_is_named_by_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words name another folder elsewhere, and where there is none, a model on the Hub."""
    names = set()
    for place in ("here", "there"):
        (tmp_path / place / "some" / "model").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        names.add(HFTextVectorizer("some/model").model_name)
        assert HFTextVectorizer(str(tmp_path / place / "some" / "model")).model_name in names
    monkeypatch.chdir(tmp_path)
    assert len(names | {HFTextVectorizer("some/model").model_name}) == 3


@pytest.mark.model
def test_options_that_change_the_vector_change_the_vector_and_the_name(cache: EmbeddingsCache) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"prompt": "query: "},
        {"truncate_dim": 64},
        {"truncate_dim": 64, "normalize": True},
        {"prompts": {"q": "a question of "}, "default_prompt_name": "q"},
        {"model_kwargs": {"dtype": "bfloat16"}},
    ]
    vectorizers = [HFTextVectorizer(cache=cache, **each) for each in options]
    vectors = [vectorizer.embed("hello") for vectorizer in vectorizers]
    assert len({vector.tobytes() for vector in vectors}) == len(options)
    assert [len(vector) for vector in vectors] == [384, 384, 64, 64, 384, 384]
    assert np.linalg.norm(vectors[3]) == pytest.approx(1, abs=1e-5)
    assert vectorizers[0].model_name == "sentence-transformers/all-MiniLM-L6-v2"
    for vectorizer, vector in zip(vectorizers, vectors, strict=True):
        np.testing.assert_array_equal(vectorizer.embed("hello"), vector)
        entry = cache.get("hello", vectorizer.model_name)
        assert entry is not None
        np.testing.assert_array_equal(entry["embedding"], vector)


# ------------------------------------------------------------------------------------------------ queries and documents


def saved(folder: Path, *, prompts: Any = None, default: str | None = None, **files: Any) -> Path:
    """A folder with what a model's files say of its prompts, and no model."""
    folder.mkdir(exist_ok=True)
    written = {
        "modules": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}],
        "config_sentence_transformers": {"prompts": prompts or {}, "default_prompt_name": default},
        "sentence_bert_config": {"max_seq_length": 256},
        "tokenizer_config": {},
        **files,
    }
    for name, content in written.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def apart(vectorizer: HFTextVectorizer) -> tuple[bool, bool]:
    """Whether queries, and whether documents, are other entries than plain texts."""
    plain = vectorizer.model_name
    return vectorizer.model_name_for("query") != plain, vectorizer.model_name_for("document") != plain


class TestQueriesAndDocuments:
    def test_of_the_bundled_model_share_the_plain_entry(self) -> None:
        assert apart(HFTextVectorizer()) == (False, False)
        assert apart(HFTextVectorizer("all-MiniLM-L6-v2", normalize=True)) == (False, False)

    def test_of_a_model_on_the_hub_are_entries_of_their_own(self) -> None:
        """Nothing here says whether it tells them apart."""
        made = HFTextVectorizer("some/model")
        names = [made.model_name, made.model_name_for("query"), made.model_name_for("document")]
        assert names == ["some/model", "some/model?input_type=query", "some/model?input_type=document"]
        assert made.model_name_for(None) == made.model_name

    @pytest.mark.parametrize(
        ("prompts", "default", "expected"),
        [
            ({}, None, (False, False)),
            ({"query": "", "document": ""}, None, (False, False)),
            ({"query": "q: ", "document": "d: "}, None, (True, True)),
            ({"query": "q: "}, None, (True, False)),
            ({"query": "q: ", "passage": "p: "}, None, (True, True)),
            ({"query": "q: "}, "query", (False, True)),
            ({"classify": "c: "}, None, (False, False)),
            ({"classify": "c: "}, "classify", (True, True)),
        ],
    )
    def test_of_a_folder_go_by_its_prompts(
        self, tmp_path: Path, prompts: Any, default: str | None, expected: tuple[bool, bool]
    ) -> None:
        folder = saved(tmp_path / "m", prompts=prompts, default=default)
        assert apart(HFTextVectorizer(str(folder))) == expected

    def test_share_one_entry_under_one_prompt_for_all(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "m", prompts={"query": "q: ", "document": "d: "})
        assert apart(HFTextVectorizer(str(folder), prompt="all: ")) == (False, False)

    def test_go_by_the_prompts_that_the_caller_gives(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "m", prompts={"query": "q: "})
        assert apart(HFTextVectorizer(str(folder), prompts={"query": ""})) == (False, False)
        assert apart(HFTextVectorizer(str(folder), prompts={"document": "d: "})) == (True, True)
        assert apart(HFTextVectorizer(prompts={"query": "q: "})) == (True, False)

    @pytest.mark.parametrize(
        "files",
        [
            {"modules": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}]},
            {"modules": [{"idx": 0, "name": "0", "path": "", "type": "their_own.Transformer"}]},
            {
                "modules": [
                    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer", "kwargs": ["task"]}
                ]
            },
            {"sentence_bert_config": {"query_length": 32}},
            {"sentence_bert_config": {"modality_config": {"text": {}, "message": {}}}},
            {"tokenizer_config": {"chat_template": "{{ task }}"}},
            {"chat_template": {}},
            {"modules": {}},
            {"config_sentence_transformers": []},
            {"config_sentence_transformers": {"prompts": ["query"]}},
        ],
    )
    def test_are_entries_of_their_own_where_more_than_prompts_may_tell_them_apart(
        self, tmp_path: Path, files: dict[str, Any]
    ) -> None:
        assert apart(HFTextVectorizer(str(saved(tmp_path / "m", **files)))) == (True, True)

    def test_are_entries_of_their_own_where_files_are_missing_or_broken(self, tmp_path: Path) -> None:
        assert apart(HFTextVectorizer(str(tmp_path))) == (True, True)
        folder = saved(tmp_path / "m")
        (folder / "modules.json").write_text("{")
        assert apart(HFTextVectorizer(str(folder))) == (True, True)

    @pytest.mark.parametrize("option", [{"backend": "onnx"}, {"trust_remote_code": True}, {"config_kwargs": {"a": 1}}])
    def test_are_entries_of_their_own_where_an_option_may_tell_them_apart(self, option: dict[str, Any]) -> None:
        assert apart(HFTextVectorizer(**option)) == (True, True)

    def test_an_empty_prompt_is_as_good_as_none_where_the_model_has_none(self, tmp_path: Path) -> None:
        assert HFTextVectorizer(prompt="").model_name == HFTextVectorizer().model_name
        folder = str(saved(tmp_path / "m", prompts={"c": "c: "}, default="c"))
        assert HFTextVectorizer(folder, prompt="").model_name != HFTextVectorizer(folder).model_name


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in a folder of its own, with prompts."""
    model = RememberingModel().load()
    folder = tmp_path_factory.mktemp("prompted")
    model.prompts, before = {"query": "query: ", "document": "passage: "}, model.prompts
    try:
        model.save(str(folder))
    finally:
        model.prompts = before
    return folder


@pytest.mark.model
class TestARealModelWithPrompts:
    def test_embeds_queries_and_documents_each_with_its_prompt(self, prompted: Path, cache: EmbeddingsCache) -> None:
        vectorizer, plain = HFTextVectorizer(str(prompted), cache), RememberingModel()
        expected = {"embed": "", "embed_query": "query: ", "embed_document": "passage: "}
        for _ in ("computed", "read"):
            for method, prompt in expected.items():
                found = getattr(vectorizer, method)("hello")
                np.testing.assert_allclose(found, plain.embed(prompt + "hello"), atol=1e-5)
        (many,) = vectorizer.embed_documents(["hello"])
        np.testing.assert_array_equal(many, vectorizer.embed("hello", input_type="document"))
        assert cache.process_stats(vectorizer.model_name_for("query")).sets == 1
        assert cache.process_stats().sets == 3

    async def test_does_the_same_async(self, prompted: Path, cache: EmbeddingsCache) -> None:
        vectorizer = HFTextVectorizer(str(prompted), cache)
        query, document = await vectorizer.aembed_query("hello"), await vectorizer.aembed_document("hello")
        assert not np.allclose(query, document, atol=1e-3)
        np.testing.assert_array_equal(vectorizer.embed_query("hello"), query)
        np.testing.assert_array_equal(await vectorizer.aembed_documents(["hello"]), [document])
        report = await vectorizer.aembed_report(["hello", "other"], input_type="query")
        assert report.hits.tolist() == [True, False]
        await cache.aclose()

    def test_saved_by_the_library_says_of_itself_that_it_has_none(self, tmp_path: Path) -> None:
        RememberingModel().load().save(str(tmp_path / "m"))
        assert apart(HFTextVectorizer(str(tmp_path / "m"))) == (False, False)
