"""Exit codes hang on what happened, not on the words in which it is told.

The commands run once more in an interpreter in which every message is worded anew: the texts of
exceptions, the kinds of problems.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

# Reads the calls from stdin, runs them with other words, and prints their exit codes.
PROGRAM = """
import ast, contextlib, importlib.machinery, io, json, sys

class Reword(ast.NodeTransformer):
    count = 0

    def words(self, node):
        if isinstance(node, ast.JoinedStr):
            node.values = [self.words(v) if isinstance(v, ast.Constant) else v for v in node.values]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            Reword.count += 1
            node.value = f"reworded {Reword.count} "
        return node

    def visit_Raise(self, node):
        if isinstance(node.exc, ast.Call):
            node.exc.args = [self.words(arg) for arg in node.exc.args]
        return node

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        if node.name.endswith("Kind"):
            for line in node.body:
                if isinstance(line, ast.Assign):
                    line.value = self.words(line.value)
        return node

class Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, name):
        return self.source_to_code(self.get_data(self.path), self.path)

    def source_to_code(self, data, path):
        return compile(Reword().visit(ast.parse(data)), path, "exec")

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if name.startswith("cliplab") and spec and spec.origin:
            spec.loader = Loader(name, spec.origin)
        return spec

sys.meta_path.insert(0, Finder)
from cliplab.cli.main import main
codes = []
for typed in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        codes.append([main(typed), said.getvalue()])
json.dump({"codes": codes, "reworded": Reword.count}, sys.stdout)
"""

CALLS = [  # after classify, detect or segment, with three labels
    (["missing.json", "--images", "whole"], 3),
    (["some"], 3),
    (["none"], 2),
    (["absent"], 2),
    (["crowd.json", "--images", "whole"], 0),
]
MORE = [  # after classify, which is the quickest
    (["whole"], 0),
    (["boxes.json", "--images", "whole"], 0),
    (["whole", "--split", "test"], 2),
    (["whole", "--shots", "2"], 2),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of two pictures: whole, one of them empty, both; and tables of boxes."""
    root = tmp_path_factory.mktemp("exit")
    for name, broken in (("whole", ()), ("some", ("b.png",)), ("none", ("a.png", "b.png"))):
        (root / name).mkdir()
        for picture in ("a.png", "b.png"):
            Image.effect_noise((64, 64), 90).convert("RGB").save(root / name / picture)
        for picture in broken:
            (root / name / picture).write_bytes(b"")
    for name, files, crowd in (
        ("boxes", ["a.png", "b.png"], 0),
        ("missing", ["a.png", "gone.png"], 0),
        ("crowd", ["a.png", "b.png"], 1),
    ):
        table = {
            "images": [
                {"id": i, "file_name": file, "width": 64, "height": 64}
                for i, file in enumerate(files)
            ],
            "annotations": [
                {"id": n, "image_id": i, "category_id": n, "bbox": [4, 4, 40, 40], "iscrowd": crowd}
                for n, i in ((1, 0), (2, 0), (3, 1))
            ],
            "categories": [{"id": n, "name": name} for n, name in enumerate(("x", "y", "z"), 1)],
        }
        table["annotations"][0]["iscrowd"] = 0
        (root / f"{name}.json").write_text(json.dumps(table), encoding="utf-8")
    return root


def test_other_words_give_the_same_exit_codes(source: Path) -> None:
    calls, expected = [], []
    for command in ("classify", "detect", "segment"):
        for rest, code in CALLS + MORE * (command == "classify"):
            calls.append([command, *rest, "--labels", "x", "y", "z"])
            expected.append(code)
    calls += [["evaluate", "imagenet", "--data", "absent", "--encoder", "pasture"], ["doctr"]]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(calls),
        capture_output=True,
        encoding="utf-8",
        cwd=source,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["reworded"] > 300
    told = [
        f"{' '.join(c)}: {code}, {said}"
        for c, (code, said) in zip(calls, found["codes"], strict=True)
    ]
    assert [code for code, _ in found["codes"]] == [*expected, 2, 2], "\n".join(told)
    assert sum("reworded" in said for _, said in found["codes"]) >= 12
