"""Whether a model tells queries from documents, as far as its files say so: without torch, which takes seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from embedcache.arguments import shown
from embedcache.errors import InvalidInputError

InputType: TypeAlias = Literal["query", "document"]
INPUT_TYPES: Final[tuple[InputType, ...]] = ("query", "document")

_NAMES: Final[Mapping[InputType, tuple[str, ...]]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
"""The prompts by which `SentenceTransformer.encode_query` and `encode_document` go."""

_PLAIN_MODULES: Final = frozenset(
    {"Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout", "WordEmbeddings", "StaticEmbedding"}
)
_PLAIN_SETTINGS: Final = frozenset(
    {"max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name"}
)


def check_input_type(input_type: object) -> None:
    """Checks what texts are said to be; None is neither.

    Raises:
        InvalidInputError: It is none that there is.
    """
    if input_type is not None and (not isinstance(input_type, str) or input_type not in INPUT_TYPES):
        raise InvalidInputError(f"an input type is 'query', 'document' or None, not {shown(input_type)}")


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a model puts before texts, where that is all by which it tells queries from documents.

    Attributes:
        by_name: The prompts.
        default: The name of the one that is put before texts that are neither; None puts nothing.
    """

    by_name: Mapping[str, str]
    default: str | None

    @property
    def plain(self) -> str:
        """What is put before a text of no type."""
        return self.by_name.get(self.default, "") if self.default is not None else ""

    def tell_apart(self, input_type: InputType) -> bool:
        """Whether a text of this type has another vector than the same text of no type."""
        return {self.by_name.get(name, "") for name in _NAMES[input_type]} != {self.plain}

    def overridden(self, by_name: Mapping[str, str | None], default: str | None) -> Prompts:
        """With the prompts that a caller gives in place of the model's own, as `SentenceTransformer` takes them."""
        given = {name: prompt for name, prompt in by_name.items() if prompt is not None}
        return Prompts({**self.by_name, **given}, self.default if default is None else default)


NO_PROMPTS: Final = Prompts({}, None)


def read_prompts(folder: Path) -> Prompts | None:
    """The prompts of the Sentence Transformers model in a folder.

    None where its files cannot be read, or name anything else that may go by what a text is: a router, a module of the
    model's own, a chat template, lengths for queries. A list of what is known, not of what is feared.
    """
    try:
        modules = _read(folder / "modules.json")
        config = _read(folder / "config_sentence_transformers.json")
        if not isinstance(config, dict) or not isinstance(modules, list) or not _are_plain(folder, modules):
            return None
    except (OSError, ValueError):
        return None
    by_name, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(by_name, dict) or not isinstance(default, str | None):
        return None
    return Prompts({str(name): str(prompt or "") for name, prompt in by_name.items()}, default)


def _are_plain(folder: Path, modules: list[Any]) -> bool:
    return all(_is_plain(folder, module) for module in modules)


def _is_plain(folder: Path, module: Any) -> bool:
    if not isinstance(module, dict) or set(module) - {"idx", "name", "path", "type"}:
        return False
    package, _, name = str(module.get("type")).rpartition(".")
    if not package.startswith("sentence_transformers.") or name not in _PLAIN_MODULES:
        return False
    return name != "Transformer" or _is_plain_transformer(folder / str(module.get("path", "")))


def _is_plain_transformer(folder: Path) -> bool:
    settings = _read(folder / "sentence_bert_config.json")
    if not isinstance(settings, dict) or set(settings) - _PLAIN_SETTINGS:
        return False
    if set(settings.get("modality_config", {})) - {"text"}:
        return False
    tokenizer = _read(folder / "tokenizer_config.json")
    return "chat_template" not in tokenizer and not list(folder.glob("chat_template*"))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
