"""One contract, called sync and async."""

from __future__ import annotations

import asyncio
from typing import Any

from embedcache import BaseVectorizer, EmbeddingsCache


class Caller:
    """A cache or a vectorizer, called by sync names, and run sync or, each method by its twin, on one event loop."""

    def __init__(self, cache: EmbeddingsCache | BaseVectorizer, runner: asyncio.Runner | None) -> None:
        self.cache = cache
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        twin = getattr(self.cache, f"a{name}", None)
        runner = self._runner
        if runner is None or twin is None:
            return getattr(self.cache, name)
        return lambda *args, **kwargs: runner.run(twin(*args, **kwargs))
