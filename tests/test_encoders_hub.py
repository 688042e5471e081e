"""Local first: caches in the official layouts, blocked sockets, and downloads that cannot be."""

import shutil
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fill_huggingface(cache: Path, repo: str, folder: Path, *, commit: str = COMMIT) -> Path:
    """Put a folder into a cache of the Hugging Face hub as its own downloads lie there."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir(exist_ok=True)
    for path in folder.iterdir():
        blob = root / "blobs" / f"{abs(hash(path.name)):x}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", blob.name))
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(commit, encoding="utf-8")
    return snapshot
