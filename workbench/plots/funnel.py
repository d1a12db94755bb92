"""Figures about behaviour and progression: frames of workbench.models.behaviour and progression in, plotly figures out; readable on a telephone."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.scores import BAD, BLUE, GOOD, INK, SOFT, _dressed, _error


def plot_time_to_outcome(times: pd.DataFrame) -> go.Figure:
    """Share converted, dead and open by days since creation, with 95 % bands; columns of `time_to_outcome` (one group)."""
    figure = go.Figure()
    for (outcome, rows), color in zip(times.groupby("outcome", sort=False), (GOOD, BAD, BLUE), strict=False):
        figure.add_scatter(x=[*rows["days"], *rows["days"][::-1]], y=[*rows["high"], *rows["low"][::-1]], fill="toself", fillcolor=color, opacity=.18, line={"width": 0}, hoverinfo="skip", showlegend=False)
        figure.add_scatter(x=rows["days"], y=rows["share"], name=str(outcome), mode="lines", line={"color": color}, customdata=rows["n_at_risk"],
                           hovertemplate="day %{x:.0f}: %{y:.1%} (%{customdata:,} followed so far)<extra>%{fullData.name}</extra>")
    return _dressed(figure, len(times), 400, "days since creation", None, ".0f").update_yaxes(tickformat=".0%", rangemode="tozero")


def plot_shares(rows: pd.DataFrame, label: str, value: str = "share", low: str = "low", high: str = "high", *, n: str = "n", title: str = "share", ticks: str = ".0%") -> go.Figure:
    """`value` of each row with its interval, one line a row in the order given; a line at 0 where values fall on both sides. Rows that hold=False are pale."""
    names, colors = rows[label].astype(str).str.slice(0, 44), [INK if dark else SOFT for dark in rows.get("holds", [True] * len(rows))]
    figure = go.Figure(go.Scatter(x=rows[value], y=names, mode="markers", marker={"size": 9, "color": colors}, error_x=_error(rows, value, low, high) | {"color": BLUE},
                                  customdata=rows[[n, low, high]], hovertemplate=f"%{{y}}: %{{x:{ticks}}} (%{{customdata[1]:{ticks}}} to %{{customdata[2]:{ticks}}}; n = %{{customdata[0]:,}})<extra></extra>"))
    if len(rows) and rows[low].min() < 0:
        figure.add_vline(x=0, line_color="#6b7785")
    return _dressed(figure, len(rows), 120 + 28 * len(rows), title, None, ticks).update_yaxes(autorange="reversed")


def plot_silences(quiet: pd.DataFrame) -> go.Figure:
    """Share still answered once silence has lasted so many days, with 95 % intervals: lines on the earlier messages, diamonds on the later; columns of `silences`."""
    figure = go.Figure()
    for (who, rows), color in zip(quiet.groupby("who", sort=False), (INK, "#d98a00"), strict=False):
        days = [f"{d} day{'s' * (d > 1)}" for d in rows["silence_days"]]
        figure.add_scatter(x=days, y=rows["share"], name=str(who), mode="lines+markers", line={"color": color}, error_y=_error(rows, "share", "low", "high"), customdata=rows["n"],
                           hovertemplate="after %{x}: %{y:.0%} (n = %{customdata:,})<extra>%{fullData.name}</extra>")
        figure.add_scatter(x=days, y=rows["later_share"], name=f"{who}, later", mode="markers", marker={"color": color, "symbol": "diamond-open", "size": 10}, customdata=rows["n_later"],
                           hovertemplate="after %{x}: %{y:.0%} (n = %{customdata:,})<extra>%{fullData.name}</extra>")
    return _dressed(figure, len(quiet), 420, "silence so far", None, "").update_yaxes(tickformat=".0%", rangemode="tozero")


def plot_stages(leaks: pd.DataFrame, event: str) -> go.Figure:
    """What became of the stays in each stage, as shares of those that entered; columns of `leakage`."""
    figure = go.Figure()
    for column, name, color in (("n_moved", "moved on", BLUE), ("n_ended", event, GOOD), ("n_still", "still there", SOFT), ("n_lost", "lost or deleted", BAD)):
        figure.add_bar(x=leaks[column] / leaks["n_entered"], y=leaks["stage"].astype(str).str.slice(0, 24), orientation="h", name=name, marker_color=color, customdata=leaks[[column, "n_entered"]],
                       hovertemplate="%{y}: %{x:.0%}, %{customdata[0]:,} of %{customdata[1]:,}<extra>%{fullData.name}</extra>")
    return _dressed(figure, len(leaks), 170 + 40 * len(leaks), "share of the stays", None, ".0%").update_layout(barmode="stack", legend_traceorder="normal").update_yaxes(autorange="reversed")


def plot_velocity(months: pd.DataFrame) -> go.Figure:
    """Conversions a month (bars) and the median days that they took (line, right axis); columns of `velocity`."""
    figure = go.Figure(go.Bar(x=months["month_on"], y=months["n_converted"], name="conversions", marker_color=SOFT, hovertemplate="%{x|%b %Y}: %{y:,}<extra></extra>"))
    figure.add_scatter(x=months["month_on"], y=months["median_days"], name="median days (right)", yaxis="y2", mode="lines", line={"color": INK}, hovertemplate="%{x|%b %Y}: %{y:.0f} days<extra></extra>")
    return _dressed(figure, len(months), 400, "", None, "%b %Y").update_layout(yaxis2={"overlaying": "y", "side": "right", "rangemode": "tozero", "showgrid": False, "automargin": True, "tickformat": ".0f"})
