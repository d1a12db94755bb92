"""Data quality rules (rules.sql) and what they find: SQL that returns the ids of the offending records.

A rule is checked only in sources that fill the fields it needs: an export without e-mail addresses has no bad address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

import pandas as pd

from workbench import schema
from workbench.quality.fill import is_filled
from workbench.rows import of_source, quoted
from workbench.schema import CLOSED, LOST, WON

SEVERITIES = ("high", "medium", "low")
COLUMNS = ["rule", "entity", "severity", "n", "n_records", "share", "example", "meaning", "fix"]
_HEAD = re.compile(r"^-- (\w+) :: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Rule:
    """One rule for one entity; `needs` are fields (a|b = either; other.field) that a source must fill somewhere."""

    name: str
    entity: str
    severity: str
    needs: str
    meaning: str
    sql: str
    fix: str


_CATEGORIES = ("source", "country", "industry", "city", "title")


def _broken(entity: str) -> str:
    parts = [f"""select o.id from {entity} o where {f.name} is not null and {f.name} not in (select id from {f.references}_versions)
        and split_part({f.name}, ':', 1) in (select split_part(id, ':', 1) from {f.references}_versions)"""
             for f in schema.entity(entity).fields.values() if f.references]
    return " union ".join(parts)


def _variants(entity: str) -> str:
    parts = [f"""select id from (select id, count(*) over (partition by split_part(id, ':', 1), {f}) as n, {f} as spelled, split_part(id, ':', 1) as src,
        regexp_replace(lower(strip_accents({f})), '[^a-z0-9]', '', 'g') as plain from {entity} where {f} is not null)
        where plain <> '' qualify spelled <> first_value(spelled) over (partition by src, plain order by n desc, spelled)"""
             for f in _CATEGORIES if f in schema.entity(entity).fields]
    return " union ".join(parts)


def _rules() -> list[Rule]:
    text, rules = resources.files("workbench.quality").joinpath("rules.sql").read_text(encoding="utf-8"), []
    heads = list(_HEAD.finditer(text))
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        entities, severity, needs, meaning, fix = (part.strip() for part in head[2].split("::"))
        sql = text[head.end():following.start() if following else None].strip().removesuffix(";")
        for e in entities.split():
            words = {"e": e, "now": "{now}", "won": WON.get(e, "false"), "lost": LOST.get(e, "false"), "closed": CLOSED.get(e, "null"),
                     "open": f"not coalesce({WON.get(e, 'false')}, false) and not coalesce({LOST.get(e, 'false')}, false)",
                     "same_source": "split_part(s.id, ':', 1) = split_part(d.id, ':', 1)", "broken": _broken(e), "variants": _variants(e)}
            words |= {f"has_{f}": is_filled(f, "VARCHAR") for f in ("email", "phone", "name")}
            rules.append(Rule(head[1], e, severity, needs, meaning, sql.format(**words), fix))
    return rules


RULES = _rules()


def quality_findings(lake, as_of: datetime | None = None, source: str | None = None) -> pd.DataFrame:
    """One row a rule and entity, the gravest first: what is wrong with how many records as of `as_of` (of `source`).

    n = offending records (missing where the rule could not be checked; `example` then says why), n_records = records
    checked, share = n / n_records, example = up to three ids.
    """
    now = as_of or lake.latest_event(source) or datetime(1970, 1, 1)
    rows = [_finding(lake, rule, as_of, source, f"TIMESTAMP '{now}'") for rule in RULES]
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"n": "Int64", "n_records": "Int64", "share": "Float64"})
    order = frame.assign(checked=frame["n"].isna() | (frame["n"] == 0), rank=frame["severity"].map(SEVERITIES.index))
    return frame.loc[order.sort_values(["checked", "rank", "share"], ascending=[True, True, False], kind="stable").index].reset_index(drop=True)


def _finding(lake, rule: Rule, as_of: datetime | None, source: str | None, now: str) -> tuple:
    sources, missing = _checkable(lake, rule, as_of, source)
    head, tail = (rule.name, rule.entity, rule.severity), (rule.meaning, rule.fix)
    if not sources:
        return *head, None, 0, None, f"not checked: {missing}", *tail
    inside = f"split_part(id, ':', 1) in ({', '.join(map(quoted, sources))})"
    n, ids = lake.sql(f"select count(*), list(id order by id)[:3] from (select distinct id from ({rule.sql.replace('{now}', now)}) where {inside})",
                      as_of).fetchall()[0]
    n_records = lake.sql(f'select count(*) from "{rule.entity}" where {inside}', as_of).fetchall()[0][0]
    return *head, n, n_records, n / n_records, ", ".join(ids or []), *tail


def _checkable(lake, rule: Rule, as_of: datetime | None, source: str | None) -> tuple[list[str], str]:
    """The sources in which the rule can be checked, and what the others lack."""
    sources, missing = _filling(lake, rule.entity, ["id"], as_of, source), f"no {rule.entity}"
    for need in rule.needs.split():
        entity, _, fields = need.rpartition(".")
        filling = _filling(lake, entity or rule.entity, fields.split("|"), as_of, source)
        if sources and not set(sources) & set(filling):
            missing = f"{entity or rule.entity} without {' or '.join(fields.split('|'))}"
        sources = [s for s in sources if s in filling]
    return sources, missing


def _filling(lake, entity: str, fields: list[str], as_of: datetime | None, source: str | None) -> list[str]:
    some = " or ".join(f"{f} is not null" for f in fields)
    found = lake.sql(f"""select distinct split_part(id, ':', 1) from "{entity}" where ({some}) and {of_source(source)} order by 1""", as_of)
    return [row[0] for row in found.fetchall()]


def import_findings(lake, source: str | None = None) -> pd.DataFrame:
    """What the import could not load as told: one row a source, file, rule and entity, the most frequent first.

    n = rows concerned, first_line = the first of their lines in the file, example = the detail told there.
    """
    where = "true" if source is None else f"source = {quoted(source)}"
    return lake.sql(f"""select source, file, rule, entity, sum(coalesce(n, 1))::bigint as n, min(line) as first_line,
        arg_min(detail, coalesce(line, 0)) as example from finding where {where} group by all order by n desc, source, file, rule, entity""").df()
