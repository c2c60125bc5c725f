"""What the processes that we start have in common: the environment they find, and the errors that they tell of."""

from __future__ import annotations

import os
import sys

from embedcache import errors
from embedcache.errors import EmbedcacheError


def environment(**defaults: str) -> dict[str, str]:
    """Ours, with which a child finds the modules that we found; `defaults` are for what ours does not say."""
    return defaults | os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def told_error(kind: str, message: str) -> EmbedcacheError | None:
    """The error of ours that a child told of, by its class's name; None where it is none of ours."""
    found = getattr(errors, kind, None)
    return found(message) if isinstance(found, type) and issubclass(found, EmbedcacheError) else None
