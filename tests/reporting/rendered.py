"""Markdown, rendered by the library that GitHub renders it with."""

import re
from html.parser import HTMLParser

import cmarkgfm
from cmarkgfm.cmark import Options

TAGS = {"h1", "h2", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "details", "summary"}
"""What our own Markdown is made of, besides the picture."""

FOUND_BY_GITHUB = re.compile(r"@\w|#\d|\bGH-\d|\b[0-9a-f]{7,40}\b|:[\w+-]+:|\$|https?:|www\.", re.IGNORECASE)
"""What GitHub links, notifies or draws, outside of code: mentions, references, commits, emoji, formulas, addresses."""

HOSTILE = (
    "@someone see #12, GH-12 and org/repo#1",
    "0123456789abcdef0123456789abcdef01234567 :+1: [^1] ~~a~~ under_$50_$100 $x$",
    "<!-- ad --> fine <details> </table> <img src=x onerror=alert(1)>",
    "![](http://example.org/x.png) www.example.org me@example.org &lt;",
    "`code` ``two`` a | b \\| c **d** _e_ \\",
    "line\u2028sep\u2029par\rnel\x85end\x0bpage\n\n# heading\n---\n```",
    "\x1b[31mred\x07 \x00 \x9b0m \u202edesrever \U0001f600 \u05d0\u200f",
    "</script><!--<script>",
)
"""Texts that would be markup, or would control a terminal."""


class Rendered(HTMLParser):
    """A page: its tags, the texts that stand in code, and the text elsewhere."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.code: list[str] = []
        self.prose = ""
        self.open: list[str] = []
        options = Options.CMARK_OPT_UNSAFE | Options.CMARK_OPT_FOOTNOTES  # nothing is left out for safety
        self.feed(cmarkgfm.github_flavored_markdown_to_html(markdown, options=options))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "code":
            self.code.append("")
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "code" in self.open:
            self.code[-1] += data
        else:
            self.prose += data

    def handle_comment(self, data):
        self.tags.append("comment")
