"""Data quality rules (rules.sql) and what they find: SQL that returns the ids of the offending records.

A rule is checked only in sources that fill the fields it needs: an export without e-mail addresses has no bad address.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources

import pandas as pd

from workbench import schema
from workbench.quality.fill import is_filled
from workbench.rows import of_source, quoted
from workbench.schema import CLOSED, LOST, WON

SEVERITIES = ("high", "medium", "low")
_CATEGORIES = ("source", "country", "industry", "city", "title")  # fields in which one thing may be spelled in two ways
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
    _, *parts = _HEAD.split(resources.files("workbench.quality").joinpath("rules.sql").read_text(encoding="utf-8"))
    rules = []
    for name, head, sql in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        entities, severity, needs, meaning, fix = (part.strip() for part in head.split("::"))
        for e in entities.split():
            words = {"e": e, "now": "{now}", "won": WON.get(e, "false"), "lost": LOST.get(e, "false"), "closed": CLOSED.get(e, "null"),
                     "open": f"not coalesce({WON.get(e, 'false')}, false) and not coalesce({LOST.get(e, 'false')}, false)",
                     "same_source": "split_part(s.id, ':', 1) = split_part(d.id, ':', 1)", "broken": _broken(e), "variants": _variants(e)}
            words |= {f"has_{f}": is_filled(f, "VARCHAR") for f in ("email", "phone", "name")}
            rules.append(Rule(name, e, severity, needs, meaning, sql.strip().removesuffix(";").format(**words), fix))
    return rules


RULES = _rules()


def quality_findings(lake, as_of: datetime | None = None, source: str | None = None) -> pd.DataFrame:
    """One row a rule and entity, the gravest first: what is wrong with how many records as of `as_of` (of `source`).

    n = offending records (missing where the rule could not be checked; `example` then says why), n_records = records
    checked, share = n / n_records, example = up to three ids.
    """
    rows = map(_finder(lake, as_of, source), RULES)
    frame = pd.DataFrame(rows, columns=COLUMNS).astype({"n": "Int64", "n_records": "Int64", "share": "Float64"})
    order = frame.assign(quiet=frame["n"].isna() | (frame["n"] == 0), rank=frame["severity"].map(SEVERITIES.index))
    return order.sort_values(["quiet", "rank", "share"], ascending=[True, True, False], kind="stable", ignore_index=True)[COLUMNS]


def _finder(lake, as_of: datetime | None, source: str | None) -> Callable[[Rule], tuple]:
    """A function that makes a rule's row of `quality_findings`."""
    now = f"TIMESTAMP '{as_of or lake.latest_event(source) or datetime(1970, 1, 1)}'"

    @cache
    def filling(entity: str, field: str) -> set[str]:
        """The sources that fill a field somewhere."""
        query = f"""select distinct split_part(id, ':', 1) from "{entity}" where {field} is not null and {of_source(source)}"""
        return {row[0] for row in lake.sql(query, as_of).fetchall()}

    def finding(rule: Rule) -> tuple:
        sources, missing = filling(rule.entity, "id"), f"no {rule.entity}"
        for need in rule.needs.split():
            entity, _, fields = need.rpartition(".")
            able = set().union(*(filling(entity or rule.entity, field) for field in fields.split("|")))
            if sources and not sources & able:
                missing = f"{entity or rule.entity} without {fields.replace('|', ' or ')}"
            sources = sources & able
        n, n_records, share, example = None, 0, None, f"not checked: {missing}"
        if sources:
            inside = f"split_part(id, ':', 1) in ({', '.join(map(quoted, sources))})"
            n, example, n_records = lake.sql(f"""select count(*), array_to_string(list(id order by id)[:3], ', '), (select count(*) from "{rule.entity}"
                where {inside}) from (select distinct id from ({rule.sql.replace('{now}', now)}) where {inside})""", as_of).fetchall()[0]
            share = n / n_records
        return rule.name, rule.entity, rule.severity, n, n_records, share, example or "", rule.meaning, rule.fix

    return finding


def import_findings(lake, source: str | None = None) -> pd.DataFrame:
    """What the import could not load as told: one row a source, file, rule and entity, the most frequent first.

    n = rows concerned, first_line = the first of their lines in the file, example = the detail told there.
    """
    where = "true" if source is None else f"source = {quoted(source)}"
    return lake.sql(f"""select source, file, rule, entity, sum(coalesce(n, 1))::bigint as n, min(line) as first_line,
        arg_min(detail, coalesce(line, 0)) as example from finding where {where} group by all order by n desc, source, file, rule, entity""").df()
