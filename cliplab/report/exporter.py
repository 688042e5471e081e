"""Notebooks as pieces of HTML that need no network and run nothing: MathML, pictures inside.

nbconvert's own pages fetch MathJax from the network to draw mathematics, and MathJax is some
megabytes to carry along. Browsers draw MathML by themselves, on screen and on paper, so formulas
are translated here, once, by latex2mathml. A notebook may come from anybody: what it may put into
the page is listed here, and bleach, at the end, lets nothing else through.
"""

import base64
import copy
import json
import mimetypes
import re
from collections.abc import Collection, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bleach import Cleaner
from bleach.css_sanitizer import ALLOWED_CSS_PROPERTIES, CSSSanitizer
from bs4 import BeautifulSoup
from bs4.element import Tag
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

# What latex2mathml leaves to the browser's operator dictionary, and TeX does otherwise.
_REPAIRS = (
    (r"<mo>(&#x02016;|&#x0007C;|\|)</mo>", r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>'),
    (r"<mo>(/|&#x0002F;)</mo>", r'<mo lspace="0" rspace="0">\1</mo>'),
    # a minus behind a relation, a bracket or a comma is a sign
    (
        r"(<mo[^>]*>(?:&#x0003D;|=|&#x00028;|\(|&#x0002C;|,|\[|&#x0005B;|&#x0003C;|&#x0003E;)</mo>"
        r"(?:<mrow>)?)<mo>(&#x02212;|-)</mo>",
        r'\1<mo form="prefix">\2</mo>',
    ),
    # a thin space behind the name of a function, unless a bracket follows, or an index that would
    # then count one child too many
    (
        r"(?<!<msub>)(?<!<msup>)(?<!<munder>)(?<!<msubsup>)"
        r"(<m[io]>(?:log|exp|max|min|sin|cos|ln|softmax|arg|tr|dim)</m[io]>)(?!<mo stretchy)",
        r'\1<mspace width="0.17em"/>',
    ),
)


def to_mathml(latex: str, *, display: bool = False) -> str:
    """A formula as MathML; as code, to be read at least, where the translation does not know it."""
    try:
        source = latex.strip().replace("{aligned}", "{align*}")  # the library knows only the latter
        mathml = convert(source, display="block" if display else "inline")
    except Exception:  # the library raises its own kinds, and IndexError and others besides
        mathml = "\\"
    # what it does not know it hands through, with the backslash or the ampersand
    if "\\" in mathml or "<mi>&</mi>" in mathml:
        return f'<code class="latex">{escape(latex.strip())}</code>'
    for pattern, replacement in _REPAIRS:
        mathml = re.sub(pattern, replacement, mathml)
    return mathml


class Renderer(IPythonRenderer):
    """Markdown with MathML."""

    def block_math(self, body: str) -> str:
        """A displayed formula."""
        return to_mathml(body, display=True)

    def inline_math(self, body: str) -> str:
        """A formula in the text."""
        return to_mathml(body)

    def latex_environment(self, name: str, body: str) -> str:
        """A displayed formula written as an environment."""
        return to_mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """A picture; an attachment that is not there keeps its address, to be named."""
        name = unquote(url)
        if name.startswith("attachment:") and name[11:] not in self.attachments:
            return f'<img src="{escape(name)}" alt="{text}">'
        return super().image(text, name if name.startswith("attachment:") else url, title)


def anchor_of(notebook: str, heading: str) -> str:
    """Anchor on the page for a heading of a notebook ("": of the notebook itself)."""
    words = re.sub(r"[^\w\u4e00-\u9fff]+", "-", heading).strip("-").lower()
    return f"{notebook}--{words}" if words else notebook


class PageExporter(HTMLExporter):
    """Body of one notebook, without a head and without scripts."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Markdown cells through our renderer."""
        attachments = context.get("cell", {}).get("attachments", {})
        return to_html(source, attachments)


def to_html(source: str, attachments: dict[str, Any] | None = None) -> str:
    """HTML of Markdown, as it was written: nothing is checked or embedded yet."""
    renderer = Renderer(escape=False, attachments=attachments or {}, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(source)


def prepare(notebook: Any) -> None:
    """Name outputs that no page can show, and describe figures by the words in italics below."""
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        for output in cell.get("outputs", []):
            if (data := output.get("data")) and not data.keys() & set(_KINDS):
                data["text/plain"] = f"left out: {', '.join(data)}"
        if cell.cell_type == "code" and "alt" not in cell.metadata:
            words = following.source.strip() if following is not None else ""
            text = re.match(r"\*([^*].*?)\*(?:\n\n|$)", words, re.DOTALL)
            cell.metadata["alt"] = (
                re.sub(r"[$`*\\]", "", text[1]).replace("\n", " ")
                if text and following.cell_type == "markdown"
                else "a figure, see the text around it"
            )


def chapters(notebooks: Mapping[str, tuple[Any, Path]]) -> dict[str, str]:
    """HTML of the cells of each notebook, safe to show, whoever wrote them.

    Args:
        notebooks: name -> the notebook, and the folder where its pictures are looked for.
    """
    bodies = {name: _body(name, *given) for name, given in notebooks.items()}
    anchors = {str(tag["id"]) for body in bodies.values() for tag in body(id=True)} | bodies.keys()
    return {name: _cleaned(body, name, anchors) for name, body in bodies.items()}


@cache
def _exporter() -> PageExporter:
    kinds = {"display_data_priority": list(_KINDS)}  # none that needs a script
    config = Config({"HTMLExporter": {"exclude_anchor_links": True}, "NbConvertBase": kinds})
    return PageExporter(template_name="basic", config=config)


def _body(name: str, notebook: Any, folder: Path) -> BeautifulSoup:
    """A notebook's cells with pictures inside, and ids that no other has."""
    notebook = copy.deepcopy(notebook)
    prepare(notebook)
    html, _ = _exporter().from_notebook_node(notebook)
    body, seen = BeautifulSoup(html, "html.parser"), set()
    for image in body("img"):
        address = str(image.get("src", ""))
        if not address.startswith("data:"):
            _embed(image, address, picture(address, folder))
    for heading in body(re.compile("^h[1-6]$")):
        heading.attrs.setdefault("id", heading.get_text())
        heading.name = f"h{min(int(heading.name[1]) + 1, 6)}"  # the page has a title of its own
    for tag in body(id=True):
        own = tag["id"] = anchor_of(name, str(tag["id"]))
        if own in seen or own == name:
            del tag["id"]
        seen.add(own)
    return body


# ---- pictures ------------------------------------------------------------------------------

_NO_WORDS = "No description has been provided for this image"  # nbconvert's own


def picture(address: str, folder: Path) -> Path | None:
    """The file that a notebook in `folder` shows; None if it is none, or not of the same run.

    A run is the folder around its notebooks: what lies beyond is not for others to see.
    """
    parts = urlsplit(address)
    path = (folder / unquote(parts.path)).resolve()
    mine = not parts.scheme and not parts.netloc and path.is_relative_to(folder.resolve().parent)
    return path if mine and (mimetypes.guess_type(path)[0] or "").startswith("image/") else None


def addresses(notebook: Any) -> set[str]:
    """Addresses of the pictures that the text of a notebook shows."""
    texts = [to_html(cell.source) for cell in notebook.cells if cell.cell_type == "markdown"]
    images = BeautifulSoup("".join(texts), "html.parser")("img", src=True)
    return {str(image["src"]) for image in images}


def _embed(image: Tag, address: str, path: Path | None) -> None:
    if path and path.is_file():
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        image["src"] = f"data:{mimetypes.guess_type(path)[0]};base64,{content}"
    else:
        words = str(image.get("alt", "")).replace(_NO_WORDS, "")
        _replace(image, f"picture missing: {words} ({address})")


# ---- what may come into the page -----------------------------------------------------------

_KINDS = (
    "text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/latex",
    "text/plain",
)  # fmt: skip
_ALLOWED = json.loads(
    (Path(__file__).parent / "templates" / "allowed.json").read_text(encoding="utf-8")
)
_STYLES = ALLOWED_CSS_PROPERTIES - {"cursor"} | {"padding", "max-width"}


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return tag == "img" and value.startswith("data:image/")
    if name == "href":
        return tag == "a" and value.startswith(("https:", "http:", "mailto:", "#"))
    return name in _ALLOWED["attributes"]


def _cleaned(body: BeautifulSoup, name: str, anchors: Collection[str]) -> str:
    """HTML of a body without what runs, loads or leads nowhere; what is left out is named."""
    for sheet in body("style"):
        sheet.decompose()
    for tag in body(["script", "svg", "iframe", "object", "embed", "audio", "video"]):
        _replace(tag, f"left out: {tag.name}")
    for link in body("a"):
        address = str(link.get("href", ""))
        if place := _place(address, name, anchors):
            link["href"] = place
        else:
            link.name, words = "span", link.get_text()
            link.append(f" ({unquote(address)})" if address not in ("", words) else "")
    css, schemes = CSSSanitizer(_STYLES), ["https", "http", "mailto", "data"]
    cleaner = Cleaner(_ALLOWED["tags"], attributes=_allowed, protocols=schemes, css_sanitizer=css)
    return cleaner.clean(str(body))


def _place(address: str, name: str, anchors: Collection[str]) -> str:
    """Where a link of the notebook `name` leads: on this page, into the web, "" if nowhere."""
    if address.startswith(("https:", "http:", "mailto:")):
        return address
    match = re.fullmatch(r"(?:\./)?(?:([^/#]+)\.ipynb)?(?:#(.*))?", unquote(address))
    chapter = (match[1] or name) if match and address else ""
    here = (anchor_of(chapter, (match and match[2]) or ""), chapter)
    return next((f"#{anchor}" for anchor in here if anchor in anchors), "")


def _replace(tag: Tag, words: str) -> None:
    tag.clear()
    tag.name, tag.attrs, tag.string = "span", {"class": "missing"}, words
