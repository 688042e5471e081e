"""The page of a run: nothing in it runs or loads, nothing is lost in silence, all can be read."""

import base64
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from notebook_builder import RUN, code, markdown, write
from pages import soup, texts
from PIL import Image
from pygments.styles import get_style_by_name

from cliplab.report import execute, galleries, page

TEMPLATES = Path(galleries.__file__).parent / "templates"
RESULTS = {"r1": {"zh": 0.123456, "en": 1234.56}}
EVIL = "document.title='ran'"


def run(folder: Path, **chapters: list[Any]) -> Path:
    """A finished run of notebooks with these cells, and its page."""
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    records = {}
    for name, cells in chapters.items():
        write(folder / "notebooks" / f"{name}.ipynb", markdown(f"# {name}\n\nIs it so?"), *cells)
        records[name] = {
            "title": name, "seconds": 1.0, "parameters": {}, "results": RESULTS, "finished": True,
            "notebook": f"notebooks/{name}.ipynb",
        }  # fmt: skip
    return page.write_page(RUN | {"notebooks": records}, folder)


def shows(**data: str) -> Any:
    """A cell with one output; kinds are written a_b for a/b."""
    kinds = {kind.replace("_", "/", 1).replace("__", "+"): text for kind, text in data.items()}
    return code("x", outputs=[nbformat.v4.new_output("display_data", kinds)])


def html(text: str) -> Any:
    return shows(text_html=text)


# ---- nothing runs, nothing loads ---------------------------------------------------------------

TEXTS = (
    f"<script>{EVIL}</script>",
    f"<scr<script>ipt>{EVIL}</script>",
    f'<img src="nowhere.png" onerror="{EVIL}">',
    f'<details open ontoggle="{EVIL}"><summary>s</summary></details>',
    f'<p style="animation: x 1s" onanimationstart="{EVIL}" onclick="{EVIL}">p</p>',
    f'<a href="javascript:{EVIL}">press</a>',
    f'<a href="&#106;ava\tscript:{EVIL}">press</a>',
    f'<a href="data:text/html,<script>{EVIL}</script>">press</a>',
    f'<svg><script>{EVIL}</script><a xlink:href="javascript:{EVIL}"><text>t</text></a></svg>',
    f'<svg onload="{EVIL}"><image href="https://evil.test/x.png"/></svg',
    f'<math><mtext><table><mglyph><style><img src=x onerror="{EVIL}">',
    f'<math><a xlink:href="javascript:{EVIL}">m</a></math>',
    f'<noscript><p title="</noscript><img src=x onerror={EVIL}>">',
    f'<svg></p><style><g title="</style><img src=x onerror={EVIL}>">',
    '<iframe src="https://evil.test" srcdoc="<script>1</script>"></iframe>',
    '<meta http-equiv="refresh" content="0; url=https://evil.test">',
    '<base href="https://evil.test/"><link rel="stylesheet" href="https://evil.test/x.css">',
    '<form action="https://evil.test"><input name="a"><button formaction="//evil.test">b</form>',
    "<style>@import 'https://evil.test/x.css'; p { background: url(https://evil.test/x) }</style>",
    '<p style="background: url(https://evil.test/x.png); position: fixed; cursor: url(//e)">p</p>',
    '<img src="https://evil.test/x.png" srcset="https://evil.test/y.png 2x" alt="spy">',
    '<video src="https://evil.test/v" poster="https://evil.test/p"></video><audio src="//e/x">',
    '<object data="https://evil.test/x"></object><embed src="https://evil.test/x">',
    f'<!-- --!><img src=x onerror={EVIL}><a href="data:text/html,{EVIL}">press</a> -->',
    f"</article></main></body><body onload={EVIL}><script>{EVIL}</script>",
)
OUTPUTS = (
    shows(**{"image_svg__xml": f'<svg xmlns="http://www.w3.org/2000/svg" onload="{EVIL}"/>'}),
    shows(image_png=f'eA==" onerror="{EVIL}"><script>{EVIL}</script>'),
    shows(text_latex=f"$<script>{EVIL}</script>$"),
    shows(text_markdown=f'[x](javascript:{EVIL}) <img src=x onerror="{EVIL}">'),
    shows(text_plain=f"\x1b[1m<script>{EVIL}</script>"),
    shows(application_javascript=EVIL),
    shows(**{"application_vnd.jupyter.widget-view__json": "{}"}),
    shows(**{"text_vnd.mermaid": f"<script>{EVIL}</script>"}),
    code(f"</pre><script>{EVIL}</script>", f'"><script>{EVIL}</script>'),
    markdown(f"$x</annotation><script>{EVIL}</script>$ and $\\nosuch<script>{EVIL}</script>$"),
    markdown(f"# </h1><script>{EVIL}</script> <img src=x onerror={EVIL}>"),
    markdown(f'![" onerror="{EVIL}](nowhere.png) ![x](javascript:{EVIL}) [r]\n\n[r]: vbscript:x'),
    nbformat.v4.new_raw_cell(f"<script>{EVIL}</script>"),
)
ATTACKS = (*map(markdown, TEXTS), *map(html, TEXTS), *OUTPUTS)


def assert_harmless(path: Path) -> None:
    """No script but ours (a report has none), no handler, no address but pictures and links."""
    found = soup(path)
    assert not found(
        ["script", "iframe", "object", "embed", "form", "base", "link", "svg", "style"]
    )
    assert not [tag.name for tag in found(True) if any(key.startswith("on") for key in tag.attrs)]
    assert all(tag["src"].startswith("data:image/") for tag in found(src=True))
    assert all(re.match("https?:|mailto:|#", tag["href"]) for tag in found(href=True))
    loading = {"srcset", "poster", "data", "background", "action", "formaction", "xlink:href"}
    assert not [tag.name for tag in found(True) if loading & set(tag.attrs)]
    assert not [
        tag["style"] for tag in found(style=True) if re.search("url|position", tag["style"])
    ]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hand_in_runs_nothing(tmp_path: Path, attack: Any) -> None:
    path = run(tmp_path, a=[attack])
    policy = soup(path).select_one("meta[http-equiv=Content-Security-Policy]")["content"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert soup(path).select_one("article").find_next_sibling(id="environment")  # nothing torn
    path.write_text(path.read_text("utf-8").partition("</head>")[2], "utf-8")  # our head
    assert_harmless(path)


def test_what_is_good_in_a_hand_in_stays(tmp_path: Path) -> None:
    styled = '<td style="color: #ff0000" colspan="2">1</td>'
    plain = (
        "<style scoped>.dataframe td { color: red }</style><table class='dataframe'><td>2</table>"
    )
    drawing = shows(**{"image_svg__xml": '<svg viewBox="0 0 9 9"/>'})
    text = markdown("$x^2$ <details><summary>more</summary>[out](https://a.b)</details>")
    path = run(tmp_path, a=[html(f"<table>{styled}</table>"), html(plain), drawing, text])
    article = soup(path).article
    assert article.select_one("td[colspan='2']")["style"] == "color: #ff0000;"
    assert texts(article, "td") == ["1", "2"]
    assert article.select_one(".dataframe td").get("style") is None
    assert article.select_one("math msup mn").get_text() == "2"
    assert article.select_one("details summary").get_text() == "more"
    assert article.select_one("a")["href"] == "https://a.b"
    svg = base64.b64decode(article.img["src"].partition(",")[2]).decode()
    assert svg == '<svg viewBox="0 0 9 9"/>'
    assert texts(article, ".missing") == []


def test_results_are_folded_with_three_digits_and_words_explained(tmp_path: Path) -> None:
    page = soup(run(tmp_path, a=[], b=[]))
    outer = page.select_one("#results").find_parent("details")
    assert "open" not in outer.attrs
    assert texts(outer, "td") == ["0.123", "1235"] * 2
    assert texts(outer, "dt") == ["r1", "en"]


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(not chromium(), reason="needs Chromium")
def test_nothing_runs_in_a_browser(tmp_path: Path) -> None:
    path = run(tmp_path, a=list(ATTACKS))
    whole = path.read_text("utf-8")  # what is cleaned needs no policy
    path.write_text(re.sub('<meta http-equiv="Content-Security[^>]*>', "", whole), "utf-8")
    assert "<title>a</title>" in dom(path)


def dom(path: Path) -> str:
    """The page as it stands after its scripts ran."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
    command = [str(chromium()), *flags, "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode()


# ---- pictures ----------------------------------------------------------------------------------


def png(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2), "red").save(path)
    return path


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("![my](my%20pic.png)", "notebooks/my pic.png"),
        ("![my](a/b.jpeg)", "notebooks/a/b.jpeg"),
        ("![my](../x.png)", "x.png"),
        ("![my](%E7%BE%8A.gif)", "notebooks/羊.gif"),
        ('<p><img alt="my" src="./x.png" width="30"></p>', "notebooks/x.png"),
    ],
)
def test_pictures_beside_the_notebook_are_inside_the_page(
    tmp_path: Path, source: str, file: str
) -> None:
    original = png(tmp_path / "made" / file)
    (tmp_path / "made" / "notebooks").mkdir(exist_ok=True)
    notebook = write(tmp_path / "made" / "notebooks" / "a.ipynb", markdown(source))
    (tmp_path / "run" / "notebooks").mkdir(parents=True)
    partial = Path(shutil.copy(notebook, tmp_path / "p.ipynb"))
    assert execute.keep(partial, notebook, tmp_path / "run" / "notebooks", failed=False)
    image = soup(run(tmp_path / "run", a=[markdown(source)])).article.img
    assert base64.b64decode(image["src"].partition("base64,")[2]) == original.read_bytes()
    assert image["alt"] == "my"


@pytest.mark.parametrize(
    "address",
    ["gone.png", "../gone.png", "https://a.b/c.png", "//a.b/c.png", "attachment:gone.png",
     "../../secret.png", "linked.png", "notes.txt", "file:///secret.png"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["![a sheep]({})", '<img src="{}" alt="a sheep">'])
def test_a_picture_that_cannot_be_had_is_named(tmp_path: Path, address: str, form: str) -> None:
    png(tmp_path / "secret.png")
    (tmp_path / "run" / "notebooks").mkdir(parents=True)
    (tmp_path / "run" / "notebooks" / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "run" / "notebooks" / "linked.png").symlink_to(tmp_path / "secret.png")
    article = soup(run(tmp_path / "run", a=[markdown(form.format(address))])).article
    assert texts(article, ".missing") == [f"picture missing: a sheep ({address})"]
    assert not article.select("img")


def test_attachments_are_inside_the_page(tmp_path: Path) -> None:
    cell = markdown("![my](attachment:a%20b.png)")
    content = base64.b64encode(png(tmp_path / "x.png").read_bytes()).decode()
    cell.attachments = {"a b.png": {"image/png": content}}
    image = soup(run(tmp_path, a=[cell])).article.img
    assert (image["src"], image["alt"]) == (f"data:image/png;base64,{content}", "my")


# ---- links, ids, colours -----------------------------------------------------------------------


def test_links_lead_somewhere_and_ids_are_unique(tmp_path: Path) -> None:
    links = markdown(
        "[one](b.ipynb) [two](./b.ipynb#The-end) [three](b.ipynb#nowhere) [four](#Part) "
        "[`five`](solutions/a.ipynb) [six](../data/README.md) [seven](c.ipynb) [#here](#here)"
    )
    parts = [markdown("## Part"), markdown("## Part"), markdown('<b id="here">x</b>')]
    end = nbformat.v4.new_markdown_cell("## The end", id="same")
    page = soup(run(tmp_path, a=[links, *parts, end], b=[end, *parts]))
    ids = [tag["id"] for tag in page(id=True)]
    assert len(ids) == len(set(ids))
    article = page.article
    assert [(tag.get_text(), tag["href"]) for tag in article("a")] == [
        ("one", "#b"), ("two", "#b--the-end"), ("three", "#b"), ("four", "#a--part"),
        ("#here", "#a--here"),
    ]  # fmt: skip
    assert {tag["href"][1:] for tag in page("a")} <= set(ids)
    assert "five (solutions/a.ipynb) six (../data/README.md) seven (c.ipynb)" in article.get_text()


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours written as #rrggbb."""
    lights = []
    for colour in (one, other):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        lights.append(sum(f * c for f, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_code_can_be_read(dark: bool) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w]+): (#\w{6});", css.partition("@media")[0]))
    if dark:
        colours |= dict(
            re.findall(r"--(\w+): (#\w{6});", css.partition("dark) {")[2].partition("* {")[0])
        )
    for name in ("ink", "soft", "accent", "warn"):
        assert min(contrast(colours[name], colours[k]) for k in ("paper", "wash")) >= 4.5, name
    style = get_style_by_name(page.CODE_STYLES[dark])
    pairs = [(d["color"], d["bgcolor"]) for _, d in style if d["color"]]
    assert min(contrast(f"#{c}", f"#{b}" if b else colours["wash"]) for c, b in pairs) >= 4.5
