"""How full the fields are, now and at the time of decision, and what the data are good for."""

from __future__ import annotations

import re
from datetime import datetime
from importlib import resources

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
    kinds = _field_types(lake, entity)
    won, lost = WON.get(entity, "false"), LOST.get(entity, "false")
    parts = [f"count(*) filter (where {is_filled(f, k)} and {c}) as n{i}_{j}" for i, (f, k) in enumerate(kinds.items())
             for j, c in enumerate(("true", won, lost, _decided(entity)))]
    row = lake.sql(f'''select count(*), count(*) filter (where {won}), count(*) filter (where {lost}), count(*) filter (where {_decided(entity)}),
        {", ".join(parts)} from "{entity}" where {of_source(source)}''', as_of).fetchall()[0]
    n, n_won, n_lost, n_decided = row[:4]
    known, before = _known_at(lake, entity, source), _fill_before(lake, entity, kinds, as_of, source)
    rows = []
    for i, field in enumerate(kinds):
        filled, on_won, on_lost, on_decided = row[4 + 4 * i: 8 + 4 * i]
        at = before.get(field) if {"fixed", "historized"} >= set(known[field].split(", ")) else None
        w, lo, share = _ratio(on_won, n_won), _ratio(on_lost, n_lost), _ratio(filled, n)
        gap = None if w is None or lo is None else w - lo
        outcome = (item := schema.entity(entity).fields.get(field)) is not None and item.outcome
        rows.append((entity, field, n, filled, share, at, w, lo, gap, known[field],
                     _verdict(outcome, known[field], share, at, _ratio(on_decided, n_decided), gap)))
    frame = pd.DataFrame(rows, columns=FILL)
    return frame.astype({c: "float64" for c in ("fill_share", "fill_at_decision", "fill_won", "fill_lost", "gap")})


def _decided(entity: str) -> str:
    return f"({CLOSED[entity]}) is not null" if entity in CLOSED else "false"


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _verdict(outcome: bool, known_at: str, share: float | None, at: float | None, decided: float | None, gap: float | None) -> str:
    """The first of the reasons that holds.

    >>> _verdict(False, "historized", .9, .3, .9, .1), _verdict(False, "assumed", .9, None, .9, .5), _verdict(False, "fixed", .9, .9, .9, .5)
    ('filled late', 'suspect', 'good')
    """
    if not share:
        return "empty"
    if outcome or "outcome" in known_at:
        return "outcome"
    if "current_only" in known_at:
        return "current only"
    if at is not None and decided is not None and decided - at > LATE:
        return "filled late"
    if at is None and gap is not None and abs(gap) >= GAP:
        return "suspect"
    return "sparse" if share < SPARSE else "partial" if share < PARTIAL else "good"


def _field_types(lake, entity: str) -> dict[str, str]:
    """Fields that people or the CRM fill -> DuckDB type; not the bookkeeping of versions, not the flags of placeholders."""
    skip = {name for name, _, _ in schema.VERSION} | {f.name for f in schema.COMMON}
    return {c: k for c, k in lake.column_types(entity).items() if c not in skip and not c.endswith("_not_chosen")}


def _known_at(lake, entity: str, source: str | None) -> dict[str, str]:
    """Field -> how its value is known; several words where the sources differ."""
    defaults = {f.name: f.known_at for f in schema.entity(entity).fields.values()}
    rows = lake.fields()
    rows = rows[(rows["entity"] == entity) & ((rows["source"] == source) if source else True)]
    told = rows.groupby("field")["known_at"].agg(lambda words: ", ".join(sorted(set(words)))).to_dict()
    return {f: told.get(f, defaults.get(f, "assumed")) for f in _field_types(lake, entity)}


def _fill_before(lake, entity: str, kinds: dict[str, str], as_of: datetime | None, source: str | None) -> dict[str, float | None]:
    """Field -> fill just before the decision, among the decisions that history covers; a version that knows the outcome is not before it."""
    if entity not in CLOSED:
        return {}
    masks = lake.fields()
    masks = masks[(masks["entity"] == entity) & masks["history_from"].notna()]
    parts = []
    for field, kind in kinds.items():
        unknown = [f"({of_source(r.source)} and decided_at < TIMESTAMP '{r.history_from}')" for r in masks[masks["field"] == field].itertuples()]
        covered = f"not ({' or '.join(unknown)})" if unknown else "true"
        parts += [f"count(*) filter (where {covered})", f"count(*) filter (where {covered} and {is_filled(field, kind)})"]
    row = lake.sql(f"""with closed as (select id, {CLOSED[entity]} as decided_at from {entity} where {_decided(entity)} and {of_source(source)})
        select {', '.join(parts)} from (select v.*, c.decided_at from {entity}_versions v join closed c on v.id = c.id
        where {CLOSED[entity]} is null and v.valid_from < c.decided_at and (v.valid_to is null or v.valid_to >= c.decided_at))""", as_of).fetchall()[0]
    return {field: _ratio(row[2 * i + 1], row[2 * i]) for i, field in enumerate(kinds)}


def capability_verdicts(lake, as_of: datetime | None = None, source: str | None = None) -> pd.DataFrame:
    """One row a capability of capabilities.sql: ready (yes, partly, no) and a sentence that gives the numbers behind it."""
    mine = of_source(source)
    changed = {e: f"select id from \"{e}_versions\" where origin <> 'import' group by id having count(*) > 1" for e in ["lead", "deal", *lake.entities()]}
    counts = [f'select count(*) as n, count(*) filter (id in ({changed[e]})) as n_story from "{e}" where {mine}' for e in lake.entities()]
    words = {"mine": mine, "records": " union all ".join(counts) or "select 0 as n, 0 as n_story"}
    words |= {f"{e}_{name}": f"({told[e]})" for name, told in (("won", WON), ("lost", LOST), ("closed", CLOSED)) for e in told}
    words |= {f"changed_{e}": sql for e, sql in changed.items()}
    text = resources.files("workbench.quality").joinpath("capabilities.sql").read_text(encoding="utf-8")
    queries = re.findall(r"^-- ([a-z ]+)\n(.+?);$", re.sub(r"\{(\w+)\}", lambda m: words[m[1]], text.split("\n\n", 1)[1]), re.MULTILINE | re.DOTALL)
    return pd.DataFrame([(name, *lake.sql(sql, as_of).fetchall()[0][0]) for name, sql in queries], columns=["capability", "ready", "sentence"])
