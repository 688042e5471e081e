"""The first cells of every notebook: parameters as papermill shows them, and wrong ones refused."""

import ast
import logging
from html import escape
from pathlib import Path
from typing import Any

import pytest
from anatomy import LABS, LESSONS, SOLUTIONS
from notebook_builder import RUN, markdown, write
from PIL import Image

from cliplab.report import read_notebook, read_parameters, write_page
from cliplab.report.notebook import tags

ALL = [*LESSONS, *LABS, *SOLUTIONS]
MODEL = {"01": "ENCODER", "02": "ENCODER", "03": "ENCODER", "04": "MODEL", "05": "MODEL"}


def first_cells(number: str, **given: Any) -> dict[str, Any]:
    """What the cells tagged `parameters` and `setup` leave, with other parameters in between."""
    path = next(path for path in [*LESSONS, *LABS] if path.name.startswith(number))
    cells = {tag: c.source for c in read_notebook(path).cells[:4] for tag in tags(c)}
    names: dict[str, Any] = {}
    exec(cells["parameters"], names)
    exec(cells["setup"], names | given, found := {})
    return found


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of pictures, by what is wrong with them."""
    root = tmp_path_factory.mktemp("photos")
    for name in ("good/a", "good/b", "flat", "unreadable"):
        (root / name).mkdir(parents=True)
    for i, place in enumerate(["good/a"] * 3 + ["good/b"] * 3 + ["flat"]):
        Image.effect_noise((40, 40), 20 + 30 * i).save(root / place / f"{i}.png")
    for name in ("good/a", "unreadable"):
        (root / name / "broken.png").write_text("no picture", encoding="utf-8")
    return {name: str(root / name) for name in ("good", "flat", "unreadable", "gone")}


@pytest.mark.parametrize("number", MODEL)
def test_the_defaults_open_what_is_shipped(number: str) -> None:
    found = first_cells(number)
    model = found.get("encoder") or found["asked"]
    assert getattr(model, "name", "pasture") == "pasture"
    assert (found.get("photos"), found.get("photo_set")) == (None, None)


@pytest.mark.parametrize("name", ["openai:ViT-B32", ""])
@pytest.mark.parametrize("number", MODEL)
def test_a_model_that_cannot_be_had_stops_the_first_cells(number: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"parameter {MODEL[number]}: got {name!r}; .{{20}}"):
        first_cells(number, **{MODEL[number]: name})


@pytest.mark.parametrize(
    ("kind", "said"),
    [("gone", "no such file or folder"), ("unreadable", "no picture in it can be read")],
)
@pytest.mark.parametrize("number", ["02", "03", "04", "05"])
def test_every_wrong_value_is_named_at_once(
    number: str, kind: str, said: str, photos: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="parameter PHOTOS: got") as caught:
        first_cells(number, **{MODEL[number]: "openai:ViT-B32", "PHOTOS": photos[kind]})
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"parameter {MODEL[number]}",
        "parameter PHOTOS",
    ]
    assert said in lines[1]


@pytest.mark.parametrize("number", ["02", "03", "04", "05"])
def test_one_readable_picture_is_enough(number: str, photos: dict[str, str]) -> None:
    assert len(first_cells(number, PHOTOS=photos["flat"])["photos"]) == 1
    assert len(first_cells(number, PHOTOS=photos["good"])["photos"]) == 7


def test_what_is_to_be_split_needs_classes(photos: dict[str, str]) -> None:
    split = first_cells("02_lab_few_shot", PHOTOS=photos["good"])["photo_set"]
    assert set(split.splits) == {"train", "val", "test"}
    with pytest.raises(ValueError, match=r"parameter PHOTOS: .*fewer than two classes"):
        first_cells("02_lab_few_shot", PHOTOS=photos["flat"])


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_whoever_changes_a_parameter_reads_what_the_text_describes(path: Path) -> None:
    said = "The text describes the default parameters; with others, trust what is printed."
    assert read_notebook(path).cells[0].source.endswith(said)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_papermill_shows_every_parameter(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from papermill.inspection import inspect_notebook
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    ours = read_parameters(read_notebook(path), path.stem)
    with caplog.at_level(logging.WARNING):
        theirs = inspect_notebook(str(path))
        given, kernel = {name: p.default for name, p in ours.items()}, {"kernel_name": "python3"}
        parameterize_notebook(load_notebook_node(str(path)), given, language="python", **kernel)
    assert caplog.messages == []
    found = {
        name: (p["inferred_type_name"], ast.literal_eval(p["default"]), p["help"])
        for name, p in theirs.items()
    }
    assert found == {n: (type(p.default).__name__, p.default, p.note) for n, p in ours.items()}


@pytest.mark.parametrize("given", [{}, {"QUICK": True}, {"ENCODER": "hf:<x>", "SEED": 3}])
def test_the_cover_tells_when_the_text_is_of_another_run(
    given: dict[str, Any], tmp_path: Path
) -> None:
    write(tmp_path / "01.ipynb", markdown("# 01 T"))
    parameters = {"SEED": 0, "QUICK": False} | given
    record = {"title": "01 T", "seconds": 1.0, "notebook": "01.ipynb", "results": {}}
    state = RUN | {
        "notebooks": {"01": record | {"parameters": parameters}},
        "request": {"parameters": [f"{name}={value}" for name, value in given.items()]},
        "commit": {"id": "0123456789abcdef", "dirty": True},
    }
    html = " ".join(write_page(state, tmp_path).read_text(encoding="utf-8").split())
    cover = html[: html.index("</header>")]
    for name in ("SEED", "QUICK"):
        assert f"<dt>{name}</dt><dd>{parameters[name]}</dd>" in cover
    assert "<dt>Commit</dt><dd>0123456789, changed</dd>" in cover
    assert "The text of the notebooks describes the run with their defaults" in cover
    assert ("This one was given" in cover) == bool(given) == ('class="warning">The' in cover)
    for name, value in given.items():
        assert f"<code>{name}={escape(str(value))}</code>" in cover
