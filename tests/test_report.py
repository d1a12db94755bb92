"""Reports: what a manager sees of a notebook, hostile text stays text, no network; the index; tables."""

import json
import re
import time
from datetime import date
from decimal import Decimal
from pathlib import Path

import nbformat
import pandas as pd
import plotly.graph_objects as go
import pytest

from tests.browser import CHROMIUM, MISSING, Browser, browser
from workbench.report.export import EXPLORABLE, export_report, plain
from workbench.report.index import latest_records, write_index
from workbench.report.safe import TAGS, page_json, safe_figure, safe_html, safe_label, safe_markdown
from workbench.report.tables import Table

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
DRAWN = "document.documentElement.dataset.drawn !== undefined || !document.querySelector('[data-figure]')"
PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
CANARY = "window.canary=(window.canary||0)+1"
PAYLOADS = [
    f"<script>{CANARY}</script>", f"</script><script>{CANARY}</script>", f"<img src=x onerror={CANARY}>", f"<svg onload={CANARY}>", f"<!--<script>{CANARY}//",
    f"\u2028</SCRIPT\t><script>{CANARY}</script>", f'"><img src=x onerror="{CANARY}">', f"' onmouseover='{CANARY}", f"<a href=\"javascript:{CANARY}\">click</a>",
    f"<a href='java\tscript:{CANARY}'>click</a>", f"[click](javascript:{CANARY})", "![x](https://evil.example/x.png)", "<iframe src=https://evil.example></iframe>",
    f"<iframe srcdoc='<script>parent.{CANARY}</script>'></iframe>", "<link rel=stylesheet href=https://evil.example/x.css>",
    "<style>body{background:url(https://evil.example/x)}</style>", '<span style="background:url(https://evil.example/y);cursor:url(https://evil.example/z),auto">x</span>',
    "<meta http-equiv=refresh content='0;url=https://evil.example'>", f"<math><mtext><table><mglyph><style><img src=x onerror={CANARY}>",
    f"</title></style></textarea></noscript></pre></table></main><body onload={CANARY}><base href=https://evil.example/>{{{{7*7}}}}<b>%{{x}}",
]


def _record(name: str = "10_lead_scoring", **changes) -> dict:
    return {"name": name, "notebook": "notebooks/10_lead_scoring.ipynb", "title": "Leads", "status": "ok", "error": None, "started_at": "2026-04-01T06:00:00",
            "ended_at": "2026-04-01T06:01:00", "seconds": 60.0, "parameters": {"as_of": "", "top": 20}, "as_of": "2026-03-31T23:59:59.999999", "source": "demo",
            "lake": "data/lake", "lake_version": 3, "versions": {"pandas": "3.1.1"}, "slot": None, "results": {}, "cards": [], "report": None} | changes


def _shown(data: dict) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", data=data)


def _code(*outputs, source: str = "secret_call()", tags: tuple = ()) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def _figure(figure: go.Figure) -> nbformat.NotebookNode:
    return _shown({PLOTLY: json.loads(figure.to_json())})


def _export(tmp_path: Path, *cells, record: dict | None = None, standalone: bool = False) -> Path:
    cells = [nbformat.v4.new_markdown_cell(c) if isinstance(c, str) else c for c in cells]
    notebook = tmp_path / "run.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    return export_report(notebook, tmp_path / "reports", record=record or _record(), standalone=standalone)


@pytest.fixture(scope="module")
def tab():
    if CHROMIUM is None:
        pytest.skip(MISSING)
    with browser() as tab:
        yield tab


# --- what a manager sees


def test_a_report_shows_title_meta_cards_words_and_footer_but_no_code(tmp_path):
    text = _export(tmp_path, "# Whom to *call*?\nFor the **manager**.", _code(_shown({"text/plain": "41 rows"})), "## Part\nWords.",
                   record=_record(cards=[["Leads", 9240, "open now"]])).read_text(encoding="utf-8")
    assert "<title>Whom to call?</title>" in text and text.count("<h1>") == 1 and "<strong>manager</strong>" in text
    assert all(part in text for part in ("31 March 2026", "Lake version <strong>3</strong>", "9,240", "open now", "<pre>41 rows</pre>", "<h2>Part</h2>", "pandas", "3.1.1", 'lang="en"'))
    assert "secret_call" not in text


def test_progress_warnings_results_and_cells_tagged_no_report_are_left_out(tmp_path):
    text = _export(tmp_path, "# Q", _code(nbformat.v4.new_output("stream", name="stderr", text="noise-a"), nbformat.v4.new_output("stream", text="noise-b")),
                   _code(_shown({"application/vnd.workbench.results+json": {"results": {}}, "text/plain": "noise-c"})),
                   _code(_shown({"text/plain": "noise-d"}), tags=("no-report",))).read_text(encoding="utf-8")
    assert "noise" not in text and "left nothing to show" in text


def test_the_richest_form_of_an_output_is_shown(tmp_path):
    text = _export(tmp_path, "# Q", _code(_shown({"text/html": "<p>rich</p>", "text/plain": "poor"}), _shown({"text/markdown": "*mark*", "text/plain": "poor"}),
                                         _shown({"image/png": "iVBORw0KGgo\nAAAA", "text/plain": "poor"}))).read_text(encoding="utf-8")
    assert "<p>rich</p>" in text and "<em>mark</em>" in text and "data:image/png;base64,iVBORw0KGgoAAAA" in text and "poor" not in text


def test_a_widget_alone_becomes_a_sentence_and_beside_something_static_it_vanishes(tmp_path):
    widget = _shown({WIDGET: {"model_id": "x"}, "text/plain": "IntSlider(value=0)"})
    alone, beside = (_export(tmp_path, "# Q", _code(*outputs)).read_text(encoding="utf-8") for outputs in ([widget, widget], [widget, _shown({"text/plain": "static"})]))
    assert alone.count(EXPLORABLE) == 1 and "IntSlider" not in alone
    assert EXPLORABLE not in beside and "static" in beside


def test_a_figure_that_needs_the_network_or_webgl_becomes_a_sentence(tmp_path):
    text = _export(tmp_path, "# Q", _code(_figure(go.Figure(go.Scatter3d(x=[1], y=[1], z=[1]))))).read_text(encoding="utf-8")
    assert EXPLORABLE in text and "<script" not in text
    assert safe_figure({"data": [{"type": "scattergl", "x": [1]}]})[0]["data"][0]["type"] == "scatter"


def test_a_failed_run_shows_its_error_and_what_it_had_made(tmp_path):
    trace = nbformat.v4.new_output("error", ename="E", evalue="x", traceback=[f"\x1b[31mline {i}\x1b[0m" for i in range(100)])
    text = _export(tmp_path, "# Q", _code(_shown({"text/plain": "made before"})), _code(trace), _code(_shown({"text/html": "<b>banner</b>"}), tags=("papermill-error-cell-tag",)),
                   record=_record(status="failed", error="The lake has <no> deals.")).read_text(encoding="utf-8")
    assert "The lake has &lt;no&gt; deals." in text and "made before" in text and "banner" not in text.split("</style>")[1].replace("wb-banner", "")
    assert "line 60\n" in text and "line 59\n" not in text and "\x1b" not in text  # the last 40 of 100 lines


def test_a_refused_run_without_a_notebook_still_gives_a_page(tmp_path):
    page = export_report(tmp_path / "none.ipynb", tmp_path, record={"name": "10_x", "status": "refused", "error": "No parameter `topp`."})
    assert "No parameter `topp`." in page.read_text(encoding="utf-8")


def test_links_between_notebooks_lead_to_reports_with_the_same_parameters_where_they_exist(tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "02_data_quality--source-maven.html").touch()
    cell, record = "# Q\n[a](02_data_quality.ipynb) [b](00_start_here.ipynb#part) [c](https://x.example/?a=1&b) [d](mailto:a@b.c)", _record("10_lead_scoring--source-maven")
    text = _export(tmp_path, cell, record=record).read_text(encoding="utf-8")
    assert 'href="02_data_quality--source-maven.html"' in text and 'href="00_start_here.html"' in text and "mailto" not in text
    assert '<a href="https://x.example/?a=1&amp;b" rel="noopener noreferrer" target="_blank">' in text
    assert "02_data_quality" not in _export(tmp_path, cell, record=record, standalone=True).read_text(encoding="utf-8")


def test_figures_share_one_plotly_file_and_one_template(tmp_path):
    figure = go.Figure(go.Bar(x=["a"], y=[1])).update_layout(template="plotly_white", title="T")
    page = _export(tmp_path, "# Q", *[_code(_figure(figure)) for _ in range(12)])
    assert page.stat().st_size < 60_000  # css 9 kB, js 8 kB, one template 7 kB, twelve small figures; twelve templates alone would be 84 kB
    assert [p.name for p in (page.parent / "assets").iterdir()] == [re.search(r'data-plotly="assets/(plotly-[\d.]+\.min\.js)"', page.read_text(encoding="utf-8"))[1]]


def test_a_page_is_replaced_whole_and_leaves_no_scraps(tmp_path):
    for _ in range(2):
        page = _export(tmp_path, "# Q")
    assert [p.name for p in page.parent.iterdir()] == ["10_lead_scoring.html"]


# --- hostile text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_html_is_rebuilt_from_the_allow_list(payload):
    for out in (safe_html(payload), safe_markdown(payload), safe_markdown(payload, written=True)):
        assert {t.lower() for t in re.findall(r"</?([^\s>/]+)", out)} <= TAGS | {"div"}
        assert all(re.fullmatch(r'<[a-z0-9]+( (class|href|rel|target|open|tabindex|role|aria-label)="[^"<>]*")*>', tag) for tag in re.findall(r"<[a-z][^>]*>", out))
        assert not re.search(r'href="(?!https:|#)', out)


def test_html_keeps_what_reports_need_and_closes_what_it_opens():
    kept = '<h2>A</h2><ul><li>b</li></ul><details open=""><summary>c</summary><code>d &lt; e</code></details><p class="wb-good">f</p>'
    assert safe_html(kept) == kept
    assert safe_html('<p class="x wb-bad" style="color:red" id="main" onclick="y()">a</p></div></main>') == '<p class="wb-bad">a</p>'
    assert safe_html("<table><tr><td colspan=2>1").endswith('<table><tr><td colspan="2">1</td></tr></table></div>')
    assert safe_html("<style>p{}</style><script>a<b></script>c") == "c"


def test_tags_in_a_computed_sentence_stay_text():
    assert safe_markdown("Owner: <b>Ann</b>").strip() == "<p>Owner: &lt;b&gt;Ann&lt;/b&gt;</p>"


@pytest.mark.parametrize("text", ["<a " * 300_000, "<!--" * 300_000, "<div>" * 200_000, "a@" * 400_000, "+1 " * 300_000, "<a b='" * 150_000], ids=lambda t: t[:6])
def test_large_broken_html_takes_linear_time(text):
    start = time.perf_counter()
    safe_html(text)
    assert time.perf_counter() - start < 5  # a quadratic reader needs minutes


def test_labels_keep_our_tags_only_and_json_cannot_close_its_script():
    assert safe_label("<b>x</b><br>%{y}<extra></extra>") == "<b>x</b><br>%{y}<extra></extra>"
    assert safe_label('<a href="https://evil.example">x</a><span style="fill:url(x)">') == '&lt;a href="https://evil.example">x&lt;/a>&lt;span style="fill:url(x)">'
    assert safe_label("<b>Ann</b>", data=True) == "&lt;b>Ann&lt;/b>"
    assert not re.search("[<>&\u2028]", page_json(PAYLOADS)) and json.loads(page_json(PAYLOADS)) == PAYLOADS


def _hostile(tmp_path: Path, **options) -> Path:
    cells = ["# " + PAYLOADS[0] + PAYLOADS[-1]]
    for p in PAYLOADS:
        frame = pd.DataFrame({p: [p], "name": [p], "n": [1]})
        bars = go.Figure(go.Bar(x=[p, "b"], y=[1, 2], text=[p, p], name=p, customdata=[[p], [p]], hovertext=p, hovertemplate="%{x} %{customdata[0]}" + p, showlegend=True))
        bars.update_layout(title=p, xaxis_title=p, legend_title=p, images=[{"source": "https://evil.example/x.png"}],
                           annotations=[{"text": p, "x": 0, "y": 1, "hovertext": p}], hoverlabel={"namelength": -1})
        pie = go.Figure(go.Pie(labels=[p, "b"], values=[1, 2], hovertext=[p, p], textinfo="label")).update_layout(title={"text": p}, font_family=p)
        table = go.Figure(go.Table(header={"values": [p]}, cells={"values": [[p]]}))
        cells += [p, _code(_shown({"text/html": p}), _shown({"text/markdown": p}), _shown({"text/plain": p}), _shown({"image/png": p}),
                           _shown({"text/html": Table(frame, caption=p)._repr_html_()}), _shown({"text/html": frame.to_html(escape=False)})),
                  _code(_figure(bars), _figure(pie), _figure(table))]
    p = PAYLOADS
    record = _record(cards=[[a, a, a] for a in p], parameters=dict(zip(p, p, strict=True)), versions=dict(zip(p, p, strict=True)), source=p[0], as_of=p[1], ended_at=p[2],
                     lake=p[3], lake_version=p[4], slot=p[5], notebook=p[6], status="failed", error=p[-1] + p[0], started_at=p[7])
    cells.append(_code(nbformat.v4.new_output("error", ename="E", evalue="e", traceback=p)))
    return _export(tmp_path, *cells, record=record, **options)


def _harmless(tab: Browser) -> None:
    assert tab.value("window.canary") is None
    assert (tab.console, tab.dialogs) == ([], [])
    assert [url[:80] for url in tab.requests if not url.startswith(("data:", tab.url.rsplit("/", 1)[0] + "/assets/plotly-"))] == []
    assert tab.value("document.querySelectorAll('iframe, object, embed, base, link, form, meta[http-equiv=refresh], [onerror], [onload], [onclick], [onmouseover]').length") == 0
    assert tab.value("[...document.querySelectorAll('a[href]')].every(a => /^(https|file):/.test(a.href))")


@needs_chromium
@pytest.mark.parametrize("standalone", [False, True])
def test_twenty_hostile_payloads_in_every_place_run_nothing_and_load_nothing(tmp_path, tab, standalone):
    page = _hostile(tmp_path, standalone=standalone)
    tab.open(page, ready=DRAWN, seconds=90)
    n_figures = 3 * len(PAYLOADS)
    assert tab.value("document.querySelectorAll('.js-plotly-plot .main-svg').length") >= n_figures
    # Names are shown as they are, tags and all: in a bar's tick, a pie, a legend.
    assert tab.value("[...document.querySelectorAll('[data-figure] text')].some(t => t.textContent.includes('<img src=x onerror'))")
    assert tab.value("document.querySelectorAll('[data-figure] a').length") == 0
    # Hover over a bar of every third figure.
    for number in range(0, n_figures, 9):
        x, y = tab.value(f"(b => (b.scrollIntoView({{block: 'center', behavior: 'instant'}}), (r => [r.x + r.width / 2, r.y + r.height / 2])(b.querySelector('.bars path').getBoundingClientRect())))"
                         f"(document.querySelector('[data-figure=\"{number}\"]'))")
        tab.hover(x, y)
        assert tab.value("new Promise(done => setTimeout(() => done(document.querySelectorAll('.hovertext').length), 250))") == 1
    _harmless(tab)


@needs_chromium
def test_the_policy_stops_what_would_slip_through(tmp_path, tab):
    page = _export(tmp_path, "# Q", _code(_figure(go.Figure(go.Bar(x=["a"], y=[1])))))
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</main>", f"<script>{CANARY}</script><img src=x onerror='{CANARY}'><script src='assets/own.js'></script></main>"), encoding="utf-8")
    (page.parent / "assets" / "own.js").write_text(CANARY, encoding="utf-8")
    tab.open(page, ready=DRAWN)
    assert tab.value("window.canary") is None and sum("Content Security Policy" in line for line in tab.console) >= 3
    assert tab.value("fetch('https://evil.example').then(() => 'sent', () => 'stopped')") == "stopped"


# --- on a phone, a screen, paper


def _wide(tmp_path: Path, **options) -> Path:
    names = [f"A very long name of a company number {i} and its subsidiaries" for i in range(12)]
    frame = pd.DataFrame({"company": names} | {f"measure_{i}": range(12) for i in range(12)})
    bars = go.Figure(go.Bar(y=names, x=list(range(12)), orientation="h")).update_layout(title="A long title " * 8, width=1500, xaxis_title="a long title of an axis " * 4)
    lines = go.Figure([go.Scatter(x=pd.date_range("2024-01-01", periods=50, freq="W"), y=list(range(50)), name=n) for n in names[:4]])
    return _export(tmp_path, "# " + "Question " * 20, _code(_shown({"text/html": Table(frame)._repr_html_()}), _shown({"text/plain": "x" * 500}), _figure(bars), _figure(lines)),
                   record=_record(cards=[["Verdict", "W" * 60, "n" * 90]] * 5), **options)


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways_and_figures_fit_their_box(tmp_path, tab, width):
    tab.open(_wide(tmp_path), width=width, ready=DRAWN)
    assert tab.value("document.documentElement.scrollWidth") == width
    assert tab.value("[...document.querySelectorAll('.main-svg')].every(s => s.getBoundingClientRect().right <= innerWidth)")
    # Nothing in a figure is cut off: every tick, title and legend lies inside its drawing.
    assert tab.value("[...document.querySelectorAll('.js-plotly-plot')].flatMap(p => { const b = p.getBoundingClientRect(); return [...p.querySelectorAll('text')]"
                     ".map(t => [t.textContent, t.getBoundingClientRect()]).filter(([t, r]) => r.width && (r.left < b.left - 2 || r.right > b.right + 2)).map(([t]) => t) })") == []
    assert tab.value("document.querySelector('.wb-scroll').scrollWidth > document.querySelector('.wb-scroll').clientWidth")  # the table of 13 columns
    assert tab.console == []


@needs_chromium
def test_a_figure_follows_the_width_of_the_window_and_of_paper(tmp_path, tab):
    tab.open(_wide(tmp_path), width=1280, ready=DRAWN)
    width = "document.querySelector('.main-svg').getBoundingClientRect().width"
    assert tab.value(width) == 992  # 1,040 - 2 x 24
    tab.call("Emulation.setDeviceMetricsOverride", width=390, height=900, deviceScaleFactor=1, mobile=True)
    assert tab.value(f"new Promise(done => setTimeout(() => done({width}), 800))") == 358  # 390 - 2 x 16
    tab.value(f"addEventListener('beforeprint', () => window.printed = {width})")
    assert tab.paper(tmp_path / "paper.pdf").stat().st_size > 10_000
    assert tab.value("window.printed") == 680


@needs_chromium
def test_a_page_without_its_shared_file_says_so(tmp_path, tab):
    page = _export(tmp_path, "# Q", _code(_figure(go.Figure(go.Bar(x=["a"], y=[1])))))
    next((page.parent / "assets").iterdir()).unlink()
    tab.open(page, ready="document.querySelector('[data-figure]').textContent")
    assert "need the folder" in tab.value("document.body.textContent")


# --- the index


def _run(tmp_path: Path, day: str, name: str, *, page: bool = True, **changes) -> None:
    folder = tmp_path / "runs" / day
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(_record(name, **{"ended_at": f"{day}T06:00:00"} | changes)), encoding="utf-8")
    (tmp_path / "reports").mkdir(exist_ok=True)
    if page:
        (tmp_path / "reports" / f"{name}.html").touch()


def test_the_index_lists_reports_by_theme_with_failed_ones_first(tmp_path):
    _run(tmp_path, "2026-04-01", "20_revenue_forecast", title="Forecast", cards=[["Next quarter", "1.2 M", "80 % sure"], ["Second", "x", ""]])
    _run(tmp_path, "2026-04-01", "00_start_here", title="Start")
    _run(tmp_path, "2026-04-01", "10_lead_scoring", title="Leads", status="failed", error="The lake is <empty>.", page=False)
    text = write_index(tmp_path / "reports", tmp_path / "runs").read_text(encoding="utf-8")
    marks = ["Needs attention", "Leads", "The lake is &lt;empty&gt;.", "Start and data", 'href="00_start_here.html"', "Forecast and pipeline", "1.2 M"]
    assert [text.index(m) for m in marks] == sorted(text.index(m) for m in marks) and "Second" not in text
    assert "10_lead_scoring.html" not in text  # the page does not exist


def test_the_index_uses_the_latest_record_of_each_name_and_pages_that_exist(tmp_path):
    _run(tmp_path, "2026-04-01", "10_lead_scoring", status="failed", error="old trouble")
    _run(tmp_path, "2026-04-02", "10_lead_scoring", title="Fine again")
    _run(tmp_path, "2026-04-02", "11_gone", title="Gone", page=False)
    text = write_index(tmp_path / "reports", tmp_path / "runs").read_text(encoding="utf-8")
    assert "Fine again" in text and "old trouble" not in text and "Gone" not in text
    assert {r["name"] for r in latest_records(tmp_path / "runs")} == {"10_lead_scoring", "11_gone"}


def test_ageing_is_told_relative_to_the_newest_run(tmp_path):
    for day, name in (("2026-03-20", "10_a"), ("2026-03-26", "11_b"), ("2026-04-01", "12_c")):
        _run(tmp_path, day, name)
    text = write_index(tmp_path / "reports", tmp_path / "runs").read_text(encoding="utf-8")
    assert re.findall(r"Not refreshed for \d+ days", text) == ["Not refreshed for 12 days"]  # 20 March to 1 April; 26 March is 6 days, under 7


def test_a_record_that_cannot_be_read_is_shown_as_trouble_and_no_record_as_a_sentence(tmp_path):
    assert "No report yet" in write_index(tmp_path / "reports", tmp_path / "runs").read_text(encoding="utf-8")
    _run(tmp_path, "2026-04-01", "10_a")
    (tmp_path / "runs" / "2026-04-01" / "11_b.json").write_text("{", encoding="utf-8")
    (tmp_path / "runs" / "2026-04-01" / "12_c.json").write_text("[]", encoding="utf-8")
    text = write_index(tmp_path / "reports", tmp_path / "runs").read_text(encoding="utf-8")
    assert "2026-04-01/11_b.json cannot be read" in text and "2026-04-01/12_c.json cannot be read" in text


@needs_chromium
def test_a_hostile_index_is_harmless_and_fits_a_phone(tmp_path, tab):
    for number, payload in enumerate(PAYLOADS):
        _run(tmp_path, "2026-04-01", f"{number:02}_x", title=payload, source=payload, as_of=payload, error=payload, cards=[[payload] * 3], status="failed" if number % 2 else "ok")
    tab.open(write_index(tmp_path / "reports", tmp_path / "runs"), width=390)
    assert tab.value("document.querySelectorAll('.wb-reports li').length") == len(PAYLOADS)
    assert tab.value("document.documentElement.scrollWidth") == 390
    _harmless(tab)


# --- tables


def test_a_table_formats_by_the_names_of_its_columns():
    frame = pd.DataFrame({"name": ["Ann", None], "p_win": [.254, .001], "won_share": [1.0, .999], "created_at": pd.to_datetime(["2026-03-31 09:00", None]),
                          "close_on": [date(2026, 3, 31), None], "amount": [1234567.4, float("nan")], "n_deals": [1234.0, 2], "price": [Decimal("1200.50"), Decimal("3")],
                          "is_won": [True, False]})
    assert repr(Table(frame)).splitlines()[1:] == [
        " Ann  25 %     100 % 2026-03-31 09:00 2026-03-31 1,234,567   1,234 1,200    yes",
        "   – < 1 %    > 99 %                –          –         –       2     3     no"]


def test_a_table_escapes_aligns_numbers_and_tells_of_the_rows_it_leaves_out():
    html = Table(pd.DataFrame({"na_me": ["<b>x</b>"] * 1300, "n": range(1300)}), caption="<i>", rows=66)._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;x" in html and "<caption><span>&lt;i&gt;</span></caption>" in html and '<th scope="col" class="wb-short">na me</th>' in html
    assert '<td class="wb-num">65</td>' in html and '<td class="wb-num">66</td>' not in html and "and 1,234 more rows" in html
    assert safe_html(html).count("<tr>") == 67


def test_a_table_of_fewer_than_no_rows_shows_none_and_counts_those_it_leaves_out():
    assert repr(Table(pd.DataFrame({"n": [1, 2]}), rows=-1)) == repr(Table(pd.DataFrame({"n": [1, 2]}), rows=0)) == "no rows: n\nand 2 more rows"
    assert repr(Table(pd.DataFrame({"n": []}), rows=-1)) == "no rows: n"


def test_a_table_takes_formats_named_indexes_no_rows_and_equal_column_names():
    frame = pd.DataFrame({"auc": [.70351], "auc2": [3.14159]}, index=pd.Index(["logistic"], name="model"))
    assert repr(Table(frame, {"auc": ".4f"})).splitlines()[1].split() == ["logistic", "0.7035", "3.142"]
    assert "no rows" in Table(frame[:0])._repr_html_() and repr(Table(frame[:0])) == "no rows: model, auc, auc2"
    assert repr(Table(pd.DataFrame([[1, 2]], columns=["a", "a"]))).splitlines()[1].split() == ["1", "2"]
    assert Table(pd.DataFrame({"x": ["q" * 5000]}))._repr_html_().count("q") == 199  # cut at 200 with an ellipsis


def test_plain_tells_every_kind_of_value():
    assert [plain(v) for v in ("x", True, 3, 1234.5678, {"a": None})] == ["x", "true", "3", "1,235", '{"a": null}']
