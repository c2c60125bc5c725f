"""Commands that compute, with models other than the bundled one: behind an API, or a function of the user's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from openai_server import KEY, MODEL, EmbeddingServer, embedding_server, vectors_of


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with embedding_server() as server:
        yield server


def test_an_api_embeds_what_the_cache_lacks_and_is_verified(run, cache, api, tmp_path):
    who = ["--kind", "openai", "--model", MODEL, "--option", f"base_url={api.base_url}", "--option", "timeout=20"]
    assert [each["hit"] for each in run("embed", "one", "two", *who, "--json").json["texts"]] == [False, False]
    out = tmp_path / "m.npy"
    found = run("embed", "two", "three", *who, "--out", str(out), "--json").json
    assert [each["hit"] for each in found["texts"]] == [True, False]
    assert np.allclose(np.load(out), vectors_of(["two", "three"]), atol=1e-6)
    assert sorted(text for batch in api.batches for text in batch) == ["one", "three", "two"]
    verified = run("verify", *who, "--json")
    assert (verified.code, verified.json["checked"], verified.json["ok"]) == (0, 3, True)


@pytest.mark.parametrize("command", [["embed", "one"], ["verify"], ["warm", "c.txt"]])
def test_what_names_no_vectorizer_is_refused_before_anything_is_computed(run, server, url, api, command):
    for words, said in (
        (["--kind", "openai"], "name the API's model with --model"),
        (["--kind", "nonsense"], "a kind is huggingface, openai or module:function"),
        (["--kind", "openai", "--model", MODEL, "--option", KEY], "--option is name=value"),
    ):
        ended = run(*command, *words)
        assert ended.code == 2
        assert said in ended.err
        assert KEY not in ended.out + ended.err
    assert api.requests == []
    assert server.raw.dbsize() == 0


def test_an_option_that_the_vectorizer_does_not_take_is_told(run, cache, api):
    ended = run("embed", "one", "--kind", "openai", "--model", MODEL, "--option", "colour=red")
    assert ended.code == 2
    assert "does not take these options" in ended.err
    assert "colour" in ended.err
