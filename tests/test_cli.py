import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any

import bench as script
import count_modules
import pytest
from json_files import coco, write
from PIL import Image

from cliplab import __version__, data
from cliplab.cli import main as cli
from cliplab.cli.doctor import CHECKPOINTS
from cliplab.cli.main import COMMANDS, main, read_recipe
from cliplab.cli.options import Call, Common, opt, worded
from cliplab.runtime import held
from cliplab.training import RECIPES
from cliplab.training.loop import RunOptions


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cliplab {__version__}\n"
    assert main([]) == 2
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"    {name:9} {command.help}" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: cliplab {name}" in shown
    assert "examples:" in shown
    assert f"cliplab {name}" in shown.partition("examples:")[2]
    assert "exit code" in shown
    assert "%(default)" not in shown
    assert max(map(len, shown.splitlines()[1:])) <= 100


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["rnu"], "unknown command 'rnu'; did you mean 'run'"),
        (["train", "clpi"], "unknown recipe 'clpi'; did you mean 'clip'"),
        (["run", "99"], "unknown notebook '99'"),
        (["report"], "give one RUN, or --compare A B"),
        (["run", "--no-such"], "--no-such"),
        (["train", "clip", "--no-such"], "--no-such"),
        (
            ["detect", "x", "--lables", "a", "b"],
            "error: unknown option --lables; did you mean --labe",
        ),
        (
            ["detect", "x", "--lables=a", "--htm", "b"],
            "option --lables, --htm; did you mean --html;",
        ),
        (["search", "x", "a", "goat"], "nothing takes 'goat'; drop it, or quote"),
        (
            ["classify", "x", "--batch-size", "1.5"],
            "--batch-size: got '1.5'; expected a whole number;",
        ),
        (["detect", "x", "--top", "it's"], '--top: got "it\'s"; expected a whole number;'),
        (["detect", "x", "--score", "a.b"], "--score: got 'a.b'; expected a number;"),
        (["train", "clip", "--lr", "x"], "--lr: got 'x'; expected a number;"),
        (["detect", "x", "--kind", "a.b"], "invalid choice 'a.b' for argument '--kind'"),
        (["detect", "x", "--top"], "--top: nothing follows"),
        (["detect", "x", "--labels"], "--labels: nothing follows"),
        (["detect", "x", "--score", "high"], "--score: got 'high'; expected a number"),
        (["detect", "x", "--top", "2.5"], "--top: got '2.5'; expected a whole number"),
        (["train", "clip", "--steps", "many"], "--steps: got 'many'; expected a whole number"),
        (["report", "--compare", "runs/a"], "--compare: got 'runs/a'; expected A B"),
        (["segment", "x", "--template", "--force"], "--template: nothing follows"),
    ],
)
def test_a_wrong_call_is_one_line_and_two(
    typed: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert answer in said.err
    assert said.err.startswith(("cliplab: error:", f"cliplab {typed[0]}: error:"))
    assert said.err.count("\n") == 1


@pytest.fixture(scope="module")
def flock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures in class folders, one of them loose; tables of them, of others, of none."""
    root = tmp_path_factory.mktemp("flock")
    for i, name in enumerate(("one/a.png", "one/b.png", "two/c.png", "d.png")):
        (root / "mix" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (60 * i, 90, 40)).save(root / "mix" / name)
    rows = ("one/a.png,one,train", "one/b.png,one,val", "two/c.png,two,train", "d.png,two,val")
    table = "\n".join(["image,label,split", *(f"mix/{row}" for row in rows)])
    (root / "some.csv").write_text(table, "utf-8")
    (root / "gone.csv").write_text("image,label\nno/a.png,one\nno/b.png,two\n", "utf-8")
    (root / "bare").mkdir()
    shutil.copy(root / "mix" / "d.png", root / "bare")
    return root


TEMPLATE = "error: --template: template 'x' has no {}"


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["classify", "gone.csv"], "(or name the folder of the pictures: --images)"),
        (["embed", "gone.csv", "--out", "o"], "(or name the folder of the pictures: --images)"),
        (["segment", "gone.csv", "--labels", "a", "b"], "the folder of the pictures: --images)"),
        (["classify", "mix"], "(or take all of them as --unlabelled)"),
        (["classify", "some.csv", "--labels", "a", "b"], "or take the source as --unlabelled, if"),
        (["classify", "bare", "--kind", "csv"], "(or the --kind: folder, csv, coco, yolo)"),
        (["classify", "bare", "--labels", "a", "b " * 99], "(or let it be cut: --truncate)"),
        (["classify", "bare", "--classifier", "no"], "expected one from --save-classifier"),
        (
            ["classify", "bare", "--examples", "some.csv", "--shots", "9"],
            "--shots: class 'one'",
        ),
        (["classify", "bare", "--labels", "a", "b", "--template", "x"], TEMPLATE),
        (["detect", "bare", "--labels", "a", "--template", "x"], TEMPLATE),
        (["segment", "bare", "--labels", "a", "b", "--template", "x"], TEMPLATE),
        (["detect", "bare"], "error: --labels: no labels: the source has no boxes"),
        (["segment", "bare", "--labels", "a="], "error: --labels: label 'a='"),
        (["classify", "my (`old`) `labels`.csv"], "error: my (`old`) `labels`.csv: no such file"),
    ],
)
def test_what_a_library_says_of_an_argument_names_the_option(
    flock: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: list[str],
    answer: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(flock)
    assert main(typed) == 2
    said = capsys.readouterr().err
    assert answer in said
    assert "`" not in said.replace(answer, "")


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["classify", "bare", "--examples", "gone.csv"], "gone.csv: none of its 2 pictures"),
        (["classify", "bare", "--examples", "mix"], "or none: move them"),
        (["detect", "bare", "--boxes", "both"], "both: got the labels labels.tsv, a.json;"),
    ],
)
def test_options_about_source_are_no_remedy_for_what_is_read_besides(
    flock: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: list[str],
    answer: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(flock)
    (flock / "both").mkdir(exist_ok=True)
    shutil.copy(flock / "gone.csv", flock / "both" / "labels.tsv")
    write(flock / "both" / "a.json", coco(["a"], {"d.png": [("a", (3, 4, 5, 6))]}))
    assert main(typed) == 2
    said = capsys.readouterr().err
    assert answer in said
    for name in ("`", "images", "unlabelled", "kind:"):
        assert name not in said


def test_what_a_command_has_no_option_for_is_not_said(
    flock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert worded("cut it (or `truncate` it), see `debug`, `embed`", Common()) == (
        "cut it, see --debug, `embed`"
    )
    page = flock / "page.html"
    assert main(["classify", str(flock / "bare"), "--labels", "x", "y", "--html", str(page)]) == 0
    for said in (capsys.readouterr().err, page.read_text("utf-8")):
        assert "cannot read the prompt" in said
        assert "token_coverage" not in said


# ---- what is written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("classify bare --labels sheep goat", []),
        ("classify bare --labels sheep goat --out a.csv --json a.json", ["a.csv", "a.json"]),
        ("classify bare --examples some.csv --save-classifier a.st", ["a.st"]),
        ("detect bare --labels sheep --html b.html --pictures b", ["b.html", "b"]),
        ("segment bare --labels sheep goat --out c --panoptic d.json", ["c", "d.json"]),
        ("embed bare --out o", ["o"]),
        ("search e sheep --out f.csv --html f.html", ["f.csv", "f.html"]),
    ],
)
def test_each_file_and_folder_that_was_written_is_named(
    flock: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    written: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(flock)
    if typed.startswith("search"):
        main(["embed", "bare", "--out", "e"])
        capsys.readouterr()
    assert main(typed.split()) == 0
    said = capsys.readouterr()
    assert "wrote" not in said.out
    lines = [line for line in said.err.splitlines() if line.startswith("wrote ")]
    assert lines == [f"wrote {name}" for name in written]
    assert all((flock / name).exists() for name in written)


def test_the_document_draws_pictures_that_the_commands_answer_for(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPLAB_OFFLINE", "1")
    document = (Path(__file__).parents[1] / "docs" / "commands.md").read_text("utf-8")
    block = next(one for one in document.split("```") if "cliplab.pasture" in one)
    for line in block.strip().splitlines()[1:]:
        program, *words = shlex.split(line)
        if program == "mkdir":
            Path(*words).mkdir()
        elif words[0] == "-c":
            subprocess.run([sys.executable, *words], check=True)
        else:
            assert main(words[2:]) == 0
            said = capsys.readouterr()
            assert said.out
            assert "remark:" not in said.err
    assert len(list(Path("drawn").iterdir())) == 16
    for name in ("classify", "detect", "segment", "search"):
        assert Path(f"{name}.html").read_text("utf-8").count("data:image/") >= 10


def test_pictures_outside_of_the_source_keep_their_whole_path(flock: Path) -> None:
    (flock / "tables").mkdir()
    table, picture = flock / "tables" / "t.csv", flock / "bare" / "d.png"
    table.write_text(f"image\n{picture}\n../mix/one/a.png\n", "utf-8")
    (flock / "away").mkdir()
    found, copies = flock / "away" / "found.json", flock / "copies"
    options = ["--out", str(found), "--pictures", str(copies)]
    assert main(["detect", str(table), "--labels", "sheep", *options]) == 0
    names = [one["file_name"] for one in json.loads(found.read_text("utf-8"))["images"]]
    assert names == ["../mix/one/a.png", picture.as_posix()]
    assert len([path for path in copies.rglob("*.jpg") if path.is_file()]) == 2
    back = data.read_pictures(found, images=table.parent)
    assert [one.path.resolve() for one in back] == [flock / "mix/one/a.png", picture]
    assert not back.problems


# ---- what a command can come to ------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command `doctor` that does what the test says."""
    module = ModuleType("fake_command")
    monkeypatch.setitem(sys.modules, "fake_command", module)
    monkeypatch.setitem(COMMANDS, "doctor", cli.Command("fake_command", "does as told"))

    def set_run(result: int | BaseException) -> None:
        def run(args: object) -> int:
            if isinstance(result, BaseException):
                raise result
            return result

        module.DOCTOR = Call(Common, "", "", run)  # type: ignore[attr-defined]

    return set_run


def test_what_a_command_ends_with(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for code in (0, 1, 3):
        fake(code)
        assert main(["doctor"]) == code
    for kind in (ValueError, PermissionError, ImportError):  # what users can cause is one line
        fake(kind("this\nand that"))
        assert main(["doctor"]) == 2
        assert capsys.readouterr().err == "cliplab doctor: error: this and that\n"
        with pytest.raises(kind):
            main(["doctor", "--debug"])
    fake(KeyError("a bug"))  # our own mistakes keep their traceback
    with pytest.raises(KeyError):
        main(["doctor"])
    fake(KeyboardInterrupt())
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "cliplab doctor: interrupted\n"


def test_a_missing_part_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "doctor", cli.Command("no_such_module", "is absent"))
    assert main(["doctor"]) == 2
    assert "No module named 'no_such_module'; a part is missing" in capsys.readouterr().err


# ---- train ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe(RunOptions):
    steps: Annotated[int, opt("N")] = 7


def recipe(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    module = SimpleNamespace(__doc__="Make it.\n\nMore.", Options=Recipe, run=run)
    monkeypatch.setitem(sys.modules, "cliplab.training.clip", module)


def test_a_recipe_gets_its_own_options_and_says_how_to_go_on(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    got: list[Recipe] = []
    recipe(monkeypatch, got.append)
    for words in ([], ["--steps", "3"]):
        assert main(["train", "clip", *words]) == 0
    assert got == [Recipe(steps=7), Recipe(steps=3)]
    with held(Path("runs/train/clip")):
        assert main(["train", "clip"]) == 2

    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    recipe(monkeypatch, interrupted)
    capsys.readouterr()
    assert main(["train", "clip"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--html", "--json"])
@pytest.mark.parametrize("command", ["classify", "detect", "segment"])
def test_one_output_is_not_written_by_two(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], command: str, option: str
) -> None:
    with held(Path("there")):
        assert main([command, ".", "--labels", "a", "b", option, "there"]) == 2
    assert "another cliplab is writing it" in capsys.readouterr().err


@pytest.mark.parametrize("stem", RECIPES)
def test_every_recipe_has_its_help(stem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", stem, "--help"]) == 0
    assert f"usage: cliplab train {stem}" in capsys.readouterr().out


def test_every_checkpoint_has_a_recipe() -> None:
    for command in CHECKPOINTS.values():
        stem, *words = command.split()
        made = read_recipe(stem, *words).recipe
        assert getattr(made, "fusion", True) == ("--no-fusion" not in words)


def test_help_and_choices_read_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--help"]) == 0
    assert "argument only; CLASS=PROMPT" in capsys.readouterr().out  # a line break in the docstring
    assert main(["classify", "x", "--examples", "x", "--method", "svm"]) == 2
    said = capsys.readouterr().err
    assert "('coop', 'linear-probe', " in said
    assert "None" not in said


# ---- tools/bench.py ------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with two benchmarks in a folder of its own."""
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    (tmp_path / "_shared.py").write_text("1 / 0", encoding="utf-8")  # what they import
    for name, line in (("a", "print('| x |')"), ("b", "print('fast 羊')")):
        source = f'"""How fast is {name}?\n\nMore."""\n{line}\n'
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    return script


def test_benchmarks_are_written_down(bench: ModuleType) -> None:
    assert bench.main([]) == 0
    text = (bench.FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    assert text.startswith("# What was measured\n\nWritten by `make bench`")
    assert "## How fast is a?\n\n`benchmarks/a.py`: " in text
    assert "\n\n| x |\n\n## How fast is b?" in text
    assert text.endswith("fast 羊\n")
    assert f"cliplab {__version__}" in text
    (bench.FOLDER / "b.py").write_text("1 / 0", encoding="utf-8")
    assert bench.main([]) == 1
    assert (bench.FOLDER / "RESULTS.md").read_text(encoding="utf-8") == text


def test_one_benchmark_leaves_the_others_as_they_were(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["b"]) == 0
    assert "fast 羊" in capsys.readouterr().out
    path = bench.FOLDER / "RESULTS.md"
    former = path.read_text(encoding="utf-8")
    assert "How fast is a?" not in former
    assert bench.main(["a"]) == 0
    assert path.read_text(encoding="utf-8").endswith(former.partition("\n\n## ")[2])
    assert path.read_text(encoding="utf-8").index("fast is a?") < len(former)
    with pytest.raises(SystemExit, match="2"):
        bench.main(["c"])


def test_modules_count_by_what_they_do_not_by_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {
        "counted_early": "def f():\n    pass\n\n\nclass A:\n    f()\n",
        "counted_ahead": "def read():\n    pass\n",
        "counted_busy": "import threading\n\n\ndef main(_):\n    import counted_early\n"
        "    import counted_ahead\n\n    one = threading.Thread(target=counted_ahead.read)\n"
        "    one.start()\n    one.join()\n",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(count_modules, "PACKAGE", str(tmp_path) + os.sep)
    monkeypatch.setattr(count_modules, "main", importlib.import_module("counted_busy").main)
    assert count_modules.modules_of([]) == {"counted_busy.py", "counted_ahead.py"}


# ---- start-up ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_quick_and_loads_nothing_heavy(name: str) -> None:
    program = (
        f"import sys; from cliplab.cli.main import main; main([{name!r}, '--help']);"
        "heavy = {'torch', 'numpy', 'matplotlib', 'nbformat', 'papermill'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
        after = os.times()  # of the processor, since other work may be going on
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 0.6


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "cliplab", "--version"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.stdout == f"cliplab {__version__}\n"
