"""The bundled model for tests of pages: read from disk once, and it remembers what it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedcache import HFTextVectorizer


class RememberingModel(HFTextVectorizer):
    """The bundled model, read from disk once for all tests, which remembers what it was asked to compute."""

    transformer: Any = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.computed: list[Any] = []

    def _load(self) -> Any:
        if RememberingModel.transformer is None:
            RememberingModel.transformer = super()._load()
        return RememberingModel.transformer

    def _compute(self, texts: Sequence[Any]) -> Any:
        self.computed += texts
        return super()._compute(texts)
