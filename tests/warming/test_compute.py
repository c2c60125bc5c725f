"""Many processes embed the partitions of one corpus into one cache: with Dask for real, and in Ray's shape."""

from __future__ import annotations

import os
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.bag
import dask.dataframe
import numpy as np
import pandas as pd
import pytest
from clusters import ClusterOfServers
from dask.distributed import Client, LocalCluster
from servers import Server
from toy_model import vector_of
from warmed import MODEL, computed, settings_of, texts_of, workers, write

from embedcache import EmbeddingsCache
from embedcache.errors import InvalidInputError
from embedcache.integrations.dask import EmbedTexts, WarmTexts, add_up, embed_frame
from embedcache.integrations.ray import EmbedBatch
from embedcache.vectorizers import DEFAULT_MODEL

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "compute.md").read_text(encoding="utf-8")
TEXTS = texts_of(400)


@pytest.fixture(scope="module")
def machines() -> Iterator[Client]:
    """Two processes that Dask started."""
    with (
        dask.config.set({"distributed.worker.daemon": True}),
        LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def bag_of(texts: list[Any]) -> Any:
    return dask.bag.from_sequence(texts, npartitions=8)


# ------------------------------------------------------------------------------------------------ Dask


def test_a_bag_is_embedded_in_order_and_each_text_once(machines: Client, valkey: Server, tmp_path: Path) -> None:
    embed = EmbedTexts(settings_of(valkey.url, tmp_path / "log"))
    vectors = bag_of([*TEXTS, *TEXTS]).map_partitions(embed).compute()
    np.testing.assert_array_equal(vectors, [vector_of(text) for text in [*TEXTS, *TEXTS]])
    assert computed(tmp_path / "log") == dict.fromkeys(TEXTS, 1)
    assert os.getpid() not in workers(tmp_path / "log")


def test_two_processes_that_lack_the_same_texts_compute_each_once(
    machines: Client, valkey: Server, tmp_path: Path
) -> None:
    embed = EmbedTexts(settings_of(valkey.url, tmp_path / "log"))
    addresses = list(machines.scheduler_info()["workers"])
    parts = [TEXTS[:300], TEXTS[100:]]
    given = [machines.submit(embed, part, workers=[at]) for part, at in zip(parts, addresses, strict=True)]
    for vectors, part in zip(machines.gather(given), parts, strict=True):
        np.testing.assert_array_equal(vectors, [vector_of(text) for text in part])
    assert computed(tmp_path / "log") == dict.fromkeys(TEXTS, 1)
    assert len(workers(tmp_path / "log")) == 2


def test_a_process_keeps_one_vectorizer_and_its_connection(machines: Client, valkey: Server, tmp_path: Path) -> None:
    settings = settings_of(valkey.url, tmp_path / "log")

    def look() -> tuple[bool, int]:
        vectorizer = settings.shared()
        return vectorizer is settings.shared(), id(vectorizer)

    before = machines.run(look)
    assert all(is_same for is_same, _ in before.values())
    bag_of(TEXTS).map_partitions(EmbedTexts(settings)).compute()
    assert machines.run(look) == before


def test_a_bag_is_warmed_and_only_reports_come_back(
    machines: Client, cluster: ClusterOfServers, tmp_path: Path
) -> None:
    warming = WarmTexts(settings_of(cluster.url, tmp_path / "log"), metadata=("page",), ttl=500)
    rows: list[Any] = [{"text": text, "page": page} for page, text in enumerate(TEXTS)]
    report = add_up(bag_of([*rows, *rows, {"text": " ", "page": 0}, {"text": "a"}]).map_partitions(warming).compute())
    assert (report.rows, report.computed + report.hits, report.failed) == (802, 800, 2)
    assert report.computed == 400
    assert {bad.reason for bad in report.bad_rows} == {"the text is empty or blank", "it has no 'page'"}
    with EmbeddingsCache("w", redis_url=cluster.url) as cache:
        entries = cache.mget(TEXTS, MODEL)
    assert [entry and (entry["metadata"], entry["ttl"]) for entry in entries] == [
        ({"page": page}, 500) for page in range(400)
    ]


def test_a_data_frame_gets_a_column_of_vectors(machines: Client, valkey: Server, tmp_path: Path) -> None:
    pandas_frame = pd.DataFrame({"body": TEXTS, "n": range(400)}, index=range(1_000, 1_400))
    frame = dask.dataframe.from_pandas(pandas_frame, npartitions=4)
    settings = settings_of(valkey.url, tmp_path / "log")
    embedded = embed_frame(frame[frame.n < 350], settings, column="body", into="vector")  # with partitions, one emptied
    assert computed(tmp_path / "log") == {}  # nothing is computed but what is asked for, and not before
    assert list(embedded.columns) == ["body", "n", "vector"]
    given = embedded.compute()
    np.testing.assert_array_equal(np.stack(given["vector"]), [vector_of(text) for text in TEXTS[:350]])
    assert list(given.index) == list(range(1_000, 1_350))
    assert computed(tmp_path / "log") == dict.fromkeys(TEXTS[:350], 1)
    emptied = embed_frame(frame[frame.n < 0], settings, column="body").compute()
    assert (len(emptied), list(emptied.columns)) == (0, ["body", "n", "embedding"])
    with pytest.raises(InvalidInputError, match="no column 'text'; it has 'body', 'n'"):
        embed_frame(frame, settings)


# ------------------------------------------------------------------------------------------------ Ray


def test_an_actor_of_rays_embeds_batch_after_batch(valkey: Server, tmp_path: Path) -> None:
    settings = settings_of(valkey.url, tmp_path / "log")
    actor = EmbedBatch(settings=settings, column="body", into="vector", ttl=500)
    batches = [np.array(TEXTS[:50], object), np.array(TEXTS[25:75])]
    for texts in batches:
        given = actor({"body": texts, "n": np.arange(50)})
        assert list(given) == ["body", "n", "vector"]
        assert given["vector"].dtype == np.float32
        np.testing.assert_array_equal(given["vector"], [vector_of(text) for text in texts])
    assert computed(tmp_path / "log") == dict.fromkeys(TEXTS[:75], 1)
    assert EmbedBatch(settings)._vectorizer is actor._vectorizer
    with pytest.raises(InvalidInputError, match="item 1"):
        actor({"body": np.array(["a", " "]), "n": np.arange(2)})


# ------------------------------------------------------------------------------------------------ page and examples


def test_rays_example_says_what_its_class_takes(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    how = runpy.run_path(str(ROOT / "examples" / "ray_embed.py"))["HOW"]
    actor = EmbedBatch(**how["fn_constructor_kwargs"])
    assert actor({"text": np.array([], object)})["embedding"].shape == (0, 0)


def test_the_pages_code_runs(
    machines: Client,
    valkey: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "1.txt").write_text("one\n\ntwo\n")
    (tmp_path / "corpus" / "2.txt").write_text("two\n")
    write(tmp_path / "corpus.parquet", ["one", "two"])
    settings = settings_of(valkey.url, tmp_path / "log")
    warm, embed, _ray = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"client": machines, "settings": settings}
    own_settings = re.compile(r"^settings = .*?\n(?=\w)", re.DOTALL | re.MULTILINE)
    for code in (warm, embed):
        shortened = own_settings.sub("", code)
        exec(shortened, names)  # noqa: S102 - it is ours
    assert capsys.readouterr().out.splitlines()[0] == re.findall(r"print\(.*\)  # (.*)", warm)[-1]
    assert set(computed(tmp_path / "log")) == {"one", "two"}


@pytest.mark.model
def test_dasks_example_runs_on_a_scheduler_of_ones_own(
    machines: Client,
    valkey: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = ["What is AI?", "What is a cache?", "What is AI?"]
    corpus, target = write(tmp_path / "corpus.parquet", texts), tmp_path / "vectors"
    url = valkey.url
    machines.run(lambda: os.environ.update(EMBEDCACHE_URL=url))  # `os.environ` itself would be sent as a copy
    words = ["dask_embed.py", str(corpus), str(target), machines.scheduler.address]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(ROOT / "examples" / "dask_embed.py"), run_name="__main__")
    assert capsys.readouterr().out == "3 rows: 2 computed, 1 hits, 0 bad\n"
    with EmbeddingsCache("dask-example", redis_url=valkey.url) as cache:
        kept, hits = cache.mget_embeddings(texts, DEFAULT_MODEL)
    assert hits.all()
    assert kept.shape == (3, 384)
    written = pd.read_parquet(target)
    assert list(written["text"]) == texts
    np.testing.assert_array_equal(np.stack(written["embedding"]), kept)
