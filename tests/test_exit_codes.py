"""Exit codes hang on what happened, not on the words in which it is told.

The commands run once more in an interpreter in which every message is worded anew: the texts of
exceptions, the kinds of problems.
"""

import json
import subprocess
import sys
from pathlib import Path

from json_files import coco, write
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

plain = importlib.machinery.SourceFileLoader.get_code

def get_code(self, name):
    if not name.startswith("cliplab"):
        return plain(self, name)
    return compile(Reword().visit(ast.parse(self.get_data(self.path))), self.path, "exec")

importlib.machinery.SourceFileLoader.get_code = get_code
from cliplab.cli.main import main
codes = []
for typed in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        codes.append([main(typed), said.getvalue()])
json.dump({"codes": codes, "reworded": Reword.count}, sys.stdout)
"""

BOX = [4, 4, 40, 40]
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


def make_sources(root: Path) -> None:
    """Folders of two pictures: whole, one of them empty, both; and tables of boxes."""
    for name, broken in (("whole", ()), ("some", ("b.png",)), ("none", ("a.png", "b.png"))):
        (root / name).mkdir()
        for picture in ("a.png", "b.png"):
            Image.effect_noise((64, 64), 90).convert("RGB").save(root / name / picture)
        for picture in broken:
            (root / name / picture).write_bytes(b"")
    for name, second in (("boxes", "b.png"), ("missing", "gone.png"), ("crowd", "b.png")):
        boxes = {"a.png": [("x", BOX), ("y", BOX)], second: [("z", BOX)]}
        table = coco(("x", "y", "z"), boxes, (64, 64))
        for one in table["annotations"][1:] if name == "crowd" else ():
            one["iscrowd"] = 1
        write(root / f"{name}.json", table)


def test_other_words_give_the_same_exit_codes(tmp_path: Path) -> None:
    make_sources(tmp_path)
    calls, expected = [], []
    for command in ("classify", "detect", "segment"):
        for rest, code in CALLS + MORE * (command == "classify"):
            calls.append([command, *rest, "--labels", "x", "y", "z"])
            expected.append(code)
    calls += [["evaluate", "imagenet", "--data", "absent", "--encoder", "pasture"], ["doctr"]]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(calls),
        capture_output=True, encoding="utf-8", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["reworded"] > 300
    told = [
        f"{' '.join(c)}: {code}, {said}"
        for c, (code, said) in zip(calls, found["codes"], strict=True)
    ]
    assert [code for code, _ in found["codes"]] == [*expected, 2, 2], "\n".join(told)
    assert sum("reworded" in said for _, said in found["codes"]) >= 12
