"""Reports: parameters checked, notebooks executed for real, runs resumed, pages self-contained."""

import base64
import errno
import importlib
import io
import itertools
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import psutil
import pytest
from notebook_builder import RUN, code, markdown, stream, write
from papermill.engines import NotebookExecutionManager
from PIL import Image, ImageChops, ImageStat

from cliplab import pasture, runtime
from cliplab.cli.main import main
from cliplab.cli.run import tell
from cliplab.report import folder, page, provenance
from cliplab.report.execute import write_notebook
from cliplab.report.exporter import chapters, to_mathml
from cliplab.report.notebook import (
    Job,
    Parameter,
    Request,
    bind,
    find_notebooks,
    parse_value,
    plan,
    read_notebook,
    read_parameters,
    with_labs,
)

sys.path.append(str(Path(__file__).parents[1] / "tools"))
save_notebooks = importlib.import_module("save_notebooks")

Lab = Callable[..., Path]
Said = pytest.CaptureFixture[str]

# ---- notebooks and parameters --------------------------------------------------------------


def test_notebooks_are_found_by_number_name_and_path(lab: Lab) -> None:
    lab(2), lab(1)
    write(Path("notebooks/scratch.ipynb"), markdown("# not of the course"))
    for name in ("2", "02", "02_small", "02_small.ipynb"):
        assert [path.stem for path in find_notebooks([name])] == ["02_small"]
    assert [path.stem for path in find_notebooks()] == ["01_small", "02_small"]
    scratch = find_notebooks(["notebooks/scratch.ipynb", "1", "01"])
    assert [path.stem for path in scratch] == ["scratch", "01_small"]
    Path("notebooks/labs").mkdir()
    for name in ("01_lab_deep", "01_lab_deeper"):
        write(Path(f"notebooks/labs/{name}.ipynb"), markdown("# Deeper"))
    assert [path.parent.name for path in find_notebooks(["01_lab_deep"])] == ["labs"]
    labs = [path.stem for path in with_labs(find_notebooks())]
    assert labs == ["01_small", "01_lab_deep", "01_lab_deeper", "02_small"]
    with pytest.raises(FileNotFoundError, match="did you mean '01_small'"):
        find_notebooks(["01_smal"])
    shutil.rmtree("notebooks")
    with pytest.raises(FileNotFoundError, match="no notebook NN_name"):
        find_notebooks()
    Path("x.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"x\.ipynb is not a readable notebook"):
        read_notebook(Path("x.ipynb"))


def parameters_of(source: str, *more: Any) -> dict[str, Parameter]:
    notebook = nbformat.v4.new_notebook(cells=[code(source, "parameters"), *more])
    return read_parameters(notebook, "nb")


def test_parameters_are_read_with_their_comments() -> None:
    found = parameters_of('A: int = -1  # a number\nB = "羊羊羊"  # 中文\nC = [1, 2]\n\nD = None')
    assert found["A"] == Parameter("A", -1, "a number")
    assert found["B"] == Parameter("B", "羊羊羊", "中文")
    assert (found["C"].default, found["D"].default) == ([1, 2], None)
    for line in ("import os", "A = f(1)", "A = B", "print(1)"):
        with pytest.raises(ValueError, match="expected only NAME = constant"):
            parameters_of(f"X = 1\n{line}")
    with pytest.raises(ValueError, match="2 cells have the tag"):
        parameters_of("A = 1", code("B = 2", "parameters"))


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [
        (False, "True", True), (True, "false", False), (3, "-4", -4), (0.5, "2", 2.0),
        (0.5, "1e-3", 1e-3), ("a", "True", "True"), ("a", "", ""), ([1], "[2, 3]", [2, 3]),
        (None, "7", 7), (None, "cuda", "cuda"),
    ],
)  # fmt: skip
def test_values_get_the_kind_of_the_default(default: Any, text: str, value: Any) -> None:
    got = parse_value(Parameter("P", default, ""), text)
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("default", "text", "expected"),
    [
        (False, "1", "True or False"), (False, "yes", "True or F"), (3, "4.0", "a whole number"),
        (3, "True", "a whole number"), (0.5, "much", "a number"), (0.5, "nan", "a number"),
        (0.5, "1e999", "a number"), ([1], "2", "list"),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_refused(default: Any, text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"parameter P: got '{text}'; expected {expected}"):
        parse_value(Parameter("P", default, ""), text)


def test_a_value_goes_to_the_notebooks_that_know_it() -> None:
    quick = {"QUICK": Parameter("QUICK", False, "")}
    known = {"01": quick, "02": quick | {"PHOTOS": Parameter("PHOTOS", "", "")}}
    bound = bind(["PHOTOS=a=b", "QUICK=True", "QUICK=False"], known)
    assert bound == {"01": {"QUICK": False}, "02": {"PHOTOS": "a=b", "QUICK": False}}
    with pytest.raises(ValueError, match="QUICK: expected NAME=VALUE"):
        bind(["QUICK"], known)


def test_the_command_refuses_before_it_runs_anything(lab: Lab, capsys: Said) -> None:
    lab(1)
    for words, said in (
        (["-p", "SIZ=4"], "unknown parameter 'SIZ'; did you mean 'SIZE'? valid: SEED, QUICK, SIZE"),
        (["-p", "SIZE=big"], "got 'big'; expected a whole number, like 3"),
        (["-p", "RESULTS_PATH=x.json"], "unknown parameter 'RESULTS_PATH'"),
        (["--timeout", "0"], "--timeout: got 0"),
        (["--resume"], "no interrupted run"),
    ):
        assert main(["run", *words]) == 2
        assert said in capsys.readouterr().err
    assert not Path("runs").exists()
    write(Path("notebooks/01_bare.ipynb"), markdown("# 01 Bare"), code("A = 1", "parameters"))
    with pytest.raises(ValueError, match="01_bare: the cell tagged `parameters` lacks RESULTS_P"):
        plan(Request())


# ---- a run ---------------------------------------------------------------------------------

STEP = """\
import sys, os
from pathlib import Path
import matplotlib.pyplot as plt
from tqdm import tqdm
plt.plot(list(tqdm(range(3))))
plt.show()
print(sys.executable, os.path.basename(os.getcwd()))
x = [Path(PHOTOS).is_dir(), PHOTOS]"""


def test_a_run_is_explained_resumed_and_complete(lab: Lab, in_tmp: Path, capsys: Said) -> None:
    lab(1, "print('so far')\nx = 1 / (SIZE - 3)")
    text = lab(2, STEP).read_text(encoding="utf-8")
    photos = text.replace("SIZE = 3 ", "PHOTOS = ''  # yours\\nSIZE = 3 ")
    Path("notebooks/02_small.ipynb").write_text(photos, encoding="utf-8")
    (in_tmp / "sheep").mkdir()
    name = "Li Lei <李雷>"
    command = ["run", "--out", "runs/a", "-p", "QUICK=True", "--student", name]
    assert main([*command, "-p", "PHOTOS=sheep"]) == 1
    said = capsys.readouterr()
    assert "at cell 4 of 5: print('so far')\nZeroDivisionError: division by zero" in said.err
    assert "02_small  done in" in said.out  # the others run
    work = Path("runs/a.unfinished")
    kept = work / "notebooks" / "01_small.failed.ipynb"
    assert str(kept) in said.err
    outputs_of = [o for c in read_notebook(kept).cells for o in c.get("outputs", [])]
    assert outputs_of[0]["text"] == "so far\n"
    assert outputs_of[1]["ename"] == "ZeroDivisionError"

    assert main(["report", str(work)]) == 0  # the page of an unfinished run says so
    html = (work / "index.html").read_text(encoding="utf-8")
    assert "This run is unfinished" in html
    assert "stopped at cell 4 of 5: ZeroDivisionError" in html
    assert main(["run", "--out", "runs/a"]) == 2  # nothing new may take its place
    assert "resume it if it is unfinished" in capsys.readouterr().err

    lab(1)
    assert main(["run", "--out", "runs/a", "--resume"]) == 0  # only what was mended is executed
    out = capsys.readouterr().out
    assert "01_small  done in" in out
    assert "02_small  done before, unchanged" in out
    run = Path("runs/a")
    assert_complete(run, name)
    before = (run / "results.json").read_bytes()
    assert main(["run", "--out", "runs/a"]) == 2  # a finished run is never overwritten
    assert "runs/a exists" in capsys.readouterr().err.replace(os.sep, "/")
    assert (run / "results.json").read_bytes() == before
    assert main(["report", "runs/a", "--student", "Han Meimei"]) == 0
    assert "Han Meimei" in (run / "index.html").read_text(encoding="utf-8")
    assert folder.load(run)["student"] == "Han Meimei"


def assert_complete(run: Path, student: str) -> None:
    state = folder.load(run)
    assert state["finished"]
    assert state["student"] == student
    assert (run / "ro-crate-metadata.json").is_file()
    assert state["versions"]["python"] == sys.version.split()[0]
    assert list(state["notebooks"]) == ["01_small", "02_small"]
    record = state["notebooks"]["02_small"]
    assert record["results"] == {"x": [True, "../sheep"], "quick": True}
    assert record["parameters"] == {"SEED": 0, "QUICK": True, "PHOTOS": "sheep", "SIZE": 3}
    assert state["started"] <= record["started"] <= record["ended"] <= state["ended"]
    assert record["seconds"] > 0
    assert (run / record["figures"][0]).read_bytes().startswith(b"\x89PNG")
    assert not [*Path("runs").glob("*.unfinished"), *run.rglob("*partial*")]
    names = [path.name for path in sorted((run / "notebooks").iterdir())]
    assert names == ["01_small.ipynb", "02_small.ipynb"]
    for name in names:
        cells = [c for c in read_notebook(run / "notebooks" / name).cells if c.cell_type == "code"]
        assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
        assert not any("papermill" in c.metadata or "runs/" in c.source for c in cells)
    (printed,) = [o for c in cells for o in c.outputs if o.output_type == "stream"]  # no bar
    assert printed["text"] == f"{sys.executable} notebooks\n"  # this Python, in its folder
    html = (run / "index.html").read_text(encoding="utf-8")
    assert "Li Lei &lt;李雷&gt;" in html
    assert "data:image/png;base64," in html
    assert not re.search(r"<script|<link", html)
    loads = r"""(?:src|srcset|data)=["'](?!data:)([^"']+)|url\(["']?(?!["']?data:)"""
    assert not re.findall(loads, html)


def test_an_interrupted_run_goes_on_where_it_stopped(
    lab: Lab, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab(1)

    def interrupt(self: object, cell: Any, index: int) -> None:
        if "x = " in cell.source and index == 4:  # behind the cell that papermill puts in
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NotebookExecutionManager, "cell_start", interrupt)
        assert main(["run", "--out", "runs/a b", "-p", "SIZE=5"]) == 130
    out = capsys.readouterr().out
    assert f'continue with: python -m cliplab run --resume --out "{Path("runs/a b")}"' in out
    assert not Path("runs/a b").exists()
    assert not kernels()
    assert main(["run", "--resume"]) == 0  # the latest one, with its own parameters
    state = folder.load(Path("runs/a b"))
    assert [r["results"]["x"] for r in state["notebooks"].values()] == [10]
    assert not list(Path("runs/a b").rglob("*partial*"))


def kernels() -> list[str]:
    """Command lines of our descendants that execute notebooks."""
    lines = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    return [line for line in lines if "ipykernel" in line]


def test_hanging_and_dying_notebooks_are_ended_and_explained(
    lab: Lab, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab(1, "import time\ntime.sleep(600)"), lab(2, "import os\nos._exit(9)")
    clock = [0.0]  # an hour passes as soon as a cell like the one that hangs has started

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return clock[0]

    monkeypatch.setattr("cliplab.report.execute.time", Clock)
    start = NotebookExecutionManager.cell_start

    def cell_start(self: Any, cell: Any, index: int) -> None:
        clock[0] = 3600.0 * (index == 4)
        start(self, cell, index)

    monkeypatch.setattr(NotebookExecutionManager, "cell_start", cell_start)
    with monkeypatch.context() as patch:
        patch.setattr("cliplab.report.folder.provenance.snapshot", nothing_known)
        assert main(["run", "--out", "runs/a", "--timeout", "600"]) == 1
    said = capsys.readouterr().err
    assert "at cell 4 of 5: import time\nnot finished after 600 s and ended" in said
    assert "at cell 4 of 5: import os\nthe kernel died" in said
    assert Path("runs/a.unfinished/notebooks/01_small.failed.ipynb").exists()
    assert not kernels()


def nothing_known() -> dict[str, Any]:
    keys = ("commit", "code_sha256", "checkpoints", "versions", "machine")
    return {key: RUN[key] for key in keys}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """No kernels: notebooks are copied, with these outputs in their fourth cell."""
    said: dict[str, Any] = {"outputs": [], "results": True}

    def execute(source: Path, target: Path, *, parameters: Any, **_: object) -> None:
        shutil.copy(source, target)
        notebook = read_notebook(target)
        notebook.cells[3].outputs = said["outputs"]
        write_notebook(notebook, target)
        if said["results"] and parameters:
            path = source.parent / parameters["RESULTS_PATH"]
            path.write_text("{}", encoding="utf-8")

    monkeypatch.setattr("cliplab.report.folder.execute", execute)
    monkeypatch.setattr(save_notebooks, "execute", execute)
    monkeypatch.setattr("cliplab.report.folder.provenance.snapshot", nothing_known)
    return said


def test_a_place_that_cannot_be_written_is_said(lab: Lab, capsys: Said) -> None:
    lab(1)
    Path("runs").write_text("a file where a folder should be", encoding="utf-8")
    assert main(["run", "--out", "runs/a"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cliplab run: error:")
    assert error.count("\n") == 1
    assert "choose another folder" in error


CHANGES = ["source", "parameters", "code_sha256", "checkpoints", "versions", "photos", "weights"]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_executed_again(
    lab: Lab, fake: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Said, change: str
) -> None:
    text = lab(1).read_text(encoding="utf-8")
    text = text.replace("SIZE = 3 ", "PHOTOS = ''\\nENCODER = 'pasture'\\nSIZE = 3 ")
    Path("notebooks/01_small.ipynb").write_text(text, encoding="utf-8")
    Path("mine/sheep").mkdir(parents=True)
    Path("mine/sheep/1.png").write_bytes(b"one")
    Path("model.pt").write_bytes(b"weights")

    def ran(*more: str) -> tuple[str, dict[str, str]]:
        request = Request(parameters=("PHOTOS=mine", "ENCODER=openai:model.pt", *more))
        folder.carry_out(plan(request), request, Path("runs/a"), tell)
        state = folder.load(Path("runs/a.unfinished"))
        return capsys.readouterr().out, state["notebooks"]["01_small"]["inputs"]

    said, before = ran()
    assert "done in" in said
    assert set(before) == {"PHOTOS", "ENCODER"}
    assert "done before, unchanged" in ran()[0]
    if change == "source":
        Path("notebooks/01_small.ipynb").write_text(text.replace("2 * SIZE", "1"), encoding="utf-8")
    elif change == "photos":
        Path("mine/sheep").rename("mine/goat")  # the same bytes, of another class
    elif change == "weights":
        Path("model.pt").write_bytes(b"others")
    elif change != "parameters":
        now = nothing_known() | {change: {"a": "b"}}
        monkeypatch.setattr("cliplab.report.folder.provenance.snapshot", lambda: now)
    said, after = ran(*["SIZE=4"] * (change == "parameters"))
    assert "done in" in said
    read = {"photos": {"PHOTOS"}, "weights": {"ENCODER"}}.get(change, set())
    assert {name for name in before if before[name] != after[name]} == read


def test_a_name_taken_meanwhile_is_not_overwritten(in_tmp: Path) -> None:
    (in_tmp / "a.unfinished").mkdir()
    (in_tmp / "a").mkdir()
    with pytest.raises(FileExistsError, match="appeared meanwhile"):
        folder.finish({"notebooks": {}}, in_tmp / "a")
    assert (in_tmp / "a.unfinished").is_dir()


# ---- two runs ------------------------------------------------------------------------------


def run_with(**results: Any) -> dict[str, Any]:
    return {"notebooks": {"01": {"results": results}}}


@pytest.mark.parametrize(
    ("a", "b", "agrees"),
    [
        (1.0, 1.0099, True), (1.0, 1.0101, False), (0.001, 0.005, False), (-1.0, -1.005, True),
        (0.0, 1e-7, True), (0.0, 1e-3, False), (2, 2.0, True), (True, 1, False),
        (True, True, True), ("a", "a", True), ("a", "b", False), ([1.0, 2.0], [1.001, 2.0], True),
        ([1.0, 2.0], [1.0, 2.5], False), ([1.0], [1.0, 1.0], False),
       
        ({"k": 1.0}, {"k": 3.0}, False),
    ],
)  # fmt: skip
def test_results_agree_within_a_tolerance(a: Any, b: Any, agrees: bool) -> None:
    found = page.compare(run_with(value=a), run_with(value=b), rtol=0.01)
    assert [d.agrees for d in found] == [agrees]


def test_a_result_of_one_run_only_does_not_agree() -> None:
    found = page.compare(run_with(a=1, b=None), run_with(a=1))
    assert [(d.key, d.agrees) for d in found] == [("a", True), ("b", False)]
    other = {"notebooks": {"02": {"results": {"a": 1}}}}
    assert [d.agrees for d in page.compare(run_with(a=1), other)] == [False, False]


def test_two_runs_are_compared_and_what_differs_is_said_first(in_tmp: Path, capsys: Said) -> None:
    for name, value in (("a", 0.5), ("b", 0.52)):
        results = {"accuracy": {"seen": value}, "n": 2000}
        record = {"parameters": {"SEED": name}, "inputs": {"PHOTOS": name}, "results": results}
        state = {
            "notebooks": {"01": record}, "commit": {"id": name}, "versions": {"torch": name},
            "machine": {"threads": name, "cores": 2},
        }  # fmt: skip
        runtime.write_json(in_tmp / name / "results.json", state)
    assert main(["report", "--compare", "a", "b"]) == 1
    facts, _, numbers = capsys.readouterr().out.partition("\n\n")
    assert [" ".join(line.split()) for line in facts.splitlines()] == [
        "made from a b", "01.parameters.SEED a b", "01.inputs.PHOTOS a b", "commit.id a b",
        "versions.torch a b", "machine.threads a b",
    ]  # fmt: skip
    assert re.search(r"\* +01: accuracy\.seen +0\.5 +0\.52 +\+4\.00%", numbers)
    assert "1 of 2 out of tolerance" in numbers
    assert main(["report", "--compare", "a", "b", "--rtol", "0.05"]) == 0
    for place, content in (("c", None), ("d", "{"), ("e", "[]")):
        if content:
            Path(place).mkdir()
            Path(place, "results.json").write_text(content, encoding="utf-8")
        assert main(["report", "--compare", "a", place]) == 2
        said = capsys.readouterr().err
        assert ("not what a run writes" if content else "c is no run") in said


# ---- the page ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "latex",
    [
        r"\mathcal{L} = -\frac{1}{2N}\sum_{i=1}^{N} \log\frac{\exp(s_{ii}/\tau)}{\sum_j s_{ij}}",
        r"\begin{aligned} a &= b \\ c &= d \end{aligned}",
        r"\begin{cases} 1 & i = j \\ 0 & \text{otherwise} \end{cases}",
        r"\operatorname{softmax}_j(s_{ij})",
    ],
)
def test_formulas_become_well_formed_mathml(latex: str) -> None:
    tree = ElementTree.fromstring(to_mathml(latex, display=True))
    name = "{http://www.w3.org/1998/Math/MathML}"
    assert tree.tag == f"{name}math"
    for kind, children in (("msub", 2), ("msup", 2), ("mfrac", 2), ("msubsup", 3)):
        assert {len(node) for node in tree.iter(name + kind)} <= {children}


def test_a_formula_that_cannot_be_translated_can_be_read() -> None:
    assert to_mathml(r"\nosuch{x} < 1") == r'<code class="latex">\nosuch{x} &lt; 1</code>'


def test_the_question_of_a_notebook_is_found() -> None:
    for source, question in (
        ("# 01 T\n\n**Does** *it*\n`run`?\n\nMore.", "Does it run?"),
        ("# 01 T", ""),
    ):
        notebook = nbformat.v4.new_notebook(cells=[markdown(source)])
        assert page.question(notebook) == question


def test_results_are_shown_short_and_a_rate_as_one() -> None:
    shown = [(0.123456, "0.1235"), (2000, "2000"), (12345.6, "12346"), (True, "yes"),
             ([0.5, 2], "0.5, 2"), ("a", "a")]  # fmt: skip
    assert [page.show(value) for value, _ in shown] == [text for _, text in shown]
    rate = {"value": 0.97, "low": 0.9621, "high": 0.9766, "n": 2000}
    folded = page.fold({"accuracy": {"seen": rate, "loss": 0.5}, "n": 3})
    assert folded == {"accuracy": {"seen": "0.97 (0.962 to 0.977, n=2000)", "loss": 0.5}, "n": 3}


@pytest.mark.parametrize(
    ("below", "alt"),
    [
        ("*Two curves,\n$a$ above `b`.*\n\nThey cross.", "Two curves, a above b."),
        ("Both *cross* here.", "a figure, see the text around it"),
        ("**Bold** words.", "a figure, see the text around it"),
    ],
)
def test_figures_are_described_for_those_who_cannot_see_them(below: str, alt: str) -> None:
    figure = nbformat.v4.new_output("display_data", {"image/png": "eA=="})
    cells = [code("plot()", outputs=[figure]), markdown(below)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert f'alt="{alt}"' in chapters({"01": (notebook, Path())})["01"]


# ---- saving in place -----------------------------------------------------------------------


def test_notebooks_are_saved_in_place_without_noise(lab: Lab) -> None:
    slow = "import time\nprint('山')\ntime.sleep(1)\nprint('羊')\n"
    path = lab(1, f"from tqdm import tqdm\n{slow}x = sum(1 for _ in tqdm(range(3)))")
    assert save_notebooks.main(["01"]) == 0
    notebook = read_notebook(path)
    assert [c.execution_count for c in notebook.cells[1:]] == [1, 2, 3, 4]
    assert [o["text"] for o in notebook.cells[3].outputs] == ["山\n羊\n"]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert [dict(c.metadata) for c in notebook.cells[1:4]] == [
        {"tags": ["parameters"]}, {"tags": ["setup"]}, {}
    ]  # fmt: skip
    first = path.read_bytes()
    assert save_notebooks.main([]) == 0
    assert path.read_bytes() == first  # nothing that differs between two executions


def test_noise_is_named_and_not_saved(lab: Lab, fake: dict[str, Any], capsys: Said) -> None:
    path = lab(1)
    before = path.read_bytes()
    widget = {"application/vnd.jupyter.widget-view+json": {}}
    for output, fault in (
        (stream("careful", name="stderr"), "cell 4 writes to stderr: careful"),
        (stream("<o at 0x7f00aa12bc>"), "cell 4 prints a memory address (at 0x7f00aa12bc)"),
        (nbformat.v4.new_output("error", ename="E", evalue=""), "cell 4 ends with E"),
        (nbformat.v4.new_output("display_data", widget), "cell 4 shows a widget"),
    ):
        fake["outputs"] = [output]
        assert save_notebooks.main(["01"]) == 1
        assert f"01_small: {fault}" in capsys.readouterr().err
        assert path.read_bytes() == before
    fake["outputs"] = [stream("fine")]
    assert save_notebooks.main(["01"]) == 0


def test_figures_become_smaller_and_look_the_same() -> None:
    figure, packed = pasture.draw(pasture.portrait(3), 256), io.BytesIO()
    figure.paste("#0072B2", (4, 4, 10, 10))  # a legend: few pixels, which tell what is what
    figure.save(packed, "PNG")
    data = {"image/png": base64.b64encode(packed.getvalue()).decode()}
    output = nbformat.v4.new_output("display_data", data)
    notebook = nbformat.v4.new_notebook(cells=[code("x", outputs=[output])])
    save_notebooks.shrink(notebook)
    small = base64.b64decode(notebook.cells[0].outputs[0].data["image/png"])
    assert len(small) < 0.7 * len(packed.getvalue())
    seen = Image.open(io.BytesIO(small)).convert("RGB")
    assert max(ImageStat.Stat(ImageChops.difference(figure, seen)).mean) < 4  # of 255
    assert max(high for _, high in ImageChops.difference(figure, seen).getextrema()) < 32


# ---- models of the reader --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("openai:sheep/model.pt", "openai:../sheep/model.pt"),
        ("openai:sheep", "openai:sheep"),  # a folder, where only a file is one
        ("glip-t:sheep/model.pt", "glip-t:../sheep/model.pt"),
        ("hf:sheep", "hf:../sheep"),
        ("modelscope:", "modelscope:"),
        ("open_clip:RN50/sheep/model.pt", "open_clip:RN50/../sheep/model.pt"),
        ("open_clip:ViT-B/32/sheep/model.pt", "open_clip:ViT-B/32/../sheep/model.pt"),
        ("open_clip:RN50/sheep", "open_clip:RN50/sheep"),  # a tag is a name
        ("sheep/model.pt", "../sheep/model.pt"),
        ("pasture", "pasture"),  # and not the folder of that name
        ("openai:goat/model.pt", "openai:goat/model.pt"),  # perhaps as seen from notebooks/
    ],
)
def test_models_are_found_from_where_the_command_was_called(
    in_tmp: Path, given: str, seen: str
) -> None:
    (in_tmp / "pasture").mkdir()
    (in_tmp / "sheep").mkdir()
    (in_tmp / "sheep" / "model.pt").write_bytes(b"")
    both = {"ENCODER": given, "MODEL": given}
    job = Job(Path("notebooks/01_small.ipynb"), "", {}, both, 2, "")
    assert job.injected == {"ENCODER": seen, "MODEL": seen}


# ---- what an interruption, a neighbour or a full disk leaves ---------------------------------


def started(name: str = "runs/a", *words: str) -> int:
    return main(["run", "--out", name, *words])


def test_runs_of_one_second_have_folders_of_their_own(
    lab: Lab, fake: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(5)

    class Clock(folder.datetime):  # type: ignore[name-defined,misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2026, 1, 2, 3, 4, next(seconds))

    lab(1)
    other = Path("runs/2026-01-02-030405.unfinished")
    other.mkdir(parents=True)
    monkeypatch.setattr(folder, "datetime", Clock)
    assert main(["run"]) == 0
    assert sorted(Path("runs").iterdir()) == [other, Path("runs/2026-01-02-030406")]


@pytest.mark.parametrize("words", [[], ["--resume"]])
def test_a_folder_in_use_is_refused_and_not_touched(
    lab: Lab, capsys: Said, words: list[str]
) -> None:
    lab(1)
    work = Path("runs/a.unfinished")
    runtime.write_json(work / "results.json", {"request": {}, "notebooks": {}})
    before = (work / "results.json").read_bytes()
    with runtime.held(work):
        assert started("runs/a", *words) == 2
        assert "another cliplab is writing it" in capsys.readouterr().err
        assert main(["report", str(work), "--student", "X"]) == 2
    assert (work / "results.json").read_bytes() == before
    assert [p.name for p in Path("runs").iterdir()] == ["a.unfinished"]


def test_resuming_keeps_notebooks_parameters_and_the_first_start(
    lab: Lab, fake: dict[str, Any], capsys: Said
) -> None:
    lab(1), lab(2)
    fake["results"] = False
    assert started("runs/a", "01", "-p", "SIZE=5", "--student", "A") == 1
    assert "no cell called save_results" in capsys.readouterr().err
    first = folder.load(Path("runs/a.unfinished"))["started"]
    fake["results"] = True  # what failed is executed again, though nothing else has changed
    for words in (["02"], ["-p", "SIZE=6"]):
        assert started("runs/a", "--resume", *words) == 2
        assert "goes on with the notebooks and parameters" in capsys.readouterr().err
    assert started("runs/a", "--resume", "01", "-p", "SIZE=5", "--student", "Li") == 0
    state = folder.load(Path("runs/a"))
    assert {n: r["parameters"]["SIZE"] for n, r in state["notebooks"].items()} == {"01_small": 5}
    assert (state["student"], state["started"], len(state["resumed"])) == ("Li", first, 1)
    assert state["ended"] >= state["resumed"][0] >= first


def test_a_full_disk_is_named_and_what_was_executed_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    lab(1, "x = 1\nprint('so ' + 'far')")
    kept = Path("runs/a.unfinished/01_small.partial.ipynb")

    def fsync(_: int) -> None:  # of each write: the first after the fourth cell finds no space
        if kept.exists() and "so far" in kept.read_text(encoding="utf-8"):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(runtime.os, "fsync", fsync)
        assert started() == 2
    said = capsys.readouterr()
    full = r"error: .*cannot write .*01_small\.partial\.ipynb: .*free some space"
    assert re.search(full, said.err)
    assert "at cell" not in said.err
    command = "python -m cliplab report runs/a.unfinished"
    assert command in said.out.replace(os.sep, "/")
    assert main(["report", "runs/a.unfinished"]) == 0
    html = Path("runs/a.unfinished/index.html").read_text(encoding="utf-8")
    assert "so far" in html
    assert "This run is unfinished" in html
    assert started("runs/a", "--resume") == 0
    assert not list(Path("runs/a").rglob("*partial*"))
    cells = read_notebook(Path("runs/a/notebooks/01_small.ipynb")).cells
    assert [c.get("execution_count") for c in cells] == [None, 1, 2, 3, 4]


def test_threads_and_the_build_of_torch_are_on_record() -> None:
    import torch

    found = provenance.snapshot()
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert torch.version.git_version in found["machine"]["torch_build"]
    assert {"transformers", "open-clip-torch", "tokenizers"} <= found["versions"].keys()
    assert "pasture.json" in found["checkpoints"]["prompts"]


# ---- processes that are killed -------------------------------------------------------------


def child(*words: str, writes: int = 999) -> int:
    """A process that runs the command, and is killed in the midst of its n-th write."""
    if not (pid := os.fork()):
        signal.alarm(120)  # it may have inherited a lock that nobody frees
        left = itertools.count(writes, -1)
        runtime.os.fsync = lambda _: next(left) == 1 and os.kill(os.getpid(), signal.SIGKILL)
        os._exit(main(["run", *words]))
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_killed_at_any_write_a_run_is_taken_up_again(lab: Lab, fake: dict[str, Any]) -> None:
    lab(1), lab(2)
    figure = nbformat.v4.new_output("display_data", {"image/png": "eA=="})
    fake["outputs"] = [figure]
    run, work = Path("runs/a"), Path("runs/a.unfinished")
    for writes in itertools.count(1):
        if ended(child("--out", "runs/a", "--student", "Li", writes=writes)) == 0:
            break
        assert not run.exists()
        resume = ["--resume"] if (work / "results.json").exists() else ["--student", "Li"]
        assert main(["run", "--out", "runs/a", *resume]) == 0
        state = folder.load(run)
        assert (state["student"], *state["notebooks"]) == ("Li", "01_small", "02_small")
        assert all(record["finished"] for record in state["notebooks"].values())
        files = [path for path in run.rglob("*") if path.is_file()]
        assert len(files) == 7  # 2 notebooks, 2 figures, results, a page, a crate
        shutil.rmtree("runs")
    assert writes == 14  # thirteen writes, and then none was left
