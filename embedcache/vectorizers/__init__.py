"""Texts to vectors through a cache: what is stored is read, what is missing is computed once and stored."""

from embedcache.vectorizers.base import BaseVectorizer
from embedcache.vectorizers.custom import CustomVectorizer
from embedcache.vectorizers.drift_report import DriftEntry, DriftReport
from embedcache.vectorizers.huggingface import DEFAULT_MODEL, HFTextVectorizer
from embedcache.vectorizers.openai import OpenAITextVectorizer
from embedcache.vectorizers.report import EmbedReport

__all__ = [
    "DEFAULT_MODEL",
    "BaseVectorizer",
    "CustomVectorizer",
    "DriftEntry",
    "DriftReport",
    "EmbedReport",
    "HFTextVectorizer",
    "OpenAITextVectorizer",
]
