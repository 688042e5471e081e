"""The house itself: pins that agree, files that may be public, commands that exist."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cliplab.cli import doctor as checks

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "cliplab").rglob("*.py"))
MB = 1_000_000


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict:
    return tomllib.loads(text_of("pyproject.toml"))["project"]


# ---- pins ----------------------------------------------------------------------------------


def requirements(*groups: str) -> dict[str, Requirement]:
    """Declared requirements: of the package, and of the named extras."""
    extras = project()["optional-dependencies"]
    lines = [*project()["dependencies"], *(line for name in groups for line in extras[name])]
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r for r in parsed}


def pins() -> list[Requirement]:
    lines = text_of("constraints.txt").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    extras = [name for name in project()["optional-dependencies"] if name != "all"]
    pinned: dict[str, list[str]] = {}
    for pin in pins():
        pinned.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier)[2:])
    for name, requirement in requirements(*extras).items():
        assert name in pinned, f"constraints.txt lacks {name}"
        for version in pinned[name]:
            assert requirement.specifier.contains(version), f"{requirement} against {version}"


def test_pins_are_exact_and_named_once_for_each_system() -> None:
    seen = set()
    for pin in pins():
        assert re.fullmatch(r"==[\w.!+-]+", str(pin.specifier)), pin
        assert pin.url is None, pin
        key = (canonicalize_name(pin.name), str(pin.marker))
        assert key not in seen, pin
        seen.add(key)


def test_what_only_linux_has_is_marked() -> None:
    for pin in pins():
        if re.match(r"nvidia|cuda|triton", pin.name):
            assert "sys_platform == 'linux'" in str(pin.marker).replace('"', "'"), pin


def test_all_means_every_extra() -> None:
    extras = project()["optional-dependencies"]
    named = Requirement(extras["all"][0])
    assert canonicalize_name(named.name) == project()["name"]
    assert named.extras == set(extras) - {"all"}


def test_conda_gives_the_same() -> None:
    environment = yaml.safe_load(text_of("environment.yml"))
    *conda, pip = environment["dependencies"]
    python = next(line for line in conda if line.startswith("python="))
    version = python.partition("=")[2].strip("=")
    assert Requirement(f"x{project()['requires-python']}").specifier.contains(f"{version}.0")
    assert {re.split(r"[=<>]", line)[0] for line in conda} == {"python", "pip"}
    assert pip == {"pip": ["-c constraints.txt", "-e .[all]"]}


def test_the_declared_pythons_are_those_tested() -> None:
    workflow = yaml.safe_load(text_of(".github/workflows/test.yml"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    tested = {*matrix["python"], *(extra["python"] for extra in matrix["include"])}
    declared = Requirement(f"x{project()['requires-python']}").specifier
    assert all(declared.contains(f"{version}.0") for version in tested)
    oldest, newest = min(tested), max(tested)
    assert not declared.contains(f"3.{int(oldest[2:]) - 1}.9")
    assert not declared.contains(f"3.{int(newest[2:]) + 1}.0")
    assert {f"{name}-latest" for name in ("ubuntu", "macos", "windows")} == set(matrix["os"])


# ---- imports -------------------------------------------------------------------------------


@cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """What a module imports: (dotted name, whether that happens when it is itself imported)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    typing = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.unparse(i.test)
        for n in ast.walk(i)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names if id(node) not in typing else []:
            yield name, id(node) not in inner


distributions = cache(importlib.metadata.packages_distributions)  # reads every installed package


def third_party(path: Path) -> set[str]:
    """Distributions that a module imports, wherever in it."""
    owners = distributions()
    tops = {name.partition(".")[0] for name, _ in imports(path)}
    outside = tops - set(sys.stdlib_module_names) - {"cliplab"}
    return {canonicalize_name(owners[top][0]) for top in outside}


def is_tool(path: Path) -> bool:
    """Whether a module belongs to the commands that need the `notebooks` extra."""
    return "report" in path.parts or "cli" in path.parts


def test_imports_are_declared_and_declarations_are_imported() -> None:
    core = {name for path in MODULES if not is_tool(path) for name in third_party(path)}
    tools = {name for path in MODULES if is_tool(path) for name in third_party(path)}
    official = set(requirements("official")) - set(requirements())
    assert core - official == set(requirements())
    assert tools <= set(requirements("notebooks"))


def test_heavy_libraries_are_imported_inside_functions() -> None:
    heavy = {"modelscope", "transformers", "clip", "open_clip"}
    for path in MODULES:
        for name, at_import in imports(path):
            assert not (at_import and name.partition(".")[0] in heavy), f"{path.name}: {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_private_names_stay_in_their_module(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    taken = [a.name for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names]
    private_names = [name for name in taken if name.startswith("_") and not name.endswith("__")]
    assert not private_names, f"{private_names}: what another module needs has a public name"


def test_the_pasture_needs_torch_for_its_datasets_only() -> None:
    for path in (ROOT / "cliplab" / "pasture").glob("*.py"):
        tops = {name.partition(".")[0] for name, _ in imports(path)}
        assert "torch" not in tops or path.stem == "dataset", path.name


def test_importing_cliplab_is_quick_and_does_nothing() -> None:
    program = (
        "import sys, time; before = set(sys.modules); start = time.perf_counter(); import cliplab;"
        "print(time.perf_counter() - start, sorted(set(sys.modules) - before))"
    )
    shown = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, encoding="utf-8"
        ).stdout
        for _ in range(3)
    ]
    assert all(line.rstrip().endswith("['cliplab']") for line in shown), shown
    assert min(float(line.split()[0]) for line in shown) < 0.3


def test_the_package_prints_in_commands_only() -> None:
    for path in MODULES:
        commands = is_tool(path) or "training" in path.parts
        calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
        printing = [n.lineno for n in calls if getattr(n.func, "id", "") == "print"]
        assert commands or not printing, f"{path.name}: print in lines {printing}"


def test_files_are_opened_with_their_encoding() -> None:
    for path in [*MODULES, *sorted((ROOT / "tools").glob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(getattr(node, "func", None), "attr", "")
            if isinstance(node, ast.Call) and name in ("read_text", "write_text"):
                named = {k.arg for k in node.keywords}
                positional = len(node.args) > (name == "write_text")
                assert "encoding" in named or positional, f"{path.name}:{node.lineno}: {name}"


# ---- what may be public --------------------------------------------------------------------


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, encoding="utf-8", check=True
    ).stdout


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Files under version control; without it (an unpacked archive) all files but those ignored."""
    if shutil.which("git") and (ROOT / ".git").exists():
        names = git("ls-files", "-z").split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    skip = {".venv", "runs", "__pycache__", "build", ".git"}
    files = [p for p in ROOT.rglob("*") if p.is_file() and not skip & set(p.parts)]
    return [p for p in files if ".egg-info" not in str(p) and "_cache" not in str(p)]


PRIVATE = {
    "a package index": re.compile(
        r"https?://\S+(?:/simple\b|\.whl\b|\.tgz\b|/packages/)|index-ur[l]|find-link[s]"
    ),
    "a path of one machine": re.compile(r"(?<![\w.])/(?:work|farm|root)/|/home/(?!me\b)\w+/"),
    "something left to do": re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X])\b"),
}


def private(text: str) -> list[str]:
    return [what for what, pattern in PRIVATE.items() if pattern.search(text)]


def test_no_file_names_a_machine_or_an_index(tracked: list[Path]) -> None:
    kinds = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".ipynb", ".cff", ".json", ".css", ""}
    for path in tracked:
        if path.suffix in kinds and path.stat().st_size < 3 * MB:
            found = private(path.read_text(encoding="utf-8", errors="replace"))
            assert not found, f"{path.relative_to(ROOT)} names {found}"


@pytest.mark.parametrize(
    "line",
    [
        "pip install --index-" + "url x",
        "https" + "://a.b/simple",
        "https" + "://a.b/c.whl",
        "/".join(["in ", "root", "x"]),
    ],
)
def test_what_must_not_be_public_is_seen(line: str) -> None:
    assert private(f"text\n{line}")
    assert not private("https://a.b/simpler and about /roots")


def test_files_are_small_enough_to_clone(tracked: list[Path]) -> None:
    sizes = {path: path.stat().st_size for path in tracked}
    shipped = sum(size for path, size in sizes.items() if path.is_relative_to(ROOT / "data"))
    assert shipped < 60 * MB
    assert sum(sizes.values()) - shipped < 20 * MB
    for path, size in sizes.items():
        weights = "checkpoints" in path.parts or "golden" in path.parts
        assert weights or size < 1.5 * MB, f"{path.relative_to(ROOT)}: {size / MB:.1f} MB"


def test_photographs_of_users_stay_with_them() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    names = ["data/photos/a.jpg", "data/photos/flock/b.png", "data/photos/README.md"]
    ignored = subprocess.run(
        ["git", "-C", str(ROOT), "check-ignore", "--no-index", *names],
        capture_output=True,
        encoding="utf-8",
    ).stdout.split()
    assert ignored == names[:2]


# ---- commands and documents ----------------------------------------------------------------


def targets() -> set[str]:
    found = re.search(r"^\.PHONY: (.*)$", text_of("Makefile"), re.MULTILINE)
    assert found
    return set(found[1].split())


def test_every_target_is_defined_and_explained() -> None:
    makefile = text_of("Makefile")
    defined = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert targets() == defined
    explained = set(re.findall(r'@echo "make (\w+)', makefile))
    assert explained == targets() - {"help", "env"}


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_shows_its_commands_by_default() -> None:
    done = subprocess.run(["make", "-s", "-C", str(ROOT)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0
    assert "make run" in done.stdout


@pytest.mark.skipif(not shutil.which("make") or os.name == "nt", reason="needs make and a shell")
def test_make_explains_a_python_that_is_absent_or_too_old(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    for python in (str(old), "no-such-python"):
        command = ["make", "-s", "-C", str(ROOT), "env", f"PYTHON={python}"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        assert done.returncode != 0
        assert "cliplab needs Python 3.11 to 3.13" in done.stderr


@pytest.mark.skipif(not shutil.which("make") or os.name == "nt", reason="needs make and a shell")
def test_make_trains_every_checkpoint() -> None:
    command = ["make", "-s", "-C", str(ROOT), "-o", "env", "train", "PY=echo"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    called = [line.removeprefix("-m cliplab train ").strip() for line in done.stdout.splitlines()]
    assert called == list(dict.fromkeys(checks.CHECKPOINTS.values()))


def test_continuous_integration_runs_the_one_command() -> None:
    lines = [s for s in text_of(".ci/run").splitlines() if s and not s.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "exec make test"]
    if os.name != "nt":
        assert os.access(ROOT / ".ci" / "run", os.X_OK)
    steps = yaml.safe_load(text_of(".github/workflows/test.yml"))["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if step.get("name") == "Test"] == [".ci/run"]


def test_make_test_checks_style_code_and_notebooks() -> None:
    recipe = re.search(r"^test: env\n((?:\t.*\n)+)", text_of("Makefile"), re.MULTILINE)
    assert recipe
    commands = [line.strip().removeprefix("$(PY) -m ") for line in recipe[1].splitlines()]
    tests = "pytest -n $(WORKERS) --dist worksteal $(ARGS)"
    assert commands == ["ruff format --check .", "ruff check .", tests]
    options = tomllib.loads(text_of("pyproject.toml"))["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]


READMES = ("README.md", "README.zh-CN.md")


def commands_in(name: str) -> list[str]:
    """Command lines in the fenced blocks of a document, comments left out."""
    blocks = re.findall(r"```(?:bash|sh|powershell|console)\n(.*?)```", text_of(name), re.DOTALL)
    lines = [
        re.split(r"\s+#\s", line)[0].strip() for block in blocks for line in block.splitlines()
    ]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md", "data/photos/README.md"])
def test_documents_name_commands_that_exist(name: str) -> None:
    from cliplab.cli.main import COMMANDS

    made = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(commands_in(name))))
    assert made <= targets()
    called = set(re.findall(r"-m cliplab ([a-z]+)", text_of(name)))
    assert called <= set(COMMANDS)
    for path in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text_of(name)):
        assert ((ROOT / name).parent / path).exists(), f"{name} leads to {path}"


def test_both_readmes_say_the_same() -> None:
    english, chinese = READMES
    shapes = [re.findall(r"^(#+) ", text_of(name), re.MULTILINE) for name in READMES]
    assert shapes[0] == shapes[1], "headings"
    assert commands_in(english) == commands_in(chinese), "commands"
    numbers = [sorted(re.findall(r"\d+\.\d+", text_of(name))) for name in READMES]
    assert numbers[0] == numbers[1], "numbers"
    rows = [len(re.findall(r"^\|", text_of(name), re.MULTILINE)) for name in READMES]
    assert rows[0] == rows[1], "tables"


def test_the_readme_lists_every_notebook() -> None:
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        for name in READMES:
            assert f"notebooks/{path.name}" in text_of(name), f"{name} lacks {path.name}"


def test_one_version_everywhere() -> None:
    from cliplab import __version__

    assert yaml.safe_load(text_of("CITATION.cff"))["version"] == __version__
    newest = re.search(r"^## (\S+)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert newest
    assert newest[1] == __version__
    assert yaml.safe_load(text_of("CITATION.cff"))["license"] == project()["license"]
    assert "Apache License" in text_of("LICENSE")


def test_hooks_are_local() -> None:
    config = yaml.safe_load(text_of(".pre-commit-config.yaml"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook["entry"] for hook in config["repos"][0]["hooks"]}
    assert {"ruff-format", "ruff", "codespell", "house"} <= set(hooks)
    for entry in hooks.values():
        for path in re.findall(r"tests/\S+\.py", entry):
            assert (ROOT / path).is_file()


def test_texts_are_spelt_right() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout


def test_model_cards_name_their_files(tracked: list[Path]) -> None:
    for card in sorted((ROOT / "data" / "checkpoints").glob("*/model_card.json")):
        files = json.loads(card.read_text(encoding="utf-8"))["files"]
        assert files
        for name in files:
            assert (card.parent / name) in tracked, f"{card.parent.name}/{name} is not committed"
