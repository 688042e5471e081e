"""Kill the commands at random moments and run them again; run two at once: python tools/kills.py

After a kill, the same command (`run`: with --resume, where there is something to resume) must leave
what an undisturbed one leaves, and no file that is not whole. Of two at once into one place one may
be refused; into two places with one cache both must be right. Exit code: 0 all right, 1 not.

    python tools/kills.py --kills 10 --pairs 4                 5 commands, about 12 minutes of a CPU
    python tools/kills.py --kills 3 --pairs 2 --commands run
"""

import argparse
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pandas as pd
from PIL import Image

from cliplab import pasture

OUTPUTS = ["--labels", "sheep", "goat", "--force", "--json", "o/all.json", "--html", "o/p.html"]
COMMANDS = {
    "run": ["run", "nb/01_a.ipynb", "nb/02_b.ipynb", "-p", "SEED=4", "--out", "o/r"],
    "classify": ["classify", "photos", *OUTPUTS, "--out", "o/scores.csv"],
    "detect": ["detect", "photos", *OUTPUTS, "--out", "o/boxes.json", "--pictures", "o/drawn"],
    "segment": ["segment", "photos", *OUTPUTS, "--out", "o/masks"],
    "train": [
        *("train", "clip", "--model", "clip-openai", "--work", "o/work", "--out", "o/out"),
        *("--steps", "6", "--portraits", "64", "--crops", "16", "--batch", "8", "--width", "8"),
        *("--text-width", "64", "--text-layers", "1", "--test-pictures", "20"),
    ],
}
CELLS = (
    'SEED = 3\nQUICK = True\nRESULTS_PATH = ""',
    "import matplotlib.pyplot as plt, time\nfor i in range(4):\n  time.sleep(0.1); plt.plot([i])",
    "from cliplab.runtime import save_results",
    'save_results({"x": SEED}, RESULTS_PATH)',
)
TIMED = (".html", ".ipynb", ".jsonl", ".pt")  # hold times; whole is all they must be


def world(place: Path) -> None:
    """Six drawn herds and two small notebooks."""
    for folder in ("photos", "nb"):
        (place / folder).mkdir(parents=True)
    for i in range(6):
        picture = pasture.draw(pasture.herd(i, split="test"), 120)
        picture.save(place / "photos" / f"{i}.png")
    for name in ("01_a", "02_b"):
        cells = [nbformat.v4.new_code_cell(text) for text in CELLS]
        cells[0].metadata["tags"] = ["parameters"]
        notebook = nbformat.v4.new_notebook(cells=cells)
        (place / "nb" / f"{name}.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")


def start(words: list[str], place: Path) -> subprocess.Popen:
    """A command at work, with a cache of its place."""
    environment = os.environ | {"CLIPLAB_CACHE": str(place / "cache"), "CLIPLAB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "cliplab", *words], cwd=place, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def findings(place: Path, top: str = "o") -> dict[str, str]:
    """What must repeat of the outputs: hashes; of what holds times only that it can be read."""
    found = {}
    for path in sorted(p for p in (place / top).rglob("*") if p.is_file()):
        name = path.relative_to(place / top).as_posix()
        if path.suffix == ".json":
            said = json.loads(path.read_text(encoding="utf-8"))
            kept = [r["results"] for r in said.get("notebooks", {}).values()]
            found[name] = str(kept) if kept else str(sorted(said))
        elif path.suffix == ".png":
            Image.open(path).load()
        if path.suffix == ".csv":
            found[name] = path.read_text(encoding="utf-8")
        elif path.suffix not in (".json", *TIMED) or name == "boxes.json":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        found.setdefault(name, "")
    return found


def same(one: dict[str, str], other: dict[str, str]) -> bool:
    """Equal findings; the last digit in a table hangs on how many pictures are encoded at once."""
    if one.keys() != other.keys():
        return False
    tables = {name for name in one if name.endswith(".csv")}
    for name in tables:
        a, b = (pd.read_csv(io.StringIO(some[name])) for some in (one, other))
        try:
            pd.testing.assert_frame_equal(a, b, check_exact=False, rtol=0, atol=2e-6)
        except AssertionError:
            return False
    return all(one[name] == other[name] for name in one.keys() - tables)


def left(place: Path) -> list[str]:
    """Files that only a process at work should have."""
    return [p.name for kind in ("*.partial", "*.partial.*", "locks/*") for p in place.rglob(kind)]


def killed(words: list[str], moment: float, expected: dict[str, str]) -> str:
    """Kill a command after some seconds, run it again -> what is wrong, "" if nothing."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        world(place)
        first = start(words, place)
        time.sleep(moment)
        first.kill()
        first.communicate()
        if words[0] == "run" and (place / "o/r").exists():
            return "" if same(findings(place), expected) else "finished, but otherwise"
        resume = ["--resume"] if (place / "o/r.unfinished/results.json").exists() else []
        again = start([*words, *resume], place)
        said, _ = again.communicate()
        if again.returncode:
            return f"exit {again.returncode}: {said[-200:]}"
        return str(left(place) or ("" if same(findings(place), expected) else "other outputs"))


def together(words: list[str], expected: dict[str, str], other: str) -> str:
    """Two at once, the second into the folder `other` -> what is wrong, "" if nothing."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        world(place)
        second = [other + word[1:] if word.startswith("o/") else word for word in words]
        both = [start(words, place), start(second, place)]
        said = [one.communicate()[0] for one in both]
        codes = sorted(one.returncode for one in both)
        right = codes == [0, 0] or (codes == [0, 2] and other == "o")
        equal = all(same(findings(place, top), expected) for top in {"o", other})
        fine = right and equal and not left(place)
        return "" if fine else f"{codes} {left(place)} {equal} {[text[-150:] for text in said]}"


def main() -> int:
    """Print a line for each command -> exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--kills", type=int, default=10, help="of each command")
    parser.add_argument("--pairs", type=int, default=4, help="of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    options = parser.parse_args()
    chance, faults = random.Random(options.seed), []
    for name in options.commands:
        words = COMMANDS[name]
        with tempfile.TemporaryDirectory() as folder:
            world(Path(folder))
            begin = time.monotonic()
            whole = start(words, Path(folder))
            said, _ = whole.communicate()
            seconds, expected = time.monotonic() - begin, findings(Path(folder))
        if whole.returncode:
            raise SystemExit(f"{name}, undisturbed: exit {whole.returncode}: {said[-300:]}")
        moments = [chance.uniform(0.3, 1.0) * seconds for _ in range(options.kills)]
        wrong = [
            f"after {m:.1f} s: {fault}" for m in moments if (fault := killed(words, m, expected))
        ]
        for i in range(options.pairs):
            if fault := together(words, expected, "op"[i % 2]):
                wrong.append(f"pair {i}: {fault}")
        counts = f"{options.kills} kills, {options.pairs} pairs, {len(wrong)} wrong"
        print(f"{name:9} {seconds:5.1f} s undisturbed; {counts}", *wrong, sep="\n  ", flush=True)
        faults += wrong
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
