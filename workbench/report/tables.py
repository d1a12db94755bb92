"""Tables as people read them: escaped, numbers right-aligned, formats by the names of the columns."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import pandas as pd

NOTHING, MAX_CELL = "–", 200  # shown for a missing value; characters of a cell
FORMATS: dict[str, Callable[[Any], str]] = {
    "share": lambda v: "< 1 %" if 0 < v < .005 else "> 99 %" if .995 <= v < 1 else f"{v * 100:.0f} %",
    "time": lambda v: f"{pd.Timestamp(v):%Y-%m-%d %H:%M}",
    "date": lambda v: f"{pd.Timestamp(v):%Y-%m-%d}",
    "count": lambda v: f"{v:,.0f}",
    "yes": lambda v: "yes" if v else "no",
    "text": lambda v: str(v) if len(str(v)) <= MAX_CELL else str(v)[:MAX_CELL - 1] + "…",
}


def format_of(name: str, values: pd.Series) -> str:
    """The format of a column: by its name, else by its type; a name of FORMATS or a format specification such as ",.2f".

    >>> format_of("p_win", pd.Series([.2])), format_of("created_at", pd.Series([], dtype="datetime64[us]")), format_of("n_deals", pd.Series([3.0]))
    ('share', 'time', 'count')
    >>> format_of("auc", pd.Series([.71, .8])), format_of("cycle", pd.Series([12.5, 40])), format_of("name", pd.Series(["Ann"]))
    (',.3f', ',.1f', 'text')
    """
    numeric = pd.api.types.is_numeric_dtype(values)
    if pd.api.types.is_bool_dtype(values):
        return "yes"
    if pd.api.types.is_datetime64_any_dtype(values):
        return "date" if name.endswith("_on") else "time"
    if name.endswith("_on") and not numeric and all(hasattr(v, "year") for v in values.dropna()):
        return "date"
    if not numeric:  # decimals are objects
        decimals = values.dropna()
        return format_of(name, decimals.astype(float)) if len(decimals) and all(type(v).__name__ == "Decimal" for v in decimals) else "text"
    if name.startswith("p_") or name == "share" or name.endswith("_share"):
        return "share"
    if name == "year":
        return ".0f"
    if pd.api.types.is_integer_dtype(values) or name == "n" or name.startswith("n_") or "amount" in name:
        return "count"
    largest = values.abs().max()
    return ",.0f" if largest >= 1000 else ",.1f" if largest >= 10 else ",.3f"


class Table:
    """A frame to display: HTML for reports and JupyterLab, text for a terminal. One row a row of `frame`, its index only where it has a name.

    formats: column -> a name of FORMATS or a format specification (",.2f"), where the column's name does not tell. rows: how many are shown.

    >>> Table(pd.DataFrame({"name": ["Ann", "Bob", "Cy"], "p_win": [.25, None, .5], "amount": [1200.4, 9, 3]}), rows=2)
    name p win amount
     Ann  25 %  1,200
     Bob     –      9
    and 1 more row
    """

    def __init__(self, frame: pd.DataFrame, formats: dict[str, str] | None = None, *, caption: str = "", rows: int = 30):
        whole = frame.reset_index() if any(frame.index.names) else frame
        self.caption, self.n_more, self.columns = caption, max(len(whole) - rows, 0), []
        for position, name in enumerate(map(str, whole.columns)):
            values = whole.iloc[:, position]
            chosen = (formats or {}).get(name) or format_of(name, values)
            shape = FORMATS.get(chosen) or (lambda v, chosen=chosen: format(v, chosen))
            cells = [NOTHING if _missing(v) else shape(v) for v in values.head(rows)]
            self.columns.append((name.replace("_", " ").strip(), chosen not in ("text", "yes", "time", "date"), cells))

    @property
    def _more(self) -> str:
        return f"and {self.n_more:,} more row{'s' * (self.n_more > 1)}" if self.n_more else ""

    def __repr__(self) -> str:
        shown = pd.DataFrame(dict(enumerate(cells for _, _, cells in self.columns)))
        shown.columns = [title for title, _, _ in self.columns]
        body = shown.to_string(index=False) if len(shown) else "no rows: " + ", ".join(shown.columns)
        return "\n".join(line for line in (self.caption, body, self._more) if line)

    def _repr_html_(self) -> str:
        sides = [f' class="wb-{"num" if number else "wide" if max(map(len, cells), default=0) > 24 else "short"}"' for _, number, cells in self.columns]
        head = "".join(f'<th scope="col"{side}>{escape(title)}</th>' for (title, *_), side in zip(self.columns, sides, strict=True))
        body = "".join("<tr>" + "".join(_cell(text, side, first=not i) for i, (text, side) in enumerate(zip(row, sides, strict=True))) + "</tr>"
                       for row in zip(*(cells for _, _, cells in self.columns), strict=True))
        body = body or f'<tr><td colspan="{max(len(sides), 1)}">no rows</td></tr>'
        caption = f"<caption><span>{escape(self.caption)}</span></caption>" if self.caption else ""
        more = f'<p class="wb-more">{self._more}</p>' if self.n_more else ""
        return f'<table class="wb-table">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}'


def _missing(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value))) or value == ""


def _cell(text: str, side: str, *, first: bool) -> str:
    return f'<th scope="row"{side}>{escape(text)}</th>' if first and "num" not in side else f"<td{side}>{escape(text)}</td>"
