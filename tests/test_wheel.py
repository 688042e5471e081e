"""A built wheel without its checkout: code and templates are there, data are asked for."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what the wheel holds lies, as pip would put it."""
    place = tmp_path_factory.mktemp("wheel")
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    copy = place / "source"  # building leaves folders behind
    copy.mkdir()
    for name in ("cliplab", "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-c", build, str(place)], cwd=copy, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place / "site")
    return place / "site"


def call(installed: Path, place: Path, *words: str, data: Path | None = None) -> tuple[int, str]:
    """Exit code and output of a command of the wheel, called from `place`."""
    known = {k: v for k, v in os.environ.items() if k != "CLIPLAB_DATA"}
    known |= {"PYTHONPATH": str(installed), "CLIPLAB_OFFLINE": "1", "CLIPLAB_CACHE": str(place)}
    known |= {"CLIPLAB_DATA": str(data)} if data else {}
    done = subprocess.run(
        [sys.executable, "-m", "cliplab", *words],
        cwd=place, env=known, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_wheel_holds_every_file_of_the_package(installed: Path) -> None:
    def files(root: Path) -> set[str]:
        found = (path.relative_to(root) for path in (root / "cliplab").rglob("*"))
        return {p.as_posix() for p in found if p.suffix and "__pycache__" not in p.parts}

    listed = {name for name in files(ROOT) if (ROOT / name).is_file()}
    assert listed - files(installed) <= {"cliplab/report/fonts/README.md"}


def test_without_a_checkout_each_command_says_what_to_get(installed: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    for words in (["classify", ".", "--labels", "a", "b"], ["run", "01"]):
        code, said = call(installed, tmp_path, *words)
        assert (code, said.count("\n")) == (2, 1), said
        assert "get a checkout, and set $CLIPLAB_DATA to the folder `data` in it" in said


def test_with_the_data_of_a_checkout_all_is_there(installed: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "green").save(tmp_path / "a.png")
    page = ["--html", "page.html"]
    code, said = call(
        installed, tmp_path, "classify", ".", "--labels", "sheep", "goat", *page,
        data=ROOT / "data",
    )  # fmt: skip
    assert code == 0, said
    assert (tmp_path / "page.html").is_file()
    code, said = call(installed, tmp_path, "slides", "06", "--out", "s.html", data=ROOT / "data")
    assert (code, (tmp_path / "s.html").is_file()) == (0, True), said
