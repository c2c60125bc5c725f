"""Embeds a Parquet corpus with Dask, on this machine or on as many as a scheduler has.

    python examples/dask_embed.py corpus.parquet vectors/ [tcp://scheduler:8786]

All workers share the cache at $EMBEDCACHE_URL, which they must be able to reach: set it where they are started. Without
it, and on one machine, they share the embedded server.
"""

from __future__ import annotations

import sys

import dask.dataframe
import pyarrow.dataset
from dask.distributed import Client

from embedcache.integrations.dask import WarmTexts, add_up, embed_frame
from embedcache.warming import CacheSettings, VectorizerSettings


def main() -> None:
    """Warms the cache, and then writes the corpus with its vectors, all of which are hits."""
    corpus, target, *scheduler = sys.argv[1:]
    settings = VectorizerSettings(cache=CacheSettings("dask-example"))
    # Without a scheduler, processes of this machine; a thread each, for the model uses all cores by itself.
    with Client(*scheduler) if scheduler else Client(n_workers=2, threads_per_worker=1, dashboard_address=":0"):
        frame = dask.dataframe.read_parquet(corpus)
        report = add_up(frame["text"].to_bag().map_partitions(WarmTexts(settings)).compute())
        print(f"{report.rows:,} rows: {report.computed:,} computed, {report.hits:,} hits, {report.failed:,} bad")
        embedded = embed_frame(frame, settings, column="text", into="embedding")
        # Dask sees objects in the new column, and has to be told that they are vectors.
        schema = pyarrow.dataset.dataset(corpus).schema.remove_metadata()
        schema = schema.append(pyarrow.field("embedding", pyarrow.list_(pyarrow.float32())))
        embedded.to_parquet(target, schema=schema, write_index=False)


if __name__ == "__main__":  # workers are processes that import this file
    main()
