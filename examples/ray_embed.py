"""Embeds a Parquet corpus with Ray Data, on this machine or on a Ray cluster.

    pip install "ray[data]"
    python examples/ray_embed.py corpus.parquet vectors/

All actors share the cache at $EMBEDCACHE_URL, which they must be able to reach. Without it, and on one machine, they
share the embedded server.
"""

from __future__ import annotations

import sys
from typing import Any

from embedcache.integrations.ray import EmbedBatch
from embedcache.warming import CacheSettings, VectorizerSettings

ACTORS = 2

HOW: dict[str, Any] = {
    "fn_constructor_kwargs": {
        "settings": VectorizerSettings(cache=CacheSettings("ray-example")),
        "column": "text",
        "into": "embedding",
    },
    "concurrency": ACTORS,
    "batch_size": 256,
}
"""With a GPU to each actor, ``"num_gpus": 1``."""


def main() -> None:
    """Reads, embeds what is missing, and writes the corpus with its vectors."""
    import ray  # here, so that all but this can be tried without it

    corpus, target = sys.argv[1:]
    ray.data.read_parquet(corpus).map_batches(EmbedBatch, **HOW).write_parquet(target)


if __name__ == "__main__":
    main()
