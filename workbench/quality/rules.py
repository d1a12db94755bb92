"""Data quality rules as rows of data, and what they find: SQL that returns the ids of the offending records.

A rule is checked only in sources that fill the fields it needs: an export without e-mail addresses has no bad address.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from workbench import schema
from workbench.quality.fill import capability_verdicts, fill_rates, is_filled  # noqa: F401  (one door for notebooks)
from workbench.rows import of_source, quoted
from workbench.schema import CLOSED, LOST, WON

SEVERITIES = ("high", "medium", "low")
COLUMNS = ["rule", "entity", "severity", "n", "n_records", "share", "example", "meaning", "fix"]
STALE_DAYS, BATCH, OUTLIER = 60, 50, 100  # days without activity · records created at one instant · times the median


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


# name | entities | severity | needs | meaning | fix, then the SQL. {e} entity, {now} the instant, {open} {won} {closed} conditions.
_RULES = [
    ("unreachable", "lead contact", "high", "email|phone", "Neither e-mail nor phone.", "Ask for one of them in the form.",
     "select id from {e} where not {has_email} and not {has_phone}"),
    ("malformed_email", "lead contact", "medium", "email", "The e-mail address cannot be one.", "Correct it, or check it in the form.",
     r"select id from {e} where {has_email} and not regexp_matches(trim(email), '^[^@\s]+@[^@\s]+\.[^@\s.]{{2,}}$')"),
    ("duplicate_email", "lead contact", "medium", "email", "Shares its e-mail address with another record.", "Merge the two.",
     "select id from {e} where {has_email} qualify count(*) over (partition by split_part(id, ':', 1), lower(trim(email))) > 1"),
    ("closed_before_created", "lead deal", "high", "created_at", "Closed before it was created.", "Correct the dates, often a time zone or day/month mix-up.",
     "select id from {e} where {closed} < created_at"),
    ("outcome_without_date", "lead deal", "high", "", "Decided, but nobody knows when.", "Export or enter the closing date; without it the order of time is lost.",
     "select id from {e} where ({won} or {lost}) and {closed} is null"),
    ("overdue_close", "deal", "high", "close_on", "Still open after its planned close date.", "Move the date or close the deal.",
     "select id from deal where {open} and close_on < {now}::date"),
    ("no_close_date", "deal", "medium", "close_on", "Open without a planned close date.", "Plan one; the forecast needs it.",
     "select id from deal where {open} and close_on is null"),
    ("no_amount", "deal", "medium", "amount", "Open without an amount.", "Enter the expected value.",
     "select id from deal where {open} and coalesce(amount, 0) <= 0"),
    ("won_without_amount", "deal", "high", "amount", "Won for nothing.", "Enter the value that was sold.",
     "select id from deal where {won} and coalesce(amount, 0) <= 0"),
    ("amount_outlier", "deal", "low", "amount", f"Over {OUTLIER} times the median amount in its currency.", "Check for a slipped decimal point.",
     f"select id from deal where amount > 0 qualify amount > {OUTLIER} * median(amount) over (partition by split_part(id, ':', 1), currency)"),
    ("amount_without_currency", "deal", "low", "amount currency", "An amount whose currency is missing.", "Enter the currency.",
     "select id from deal where amount is not null and currency is null"),
    ("no_owner", "lead deal", "medium", "owner_id", "Open, and nobody owns it.", "Assign it.",
     "select id from {e} where {open} and owner_id is null"),
    ("inactive_owner", "lead deal", "high", "owner_id user.is_active", "Open, owned by somebody who has left.", "Hand it over.",
     'select id from {e} where {open} and owner_id in (select id from "user" where not is_active)'),
    ("no_account", "deal", "medium", "account_id", "A deal with nobody: no account.", "Link the account.",
     "select id from deal where account_id is null"),
    ("broken_reference", "account contact lead deal activity deal_product membership", "high", "",
     "Points to a record that does not exist in its source.", "Import the missing records, or correct the key (often a spelling).", "{broken}"),
    ("stale_deal", "deal", "medium", "activity.deal_id", f"Open, and no activity for {STALE_DAYS} days.", "Call, or close it.",
     f"""select id from deal where {{open}} and coalesce(created_at, {{now}}) <= {{now}} - interval {STALE_DAYS} day and id not in (select deal_id from
     activity where deal_id is not null and coalesce(happened_at, created_at) between {{now}} - interval {STALE_DAYS} day and {{now}})"""),
    ("unknown_stage", "deal", "medium", "stage stage.name", "Its stage is not among the stages of its source.", "Correct the stage or import the list of stages.",
     "select d.id from deal d where stage is not null and not exists (select 1 from stage s where s.name = d.stage and {same_source})"),
    ("stage_against_outcome", "deal", "high", "stage stage.outcome", "The stage says something else than the outcome.", "Close the deal through its stage.",
     """select d.id from deal d join stage s on s.name = d.stage and {same_source} and (s.pipeline is null or d.pipeline is null or s.pipeline = d.pipeline)
     where s.outcome <> case when is_won then 'won' when not is_won then 'lost' else 'open' end"""),
    ("created_in_future", "account contact lead deal activity", "high", "created_at", "Created after the instant of this report.", "Check the time zone of the import.",
     "select id from {e} where created_at > {now}"),
    ("migrated_batch", "lead deal activity", "medium", "created_at", f"One of {BATCH} or more created at the same instant: a migration, not an event.", "Do not read its creation as a date; map the original date.",
     # an export that knows days only has many records an instant: a batch must stand out from what is usual there
     f"""select r.id from {{e}} r join (select *, quantile_disc(n, .5) over (partition by src) as usual from (select split_part(id, ':', 1) as src, created_at, count(*) as n
     from {{e}} group by all)) b on b.src = split_part(r.id, ':', 1) and b.created_at = r.created_at where n >= {BATCH} and n >= 20 * usual"""),
    ("done_in_future", "activity", "medium", "happened_at", "Marked as done, but lies in the future.", "Correct the date.",
     "select id from activity where is_done and happened_at > {now}"),
    ("overdue_task", "activity", "low", "happened_at is_done", "Planned over 30 days ago and never marked as done.", "Do it or delete it.",
     "select id from activity where not is_done and happened_at < {now} - interval 30 day"),
    ("unlinked_activity", "activity", "medium", "lead_id|contact_id|deal_id|account_id", "About nobody: linked to no record.", "Link it, or it counts for nothing.",
     "select id from activity where coalesce(lead_id, contact_id, deal_id, account_id) is null"),
    ("placeholder_name", "lead contact account deal", "low", "name", "A name that is none (test, n/a, unknown).", "Enter the real name or delete the record.",
     "select id from {e} where name is not null and (not {has_name} or regexp_matches(lower(trim(name)), '^(test|asdf|xxx+|dummy)[ 0-9]*$'))"),
    ("spelling_variants", "lead account contact", "low", "", "A category spelled in two ways; this is the rarer one.", "Choose one spelling, or map them in the import.", "{variants}"),
]
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


def _expand() -> list[Rule]:
    rules = []
    for name, entities, severity, needs, meaning, fix, sql in _RULES:
        for e in entities.split():
            words = {"e": e, "now": "{now}", "won": WON.get(e, "false"), "lost": LOST.get(e, "false"), "closed": CLOSED.get(e, "null"),
                     "open": f"not coalesce({WON.get(e, 'false')}, false) and not coalesce({LOST.get(e, 'false')}, false)",
                     "same_source": "split_part(s.id, ':', 1) = split_part(d.id, ':', 1)", "broken": _broken(e), "variants": _variants(e)}
            words |= {f"has_{f}": is_filled(f, "VARCHAR") for f in ("email", "phone", "name")}
            rules.append(Rule(name, e, severity, needs, meaning, sql.format(**words), fix))
    return rules


RULES = _expand()


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
