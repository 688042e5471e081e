"""A notebook as a piece of HTML that needs no network: mathematics as MathML, pictures inside.

nbconvert's own pages fetch MathJax from the network to draw mathematics, and MathJax is some
megabytes to carry along. Browsers draw MathML by themselves, on screen and on paper, so formulas
are translated here, once, by latex2mathml.
"""

import copy
import re
from html import escape
from typing import Any

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

_ALIGNED = re.compile(r"\\(begin|end)\{(?:aligned|align|align\*|split|gathered|gather)\}")
_WRAPPED = re.compile(
    r"\\(?:begin|end)\{(?:equation|equation\*|displaymath|math)\}|\\(?:tag|label)\{[^}]*\}"
)
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
    source = _WRAPPED.sub("", latex).strip()
    source = _ALIGNED.sub(
        lambda m: r"\begin{array}{rl}" if m[1] == "begin" else r"\end{array}", source
    )
    try:
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
    """Markdown with MathML, and with anchors that are unique on a page of several notebooks."""

    prefix = ""

    def block_math(self, body: str) -> str:
        """A displayed formula."""
        return to_mathml(body, display=True)

    def inline_math(self, body: str) -> str:
        """A formula in the text."""
        return to_mathml(body)

    def latex_environment(self, name: str, body: str) -> str:
        """A displayed formula written as an environment."""
        return to_mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        """A heading, one level lower than in the notebook: the page has a title of its own."""
        anchor = anchor_of(self.prefix, re.sub(r"<[^>]+>", "", text))
        lower = min(level + 1, 6)
        return f'<h{lower} id="{anchor}">{text}</h{lower}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """A link; one into a notebook leads to its place on this page."""
        if match := re.fullmatch(r"(?:\./)?([\w-]+)\.ipynb(?:#(.*))?", url):
            url = "#" + anchor_of(match[1], match[2] or "")
        elif url.startswith("#"):
            url = "#" + anchor_of(self.prefix, url[1:])
        return super().link(text, url, title)


def anchor_of(notebook: str, heading: str) -> str:
    """Anchor on the page for a heading of a notebook ("": of the notebook itself)."""
    words = re.sub(r"[^\w\u4e00-\u9fff]+", "-", heading).strip("-").lower()
    return f"{notebook}--{words}" if words else notebook


class PageExporter(HTMLExporter):
    """Body of one notebook, without a head and without scripts."""

    prefix = ""

    @property
    def default_config(self) -> Config:
        """Pictures inside, and no output that needs a script."""
        own = Config({"HTMLExporter": {"embed_images": True, "exclude_anchor_links": True}})
        base = super().default_config
        base.merge(own)
        return base

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Markdown cells through our renderer."""
        renderer = Renderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=True,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            exclude_anchor_links=True,
        )
        renderer.prefix = self.prefix
        return MarkdownWithMath(renderer=renderer).render(source)


def describe_figures(notebook: Any) -> None:
    """Give each figure, for those who cannot see it, the description in italics below it."""
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if cell.cell_type == "code" and "alt" not in cell.metadata:
            words = following.source.strip() if following is not None else ""
            text = re.match(r"\*([^*].*?)\*(?:\n\n|$)", words, re.DOTALL)
            cell.metadata["alt"] = (
                re.sub(r"[$`*\\]", "", text[1]).replace("\n", " ")
                if text and following.cell_type == "markdown"
                else "a figure, see the text around it"
            )


def to_html(notebook: Any, *, name: str, folder: str) -> str:
    """HTML of a notebook's cells; `folder` is where its pictures are looked for."""
    notebook = copy.deepcopy(notebook)
    describe_figures(notebook)
    exporter = PageExporter(template_name="basic")
    exporter.prefix = name
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"path": folder}})
    return body
