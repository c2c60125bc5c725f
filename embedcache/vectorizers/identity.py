"""The name under which a vectorizer's entries are kept: the model's, and all that changes its vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import SupportsIndex
from urllib.parse import quote_plus

from embedcache.errors import InvalidInputError
from embedcache.keyspace import MAX_MODEL_NAME_BYTES


def identity(model: str, **options: object) -> str:
    """The model's name, and the options that change its vectors, so that no two that differ share an entry.

    Options that are None, False or "" are left out: plain use keeps the plain name. Different models and options have
    different names: a ``?`` or ``%`` in a model's own name is written ``%3F`` or ``%25``. Where the whole is too long
    for a model name, as with a prompt of many lines, an option's value is given by its SHA-256.

    Args:
        model: The model's name.
        options: What changes its vectors, by name: strings, numbers, dtypes of torch, and lists and dicts of these.

    Raises:
        InvalidInputError: An option is something that has no name, such as an object.
    """
    plain = model.replace("%", "%25").replace("?", "%3F")
    written = {name: _written(value, name) for name, value in sorted(options.items()) if not _says_nothing(value)}
    whole = _joined(plain, written)
    if len(whole.encode(errors="replace")) <= MAX_MODEL_NAME_BYTES:
        return whole
    return _joined(plain, {name: _shortened(text) for name, text in written.items()})


def _says_nothing(value: object) -> bool:
    return value is None or value is False or (isinstance(value, str) and not value)  # 0 is not among them


def _joined(model: str, written: Mapping[str, str]) -> str:
    return f"{model}?{'&'.join(f'{quote_plus(name)}={text}' for name, text in written.items())}" if written else model


def _shortened(text: str) -> str:
    digest = f"sha256:{sha256(text.encode()).hexdigest()}"  # quoting leaves no colon in other values
    return text if len(text) <= len(digest) else digest


def _written(value: object, name: str) -> str:
    named = _named(value, name)
    try:
        return quote_plus(named if isinstance(named, str) else _as_json(named))
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"the option {name!r} holds lone surrogates, which UTF-8 cannot encode") from error


def _as_json(value: object) -> str:
    return str(value) if isinstance(value, bool | int | float) else json.dumps(value, sort_keys=True)


def _named(value: object, name: str) -> object:
    """The value in terms of JSON."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _named(each, f"{name}[{key!r}]") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_named(each, name) for each in value]
    if isinstance(value, SupportsIndex) and not hasattr(value, "__len__"):
        return int(value)
    if (type(value).__module__, type(value).__name__) == ("torch", "dtype"):
        return str(value).removeprefix("torch.")  # both spellings are one option
    raise InvalidInputError(
        f"the option {name!r} changes vectors, and a value of type {type(value).__name__} cannot be part of the name"
        " under which they are kept; give it as strings, numbers, lists and dicts, or save the model to a folder"
        " and name that"
    )
