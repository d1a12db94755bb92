"""The explorer of scores in JupyterLab: one record's score, reasons, history and neighbours; what capacity and cost make of the list.

A report has no kernel to turn anything with: of the same object it keeps the first record, as tables. CRM text stays text in both.
"""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench import schema
from workbench.models.bands import wilson
from workbench.models.leads import LeadScores
from workbench.models.reasons import readable, shown_values
from workbench.models.value import call_list
from workbench.plots.scores import BAD, BLUE, GOOD, INK, _dressed, plot_reasons
from workbench.rows import quoted
from workbench.settings import settings

NEAREST, OFFERED, SHOWN = 10, 2000, 12  # neighbours; records to pick from; rows of history in a report


def history(lake, scores: LeadScores, record: str) -> pd.DataFrame:
    """What happened to a record up to the scores' as_of, oldest first: at, kind (an activity's, planned or change), what. Personal texts are left out.

    A change counts only where the field was known before it: the day on which a field's history begins is no change.
    """
    as_of, entity, told = scores.spine.as_of, scores.spine.entity, lake.fields()
    db, until, known = lake.connection(as_of), f"TIMESTAMP '{as_of}'", schema.entity(entity).fields
    acts = db.sql(f"""select coalesce(happened_at, created_at, valid_from) as at, if(coalesce(is_done, true), kind, 'planned') as kind, concat_ws(' ', kind, direction) as what from activity
        where {entity}_id = {quoted(record)} and coalesce(created_at, valid_from) <= {until} and (not is_done or coalesce(happened_at, created_at, valid_from) <= {until})""").df()
    raw, masked = (db.sql(f"select {columns} from {entity}_versions where id = {quoted(record)} and valid_from <= {until} order by valid_from").df()
                   for columns in ("*", lake.masked_columns(entity, "valid_from", told)))
    hidden = {v[0] for v in schema.VERSION} | {f.name for f in known.values() if f.personal} | set(told.loc[(told["entity"] == entity) & told["personal"].fillna(False).astype(bool), "field"])
    now, seen = (shown_values(lake, entity, rows[[c for c in raw if c not in hidden]], as_of) for rows in (raw, masked))
    moved = (now != now.shift()) & (seen.shift() == now.shift())
    changes = [(raw["valid_from"][i], "change", f"{readable(c)}: {now[c][i - 1]} → {now[c][i]}") for c in now for i in np.flatnonzero(moved[c])]
    changes += [(at, "change", "first seen") for at in raw["valid_from"].head(1)]
    return pd.concat([acts, pd.DataFrame(changes, columns=acts.columns)], ignore_index=True).sort_values("at", kind="stable", ignore_index=True)


def plot_history(events: pd.DataFrame) -> go.Figure:
    """A record's events on a time line, one lane a kind; columns of `history`."""
    figure = go.Figure()
    for kind, rows in events.groupby("kind"):
        figure.add_scatter(x=rows["at"], y=rows["kind"].map(escape), mode="markers", marker={"size": 10, "color": INK if kind == "change" else BLUE}, showlegend=False,
                           customdata=[escape(what[:80], quote=False) for what in rows["what"]], hovertemplate="%{x|%d %b %Y}: %{customdata}<extra></extra>")
    return _dressed(figure, len(events), 130 + 30 * events["kind"].nunique(), "", None, "%d %b<br>%Y")


def neighbours(lake, scores: LeadScores, record: str) -> pd.DataFrame:
    """The records nearest in points (of a sample of those learned from, `LeadScores.past`), one row each: name, on (when it stood so), points_apart, event (yes, no)."""
    row, past = np.flatnonzero(scores.scores["id"].head(len(scores.points)) == record), scores.past
    if not len(row) or past.empty:
        return pd.DataFrame(columns=["name", "on", "points_apart", "event"])
    apart = np.linalg.norm(past[scores.points.columns].to_numpy(float) - scores.points.iloc[row[0]].to_numpy(float), axis=1)
    near = past[past["id"] != record].assign(points_apart=apart[past["id"] != record].round(1)).sort_values("points_apart", kind="stable").drop_duplicates("id").head(NEAREST)
    names = lake.read(scores.spine.entity, scores.spine.as_of, columns=["id", "name"]).set_index("id")["name"]
    return pd.DataFrame({"name": near["id"].map(names).fillna(near["id"]), "on": near["as_of"].dt.date, "points_apart": near["points_apart"], "event": np.where(near["event"], "yes", "no")})


def _told(lake, scores: LeadScores, record: str) -> tuple[str, str]:
    """As HTML: name, chance, band and owner of a record; its neighbours and what became of them."""
    row, near = scores.scores.set_index("id").loc[record], neighbours(lake, scores, record)
    chance = "no score is sold" if pd.isna(row["p_convert"]) else f"{row['p_convert']:.1%} (80 % interval {row['p_low']:.1%} to {row['p_high']:.1%}), band {row['band']}"
    owner = "" if pd.isna(row["owner"]) else f", owner {escape(str(row['owner']))}"
    low, high = wilson((near["event"] == "yes").mean(), len(near)) if len(near) else (0, 1)
    fate = f"<p>Of the {len(near)} most alike before, {(near['event'] == 'yes').sum()} had the event: a share of {low:.0%} to {high:.0%} (95 %).</p>" if len(near) else ""
    return f"<p><b>{escape(str(row['name']))}</b>: {chance}{owner}{'' if row['may_call'] else ', <b>refused calls</b>'}</p>", fate + _table(near)


def _table(frame: pd.DataFrame) -> str:
    return frame.to_html(index=False) if len(frame) else ""


def explorer_static(lake, scores: LeadScores) -> str:
    """The first record as HTML: what a report shows in place of the explorer."""
    if scores.scores.empty:
        return "<p>There is nobody to look at.</p>"
    record = scores.scores["id"].iloc[0]
    (about, near), events = _told(lake, scores, record), history(lake, scores, record).tail(SHOWN)
    return f"{about}{_table(scores.reasons_of(record).round(1))}<p>Its history, the last {len(events)}</p>{_table(events.assign(at=events['at'].dt.date))}{near}"


class explorer(widgets.VBox):
    """Pick a record by name; move capacity, cost of a call and worth of a conversion, which begin as [value] of workbench.toml has them."""

    def __init__(self, lake, scores: LeadScores):
        self.lake, self.scores, told = lake, scores, settings().value
        shown = scores.scores.head(len(scores.points) or OFFERED)
        name = shown["name"].astype(object).where(shown["name"].notna(), shown["id"]).astype(str).str.split().str.join(" ")  # as a field of one line shows it
        self.records = dict(zip(name.where(~name.duplicated(keep=False), name + " · " + shown["id"]), shown["id"], strict=True))
        self.listed = call_list(scores.scores, calls_per_day=0 if scores.examples or not scores.usable else len(scores.scores))
        self.pick = widgets.Combobox(options=list(self.records), placeholder="type a name", description="Record", ensure_option=True)
        self.calls = widgets.IntSlider(min(int(told.get("calls_per_day", 20)), len(self.listed)), 0, len(self.listed), description="Calls", continuous_update=False)
        self.cost, self.value = (widgets.BoundedFloatText(told.get(key, 0), min=0, max=1e12, description=words, style={"description_width": "initial"})
                                 for key, words in (("cost_per_call", "Cost of a call"), ("value_per_conversion", "Value of a conversion")))
        self.about, self.near, self.worth, self.figures, self.curve = widgets.HTML(), widgets.HTML(), widgets.HTML(), widgets.VBox(), widgets.VBox()
        super().__init__([self.pick, self.about, self.figures, self.near, widgets.HBox([self.calls, self.cost, self.value]), self.worth, self.curve])
        self.pick.observe(self._show, "value")
        for control in (self.calls, self.cost, self.value):
            control.observe(self._count, "value")
        self.pick.value = next(iter(self.records), "")
        self._count()

    def _show(self, _change=None) -> None:
        if record := self.records.get(self.pick.value):  # while somebody types it is none
            self.about.value, self.near.value = _told(self.lake, self.scores, record)
            reasons = plot_reasons(self.scores.reasons_of(record))
            reasons.for_each_trace(lambda trace: trace.update(y=[escape(text, quote=False) for text in trace.y]))
            _draw(self.figures, reasons, plot_history(history(self.lake, self.scores, record)))

    def _count(self, _change=None) -> None:
        profit, k = np.r_[0, self.listed["expected"] * self.value.value] - self.cost.value * np.arange(len(self.listed) + 1), self.calls.value
        found = np.r_[0, self.listed["expected"]][k]
        self.worth.value = (f"<p>{k:,} calls: <b>{found:,.1f}</b> conversions expected, profit <b>{profit[k]:,.0f}</b>. Most is earned with {profit.argmax():,} calls.</p>"
                            if len(self.listed) else "<p>No score is sold, or nobody may be called.</p>")
        figure = go.Figure(go.Scatter(x=np.arange(len(profit)), y=profit, mode="lines", line_color=INK, hovertemplate="%{x:,} calls: %{y:,.0f}<extra></extra>", showlegend=False))
        figure.add_scatter(x=[k], y=[profit[k]], mode="markers", marker={"size": 12, "color": GOOD if profit[k] >= 0 else BAD}, hoverinfo="skip", showlegend=False)
        _draw(self.curve, _dressed(figure, len(self.listed), 320, "calls", "expected profit", ",.0f"))

    def _repr_mimebundle_(self, **kwargs: Any) -> dict:
        return super()._repr_mimebundle_(**kwargs) | {"text/html": explorer_static(self.lake, self.scores)}


def _draw(box: widgets.VBox, *figures: go.Figure) -> None:
    old, box.children = box.children, tuple(map(go.FigureWidget, figures))
    for widget in old:
        widget.close()
