"""Who computes vectors: the options by which commands name a vectorizer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from embedcache.cli import options
from embedcache.errors import InvalidInputError
from embedcache.warming import CacheSettings, VectorizerSettings

# Bars of libraries that load the model would stand among our own.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

HUGGINGFACE: Final = "huggingface"

Kind = Annotated[str, typer.Option("--kind", help="Who computes: huggingface, openai, or module:function of yours.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the vectorizer, as in normalize=true."),
]


def settings(
    model: str | None, kind: str, option: Sequence[str] | None, cache: CacheSettings | None = None
) -> VectorizerSettings:
    """How to make the vectorizer that the options name.

    Raises:
        InvalidInputError: An option is not name=value, or the kind is none or has no model of its own.
    """
    if model is None and kind == "openai":
        raise InvalidInputError("name the API's model with --model, as in --model text-embedding-3-small")
    return VectorizerSettings(
        options.model_or_default(model), kind=kind, options=_options(option or []), cache=cache or CacheSettings()
    )


def _options(given: Sequence[str]) -> dict[str, Any]:
    """Options of a vectorizer: a value is JSON, or else a text."""
    read: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            # What was given may be a key without its name, so it is not repeated.
            raise InvalidInputError("--option is name=value")
        try:
            read[name] = json.loads(value)
        except ValueError:
            read[name] = value
    return read
