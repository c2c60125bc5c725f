"""Junk, and arguments among which is some."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import strategies as st

from embedcache import NEVER


class Unfriendly:
    """Neither shown, nor measured, nor compared, nor gone through."""

    cannot_be_shown = False

    def __repr__(self) -> str:
        if self.cannot_be_shown:
            raise RuntimeError("not to be shown")
        return "<unfriendly>"

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __iter__(self) -> Any:
        raise RuntimeError("not to be gone through")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparing")

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __hash__(self) -> int:
        return 5


@contextmanager
def nothing_shown() -> Iterator[None]:
    """For the call that is tested, junk cannot be shown that hypothesis shows: the unfriendly, and endless numbers."""
    Unfriendly.cannot_be_shown = True
    sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)
    try:
        yield
    finally:
        Unfriendly.cannot_be_shown = False
        sys.set_int_max_str_digits(0)


ODD = {
    "an object": object(),
    "unfriendly": Unfriendly(),
    "never": NEVER,
    "float32": np.float32(1),
    "NaN": float("nan"),
    "array of none": np.array(1),
    "empty array": np.zeros((1, 0)),
    "array of objects": np.array([None]),
    "array": np.array([0.5, -1.0]),
    "range": range(2),
    "class": int,
    "function": len,
    "date": datetime.datetime(2024, 1, 1),  # noqa: DTZ001 - one without a zone, as junk is
    "set": {1, 2},
    "large": 10**30,
    "too large to be written": 10**5000,
    "surrogates": "\ud800",
    "zero byte": "\0",
    "generator": (number for number in range(3)),
}

some_junk = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from(sorted(ODD)).map(ODD.__getitem__)
    | st.lists(st.floats(), max_size=3)
)
junk = st.recursive(
    some_junk,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.fixed_dictionaries({"text": inner, "model_name": inner, "embedding": inner}, optional={"ttl": inner})
    ),
    max_leaves=6,
)

CALLED = {"preprocess", "on_progress", "tell", "embed_callable", "embed_many_callable"}
"""What is called may raise what it likes, so that no function is junk for these."""
PATHS = {"path", "corpus", "cache_folder"}
ANY_NUMBER_OF = {"cache_names"}
OPTIONS = {
    "options": ["embed_batch_size", "num_workers", "callback_manager", "model_name"],
    "model_kwargs": ["trust_remote_code", "prompts", "default_prompt_name", "model_kwargs", "device"],
}
"""Options that are passed on."""
OUTSIDE = (b"/", b"..", b"~")
TYPED = {"connection", "cache", "caches", "space", "to"}
"""Connections and caches are no junk: they are objects of ours, which a type checker tells from others."""


def _stays_here(value: object) -> bool:
    """Whether a path, if it is one, lies within the folder that the test is in."""
    plain = value.encode(errors="replace") if isinstance(value, str) else value
    return not isinstance(plain, bytes) or not any(each in plain for each in OUTSIDE)


def junk_for(parameter: str) -> st.SearchStrategy[Any]:
    if parameter in CALLED:
        return junk.filter(lambda value: not callable(value))
    if parameter in ANY_NUMBER_OF:
        return st.lists(junk, max_size=2)
    if parameter in OPTIONS:
        return st.dictionaries(st.sampled_from(OPTIONS[parameter]), junk, max_size=2)
    return junk.filter(_stays_here) if parameter in PATHS else junk


@st.composite
def arguments(draw: st.DrawFn, parameters: Sequence[str], plausible: Mapping[str, list[Any]]) -> dict[str, Any]:
    """What a function is called with: one or two odd arguments, and others that would do."""
    may_be_odd = [name for name in parameters if name not in TYPED]
    odd = draw(st.sets(st.sampled_from(may_be_odd), max_size=2)) if may_be_odd else set()
    return {
        name: draw(junk_for(name) if name in odd else st.sampled_from(plausible[name]), label=name)
        for name in parameters
    }
