"""A report: an executed notebook as one page for a manager. No code, no network; whatever came from the CRM stays text.

Own template instead of nbconvert's: that page loads scripts from outside, drops plotly's output and cannot be sanitized without losing its figures.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from workbench.report.safe import page_json, safe_figure, safe_html, safe_markdown, shown

PLOTLY, WIDGET, RESULTS = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json", "application/vnd.workbench.results+json"
SKIPPED = {"no-report", "papermill-error-cell-tag"}  # tags of cells that a report leaves out
EXPLORABLE = Markup('<p class="wb-aside">This part can be explored in JupyterLab.</p>')
MAX_TRACEBACK = 40  # lines
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/]+={0,2}")  # base64 of the eight bytes that begin a PNG
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)


def export_report(notebook: Path, reports: Path, *, record: dict, standalone: bool = False) -> Path:
    """Write the page of an executed notebook into the folder `reports` and return its path.

    record: the run's record, whose `name` names the page. standalone: everything in one file to mail, without links to other reports.
    Figures are drawn by assets/plotly-VERSION.min.js, which is written once. A failed or refused run gives a page too: its error, then what came of it.
    """
    cells = nbformat.read(notebook, as_version=4).cells if notebook.exists() else []
    page = _Page(_linker(record, reports, standalone))
    for cell in cells:
        if not SKIPPED & set(cell.metadata.get("tags", [])):
            page.add(cell)
    library = get_plotlyjs() if page.figures else ""
    if library and not standalone:
        shared = f"assets/plotly-{get_plotlyjs_version()}.min.js"
        if not (reports / shared).exists():
            write_whole(reports / shared, library)
    target = reports / f"{record['name']}.html"
    scripts = [Markup(library)] if library and standalone else []
    scripts += [Markup((Path(__file__).parent / "page.js").read_text(encoding="utf-8"))] if page.figures else []
    return write_whole(target, render("page.html.j2", scripts=scripts, record=record, title=page.title or record.get("title") or record["name"], lead=page.lead,
                                      parts=page.parts, traceback=page.traceback, standalone=standalone, plotly="" if standalone or not library else shared,
                                      figures=page_json({"figures": page.figures, "templates": page.templates}) if page.figures else ""))


def render(template: str, *, scripts: list[Markup], **values: Any) -> str:
    """A page of this folder's templates: autoescaped, texts masked, and with a policy that runs `scripts` only and loads nothing."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    allowed = f"script-src {hashes} 'strict-dynamic'; " if scripts else ""  # strict-dynamic: our script may fetch the shared plotly file, from disk too
    policy = f"default-src 'none'; {allowed}style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    folder = Path(__file__).parent
    jinja = Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                        finalize=lambda value: shown(value) if type(value) is str else value)
    jinja.filters |= {"moment": moment, "plain": plain}
    css = Markup((folder / "report.css").read_text(encoding="utf-8"))
    return jinja.get_template(template).render(css=css, policy=Markup(policy), scripts=scripts, **values)


def write_whole(target: Path, text: str) -> Path:
    """Write a file at once: whoever opens it sees the old one or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=target.suffix)
    with os.fdopen(handle, "wb") as file:
        file.write(text.encode("utf-8", "replace"))
    os.chmod(name, 0o644)
    os.replace(name, target)
    return target


def moment(value: Any) -> str:
    """An instant in words; the end of a UTC day is told as the day.

    >>> moment("2026-03-31T23:59:59.999999"), moment("2026-03-31T12:59:00"), moment(None), moment("soon")
    ('31 March 2026', '31 March 2026, 12:59 UTC', '', 'soon')
    """
    try:
        at = datetime.fromisoformat(str(value or ""))
    except ValueError:
        return str(value or "")
    day = f"{at.day} {at:%B %Y}"
    return day if (at.hour, at.minute) == (23, 59) or len(str(value)) == 10 else f"{day}, {at:%H:%M} UTC"


def plain(value: Any) -> str:
    """A parameter's or a card's value as text.

    >>> plain("demo"), plain(None), plain(12000), plain(0.25), plain(["a", 1])
    ('demo', '–', '12,000', '0.25', '["a", 1]')
    """
    if value is None or value == "":
        return "–"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _linker(record: dict, reports: Path, standalone: bool) -> Callable[[str], str | None]:
    """A link to another notebook leads to its report, with this run's parameters where there is one; a file to mail has no neighbours."""
    suffix = record["name"].removeprefix(Path(record.get("notebook") or record["name"]).stem)

    def link(address: str) -> str | None:
        if address.startswith(("https:", "#")):
            return address
        stem = address.rsplit(".", 1)[0]
        alike = f"{stem}{suffix}.html"
        return None if standalone else alike if suffix and (reports / alike).exists() else f"{stem}.html"

    return link


class _Page:
    """The parts of a page in their order: ("html", Markup), ("figure", number, label, title, height) or ("image", base64, label); figures and the templates they share."""

    def __init__(self, link: Callable[[str], str | None]):
        self.title, self.lead, self.heading, self.link = "", Markup(""), "", link
        self.parts: list[tuple] = []
        self.figures: list[dict] = []
        self.templates: list[dict] = []
        self.traceback = ""

    def add(self, cell: nbformat.NotebookNode) -> None:
        if cell.cell_type == "markdown":
            self._add_words(cell.source)
        elif cell.cell_type == "code":
            parts = [part for output in cell.outputs for part in self._shown(output)]
            alone = all(part is EXPLORABLE for _, part, *_ in parts)
            seen = [p for p in parts if p[1] is not EXPLORABLE]
            self.parts += parts[:1] if parts and alone else seen

    def _add_words(self, source: str) -> None:
        first = not self.title and not self.parts
        if heading := _HEADING.search(source):
            if first:
                self.title = re.sub(r"[*`]", "", heading[1])
                source = source[:heading.start()] + source[heading.end():]
            self.heading = re.sub(r"[*`]", "", _HEADING.findall(source)[-1] if not first else heading[1])
        words = safe_markdown(source, self.link, written=True)
        if first and self.title:
            self.lead = words
        elif words.strip():
            self.parts.append(("html", words))

    def _shown(self, output: nbformat.NotebookNode) -> Iterator[tuple]:
        """What a manager sees of one output: the best of its forms; no progress, no warnings."""
        if output.output_type == "error":
            lines = _ANSI.sub("", "\n".join(output.traceback)).splitlines()
            self.traceback = "\n".join(lines[-MAX_TRACEBACK:]) or f"{output.ename}: {output.evalue}"
            return
        data = output.get("data", {})
        if output.output_type == "stream" or RESULTS in data:
            return
        if PLOTLY in data:
            yield self._figure(data[PLOTLY])
        elif "text/html" in data and (html := safe_html(_text(data["text/html"]), self.link)).strip():
            yield "html", html
        elif (png := re.sub(r"\s", "", _text(data.get("image/png", "")))) and _PNG.fullmatch(png):
            yield "image", png, self.heading
        elif "text/markdown" in data:
            yield "html", safe_markdown(_text(data["text/markdown"]), self.link)
        elif WIDGET in data:
            yield "html", EXPLORABLE
        elif "text/plain" in data and _text(data["text/plain"]) not in ("", "None"):
            yield "html", Markup("<pre>{}</pre>").format(shown(_ANSI.sub("", _text(data["text/plain"]))))

    def _figure(self, figure: dict) -> tuple:
        made = safe_figure(figure)
        if made is None:
            return "html", EXPLORABLE
        drawn, template = made
        if template not in self.templates:
            self.templates.append(template)
        title = drawn["layout"].pop("title", None) or ""  # told by the page, which can wrap it
        title = unescape(re.sub(r"</?(br|b|i|sub|sup)>", " ", str(title.get("text") or "" if isinstance(title, dict) else title))).strip()
        self.figures.append(drawn | {"template": self.templates.index(template)})
        return "figure", len(self.figures) - 1, title or self.heading, title, drawn["layout"].get("height") or 380


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)
