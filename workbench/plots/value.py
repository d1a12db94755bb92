"""Figures about worth: frames of workbench.models.bands and workbench.models.value in, plotly figures out; readable on a telephone."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.scores import BAD, BLUE, GOOD, INK, SOFT, _dressed, _error


def plot_bands(bands: pd.DataFrame) -> go.Figure:
    """Expected (dots) and actual share (bars, Wilson's 95 % interval) of each band; columns of `band_table`."""
    figure = go.Figure()
    if len(bands):
        figure.add_bar(x=bands["band"], y=bands["observed"], name="actual (95 % interval)", marker_color=SOFT, error_y=_error(bands, "observed", "low", "high"),
                       customdata=bands[["n", "actual", "expected"]], hovertemplate="%{x}: %{customdata[1]:,} of %{customdata[0]:,} came, %{customdata[2]:,.0f} expected<extra></extra>")
        figure.add_scatter(x=bands["band"], y=bands["p_mean"], mode="markers", name="expected", marker={"color": INK, "size": 10, "symbol": "diamond"}, hovertemplate="%{x}: %{y:.1%} expected<extra></extra>")
    return _dressed(figure, len(bands), 380, "band", "share with the event", "").update_yaxes(tickformat=".0%", rangemode="tozero")


def plot_profit(curve: pd.DataFrame, cuts: pd.DataFrame, *, currency: str = "") -> go.Figure:
    """Profit per 100 judged over the share called, with its 95 % band and marks for the break-even cut and newest first; of `profit_curve`, `cut_table`."""
    figure = go.Figure()
    if len(curve):
        figure.add_scatter(x=[*curve["share"], *curve["share"][::-1]], y=[*curve["high"], *curve["low"][::-1]], fill="toself", fillcolor="rgba(74,127,176,.18)", line={"width": 0},
                           hoverinfo="skip", name="95 % interval")
        figure.add_scatter(x=curve["share"], y=curve["profit"], mode="lines", name="by score", line={"color": INK}, customdata=curve["cut"],
                           hovertemplate="%{x:.0%} called, from a chance of %{customdata:.1%}: %{y:,.0f}<extra></extra>")
        for key, color, symbol, name in (("even", GOOD, "diamond", "break-even cut"), ("newest", "#d98a00", "x", "as many, newest first")):
            figure.add_scatter(x=cuts.loc[[key], "share"], y=cuts.loc[[key], "profit"], mode="markers", name=name, marker={"color": color, "size": 12, "symbol": symbol},
                               hovertemplate=name + ": %{x:.0%} called, %{y:,.0f}<extra></extra>")
        figure.add_hline(y=0, line_color="#6b7785", line_width=1)
    return _dressed(figure, len(curve), 420, "share called", f"profit per 100 judged{f', {currency}' if currency else ''}", ".0%").update_yaxes(tickformat=",.0f")


def plot_segments(segments: pd.DataFrame, most: int = 30) -> go.Figure:
    """Actual against expected events of each segment, partially pooled, with its 95 % interval; columns of `segments`. The `most` largest are shown."""
    shown = segments.sort_values("n", ascending=False, kind="stable").head(most).sort_values(["by", "ratio"], kind="stable", ascending=[False, True])
    figure, color = go.Figure(), {"as said": BLUE, "more than said": GOOD, "less than said": BAD}
    labels = shown["by"] + ": " + shown["segment"].str.slice(0, 22)
    for reading, rows in shown.groupby("reading", sort=False):
        figure.add_scatter(x=rows["ratio"], y=rows.index.map(list(shown.index).index), mode="markers", name=str(reading), marker={"color": color[str(reading)], "size": 9},
                           error_x=_error(rows, "ratio", "low", "high"), customdata=rows[["n_records", "actual", "expected"]],
                           hovertemplate="%{x:.2f} times what was said: %{customdata[1]:,} against %{customdata[2]:,.1f} (%{customdata[0]:,} records)<extra></extra>")
    figure.add_vline(x=1, line_color="#6b7785")
    _dressed(figure, len(shown), 150 + 24 * len(shown), "actual / expected (1 = as said)", None, ".1f")
    return figure.update_yaxes(tickvals=list(range(len(shown))), ticktext=labels) if len(shown) else figure
