"""What other tools' readers make of a file that `detect --out` wrote, as JSON on the screen.

Label Studio's converter and datumaro have pins that exclude ours: run this by the Python of an
environment of their own, with either or both in it. `OTHER_READERS=elsewhere/bin/python pytest
tests/test_interchange.py` does, and compares.

    python -m venv elsewhere; elsewhere/bin/pip install label-studio-sdk datumaro
    elsewhere/bin/python tools/other_readers.py found.json
"""

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

_ROOT = "/pictures/"  # Label Studio wants one
Boxes = dict[str, list[list[Any]]]  # picture -> rows of label, x, y, width, height (px)


def by_label_studio(source: Path) -> Boxes:
    """Through its converter of COCO to tasks, whose boxes are in per cent."""
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls

    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder) / "tasks.json"
        convert_coco_to_ls(str(source), str(tasks), out_type="predictions", image_root_url=_ROOT)
        read = json.loads(tasks.read_text(encoding="utf-8"))
    found: Boxes = {}
    for task in read:
        rows = found.setdefault(task["data"]["image"].removeprefix(_ROOT), [])
        for one in task["predictions"][0]["result"]:
            value, (w, h) = one["value"], (one["original_width"], one["original_height"])
            sides = {"x": w, "y": h, "width": w, "height": h}
            box = [value[side] / 100 * length for side, length in sides.items()]
            rows.append([*value["rectanglelabels"], *box])
    return found


def by_datumaro(source: Path) -> Boxes:
    """As a COCO data set of instances, read as a stream, which is the stricter of its two ways."""
    import datumaro

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "annotations"
        place.mkdir()
        (Path(folder) / "images").mkdir()  # it insists on one, and opens none to read boxes
        shutil.copyfile(source, place / "instances_found.json")
        read = datumaro.StreamDataset.import_from(folder, "coco_instances")
        names = [label.name for label in read.categories()[datumaro.AnnotationType.label]]
        images = json.loads(source.read_text(encoding="utf-8"))["images"]
        names_of = {one["file_name"].rpartition(".")[0]: one["file_name"] for one in images}
        return {
            names_of[item.id]: [[names[one.label], *one.get_bbox()] for one in item.annotations]
            for item in read
        }


def main() -> int:
    """Print what each reader that is there found -> exit code."""
    found = {}
    for name, read in {"label_studio_sdk": by_label_studio, "datumaro": by_datumaro}.items():
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(ImportError):
            found[name] = read(Path(sys.argv[1]))
    print(json.dumps(found))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
