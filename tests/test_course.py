"""`cliplab course`: what nbgrader gets, releases and grades."""

import importlib.util
import os
import re
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from grade_forty import (
    CHEAT,
    SEED,
    HandIn,
    added,
    bare,
    before,
    behind,
    copied,
    deleted,
    edited,
    hand_in,
    helped,
    inside,
    marks,
    masters_in,
    mistakes,
    nbgrader,
    unsolved,
)  # fmt: skip
from masters_of import defined
from nbformat import v4

from cliplab.cli.main import main
from cliplab.exercises import make_course, student_form
from cliplab.exercises.checking import examine
from cliplab.exercises.course import WEEKS, Assignment, plan

ROOT = Path(__file__).resolve().parents[1]
LESSON = ROOT / "notebooks" / "01_clip_contrastive_loss.ipynb"
NAME = LESSON.stem
needs_nbgrader = pytest.mark.skipif(
    importlib.util.find_spec("nbgrader") is None, reason="nbgrader is not installed"
)
MASTERS = masters_in(LESSON)
ALL = len(MASTERS)


def cells_of(path: Path) -> dict[str, Any]:
    return {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}


def messy(notebook: Any) -> None:
    """Much that should cost nothing, at once."""
    helped(notebook)
    long = "print('x' * 200_000_000)"
    for change in (added("1 / 0"), added("while True:\n    pass"), behind(long)):
        change(notebook)
    behind("import sys\n\nprint('a warning', file=sys.stderr)")(notebook)
    copied("-check", -10_000)(notebook)
    deleted("-check")(notebook)
    bare(notebook)


def cheating(notebook: Any) -> None:
    """The names of the tests overwritten, and Python ended by the function."""
    for change in (
        before(CHEAT),
        inside("import os\n\nos._exit(0)"),
        edited(lambda _: "1", "-check"),
    ):
        change(notebook)


CLASS = [
    HandIn("stubs", None, unsolved),
    next(mistakes("01", MASTERS)),
    HandIn("messy", 0, messy, name="final (1).ipynb"),
    HandIn("cheating", 1, cheating),
    HandIn("no notebook", None, whole=b"{"),
]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course of lesson 01, as the command makes it."""
    folder = tmp_path_factory.mktemp("course") / "vision"
    words = ["course", str(folder), "--lessons", "01", "--name", "视觉 2027", "--seed", str(SEED)]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def released(course: Path) -> Path:
    """The notebook that nbgrader makes for students."""
    done = nbgrader(course, "generate_assignment", NAME)
    assert done.returncode == 0, done.stderr
    return course / "release" / NAME / f"{NAME}.ipynb"


@pytest.fixture(scope="module")
def graded(course: Path, released: Path) -> Path:
    """The course after a small class was graded and got its feedback."""
    for i, one in enumerate(CLASS):
        hand_in(course, NAME, MASTERS, one, f"s{i}")
    nbgrader(course, "autograde", NAME)
    nbgrader(course, "generate_feedback", NAME)
    return course


# ---- the kit -------------------------------------------------------------------------------


def test_sources_hold_solutions_and_hidden_tests(course: Path) -> None:
    source = course / "source" / NAME
    cells = cells_of(source / f"{NAME}.ipynb")
    for master in MASTERS.values():
        assert cells[master.code.id].source == master.code.source
        assert cells[master.code.id].metadata["nbgrader"]["solution"]
        about = cells[master.check.id].metadata["nbgrader"]
        assert (about["grade"], about["locked"], about["points"]) == (True, True, 1)
        assert f'grade("{master.name}", ' in cells[master.check.id].source
        assert f", seed={SEED})" in cells[master.check.id].source
    assert not any(cell.get("outputs") for cell in cells.values())
    text = "\n".join(c.source for c in cells.values() if c.cell_type == "markdown")
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
    assert targets
    assert all((source / target).is_file() for target in targets)
    assert "视觉 2027" in (course / "README.md").read_text("utf-8")
    assert "视觉 2027" in cells_of(course / "source" / "header.ipynb")["header"].source


def test_eight_weeks_hold_every_assignment_once() -> None:
    stems = [f"{i:02d}_lesson" for i in range(1, 7)] + [f"0{i}_lab_x" for i in (1, 2, 2, 3, 4, 5)]
    parts = [Assignment(stem, stem, None, {}, ["a"]) for stem in stems]
    for some in (parts, parts[:1], parts[:6], parts[6:]):
        weeks = plan(some)
        assert len(weeks) == WEEKS
        assert " ".join(due for _, due in weeks).count(": 1 point") == len(some)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["full"], "full exists, and no course is overwritten"),
        (["new", "--seed", "2"], "--seed: got 2; expected 3 to"),
        (["new", "--lessons", "91"], "unknown notebook '91'"),
        (
            ["new", "--lessons", str(ROOT / "notebooks/solutions" / f"{NAME}_solutions.ipynb")],
            "no exer",
        ),
    ],
)
def test_what_cannot_be_made_leaves_all_as_it_was(
    words: list[str], said: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine", "utf-8")
    Path("file").write_text("mine", "utf-8")
    assert main(["course", *words]) == 2
    assert said in capsys.readouterr().err
    assert sorted(os.listdir()) == ["file", "full"]
    assert os.listdir("full") == ["mine.txt"]


def test_an_empty_folder_is_filled_or_left_empty(in_tmp: Path, monkeypatch: Any) -> None:
    Path("course").mkdir()
    monkeypatch.setattr("cliplab.exercises.course._header", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_course(Path("course"), [LESSON], "x", 99)
    assert [*os.listdir(), *os.listdir("course")] == ["course"]
    monkeypatch.undo()
    monkeypatch.chdir(in_tmp)
    monkeypatch.chdir("course")
    make_course(Path(), [LESSON], "x", 99)
    assert os.listdir("..") == ["course"]
    assert Path("students.csv").read_text("utf-8").startswith("id,first_name")


# ---- nbgrader ------------------------------------------------------------------------------


@needs_nbgrader
def test_students_get_what_the_lesson_has(course: Path, released: Path) -> None:
    lesson, got = cells_of(LESSON), cells_of(released)
    assert next(iter(got)) == "header"
    assert list(got)[1:] == list(lesson)
    for master in MASTERS.values():
        for cell in master.cells:
            assert got[cell.id].source == lesson[cell.id].source == student_form(cell.source)
    text = released.read_text("utf-8")
    assert str(SEED) not in text
    assert "grade(" not in text
    assert "END SOLUTION" not in text
    assert (released.parent / "figures" / "clip.svg").is_file()


@needs_nbgrader
def test_each_gets_what_it_deserves_and_none_stops_the_others(graded: Path) -> None:
    got = marks(graded)
    deserved = [0 if one.lost is None else ALL - one.lost for one in CLASS]
    assert [got[f"s{i}"] for i in range(len(CLASS))] == deserved
    autograded = graded / "autograded"
    assert sum(1 for _ in autograded.glob(f"*/{NAME}/{NAME}.ipynb")) == len(CLASS) - 1
    assert max(p.stat().st_size for p in autograded.rglob("*.ipynb")) < 300_000


@needs_nbgrader
def test_feedback_shows_marks_and_no_hidden_test(graded: Path) -> None:
    pages = {p.parts[-3]: p.read_text("utf-8") for p in graded.glob(f"feedback/*/{NAME}/*.html")}
    assert len(pages) == len(CLASS) - 1
    for page in pages.values():
        assert "Traceback (most recent call last)" not in page
        assert str(SEED) not in page
        assert "HIDDEN TESTS" not in page
    assert "AssertionError: 01.1: not yet" in pages["s0"]
    assert f"Score: {ALL}.0 / {ALL}.0" in pages["s2"]


@needs_nbgrader
def test_mail_is_collected_by_its_names(course: Path, released: Path) -> None:
    archive = course / "downloaded" / NAME / "archive"
    archive.mkdir(parents=True)
    for name in (f"m1_{NAME}.ipynb", f"m2_{NAME} (1).ipynb"):
        (archive / name).write_bytes(released.read_bytes())
    done = nbgrader(course, "zip_collect", NAME)
    assert done.returncode == 0, done.stderr
    for who in ("m1", "m2"):
        assert (course / "submitted" / who / NAME / f"{NAME}.ipynb").is_file()


# ---- parts ---------------------------------------------------------------------------------


@needs_nbgrader
def test_only_what_an_exercise_needs_is_executed() -> None:
    from cliplab.exercises.grading import needed

    cells = [
        "import torch as t",
        "SIZE = 3",
        "slow = SIZE + 1",
        "def helper(x):\n    y = t.ones(SIZE)\n    return y + x",
        "y = x = 1",
        "%magic",
        "def answer(x):\n    y = helper(x)\n    return y",
        "print(slow)",
        "check('01.1', answer)",
        "answer = None",
    ]
    assert needed(cells, {6, 8}) == {0, 1, 3, 6, 8}
    assert needed(["f = slow()", "def f(): return 1", "check(f)"], {1, 2}) == {1, 2}
    assert needed(["def f(): return g()", "def g(): return 1", "check(f)"], {0, 2}) == {0, 1, 2}
    assert needed(["m = slow()", "import m\nm.f()"], {1}) == {1}
    assert needed(["def (", "check(f)"], {0, 1}) == {0, 1}
    assert needed(["f = 1", "f = f + 1", "check(f)"], {2}) == {0, 1, 2}


STUBBORN = "while True:\n    try:\n        while 1: pass\n    except BaseException: pass"


@needs_nbgrader
@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (STUBBORN, "CellTimeoutError"),
        ("import os; os._exit(0)", "DeadKernelError"),
        ("exit()", "SystemExit"),
    ],
)
def test_a_cell_that_ends_python_or_never_ends_is_left_out(bad: str, kind: str) -> None:
    from cliplab.exercises.grading import Run

    sources = ("x = 1", bad, "print(x + 1)", "1 / 0")
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])
    Run(timeout=4).preprocess(notebook, {})
    outputs = [cell.outputs[:1] for cell in notebook.cells]
    shown = [[o.get("text", o.get("ename")) for o in some] for some in outputs]
    assert shown == [[], [kind], ["2\n"], ["ZeroDivisionError"]]


def test_a_machine_that_grades_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    solution = defined(MASTERS["01.1"].code.source)

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.05)
        return solution(*args, **kwargs)

    monkeypatch.setattr("cliplab.exercises.checking.TIME_LIMIT", 0.02)
    wrong = examine("01.1", slow, (7,), "val")
    assert wrong is not None
    assert wrong.kind == "endless"
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert examine("01.1", slow, (7,), "val") is None
