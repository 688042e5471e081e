"""The nearest of many embeddings: every row looked at, or an index that looks at a few of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliplab.runtime import ArgumentError, atomic_write, write_json
from cliplab.scale.store import Embeddings

INDEX_FROM = 50_000  # rows; all of fewer are looked at in less time than it takes to load an index
WANTED = 0.95  # recall of an index, at 10
SAMPLE = 200  # rows that stand for queries when it is measured
_ADDED = 10_000  # rows that are added to an index at a time
_EFFORTS = (64, 128, 256, 512, 1024, 2048)  # candidates that a query keeps, usearch's expansion


@dataclass(frozen=True)
class Hit:
    """A picture that was found."""

    key: str
    score: float  # cosine, -1 to 1
    width: int
    height: int
    sha256: str


def search(
    embeddings: Embeddings, query_emb: Tensor, k: int = 10, *, index: Index | None = None
) -> list[list[Hit]]:
    """The k best of each query, the best first; fewer where no more are there, or reached.

    Without an index all N rows are looked at, in blocks: the memory does not grow with N.

    Args:
        query_emb: unit rows (Q, D), of the same encoder.
        index: of these embeddings, see `open_index`; quicker, and it may miss some.
    """
    if k < 1:
        raise ArgumentError("k", f"got {k}; expected 1 or more")
    if query_emb.ndim != 2 or query_emb.shape[1] != embeddings.about.dim:
        got, dim = tuple(query_emb.shape), embeddings.about.dim
        raise ArgumentError("query_emb", f"got the shape {got}; expected (queries, {dim})")
    k = min(k, len(embeddings))
    if not k:
        return [[] for _ in query_emb]
    found = index.nearest(query_emb, k) if index else nearest(embeddings.blocks(), query_emb, k)
    is_hit = found[1] >= 0
    rows = iter(embeddings.rows(found[1][is_hit].tolist()))
    pairs = zip(found[0], is_hit, strict=True)
    return [
        [Hit(score=max(-1.0, min(1.0, one)), **next(rows)) for one in some[hit].tolist()]
        for some, hit in pairs
    ]


def nearest(blocks: Iterable[NDArray[Any]], query_emb: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and numbers (Q, k) of the rows with the largest products, of blocks (B, D)."""
    query = query_emb.float()
    best = torch.full((len(query), k), -torch.inf), torch.zeros(len(query), k, dtype=torch.long)
    start = 0
    for block in blocks:
        rows = torch.from_numpy(block).float()  # (B, D); numpy takes ten times as long
        scores, number = (query @ rows.T).topk(min(k, len(rows)))
        both = torch.cat([best[0], scores], 1), torch.cat([best[1], number + start], 1)
        kept, place = both[0].topk(k)
        best, start = (kept, both[1].gather(1, place)), start + len(rows)
    return best


# ---- an index ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """A graph of the rows (HNSW, arXiv:1603.09320, by usearch), mapped into memory."""

    graph: Any  # usearch.index.Index
    recall: float  # share of the 10 nearest that it finds, of SAMPLE rows as queries
    effort: int  # candidates that a query keeps

    def nearest(self, query_emb: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and numbers (Q, k) as of the function `nearest`: of float16, some maybe missed.

        A query that reaches fewer than k rows has the numbers -1 at its end.
        """
        self.graph.expansion_search = max(self.effort, k)
        found = self.graph.search(query_emb.numpy(), k)
        scores, numbers = torch.zeros(len(query_emb), k), torch.full((len(query_emb), k), -1)
        for i, one in enumerate([found] if len(query_emb) == 1 else found):
            scores[i, : len(one)] = torch.from_numpy(1 - one.distances)
            numbers[i, : len(one)] = torch.from_numpy(one.keys.astype(int))
        return scores, numbers


def open_index(embeddings: Embeddings, tell: Callable[[str], object] = str) -> Index | None:
    """The index of a folder, built if there is none of exactly its rows; None for few rows.

    How much a query looks at is raised until the recall is WANTED; `tell` hears of long work.

    Raises:
        ImportError: usearch is not installed.
        OSError: the folder cannot be written.
    """
    if len(embeddings) < INDEX_FROM:
        return None
    try:
        from usearch.index import Index as Graph
    except ImportError as error:
        raise ImportError(f"an index needs usearch ({error}); pip install usearch") from error
    path = embeddings.place("index", ".usearch")
    card = path.with_suffix(".json")
    if not card.exists():  # written last
        tell(f"building an index of {len(embeddings):,} rows, once")
        graph = Graph(ndim=embeddings.about.dim, metric="ip", dtype="f16")
        matrix = embeddings.matrix()
        for start in range(0, len(matrix), _ADDED):
            rows = np.asarray(matrix[start : start + _ADDED], np.float16)
            graph.add(np.arange(start, start + len(rows)), rows)
        with atomic_write(path) as file:
            graph.save(file.name)
        recall, effort = _tuned(embeddings, graph)
        write_json(card, {"recall": recall, "effort": effort})
    return Index(Graph.restore(path, view=True), **json.loads(card.read_text(encoding="utf-8")))


def _tuned(embeddings: Embeddings, graph: Any) -> tuple[float, int]:
    """Recall and the least effort that has WANTED; those of the largest if none has."""
    own = np.random.default_rng(0).choice(len(embeddings), SAMPLE, replace=False)
    query_emb = torch.from_numpy(embeddings.matrix()[own]).float()
    truth, recall = nearest(embeddings.blocks(), query_emb, 11)[1], 0.0
    for effort in _EFFORTS:
        recall = recall_at_10(truth, Index(graph, 0.0, effort).nearest(query_emb, 11)[1], own)
        if recall >= WANTED:
            break
    return recall, effort


def recall_at_10(truth: Tensor, found: Tensor, own: Sequence[int] | NDArray[Any]) -> float:
    """Share of the 10 nearest rows that were found, numbers (Q, 11); the queries' own left out."""
    shares = []
    for true, got, itself in zip(truth.tolist(), found.tolist(), own, strict=True):
        meant = [row for row in true if row != itself][:10]
        shares.append(len(set(meant) & set(got)) / len(meant))
    return float(np.mean(shares))
