"""What a manager reads about data quality: sentences and short lists made from the frames of `rules` and `fill`."""

from datetime import datetime

import pandas as pd

from workbench.rows import of_source
from workbench.schema import LOST, WON

_READY = {"yes": "ready", "partly": "partly ready", "no": "not ready"}


def main_entity(lake, as_of: datetime, source: str | None = None) -> str:
    """`lead` or `deal`: whichever has more decided records (then more records); what the fields are judged for."""
    counts = {e: lake.sql(f"""select count(*) filter (where {WON[e]} or {LOST[e]}), count(*) from {e} where {of_source(source)}""", as_of).fetchall()[0] for e in WON}
    return max(counts, key=lambda e: counts[e])


def verdict_list(verdicts: pd.DataFrame) -> str:
    """The sentence behind each verdict, as a Markdown list; columns of `capability_verdicts`.

    >>> verdict_list(pd.DataFrame({"capability": ["forecast"], "ready": ["no"], "sentence": ["Too little."]}))
    '- **Forecast: not ready.** Too little.'
    """
    return "\n".join(f"- **{r.capability.capitalize()}: {_READY[r.ready]}.** {r.sentence}" for r in verdicts.itertuples())


def findings_sentence(findings: pd.DataFrame) -> str:
    """How many checks found something, and how many could not be made; columns of `quality_findings`."""
    checked, found = findings[findings["n"].notna()], findings[findings["n"].fillna(0) > 0]
    if checked.empty:
        return "No rule could be checked: there is no record that fills the fields it needs."
    n_high, n_left = int((found["severity"] == "high").sum()), len(findings) - len(checked)
    grave = f", **{n_high} of them grave**" if n_high else ", none of them grave" if len(found) else ""
    left = f" The other {n_left} could not be made, because these data do not hold the fields that they need: that is no fault." if n_left else ""
    return f"{len(found)} of the {len(checked)} checks that could be made found something{grave}.{left}"


def found(findings: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The rules that found something, gravest first: `what` (entity and rule in words) and `columns` of `quality_findings`."""
    rows = findings[findings["n"].fillna(0) > 0]
    return rows.assign(what=rows["entity"] + ": " + rows["rule"].str.replace("_", " "))[["what", *columns]].reset_index(drop=True)


def fill_sentence(fill: pd.DataFrame, entity: str) -> str:
    """What the fields of `entity` are good for; columns of `fill_rates`."""
    used = fill[fill["verdict"] != "empty"]
    if used.empty:
        return f"There is no {entity} whose fields could be judged."
    words = {"good": "well filled", "partial": "half filled", "sparse": "nearly empty", "filled late": "filled after the decision", "suspect": "filled differently by outcome",
             "current only": "known only as of the export", "outcome": "part of the outcome"}
    counts = used["verdict"].value_counts()
    told = [f"{counts[v]} {word}" for v, word in words.items() if v in counts]
    late = used.loc[used["verdict"].isin(["filled late", "suspect"]), "field"].tolist()
    warning = f" **Beware of {', '.join(late)}**: a model that learns from them looks better than it is." if late else ""
    return f"{len(used)} of {len(fill)} fields of the {used['n'].iloc[0]:,} {entity}s hold anything: {', '.join(told)}.{warning}"


def import_sentence(found: pd.DataFrame) -> str:
    """What the import reported; columns of `import_findings`.

    >>> import_sentence(pd.DataFrame({"n": []}))
    'The import reported nothing: every row and column was loaded as told.'
    """
    if found.empty:
        return "The import reported nothing: every row and column was loaded as told."
    columns = int((found["rule"] == "unused_column").sum() and found.loc[found["rule"] == "unused_column", "n"].sum())
    rows = int(found["n"].sum()) - columns
    return f"The import reported {rows:,} row{'s' * (rows != 1)} and left {columns:,} column{'s' * (columns != 1)} out; nothing was dropped silently."
