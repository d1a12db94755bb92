"""Figures about data quality: frames of workbench.quality.rules in, plotly figures out."""

import pandas as pd
import plotly.graph_objects as go

COLORS = {"high": "#b3261e", "medium": "#d98a00", "low": "#6b7785"}


def plot_fill(fill: pd.DataFrame) -> go.Figure:
    """Fill of each field now (bars) and just before the decision (dots); columns of `fill_rates`. Empty fields are left out."""
    shown = fill[fill["filled"] > 0].sort_values("fill_share", kind="stable")
    known = shown[shown["fill_at_decision"].notna()]
    figure = go.Figure(go.Bar(x=shown["fill_share"], y=shown["field"], orientation="h", name="now", marker_color="#9db8d2",
                              customdata=shown[["verdict", "known_at"]], hovertemplate="%{y}: %{x:.0%} now<br>%{customdata[0]} (%{customdata[1]})<extra></extra>"))
    figure.add_scatter(x=known["fill_at_decision"], y=known["field"], mode="markers", name="just before the decision",
                       marker={"color": "#1b3a57", "size": 9, "symbol": "diamond"}, hovertemplate="%{y}: %{x:.0%} at the decision<extra></extra>")
    return _dressed(figure, len(shown), "share of records that fill the field")


def plot_findings(findings: pd.DataFrame, most: int = 15) -> go.Figure:
    """Share of records that break each rule, coloured by severity; columns of `quality_findings`. The `most` frequent are shown."""
    shown = findings[findings["n"].fillna(0) > 0].sort_values("share", kind="stable").tail(most)
    labels = shown["entity"] + " · " + shown["rule"].str.replace("_", " ")
    figure = go.Figure()
    for severity, color in COLORS.items():
        rows = shown[shown["severity"] == severity]
        figure.add_bar(x=rows["share"].astype(float), y=labels[rows.index], orientation="h", name=severity, marker_color=color,
                       text=[f"{n:,}" for n in rows["n"]], customdata=rows["meaning"], hovertemplate="%{y}: %{text} records, %{x:.1%}<br>%{customdata}<extra></extra>")
    figure.update_yaxes(categoryorder="array", categoryarray=labels.tolist())
    return _dressed(figure, len(shown), "share of records concerned")


def plot_events(events: pd.DataFrame, most: int = 5) -> go.Figure:
    """What was recorded in each month (log scale) for the `most` frequent entities; columns of `workbench.quality.contents.events_by_month`."""
    figure = go.Figure()
    events = events[events["entity"].isin(events.groupby("entity")["n"].sum().sort_values().index[-most:])]
    for entity, rows in events.groupby("entity", sort=False):
        figure.add_scatter(x=rows["month_on"], y=rows["n"], name=str(entity), mode="lines+markers", marker={"size": 4},
                           hovertemplate="%{x|%b %Y}: %{y:,}<extra>%{fullData.name}</extra>")
    _dressed(figure, max(events["entity"].nunique(), 8) if len(events) else 0, "month")
    figure.update_yaxes(type="log", title="new and changed records")
    return figure.update_xaxes(tickformat="%b %Y", rangemode="normal")


def _dressed(figure: go.Figure, n_rows: int, title: str) -> go.Figure:
    figure.update_layout(height=140 + 24 * max(n_rows, 1), margin={"l": 10, "r": 10, "t": 40, "b": 40}, barmode="overlay", template="plotly_white",
                         legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0}, xaxis={"tickformat": ".0%", "rangemode": "tozero", "title": title})
    figure.update_yaxes(automargin=True)
    return figure if n_rows else say_nothing(figure)


def say_nothing(figure: go.Figure) -> go.Figure:
    """An empty figure that says so."""
    figure.add_annotation(text="Nothing to show.", showarrow=False, x=.5, y=.5, xref="paper", yref="paper")
    return figure.update_xaxes(visible=False).update_yaxes(visible=False)
