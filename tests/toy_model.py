"""A model whose vectors tell their text, which remembers what it was asked, and vectorizers called sync and async."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from embedcache import BaseVectorizer
from embedcache.vectorizers import EmbedReport, planning
from embedcache.vectorizers.steps import Apart, Plan, Step

PATIENCE_SECONDS = 30


def vector_of(text: str | bytes) -> np.ndarray:
    """A vector that tells its text."""
    digest = hashlib.sha256(text if isinstance(text, bytes) else text.encode()).digest()
    return np.frombuffer(digest, np.uint8).astype(np.float32)


class Model:
    """A function from texts to vectors that remembers what it was asked, and fails or waits on request."""

    def __init__(self) -> None:
        self.asked: list[str | bytes] = []
        self.fails_at: str | None = None

    def __call__(self, texts: Sequence[str | bytes]) -> np.ndarray:
        if self.fails_at in texts:
            raise RuntimeError("the model broke")
        self.asked += texts
        return np.array([vector_of(text) for text in texts])

    @property
    def times(self) -> Counter[str | bytes]:
        """How often each text was computed."""
        return Counter(self.asked)


class HeldModel(Model):
    """Stands still, each time it is asked, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, texts: Sequence[str | bytes]) -> np.ndarray:
        self.reached.set()
        assert self.let_go.wait(PATIENCE_SECONDS)
        return super().__call__(texts)


class Both:
    """A vectorizer called by its sync names, and run sync or, each method by its twin, on one event loop."""

    def __init__(self, vectorizer: BaseVectorizer, runner: asyncio.Runner | None) -> None:
        self.vectorizer = vectorizer
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        runner = self._runner
        if runner is None:
            return getattr(self.vectorizer, name)
        twin = getattr(self.vectorizer, f"a{name}")
        return lambda *args, **options: runner.run(twin(*args, **options))


def many(vectorizer: BaseVectorizer, texts: Sequence[str]) -> Plan[EmbedReport]:
    """The plan of `embed_many`, to be carried out step by step."""
    wants = planning.wanted(None, None, None)
    return planning.embed_many(vectorizer, texts, None, wants, None, skip_cache=False, progress=False)


def carried_out(plan: Plan[Any]) -> list[type[Step]]:
    """The kinds of steps that a plan takes: all of them but `Compute` are one round trip each."""
    kinds: list[type[Step]] = []
    result = None
    while True:
        try:
            step = plan.send(result)
        except StopIteration:
            return kinds
        if isinstance(step, Apart):
            kinds += carried_out(step.plan)
            result = None
        else:
            kinds.append(type(step))
            result = step._run()
