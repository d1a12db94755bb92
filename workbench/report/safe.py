"""What may enter a report. CRM text is hostile: HTML and Markdown are rebuilt from an allow-list, figures lose every tag but our own.

Output is built anew and never passed through: only listed tags, quoted attributes and escaped text are written, and every tag that is opened is closed.
"""

import math
import re
from collections.abc import Callable
from html import escape, unescape
from typing import Any

import mistune
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

TAGS = set("p h1 h2 h3 h4 h5 h6 ul ol li dl dt dd table thead tbody tfoot tr th td caption details summary code pre blockquote "
           "strong b em i u s del sub sup small span div mark abbr a br hr".split())
VOID = {"br", "hr"}
ATTRIBUTES = {"colspan": "[1-9][0-9]?", "rowspan": "[1-9][0-9]?", "scope": "row|col", "open": "(open)?"}  # beside classes of ours and links
SCROLLS = '<div class="wb-scroll" tabindex="0" role="region" aria-label="Table">'
MAX_TEXT, MAX_DEPTH = 1_000_000, 60  # characters of one output, tags inside each other
# Kinds of trace that plotly.js draws as SVG; the others compile code at run time or fetch maps, which the page's policy forbids.
TRACES = set("bar scatter box violin histogram heatmap contour histogram2d histogram2dcontour pie funnel funnelarea waterfall indicator sankey "
             "sunburst treemap icicle table scatterpolar barpolar scatterternary candlestick ohlc carpet parcats image".split())

_COMMENT = re.compile(r"<!--[^<>]*-->")
_TAG = re.compile(r"(<[a-zA-Z/][^<>]{0,5000}>|<!--[^<>]{0,5000}-->)")
_NAME = re.compile(r"<(/?)([a-zA-Z][\w-]*)")
_ATTRIBUTE = re.compile(r"""(?<=[\s"'])([a-zA-Z-]+)(?:\s{0,9}=\s{0,9}("[^"]{0,5000}"|'[^']{0,5000}'|[^\s"'>]{1,5000}))?""")
_EMAIL = re.compile(r"(?<![\w.+-])([\w.+-])[\w.+-]{0,63}@([\w-]{1,63}(?:\.[\w-]{1,63})+)")
_PHONE = re.compile(r"(?<![\w.])(\+\d)[\d ().-]{6,18}(\d\d)(?!\w)")
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # controls, turned reading directions, half characters
_OUR_TAGS = re.compile(r"&lt;(br|/?(?:b|i|sub|sup|extra))>")
_MIDNIGHT = re.compile(r"^(\d{4}-\d\d-\d\d)(?:T00:00:00(?:\.0+)?)$|^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.0+$")
_LINK = re.compile(r"https://[^\s]+|#[\w-]+|[\w-]+(?:\.ipynb|\.html)(?:#[\w-]+)?")
_CLASS = re.compile(r"wb-[a-z-]+|dataframe")


def shown(text: str) -> str:
    """A text as a report shows it: e-mail addresses and phone numbers masked, invisible characters gone.

    >>> shown("Ann Lee <ann.lee@acme.com>, +61 412 345 678")
    'Ann Lee <a***@acme.com>, +6***78'
    """
    return _PHONE.sub(r"\1***\2", _EMAIL.sub(r"\1***@\2", _UNSEEN.sub("", text)))


class _Rebuilt:
    """Reads any HTML, tag by tag in linear time, and writes what is allowed of it; `link` turns a permitted address into the one to write, or None."""

    def __init__(self, html: str, link: Callable[[str], str | None]):
        self.out: list[str] = []
        self.open: list[str] = []
        self.link, muted = link, ""
        for part in _TAG.split(html):
            found = _NAME.match(part)
            closing, tag = (bool(found[1]), found[2].lower()) if found else (False, "")
            if muted or (tag in ("script", "style") and not closing):
                muted = "" if closing and tag == muted else muted or tag
            elif not tag:
                self.out.append("" if _COMMENT.fullmatch(part) else escape(shown(unescape(part))))
            elif tag in TAGS:
                tag = "h2" if tag == "h1" else tag  # the page has one h1, its title
                self._close(tag) if closing else self._start(tag, _ATTRIBUTE.findall(part))
        self.out += [f"</{tag}>" for tag in reversed(self.open)]

    def _start(self, tag: str, attributes: list[tuple[str, str]]) -> None:
        if len(self.open) < MAX_DEPTH:
            kept = "".join(f' {name}="{escape(value)}"' for name, value in self._kept(tag, attributes).items())
            self.out.append((SCROLLS if tag == "table" else "") + f"<{tag}{kept}>")
            self.open += [] if tag in VOID else ["div", tag] if tag == "table" else [tag]

    def _close(self, tag: str) -> None:
        last = ""
        while tag in self.open and last != tag:
            self.out.append(f"</{(last := self.open.pop())}>")
        if last == "table":
            self.out.append(f"</{self.open.pop()}>")

    def _kept(self, tag: str, attributes: list[tuple[str, str]]) -> dict[str, str]:
        given = {name.lower(): unescape(value.strip("\"'")).strip() for name, value in reversed(attributes)}
        kept = {name: value for name, value in given.items() if name in ATTRIBUTES and re.fullmatch(ATTRIBUTES[name], value)}
        classes = [c for c in given.get("class", "").split() if _CLASS.fullmatch(c)]
        if given.get("style", "").replace(" ", "") == "text-align:right":
            classes.append("wb-num")  # a right-aligned column of a Markdown table
        if tag == "a" and _LINK.fullmatch(given.get("href", "")) and (target := self.link(given["href"])):
            kept |= {"href": target} | ({"rel": "noopener noreferrer", "target": "_blank"} if target.startswith("https:") else {})
        return kept | ({"class": " ".join(classes)} if classes else {})


def safe_html(html: str, link: Callable[[str], str | None] = lambda address: address) -> Markup:
    """HTML rebuilt from the allow-list; tables stand in a box that scrolls sideways.

    >>> print(safe_html('<p onclick="x()">1 &lt; 2 <script>x()</script><a href="javascript:x()">go</a>'))
    <p>1 &lt; 2 <a>go</a></p>
    """
    cut = [f"<p>The rest, {len(html) - MAX_TEXT:,} characters, is left out.</p>"] if len(html) > MAX_TEXT else []
    return Markup("".join(_Rebuilt(html[:MAX_TEXT], link).out + cut))


def safe_markdown(text: str, link: Callable[[str], str | None] = lambda address: address, *, written: bool = False) -> Markup:
    """Markdown as HTML. Tags in it stay text, unless a person wrote it (a cell of the notebook): then they are cleaned.

    >>> print(safe_markdown("**Won** by <img src=x onerror=x()>").strip())
    <p><strong>Won</strong> by &lt;img src=x onerror=x()&gt;</p>
    """
    html = mistune.create_markdown(escape=not written, plugins=["table", "strikethrough"])(text[:MAX_TEXT // 10])
    return safe_html(str(html), link)


def safe_label(text: str, *, data: bool = False) -> str:
    """A text of a figure: plotly.js reads tags and links in any label, so all of them are escaped but those that our own code writes.

    `data`: an item of an array (a name from the CRM), where only a line break is ours.

    >>> safe_label('<b>Won</b><a href="https://x">R&D</a>'), safe_label("<b>R&D</b><br>", data=True)
    ('<b>Won</b>&lt;a href="https://x">R&amp;D&lt;/a>', '&lt;b>R&amp;D&lt;/b><br>')
    """
    if match := _MIDNIGHT.match(text):
        return match[1] or match[2]
    marked = shown(text).replace("&", "&amp;").replace("<", "&lt;")
    return marked.replace("&lt;br>", "<br>") if data else _OUR_TAGS.sub(r"<\1>", marked)


def _safe_values(value: Any, *, data: bool = False) -> Any:
    if isinstance(value, str):
        return safe_label(value, data=data)
    if isinstance(value, dict) and "bdata" not in value:  # numbers in base64
        return {safe_label(str(k), data=True): _safe_values(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_safe_values(v, data=True) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def safe_figure(figure: dict) -> tuple[dict, dict] | None:
    """({data, layout}, template) of a plotly figure's JSON, safe to hand to plotly.js; None where it needs the network, WebGL or frames.

    The template comes apart, since the figures of a page share it. Pictures and widths are left out.
    """
    traces = [dict(t, type=str(t.get("type", "scatter")).removesuffix("gl")) for t in figure.get("data", []) if isinstance(t, dict)]
    if not all(t["type"] in TRACES for t in traces) or figure.get("frames"):
        return None
    layout = {k: v for k, v in figure.get("layout", {}).items() if k not in ("images", "width")}
    told = layout.pop("template", None) or {}
    template = {"data": told.get("data", {}), "layout": {k: v for k, v in told.get("layout", {}).items() if k != "images"}}
    for trace in traces:
        trace.pop("source", None)  # the address of a picture
    return {"data": _safe_values(traces), "layout": _safe_values(layout)}, _safe_values(template)


def page_json(value: Any) -> Markup:
    """JSON that no browser can read as markup: <, >, & and ' are written as escapes, and so is everything beyond ASCII.

    >>> print(page_json(["</script>", "a\u2028b"]))
    ["\\u003c/script\\u003e","a\\u2028b"]
    """
    return htmlsafe_json_dumps(value, separators=(",", ":"), allow_nan=False)
