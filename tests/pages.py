"""What the tests of HTML pages share: a page as a browser would understand it."""

import re
from html.parser import HTMLParser
from pathlib import Path

from bs4 import BeautifulSoup

PICTURE = "data:image/jpeg;base64,AA=="
TRAP = "\"><script>alert(1)</script><b>'&amp;"  # what a label or a file may be called


class _Whole(HTMLParser):
    """Fails where an element is closed that is not the innermost one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "img", "input", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"


def soup(path: Path) -> BeautifulSoup:
    """A page as it is, nothing checked."""
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def read_page(path: Path) -> BeautifulSoup:
    """A gallery, after checking what holds for every one: whole, self-contained, nothing ran."""
    page, html = soup(path), path.read_text(encoding="utf-8")
    parser = _Whole()
    parser.feed(html)
    assert parser.open == []
    assert not re.search(r"https?:|@import|url\((?!data:|var)", html)
    sources = [tag[key] for key in ("src", "href") for tag in page.find_all(attrs={key: True})]
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    policy = page.select_one("meta[http-equiv=Content-Security-Policy]")
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert len(page.select("script")) == 1  # ours
    assert page.html["lang"] == "en"
    for control in page.select("#find, #sort"):
        assert control["aria-label"]
    assert "prefers-color-scheme: dark" in html
    assert ":focus-visible" in html
    return page


def texts(page: BeautifulSoup, selector: str) -> list[str]:
    """Text of the elements that a selector finds, with single spaces."""
    return [" ".join(tag.get_text().split()) for tag in page.select(selector)]
