"""What a data scientist turns in JupyterLab: ipywidgets over the lake; a report shows the figure as it stood."""

from __future__ import annotations

from datetime import datetime

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go

from workbench import schema

LEVELS = 20


def value_counts(lake, entity: str, field: str, *, as_of: datetime, source: str | None = None) -> pd.DataFrame:
    """One row a value of `field` among the records of `entity` standing at `as_of`: value (as text), n; numbers and dates in up to 20 bins."""
    frame = lake.read(entity, as_of, ["id", field])
    values = frame.loc[frame["id"].str.startswith(f"{source}:") if source else slice(None), field]
    if values.nunique() > LEVELS and not isinstance(values.dtype, pd.StringDtype) and values.dtype != object:
        values = pd.cut(values, LEVELS).astype(str).where(values.notna())
    counts = values.astype("string").fillna("(empty)").value_counts()
    rest = pd.Series({f"({len(counts) - LEVELS:,} other values)": counts.iloc[LEVELS:].sum()}) if len(counts) > LEVELS else pd.Series(dtype="int64")
    return pd.concat([counts.iloc[:LEVELS], rest]).rename_axis("value").reset_index(name="n")


def plot_value_counts(counts: pd.DataFrame, title: str) -> go.Figure:
    """Bars of `value_counts`, the most frequent on top."""
    figure = go.Figure(go.Bar(x=counts["n"], y=counts["value"].str.slice(0, 40), orientation="h", marker_color="#33658a"))
    figure.update_layout(template="plotly_white", height=120 + 22 * max(len(counts), 1), title=title, margin={"l": 10, "r": 10, "t": 50, "b": 40})
    return figure.update_yaxes(autorange="reversed", automargin=True)


def explorer(lake, *, as_of: datetime, source: str | None = None) -> widgets.VBox:
    """Choose an entity and a field, see how its values spread; personal fields are not offered."""
    entities = lake.entities()
    entity = widgets.Dropdown(options=entities or ["(nothing)"], description="Entity")
    field, out = widgets.Dropdown(description="Field"), widgets.Output()

    def offer(_change=None) -> None:
        if entities:
            hidden = {"id", "deleted_at", "merged_into"} | {f.name for f in schema.entity(entity.value).fields.values() if f.personal}
            told = lake.fields()
            hidden |= set(told.loc[(told["entity"] == entity.value) & told["personal"].fillna(False).astype(bool), "field"])
            field.options = [c for c in lake.columns(entity.value) if c not in hidden and c not in {v[0] for v in schema.VERSION}]

    def draw(_change=None) -> None:
        out.clear_output(wait=True)
        if entities and field.value:
            counts = value_counts(lake, entity.value, field.value, as_of=as_of, source=source)
            with out:
                from IPython.display import display

                display(plot_value_counts(counts, f"{entity.value}: {field.value.replace('_', ' ')}"))

    entity.observe(offer, "value")
    field.observe(draw, "value")
    offer()
    draw()
    return widgets.VBox([widgets.HBox([entity, field]), out])
