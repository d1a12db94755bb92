"""A report: an executed notebook as one page for a manager. No code, no network; whatever came from the CRM stays text.

Own template instead of nbconvert's: that page loads scripts from outside, drops plotly's output and cannot be sanitized without losing its figures.
"""

import base64
import hashlib
import json
import os
import re
from datetime import datetime
from html import unescape
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import nbformat
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from workbench.report.safe import page_json, safe_figure, safe_html, safe_markdown, shown

PLOTLY, WIDGET, RESULTS = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json", "application/vnd.workbench.results+json"
SKIPPED = {"no-report", "papermill-error-cell-tag"}  # tags of cells that a report leaves out
EXPLORABLE = Markup('<p class="wb-aside">This part can be explored in JupyterLab.</p>')
FOLDER, MAX_TRACEBACK = Path(__file__).parent, 40  # lines
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MARKS = re.compile(r"</?(?:br|b|i|sub|sup)>")
_PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/]+={0,2}")  # base64 of the eight bytes that begin a PNG
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)


def export_report(notebook: Path, reports: Path, *, record: dict, standalone: bool = False) -> Path:
    """Write the page of an executed notebook into the folder `reports` and return its path.

    record: the run's record, whose `name` names the page. standalone: everything in one file to mail, without links to other reports.
    Figures are drawn by assets/plotly-VERSION.min.js, which is written once. A failed or refused run gives a page too: its error, then what came of it.
    """
    page = _Page(record, reports, standalone)
    for cell in nbformat.read(notebook, as_version=4).cells if notebook.exists() else []:
        if not SKIPPED & set(cell.metadata.get("tags", [])):
            page.add(cell)
    scripts, shared = [(FOLDER / "page.js").read_text(encoding="utf-8")] if page.figures else [], ""
    if page.figures and standalone:
        scripts.insert(0, get_plotlyjs())
    elif page.figures:
        shared = f"assets/plotly-{get_plotlyjs_version()}.min.js"
        if not (reports / shared).exists():
            write_whole(reports / shared, get_plotlyjs())
    return write_whole(reports / f"{record['name']}.html", render("page.html.j2", scripts, page=page, record=record, standalone=standalone, plotly=shared,
                                                                  figures=page_json({"figures": page.figures, "templates": page.templates})))


def render(template: str, scripts: list[str] | None = None, **values: Any) -> str:
    """A page of this folder's templates: autoescaped, texts masked, with a policy that runs `scripts` only and loads nothing from outside."""
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts or []]
    allowed = " ".join(["script-src", *hashes, "'strict-dynamic'; "]) if hashes else ""  # strict-dynamic: our script may load the shared file, from disk too
    policy = f"default-src 'none'; {allowed}style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    jinja = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                        finalize=lambda value: shown(value) if type(value) is str else value)
    jinja.filters |= {"moment": moment, "plain": plain}
    return jinja.get_template(template).render(css=Markup((FOLDER / "report.css").read_text(encoding="utf-8")), policy=Markup(policy),
                                               scripts=[Markup(s) for s in scripts or []], **values)


def write_whole(target: Path, text: str) -> Path:
    """Write a file at once: whoever opens it sees the old one or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("wb", dir=target.parent, prefix=".", suffix=target.suffix, delete=False) as file:
        file.write(text.encode("utf-8", "replace"))
    os.chmod(file.name, 0o644)
    return Path(file.name).replace(target)


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


class _Page:
    """What stands on a page. `parts`, in order: ("html", html), ("figure", number, label, title, height) or ("image", base64, label)."""

    def __init__(self, record: dict, reports: Path, standalone: bool):
        self.title, self.lead, self.heading, self.traceback = record.get("title") or record["name"], Markup(""), "", ""
        self.parts: list[tuple] = []
        self.figures: list[dict] = []
        self.templates: list[dict] = []  # figures share them
        self.started, self.reports, self.standalone = False, reports, standalone
        self.suffix = record["name"].removeprefix(Path(record.get("notebook") or record["name"]).stem)

    def link(self, address: str) -> str | None:
        """Where a link leads: another notebook's report, with this run's parameters where there is one; a page to mail has no neighbours."""
        if address.startswith(("https:", "#")):
            return address
        stem = address.rsplit(".", 1)[0]
        alike = f"{stem}{self.suffix}.html"
        return None if self.standalone else alike if (self.reports / alike).exists() else f"{stem}.html"

    def add(self, cell: nbformat.NotebookNode) -> None:
        if cell.cell_type == "markdown":
            self._add_words(cell.source)
        elif cell.cell_type == "code":
            parts = [part for output in cell.outputs if (part := self._part(output))]
            self.parts += [p for p in parts if p[1] is not EXPLORABLE] or parts[:1]  # a widget beside something static needs no word

    def _add_words(self, source: str) -> None:
        found = _HEADING.search(source)
        self.heading = re.sub(r"[*`]", "", found[1]) if found else self.heading
        if found is None or self.started:
            words = safe_markdown(source, self.link, written=True)
            self.parts += [("html", words)] if words.strip() else []
        else:  # the first heading is the page's title, what stands around it the lead
            self.title, self.started = self.heading, True
            self.lead = safe_markdown(source[:found.start()] + source[found.end():], self.link, written=True)

    def _part(self, output: nbformat.NotebookNode) -> tuple | None:
        """What a manager sees of one output: the best of its forms; no progress, no warnings, no results for the record."""
        if output.output_type == "error":
            lines = _ANSI.sub("", "\n".join(output.traceback)).splitlines()
            self.traceback = "\n".join(lines[-MAX_TRACEBACK:])
        forms: dict[str, Any] = {kind: value if kind == PLOTLY or isinstance(value, str) else "".join(value) for kind, value in output.get("data", {}).items() if RESULTS not in output.data}
        png, text = re.sub(r"\s", "", forms.get("image/png", "")), forms.get("text/plain", "")
        if PLOTLY in forms:
            return self._figure(forms[PLOTLY])
        if html := safe_html(forms.get("text/html", ""), self.link).strip():
            return "html", html
        if _PNG.fullmatch(png):
            return "image", png, self.heading
        if "text/markdown" in forms:
            return "html", safe_markdown(forms["text/markdown"], self.link)
        if WIDGET in forms:
            return "html", EXPLORABLE
        return ("html", Markup("<pre>{}</pre>").format(shown(_ANSI.sub("", text)))) if text not in ("", "None") else None

    def _figure(self, figure: dict) -> tuple:
        made = safe_figure(figure)
        if made is None:
            return "html", EXPLORABLE
        drawn, template = made
        if template not in self.templates:
            self.templates.append(template)
        title = drawn["layout"].pop("title", None) or ""  # told by the page, which can wrap it
        title = unescape(_MARKS.sub(" ", str(title.get("text") or "" if isinstance(title, dict) else title))).strip()
        self.figures.append(drawn | {"template": self.templates.index(template)})
        return "figure", len(self.figures) - 1, title or self.heading, title, drawn["layout"].get("height") or 380
