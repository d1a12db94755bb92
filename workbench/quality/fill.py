"""How full the fields are, now and at the time of decision, and what the data are good for."""

import re
from datetime import datetime
from importlib import resources

import numpy as np
import pandas as pd

from workbench import schema
from workbench.rows import of_source, quoted
from workbench.schema import CLOSED, LOST, WON

PLACEHOLDERS = ("", "-", "--", "?", "n/a", "na", "none", "null", "nan", "select", "unknown", "tbd", "not set")
LATE, GAP, PARTIAL, SPARSE = .2, .2, .6, .05
FILL = ["entity", "field", "n", "filled", "fill_share", "fill_at_decision", "fill_won", "fill_lost", "gap", "known_at", "verdict"]


def is_filled(column: str, kind: str) -> str:
    """SQL condition: the column holds a value; a placeholder such as Select or n/a is none."""
    if kind != "VARCHAR":
        return f"{column} is not null"
    return f"coalesce(lower(trim({column})) not in ({', '.join(map(quoted, PLACEHOLDERS))}), false)"


def fill_rates(lake, entity: str, as_of: datetime | None = None, source: str | None = None) -> pd.DataFrame:
    """One row a field of `entity`: how many records fill it, now and when they were decided; placeholders count as missing.

    n, filled, fill_share: records as of `as_of`. fill_at_decision: share among decided records in the version that stood
    just before the decision; missing where no history tells. fill_won, fill_lost, gap (their difference): now.
    known_at: table `field`, else the schema. verdict: empty, outcome, current only, filled late (after the decision),
    suspect (no history, but filled differently by outcome), sparse, partial or good.
    """
    kinds, fields = _field_types(lake, entity), schema.entity(entity).fields
    among = {"fill_share": "true", "fill_won": WON.get(entity, "false"), "fill_lost": LOST.get(entity, "false"), "fill_decided": _decided(entity)}
    shares = ", ".join(f"avg(({is_filled(f, kind)})::int) filter (where {some})" for f, kind in kinds.items() for some in among.values())
    n, *told = lake.sql(f'select count(*), {shares} from "{entity}" where {of_source(source)}', as_of).fetchall()[0]
    fill = pd.DataFrame(np.reshape(told, (-1, len(among))), index=pd.Index(kinds, name="field"), columns=list(among), dtype="float64")
    fill["known_at"] = _known_at(lake, entity, source)
    storied = fill["known_at"].map(lambda words: {"fixed", "historized"} >= set(words.split(", ")))
    fill["fill_at_decision"] = _fill_before(lake, entity, kinds, as_of, source).where(storied)
    fill["gap"] = fill["fill_won"] - fill["fill_lost"]
    fill["outcome"] = [f in fields and fields[f].outcome for f in kinds]
    fill["verdict"] = [_verdict(r.outcome, r.known_at, r.fill_share, r.fill_at_decision, r.fill_decided, r.gap) for r in fill.itertuples()]
    filled = (fill["fill_share"] * n).round().fillna(0).astype("int64")
    return fill.assign(entity=entity, n=n, filled=filled).reset_index()[FILL]


def _decided(entity: str) -> str:
    return f"({CLOSED[entity]}) is not null" if entity in CLOSED else "false"


def _verdict(outcome: bool, known_at: str, share: float, at: float, decided: float, gap: float) -> str:
    """The first of the reasons that holds; a share that is missing (nan) is no reason.

    >>> nan = float("nan")
    >>> _verdict(False, "historized", .9, .3, .9, .1), _verdict(False, "assumed", .9, nan, .9, .5), _verdict(False, "fixed", .9, .9, .9, .5)
    ('filled late', 'suspect', 'good')
    """
    reasons = {"empty": not share > 0, "outcome": outcome or "outcome" in known_at, "current only": "current_only" in known_at,
               "filled late": decided - at > LATE, "suspect": np.isnan(at) and abs(gap) >= GAP, "sparse": share < SPARSE, "partial": share < PARTIAL}
    return next((name for name, holds in reasons.items() if holds), "good")


def _field_types(lake, entity: str) -> dict[str, str]:
    """Fields that people or the CRM fill -> DuckDB type; not the bookkeeping of versions, not the flags of placeholders."""
    skip = {name for name, _, _ in schema.VERSION} | {f.name for f in schema.COMMON}
    return {c: k for c, k in lake.column_types(entity).items() if c not in skip and not c.endswith("_not_chosen")}


def _known_at(lake, entity: str, source: str | None) -> pd.Series:
    """Field -> how its value is known; several words where the sources differ."""
    rows = lake.fields()
    told = rows[(rows["entity"] == entity) & ((rows["source"] == source) | (source is None))].groupby("field")["known_at"].agg(lambda words: ", ".join(sorted(set(words))))
    defaults = {f: "assumed" for f in _field_types(lake, entity)} | {f.name: f.known_at for f in schema.entity(entity).fields.values()}
    return pd.Series(defaults | told.to_dict())


def _fill_before(lake, entity: str, kinds: dict[str, str], as_of: datetime | None, source: str | None) -> pd.Series:
    """Field -> fill just before the decision, among the decisions that history covers; a version that knows the outcome is not before it."""
    if entity not in CLOSED:
        return pd.Series(index=list(kinds), dtype="float64")
    masks = lake.fields()
    masks = masks[(masks["entity"] == entity) & masks["history_from"].notna()]
    parts = []
    for field, kind in kinds.items():
        unknown = [f"({of_source(r.source)} and decided_at < TIMESTAMP '{r.history_from}')" for r in masks[masks["field"] == field].itertuples()]
        parts.append(f"avg(({is_filled(field, kind)})::int) filter (where not ({' or '.join(['false', *unknown])})) as {field}")
    return lake.sql(f"""with closed as (select id, {CLOSED[entity]} as decided_at from {entity} where {_decided(entity)} and {of_source(source)})
        select {', '.join(parts)} from (select v.*, c.decided_at from {entity}_versions v join closed c on v.id = c.id
        where {CLOSED[entity]} is null and v.valid_from < c.decided_at and (v.valid_to is null or v.valid_to >= c.decided_at))""", as_of).df().iloc[0]


def capability_verdicts(lake, as_of: datetime | None = None, source: str | None = None) -> pd.DataFrame:
    """One row a capability of capabilities.sql: ready (yes, partly, no) and a sentence that gives the numbers behind it."""
    mine = of_source(source)
    changed = {e: f"select id from {e}_versions where origin <> 'import' group by id having count(*) > 1" for e in schema.ENTITIES}
    counts = [f'select count(*) as n, count(*) filter (id in ({ids})) as n_story from "{e}" where {mine}' for e, ids in changed.items()]
    words = {"mine": mine, "records": " union all ".join(counts)}
    words |= {f"{e}_{name}": f"({told[e]})" for name, told in (("won", WON), ("lost", LOST), ("closed", CLOSED)) for e in told}
    words |= {f"changed_{e}": sql for e, sql in changed.items()}
    text = resources.files("workbench.quality").joinpath("capabilities.sql").read_text(encoding="utf-8")
    queries = re.findall(r"^-- ([a-z ]+)\n(.+?);$", re.sub(r"\{(\w+)\}", lambda m: words[m[1]], text.split("\n\n", 1)[1]), re.MULTILINE | re.DOTALL)
    return pd.DataFrame([(name, *lake.sql(sql, as_of).fetchall()[0][0]) for name, sql in queries], columns=["capability", "ready", "sentence"])
