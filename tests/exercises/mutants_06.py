"""Plausible wrong answers to the exercises of lesson 06: (old, new, a word of the reply)."""

MUTANTS = {
    "06.1": [
        ("torch.logaddexp(sums,", "torch.add(sums,", "finite"),
        ('float("-inf")', "0.0", "minus infinity"),
        ("torch.logaddexp(", "torch.maximum(", "largest"),
        ("block.logsumexp(dim=1)", "block.exp().sum(dim=1).log()", "finite"),
    ],
    "06.2": [
        ("(here[:, None] == there)", "torch.eye(len(here), len(there))", "whole table"),
        ("p + q - 2 * delta", "p - delta", "q are missing"),
        ("p + q - 2 * delta", "p + q", "pull as well"),
        ("scale / (2 * n) * ", "", "factor"),
        ("n, gradient = len(image_emb),", "n, tile, gradient = len(image_emb), 99,", "right, but"),
    ],
    "06.3": [
        ("rank * size, (rank + 1) * size", "0, size", "same rows"),
        ("rank * size, (rank + 1) * size", "(rank - 1) * size, rank * size", "from 0"),
        ("rank * size, (rank + 1) * size", "rank, count, ranks", "in turn"),
        ("if count % ranks:", "if False:", "must raise a ValueError"),
        ("raise ValueError(", "raise KeyError(", "this raises KeyError"),
    ],
    "06.4": [
        ("weights / dim", "2 * weights / dim", "go back"),
        ("weights / dim", "weights / (2 * dim)", "sent twice"),
        ("weights / dim", "4 * weights / dim", "bytes on one side"),
        ("weights / dim", "dim / weights", "other way round"),
    ],
    "06.5": [
        ("places + start", "places", "where a block starts"),
        ("start + len(block)", "len(block)", "expected"),
        ("(block @ query)", "(-block @ query)", "worst"),
        ("(block @ query).topk(min(k, len(block)))", "(block @ query).topk(1)", "several may lie"),
    ],
}  # fmt: skip
