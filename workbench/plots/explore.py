"""What a data scientist turns in JupyterLab: ipywidgets over the lake. Reports leave it out, since nothing turns there."""

from datetime import datetime
from html import escape

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go
from IPython.display import display
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

from workbench import schema
from workbench.plots.quality import say_nothing

LEVELS, EMPTY = 20, "(empty)"
NAMED = {"account", "campaign", "product", "stage", "user"}  # told by their names; those of leads and contacts are personal
FIRST = {"lead": "status", "deal": "stage"}  # what is shown before anything was chosen


def value_counts(lake, entity: str, field: str, *, as_of: datetime, source: str | None = None) -> pd.DataFrame:
    """One row a value of `field` among the records of `entity` standing at `as_of` (of `source`): value (as text), n.

    At most 20 values and, last, the others together and the empty ones. Numbers and times stand in their order (many numbers in steps, times by
    day, month, quarter or year), other values by frequency; a key of a campaign, account, product or user is told by its name.
    """
    frame = lake.read(entity, as_of, ["id", field])
    given = frame.loc[frame["id"].str.startswith(f"{source}:") if source else slice(None), field]
    values = given.dropna().infer_objects()
    ordered = is_datetime64_any_dtype(values) or (is_numeric_dtype(values) and not is_bool_dtype(values))
    if is_datetime64_any_dtype(values):
        values = next((p for p in map(values.dt.to_period, "DMQ") if p.nunique() <= LEVELS), values.dt.to_period("Y"))
    elif ordered and values.nunique() > LEVELS:
        values = steps(values.astype(float))
    counts = values.value_counts()
    kept, n_rest = counts.iloc[:LEVELS].sort_index() if ordered else counts.iloc[:LEVELS], len(counts) - LEVELS
    known = schema.entity(entity).fields.get(field)
    target = known.references if known and known.references in NAMED else ""
    names = lake.read(target, as_of, ["id", "name"]).set_index("id")["name"].dropna().to_dict() if target else {False: "no", True: "yes"} if is_bool_dtype(values) else {}
    rows = [(names.get(v) or (_number(v) if isinstance(v, float) else str(v)), n) for v, n in kept.items()]
    rows += [(f"({n_rest:,} other value{'s' * (n_rest > 1)})", counts.iloc[LEVELS:].sum())] if n_rest > 0 else []
    rows += [(EMPTY, given.isna().sum())] if given.isna().any() else []
    return pd.DataFrame(rows, columns=["value", "n"]).astype({"n": "int64"})


def steps(values: pd.Series) -> pd.Series:
    """Each number's step, in order: about ten between the 1st and the 99th percentile, what lies beyond in the outermost.

    >>> steps(pd.Series([0., 12, 95, 100])).tolist()  # percentiles .36 and 99.85, so a step is 10 wide
    ['below 10', '10 to 20', '90 and more', '90 and more']
    """
    low, high = values.quantile([.01, .99])
    low, high = (low, high) if low < high else (values.min(), values.max())
    width = float(f"{(high - low) / 10:.0e}")
    step = values.clip(low, high) // width
    first, last = step.min(), step.max()
    names = {k: f"below {_number((k + 1) * width)}" if k == first else f"{_number(k * width)} and more" if k == last else
             f"{_number(k * width)} to {_number((k + 1) * width)}" for k in sorted(step.unique())}
    return step.map(names).astype(pd.CategoricalDtype(list(names.values()), ordered=True))


def _number(value: float) -> str:
    return f"{value:,.10g}" if abs(value) >= 10_000 else f"{value:.10g}"  # a year has no comma


def plot_value_counts(counts: pd.DataFrame, title: str) -> go.Figure:
    """Bars of `value_counts` in its order, from the top; what is empty in grey."""
    text = [escape(v if len(v) <= 40 else v[:39] + "…", quote=False) for v in counts["value"]]  # CRM text: plotly would read tags in it
    total = max(int(counts["n"].sum()), 1)
    figure = go.Figure(go.Bar(x=counts["n"], y=list(range(len(counts))), orientation="h", marker_color=["#c3c9d0" if v == EMPTY else "#4a7fb0" for v in counts["value"]],
                              customdata=[f"{label}: {n:,} ({n / total:.1%})" for label, n in zip(text, counts["n"], strict=True)], hovertemplate="%{customdata}<extra></extra>"))
    figure.update_layout(template="plotly_white", height=130 + 22 * max(len(counts), 2), title=title, margin={"l": 10, "r": 10, "t": 50, "b": 40}, xaxis_dtick=1 if len(counts) and counts["n"].max() < 6 else None)
    figure.update_yaxes(autorange="reversed", automargin=True, tickvals=list(range(len(counts))), ticktext=text)
    return say_nothing(figure) if counts.empty else figure


def explorer(lake, *, as_of: datetime, source: str | None = None) -> widgets.VBox:
    """Choose an entity and a field, see how its values spread; personal fields are not offered."""
    held = lake.sources()
    entities = [e for e in lake.entities() if e in set(held.loc[held["source"].eq(source) if source else slice(None), "entity"])]
    if not entities:
        return widgets.VBox([widgets.Label("There is nothing to look at yet: the lake holds no records.")])
    entity = widgets.Dropdown(options=entities, value=next((e for e in FIRST if e in entities), entities[0]), description="Entity")
    field, out = widgets.Dropdown(description="Field"), widgets.Output()

    def draw(_change=None) -> None:
        out.clear_output(wait=True)
        with out:  # an error is shown here as well; a widget's reaction has no other place for it
            counts = value_counts(lake, entity.value, field.value, as_of=as_of, source=source) if field.value else pd.DataFrame({"value": [], "n": []})
            n = int(counts["n"].sum())
            display(plot_value_counts(counts, f"{entity.value}: {(field.value or 'no field').replace('_', ' ')}, {n:,} record{'s' * (n != 1)}"))

    def offer(_change=None) -> None:
        told, known = lake.fields(), schema.entity(entity.value).fields
        hidden = {"id", "deleted_at", "merged_into"} | {f.name for f in known.values() if f.personal} | {v[0] for v in schema.VERSION}
        hidden |= set(told.loc[(told["entity"] == entity.value) & told["personal"].fillna(False).astype(bool), "field"])
        offered = [c for c in lake.columns(entity.value) if c not in hidden]
        first = FIRST.get(entity.value)
        field.unobserve(draw, "value")  # or each step of this change would draw
        field.options, field.value = offered, first if first in offered else next(iter(offered), None)
        field.observe(draw, "value")
        draw()

    field.observe(draw, "value")
    entity.observe(offer, "value")
    offer()
    return widgets.VBox([widgets.HBox([entity, field]), out])
