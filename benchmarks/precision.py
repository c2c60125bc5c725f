"""What float16 and int8 lose on the bundled model's vectors of real sentences: cosine distance, and recall@10.

    python benchmarks/precision.py [--texts 10000] [--queries 1000]

The sentences are those of the docstrings in Python's own standard library: about 12,000 different ones, written by many
people about many things. Vectors go through the package's codec, into packed values and out again. Recall@10 is which
part of a query's ten nearest neighbours in float32 is among the ten nearest in the other dtype; queries are some of the
texts, looked for among the rest. Queries themselves stay float32, as a model makes them.
"""

from __future__ import annotations

import argparse
import ast
import platform
import random
import re
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedcache import HFTextVectorizer, codec
from embedcache.keyspace import Keyspace
from embedcache.matrices import decode_matrix
from embedcache.metadata import pack_metadata
from embedcache.packing import pack_text

DTYPES = ("float32", "float16", "int8")
NEIGHBOURS = 10

LIBRARY = Path(sysconfig.get_path("stdlib"))
# Not what is there to be tested or to be translated, nor what others installed.
NOT_READ = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
LEAST_CHARACTERS, MOST_CHARACTERS, LEAST_WORDS = 30, 300, 5
ENDS = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")

Matrix = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Precision:
    """What one dtype keeps of float32 vectors.

    Attributes:
        dtype: Its name.
        vector_bytes: What a vector takes in a value.
        mean: Cosine distance to the float32 vector, on average.
        most: The largest one.
        recall: Recall@10 against float32, from 0 to 1.
    """

    dtype: str
    vector_bytes: int
    mean: float
    most: float
    recall: float


def sentences(count: int, folder: Path = LIBRARY) -> list[str]:
    """So many different sentences from the docstrings there, the same ones for the same version of Python.

    Raises:
        ValueError: There are fewer.
    """
    found = sorted({sentence for docstring in docstrings(folder) for sentence in split(docstring)})
    if len(found) < count:
        raise ValueError(f"the docstrings of this Python's library have {len(found):,} sentences, not {count:,}")
    return random.Random(0).sample(found, count)  # noqa: S311 - the same choice every time, not a secret


def docstrings(folder: Path) -> Iterator[str]:
    """The docstrings of all modules, classes and functions there."""
    for path in sorted(folder.rglob("*.py")):
        if NOT_READ.intersection(path.relative_to(folder).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""


def split(docstring: str) -> Iterator[str]:
    """The whole sentences in a docstring, of a sensible length; paragraphs with examples of code have none."""
    for paragraph in re.split(r"\n\s*\n", docstring):
        if ">>>" in paragraph or " * " in paragraph:
            continue
        for sentence in ENDS.split(" ".join(paragraph.split())):
            fits = LEAST_CHARACTERS <= len(sentence) <= MOST_CHARACTERS and len(sentence.split()) >= LEAST_WORDS
            if fits and sentence[0].isupper() and sentence[-1] in ".!?":
                yield sentence


def through_codec(texts: list[str], vectors: Matrix, dtype: str) -> tuple[Matrix, int]:
    """Vectors as they come back from packed values of that dtype, and the bytes that one takes there."""
    stored, space = codec.stored_dtype(dtype), Keyspace("precision")
    rest = codec.pack_rest(time.time(), pack_metadata(None))
    tags = [pack_text(space, text, "model")[1] for text in texts]
    packed = [vector or b"" for vector in codec.encode_vectors(vectors, stored)]  # an empty one would be a miss
    values = [codec.encode(tag, vector, stored, None, rest) for tag, vector in zip(tags, packed, strict=True)]
    rows = decode_matrix(values, tags, vectors.shape[1])
    if not rows.mask.all():
        raise RuntimeError(f"{(~rows.mask).sum()} vectors did not come back from {dtype}")
    return rows.matrix, len(packed[0])


def cosine_distances(one: Matrix, other: Matrix) -> npt.NDArray[np.float64]:
    """1 - cosine of each pair of rows, shape (n,), computed in float64."""
    unit, other_unit = normalised(one), normalised(other)
    # Half the squared distance of unit vectors: 1 - cosine would lose what is smaller than 1e-16.
    return ((unit - other_unit) ** 2).sum(axis=1) / 2


def normalised(matrix: Matrix) -> npt.NDArray[np.float64]:
    """Rows of length one, as float64."""
    exact = matrix.astype(np.float64)
    return exact / np.linalg.norm(exact, axis=1, keepdims=True)


def nearest(queries: Matrix, among: Matrix) -> npt.NDArray[np.intp]:
    """The rows of `among` that are the nearest ten to each query by cosine, shape (n, 10), in no order."""
    similarities = normalised(queries) @ normalised(among).T
    return np.argpartition(-similarities, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def recall(expected: npt.NDArray[np.intp], found: npt.NDArray[np.intp]) -> float:
    """Which part of the expected neighbours was found, over all queries."""
    both = [np.intersect1d(*pair).size for pair in zip(expected, found, strict=True)]
    return sum(both) / expected.size


def measure(texts: list[str], vectors: Matrix, queries: int) -> list[Precision]:
    """What each dtype keeps, with the first texts as queries among the others."""
    expected = nearest(vectors[:queries], vectors[queries:])
    found = []
    for dtype in DTYPES:
        back, vector_bytes = through_codec(texts, vectors, dtype)
        distances = cosine_distances(vectors, back)
        reached = recall(expected, nearest(vectors[:queries], back[queries:]))
        found.append(Precision(dtype, vector_bytes, float(distances.mean()), float(distances.max()), reached))
    return found


def table(found: list[Precision]) -> str:
    """Markdown."""
    head = "| dtype | bytes per vector | cosine distance, mean | cosine distance, max | recall@10 |"
    rows = [
        f"| `{each.dtype}` | {each.vector_bytes:,} | {scientific(each.mean)} | {scientific(each.most)}"
        f" | {each.recall:.2%} |"
        for each in found
    ]
    return "\n".join((head, "|---|---:|---:|---:|---:|", *rows))


def scientific(number: float) -> str:
    """0, or two digits and a power of ten."""
    return f"{number:.1e}" if number else "0"


def main() -> None:
    """Embeds, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=1_000)
    options = parser.parse_args()
    try:
        texts = sentences(options.texts)
    except ValueError as error:
        sys.exit(f"{error}: give a smaller number with --texts")
    vectorizer = HFTextVectorizer()
    vectors = vectorizer.embed_many(texts, on_progress=tell)
    print(
        f"{vectorizer.model_name}, {vectors.shape[1]} dimensions; {len(texts):,} sentences of Python"
        f" {platform.python_version()}'s standard library, {options.queries:,} of them as queries.\n"
    )
    print(table(measure(texts, vectors, options.queries)))


def tell(done: int, total: int) -> None:
    """Says on standard error how far it is, on one line where that is a terminal."""
    if sys.stderr.isatty():
        print(f"\rembedded {done:,} of {total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
