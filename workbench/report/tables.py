"""Tables as people read them: escaped, numbers right-aligned, formats by the names of the columns."""

from html import escape
from typing import Any

import pandas as pd

NOTHING, MAX_CELL = "–", 200  # shown for a missing value; characters of a cell
FORMATS: dict[str, Any] = {
    "share": lambda v: "< 1 %" if 0 < v < .005 else "> 99 %" if .995 <= v < 1 else f"{v * 100:.0f} %",
    "time": lambda v: f"{v:%Y-%m-%d %H:%M}", "date": lambda v: f"{v:%Y-%m-%d}", "yes": lambda v: "yes" if v else "no",
    "text": lambda v: str(v) if len(str(v)) <= MAX_CELL else str(v)[:MAX_CELL - 1] + "…",
}
KINDS = {"boolean": "yes", "date": "date", "datetime": "time", "datetime64": "time", "integer": ",.0f", "floating": "", "decimal": "", "mixed-integer-float": ""}

# For JupyterLab, which right-aligns and squeezes every cell; a report drops the element and has a style sheet of its own.
STYLE = ("<style>table.wb-table tr .wb-num{white-space:nowrap}table.wb-table tr .wb-short{text-align:left;white-space:nowrap}"
         "table.wb-table tr .wb-wide{text-align:left;min-width:20ch}</style>")


def format_of(name: str, values: pd.Series) -> str:
    """The format of a column, by its name and by what it holds: a name of FORMATS or a format specification.

    >>> format_of("p_win", pd.Series([.2])), format_of("close_on", pd.Series([], dtype="datetime64[us]")), format_of("n_deals", pd.Series([3.0]))
    ('share', 'date', ',.0f')
    >>> format_of("auc", pd.Series([.71, .8])), format_of("cycle", pd.Series([12.5, 40])), format_of("name", pd.Series(["Ann"]))
    (',.3f', ',.1f', 'text')
    """
    kind = KINDS.get(pd.api.types.infer_dtype(values, skipna=True), "text")
    if kind == "time":
        return "date" if name.endswith("_on") else "time"
    if kind and kind != ",.0f":
        return kind
    if name.startswith(("p_", "fill_")) or name == "share" or name.endswith("_share"):
        return "share"
    largest = values.dropna().abs().max()
    return ".0f" if name == "year" else ",.0f" if kind or name.startswith("n_") or "amount" in name or largest >= 1000 else ",.1f" if largest >= 10 else ",.3f"


class Table:
    """A frame to display: HTML for reports and JupyterLab, text for a terminal. A row a row of `frame`; its index only where it has a name.

    formats: column -> a name of FORMATS or a format specification, where the column's name does not tell. rows: how many are shown.

    >>> Table(pd.DataFrame({"name": ["Ann", "Bob", "Cy"], "p_win": [.25, None, .5], "amount": [1200.4, 9, 3]}), rows=2)
    name p win amount
     Ann  25 %  1,200
     Bob     –      9
    and 1 more row
    """

    def __init__(self, frame: pd.DataFrame, formats: dict[str, str] | None = None, caption: str = "", *, rows: int = 30):
        whole = frame.reset_index() if any(frame.index.names) else frame
        rows = max(rows, 0)
        n_more = max(len(whole) - rows, 0)
        self.caption, self.more = caption, f"and {n_more:,} more row{'s' * (n_more > 1)}" if n_more else ""
        self.columns: list[tuple[str, str, list[str]]] = []  # heading, class, cells
        for position, name in enumerate(map(str, whole.columns)):
            values = whole.iloc[:, position]
            chosen = (formats or {}).get(name) or format_of(name, values)
            cells = [NOTHING if _missing(v) else FORMATS[chosen](v) if chosen in FORMATS else format(v, chosen) for v in values.head(rows)]
            words = "wide" if max(map(len, cells), default=0) > 24 else "short"
            self.columns.append((name.replace("_", " ").strip(), f"wb-{words if chosen in FORMATS and chosen != 'share' else 'num'}", cells))

    def __repr__(self) -> str:
        shown = pd.DataFrame(dict(enumerate(cells for *_, cells in self.columns)))
        shown.columns = [heading for heading, *_ in self.columns]
        body = shown.to_string(index=False) if len(shown) else "no rows: " + ", ".join(shown.columns)
        return "\n".join(line for line in (self.caption, body, self.more) if line)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" class="{side}">{escape(heading)}</th>' for heading, side, _ in self.columns)
        body = "".join("<tr>" + "".join(_cell(text, side, first=not i) for i, (text, (_, side, _)) in enumerate(zip(row, self.columns, strict=True))) + "</tr>"
                       for row in zip(*(cells for *_, cells in self.columns), strict=True)) or "<tr><td>no rows</td></tr>"
        caption = f"<caption><span>{escape(self.caption)}</span></caption>" if self.caption else ""
        more = f'<p class="wb-small">{self.more}</p>' if self.more else ""
        return f'{STYLE}<table class="wb-table">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}'


def _missing(value: Any) -> bool:
    return value is None or value == "" or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _cell(text: str, side: str, *, first: bool) -> str:
    tag, scope = ("th", ' scope="row"') if first and side != "wb-num" else ("td", "")
    return f'<{tag}{scope} class="{side}">{escape(text)}</{tag}>'
