"""Figures about scores: frames of workbench.models.leads in, plotly figures out; readable on a telephone."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from workbench.plots.quality import say_nothing

INK, BLUE, SOFT, GOOD, BAD = "#1b3a57", "#4a7fb0", "#c3d3e3", "#2e7d5b", "#b3261e"


def plot_calibration(calibration: pd.DataFrame) -> go.Figure:
    """Observed share against mean probability of each bin, with Wilson's 95 % band; columns of `LeadScores.calibration`."""
    figure = go.Figure()
    if len(calibration):
        top = float(max(calibration["p_mean"].max(), calibration["high"].max()))
        figure.add_scatter(x=[0, top], y=[0, top], mode="lines", name="perfect", line={"dash": "dot", "color": SOFT})
        figure.add_scatter(x=calibration["p_mean"], y=calibration["observed"], mode="lines+markers", name="observed (95 % interval)", line={"color": INK},
                           error_y=_error(calibration, "observed", "low", "high"), customdata=calibration["n"], hovertemplate="said %{x:.1%}, came %{y:.1%} (n = %{customdata:,})<extra></extra>")
    return _dressed(figure, len(calibration), 420, "probability said", "share that came", ".0%").update_yaxes(tickformat=".0%")


def plot_ladder(ladder: pd.DataFrame) -> go.Figure:
    """Gain of each rung over the base rate in log loss, with its one-sided 99 % and 95 % bounds; columns of `Evaluation.ladder`."""
    shown = ladder.iloc[1:]
    figure = go.Figure()
    if len(shown):
        figure.add_bar(x=shown["gain"], y=shown["model"], orientation="h", name="gain over the base rate", marker_color=[BLUE if c else SOFT for c in shown["chosen"]],
                       error_x=_error(shown, "gain", "gain_low", "gain_high"), customdata=shown[["auc", "log_loss"]],
                       hovertemplate="%{y}: gain %{x:.4f}<br>AUC %{customdata[0]:.3f}, log loss %{customdata[1]:.4f}<extra></extra>")
        figure.add_vline(x=0, line_color="#6b7785")
    return _dressed(figure, len(shown), 140 + 40 * len(shown), "gain in log loss (dark: chosen)", None, ".3f").update_yaxes(autorange="reversed")


def plot_importance(importance: pd.DataFrame, most: int = 15) -> go.Figure:
    """Mean absolute points of the strongest features; columns of `LeadScores.importance`."""
    shown = importance.head(most).iloc[::-1]
    figure = go.Figure(go.Bar(x=shown["points"], y=shown["feature"], orientation="h", marker_color=BLUE, hovertemplate="%{y}: %{x:.1f} points<extra></extra>"))
    return _dressed(figure, len(shown), 140 + 24 * len(shown), "mean change of a score, in points", None, ".0f")


def plot_lift(lift: pd.DataFrame) -> go.Figure:
    """Precision of the score's choice and of the newest first at each capacity, with 95 % intervals; columns of `LeadScores.lift`."""
    figure = go.Figure()
    for value, low, high, name, color in (("precision", "low", "high", "by score", INK), ("newest", "newest_low", "newest_high", "newest first", "#d98a00")) if len(lift) else ():
        figure.add_scatter(x=lift["capacity"], y=lift[value], mode="lines+markers", name=name, line={"color": color}, error_y=_error(lift, value, low, high),
                           hovertemplate=name + ": %{y:.1%} of those called at %{x:.0%}<extra></extra>")
    return _dressed(figure, len(lift), 400, "share of open records called", "share of these that converted", ".0%").update_yaxes(tickformat=".0%", rangemode="tozero")


def plot_reasons(reasons: pd.DataFrame) -> go.Figure:
    """One record's points, from the start to its score; columns of `LeadScores.reasons_of`."""
    figure = go.Figure()
    if len(reasons):
        labels = [f"{f}: {v}" if v else f for f, v in zip(reasons["feature"], reasons["value"].str.slice(0, 24), strict=True)]
        figure.add_waterfall(y=[*labels, "score"], x=[*reasons["points"], reasons["points"].sum()], measure=["absolute", *["relative"] * (len(reasons) - 1), "total"], orientation="h",
                             increasing_marker_color=GOOD, decreasing_marker_color=BAD, totals_marker_color=INK, hovertemplate="%{y}: %{delta:+.0f}<extra></extra>")
        figure.update_yaxes(autorange="reversed")
    return _dressed(figure, len(reasons), 160 + 30 * len(reasons), "points (ten double the odds)", None, ".0f")


def _error(frame: pd.DataFrame, value: str, low: str, high: str) -> dict:
    return {"type": "data", "symmetric": False, "array": (frame[high] - frame[value]).clip(lower=0), "arrayminus": (frame[value] - frame[low]).clip(lower=0), "thickness": 1.5}


def _dressed(figure: go.Figure, n_rows: int, height: int, x_title: str, y_title: str | None, ticks: str) -> go.Figure:
    figure.update_layout(height=height if n_rows else 160, margin={"l": 10, "r": 10, "t": 20, "b": 40}, template="plotly_white", xaxis={"tickformat": ticks, "title": x_title},
                         legend={"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0})
    figure.update_yaxes(automargin=True, title=y_title)
    return figure if n_rows else say_nothing(figure)
