"""Slides: what is on them, that they load and run nothing of others, that nothing is cut off."""

import base64
import hashlib
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from notebook_builder import code, markdown, stream, write
from pages import soup, texts
from PIL import Image
from test_page import ATTACKS, EVIL, chromium, dom

from cliplab.cli.main import main
from cliplab.report.notebook import find_notebooks


def figure(width: int = 1012, height: int = 400) -> Any:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "png")
    return nbformat.v4.new_output(
        "display_data", {"image/png": base64.b64encode(file.getvalue()).decode()}
    )


LONG = "\n".join(f"step_{i} = {i}" for i in range(20))
PRINTED = [stream("found 12\n")]
LESSON = (
    markdown("# 07 Small\n\n**Question.** Does it run?\n\nPrevious: nothing"),
    markdown("**You will do**\n\n- look"),
    code("SEED = 0  # all", "parameters"),
    code("import this", "setup", outputs=[stream("versions")]),
    markdown("## 1 First\n\nIt has $x^2$ in it."),
    code("plot()", outputs=[stream("drawn\n"), figure()]),
    markdown("*Figure: a black picture.*\n\nIt is black."),
    code(f"{LONG}\nprint('long')", outputs=PRINTED),
    code(LONG, "slide"),
    code("assert 1 == 1", "check"),
    markdown("### Your turn 07.1: write it\n\nWrite `f`.", "exercise"),
    code("def f(): ...", "exercise", outputs=[stream("07.1 not yet")]),
    markdown("### Deeper\n\n**Predict.** How many?"),
    code("n", outputs=PRINTED),
    code("secret()", "skip", outputs=[stream("not for the wall")]),
    markdown("### Check yourself\n\n**a.** Why?", "quiz"),
    markdown("## Exercises\n\n1. *More.*"),
    markdown("## References\n\n- a paper"),
    code("save_results({}, RESULTS_PATH)", "results", outputs=PRINTED),
)


def slides(folder: Path, *cells: Any) -> Path:
    folder.mkdir(exist_ok=True)
    source, out = write(folder / "07_small.ipynb", *cells), folder / "slides.html"
    assert main(["slides", str(source), "--out", str(out), "--force"]) == 0
    return out


def test_what_is_projected(tmp_path: Path) -> None:
    page = soup(slides(tmp_path, *LESSON))
    for hidden in page.select(".prompt, .input"):
        hidden.decompose()
    assert texts(page, "section h2") == [
        *("07 Small", "07 Small", "1 First", "1 First", "1 First"),
        *("Your turn 07.1: write it", "Deeper", "Deeper"),
    ]
    title, goals, drawn, *more, turn, asked, answer = texts(page, "section")
    assert title == "07 Small Question. Does it run?"
    assert goals == "07 Small You will do look"
    assert drawn == "1 First It has x2 in it. drawn Figure: a black picture."
    assert page.select_one("section math msup")
    assert page.select_one("img")["alt"] == "Figure: a black picture."
    assert "It is black. found 12" in more[0]
    assert "step_0 = 0" in more[0] + more[1]  # only of the cell that is tagged
    assert "long" not in "".join(more)
    assert "assert 1 == 1" in more[1]
    assert turn == "1 First Your turn 07.1: write it Write f."
    assert asked == "1 First Deeper Predict. How many?"  # the answer comes with the next
    assert answer == "1 First Deeper n found 12"
    assert not re.search("secret|not for the wall|not yet|a paper|Why", page.get_text())


def test_a_figure_stands_below_what_announces_it(tmp_path: Path) -> None:
    text = "A sentence that goes on and on. " * 20  # 270 pixels
    for drawn, slides_with in ((figure(), [0, 1]), (figure(1160, 150), [1])):
        cells = (markdown(f"## 1 First\n\n{text}\n\nNow see:"), code("plot()", outputs=[drawn]))
        page = soup(slides(tmp_path, *LESSON[:2], *cells))
        _, _, *first = page.select("section")
        assert [len(one("img")) for one in first] == slides_with
        assert first[-1].get_text().split("Now see:")[1:]


def test_the_title_says_what_a_run_was_given(tmp_path: Path) -> None:
    given = code('# Parameters\nSEED = 3\nRESULTS_PATH = "x"', "injected-parameters")
    said = "Given: SEED = 3 . The text describes the run with the defaults."
    for cells, end in ((LESSON[:3], "Does it run?"), ((*LESSON[:3], given), said)):
        page = soup(slides(tmp_path, *cells, *LESSON[3:6]))
        assert page.select_one("section").get_text(" ", strip=True).endswith(end)


def test_the_page_loads_nothing_and_runs_ours_alone(tmp_path: Path) -> None:
    page = soup(slides(tmp_path, *LESSON[:6], *ATTACKS))
    (script,) = page("script")
    digest = base64.b64encode(hashlib.sha256(script.string.encode()).digest()).decode()
    policy = page.select_one("meta[http-equiv=Content-Security-Policy]")["content"]
    assert policy.startswith("default-src 'none'")
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert EVIL not in script.string
    assert not re.search(r"@import|url\((?!['\"]?data:)", "".join(s.string for s in page("style")))
    assert not page(["iframe", "object", "embed", "form", "base", "link", "svg"])
    assert all(tag["src"].startswith("data:image/") for tag in page(src=True))
    assert all(re.match("https?:|mailto:|#", tag["href"]) for tag in page(href=True))
    assert not [tag for tag in page(True) if any(key.startswith("on") for key in tag.attrs)]


def test_what_cannot_be_projected_is_said(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(in_tmp / "07_small.ipynb", markdown("# 07 Small"), code("1 + 1"))
    (in_tmp / "bad.ipynb").write_text("{", encoding="utf-8")
    (in_tmp / "there.html").write_text("mine", encoding="utf-8")
    for words, said in (
        ([str(source)], "was never executed"),
        (["bad.ipynb"], "not a readable notebook"),
        (["99"], "unknown notebook '99'"),
        (["02", "--out", "there.html"], "exists already"),
        (["02", "--out", "."], "a folder"),
        ([str(source), "--out", str(source), "--force"], "would overwrite"),
        ([], "missing"),
    ):
        before = {path: path.read_bytes() for path in in_tmp.iterdir()}
        assert main(["slides", *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert {path: path.read_bytes() for path in in_tmp.iterdir()} == before


@pytest.mark.skipif(not chromium(), reason="needs Chromium")
def test_nothing_of_a_lesson_is_cut_off(tmp_path: Path) -> None:
    lessons, out = find_notebooks(), tmp_path / "a.html"
    sections: list[str] = []
    for lesson in lessons:
        assert main(["slides", str(lesson), "--out", str(out), "--force"]) == 0
        sections += re.findall(r"<section.*?</section>", out.read_text("utf-8"), re.DOTALL)
    whole = out.read_text("utf-8")  # one browser looks at all of them
    start, end = whole.index("<section"), whole.rindex("</section>") + len("</section>")
    out.write_text(whole[:start] + "".join(sections) + whole[end:], "utf-8")
    sizes = sizes_in(out)
    assert len(sizes) == len(sections) > 20 * len(lessons)
    assert min(sizes) >= 0.8  # of the size that can be read from the last row


def sizes_in(path: Path) -> list[float]:
    """How much smaller the page made each slide, so that it fits."""
    page = BeautifulSoup(dom(path), "html.parser")
    return [float(section["data-size"]) for section in page.select(".slides > section")]


@pytest.mark.skipif(not chromium(), reason="needs Chromium")
def test_what_is_too_large_is_made_smaller(tmp_path: Path) -> None:
    rows = "".join(f"| {i} | row |\n" for i in range(26))
    wide = f"$${' + '.join(['x_{long}'] * 24)}$$"
    tables = [markdown(f"## A\n\n| n | what |\n|---|---|\n{rows}"), markdown(f"## B\n\n{wide}")]
    printed = code("x", outputs=[stream("".join(f"row {i}\n" for i in range(36)))])
    sizes = sizes_in(slides(tmp_path, *LESSON[:6], printed, *tables))
    assert sizes[:-2] == [1, 1, 1, 1, 1]  # a long print goes on to the next slide
    assert all(0.5 <= size < 1 for size in sizes[-2:])


@pytest.mark.skipif(not chromium(), reason="needs Chromium")
def test_a_figure_takes_the_room_that_is_left(tmp_path: Path) -> None:
    tall = figure(1000, 800)
    said = markdown("## B\n\n" + "A sentence that is said. " * 7)
    cells = (markdown("## A"), code("a()", outputs=[tall]), said, code("b()", outputs=[tall]))
    page = slides(tmp_path, *LESSON[:2], *cells)
    *_, alone, below = map(int, re.findall(r"--figure: (\d+)px", dom(page)))
    assert 400 <= below < alone == 540
    assert sizes_in(page)[-2:] == [1, 1]
