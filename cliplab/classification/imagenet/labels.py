"""Labels of a flat validation folder, as the four usual lists give them.

The official archive is flat: 50,000 files named ILSVRC2012_val_00000001.JPEG and so on; which class
each belongs to stands in a list beside it.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

NAMES = (
    "LOC_val_solution.csv",  # Kaggle
    "val.txt",  # Caffe: name and index, or name and wnid
    "imagenet_2012_validation_synset_labels.txt",  # TensorFlow: line i is the wnid of file i
    "ILSVRC2012_validation_ground_truth.txt",  # devkit: line i is the ILSVRC2012_ID of file i
)
_DEVKIT = ("", "data", "ILSVRC2012_devkit_t12/data", "devkit/data")


def find_list(*folders: Path) -> Path | None:
    """The first of the usual lists in, or in a devkit below, the given folders."""
    for folder in folders:
        for place in _DEVKIT:
            for name in NAMES:
                if (path := folder / place / name).is_file():
                    return path
    return None


def flat_labels(path: Path, names: Sequence[str], wnids: Sequence[str]) -> list[int]:
    """Class indices of the files `names`, read from the list at `path`.

    Args:
        path: one of the kinds in `NAMES`; the content decides, except for the CSV.
        names: file names; of those only their number counts where the list has no names.
        wnids: the 1,000 WordNet ids in the order of the index.

    Raises:
        ValueError: another format, an unknown class, or a file that is not in the list.
    """
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    rows = [re.split(r"[,\s]+", line.strip())[:2] for line in lines if line.strip()]
    if rows and [cell.casefold() for cell in rows[0]] == ["imageid", "predictionstring"]:
        rows = [row[:2] for row in csv.reader(lines[1:]) if row]
        rows = [[name, text.split()[0]] for name, text in rows]
    if not rows or len({len(row) for row in rows}) != 1:
        raise ValueError(f"{path}: expected lines of 'file class', or one class a line")
    if len(rows[0]) == 2:
        listed = {Path(name).stem: label for name, label in rows}
        found = [listed.get(Path(name).stem) for name in names]
    else:
        found = [_numbered(row_of, rows) for row_of in map(_number, names)]
    known = _classes(path, [row[-1] for row in rows], wnids)
    labels = []
    for name, text in zip(names, found, strict=True):
        if text is None:
            raise ValueError(f"{name}: not in {path}; expected every image of the folder there")
        if text not in known:
            raise ValueError(f"{path}: {text!r} is no class; expected a WordNet id, or 0 to 999")
        labels.append(known[text])
    return labels


def _number(name: str) -> int | None:
    found = re.search(r"(\d+)$", Path(name).stem)
    return int(found[1]) if found else None


def _numbered(number: int | None, rows: Sequence[Sequence[str]]) -> str | None:
    return rows[number - 1][0] if number and number <= len(rows) else None


def _classes(path: Path, texts: Sequence[str], wnids: Sequence[str]) -> dict[str, int]:
    """What the list calls a class -> its index."""
    if not all(text.isdigit() for text in texts):
        return {wnid: i for i, wnid in enumerate(wnids)}
    if path.name != NAMES[-1]:
        return {str(i): i for i in range(len(wnids))}
    return {str(number): wnids.index(wnid) for number, wnid in _devkit(path).items()}


def _devkit(path: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> wnid. The devkit counts the classes from 1, in an order of its own."""
    from importlib import import_module

    meta = path.with_name("meta.mat")
    if not meta.is_file():
        raise FileNotFoundError(
            f"{meta}: missing; the numbers in {path.name} mean nothing without it: copy the whole "
            "data folder of the devkit"
        )
    synsets = import_module("scipy.io").loadmat(str(meta), squeeze_me=True)["synsets"]
    pairs = zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
    return {int(number): str(wnid) for number, wnid in pairs if int(number) <= 1000}
