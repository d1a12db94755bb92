"""The demo organisation: an invented company that sells to companies, 48 months that end at END, every change of every record.

Its CRM was connected on the last day and told all of its history at once: recorded_at is END everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa

from workbench import schema
from workbench.connect.demo_records import CURRENCIES, STAGES, WORTH, chunk_records
from workbench.connect.demo_words import DAY, FIRST, NEVER, PRODUCTS, SURNAMES, Story, days, flags, keys, numbers, times, words
from workbench.connect.demo_world import CAMPAIGNS, LAST, START, Company, make_accounts, make_company, make_deals, make_leads
from workbench.errors import WorkbenchError

END = datetime(2026, 6, 30, 23, 59, 59)
SOURCE = "demo"
# leads, deals, users, activity in relation to small, and whether activities have texts
SIZES = {"small": (3_000, 1_200, 16, .47, True), "medium": (20_000, 8_000, 60, .5, True), "large": (1_000_000, 1_000_000, 900, .33, False)}
CHUNK = 25_000  # records of the larger kind made at a time
REVIEW = 1719792000.0  # 2024-07-01: stage probabilities become the win rates seen until then
TEAMS = [("North", "Germany and Denmark"), ("West", "France, Netherlands, United Kingdom"), ("South", "Austria and Switzerland"), ("Overseas", "United States")]
GUESS = [.1, .25, .5, .75, 1, 0]
# fields beyond the schema, and those that are known otherwise than it says: entity, field, type, known_at, meaning, personal
OWN = [("lead", "x_budget_band", "text", "fixed", "yearly budget as chosen in the form", False), ("lead", "x_newsletter", "bool", "fixed", "asked for the newsletter when it came in", False),
       ("lead", "x_messenger", "text", "fixed", "name in a messenger", True),
       ("lead", "x_call_grade", "text", "current_only", "grade A to D after the latest call; overwritten when the lead is closed, earlier grades are not kept", False),
       ("deal", "x_security_review", "bool", "historized", "the customer asked for a security review", False), ("deal", "x_discount_share", "float", "historized", "discount offered, 0..1", False),
       ("deal", "x_exit_score", "float", "current_only", "1 to 10, written at the hand-over after the close; no history is kept", False),
       ("account", "x_segment", "text", "fixed", "size class when the account was entered", False), ("stage", "probability", "float", "historized", "", False)]


def make_demo(lake, *, size: str = "small", seed: int = 1, progress: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Write the demo organisation into `lake`, in place of an earlier one; the same rows for the same size and seed.

    Returns one row an entity: entity, n_records, n_versions.
    """
    if size not in SIZES:
        raise WorkbenchError(f"There is no demo of size {size!r}.", fix=f"Sizes: {', '.join(SIZES)}.")
    n_leads, n_deals, n_users, busy, written = SIZES[size]
    company, told, filled = make_company(np.random.default_rng([seed, 0]), n_users, busy), {}, set()
    n_chunks, seen = -(-max(n_leads, n_deals) // CHUNK), np.zeros((3, 4))

    def write(entity: str, columns: dict) -> None:
        table = pa.table(columns)
        n = told.get(entity, np.zeros(2, dtype=int))
        told[entity] = n + (len(table["id"].unique()), lake.load_versions(entity, table, origin="demo", recorded_at=END))
        filled.update((entity, c) for c in table.column_names if table[c].null_count < len(table))

    with lake.writer():
        _clear(lake)
        for k in range(n_chunks):
            if progress:
                progress(f"demo organisation: part {k + 1} of {n_chunks}")
            rng, company.base = np.random.default_rng([seed, k + 1]), k * 1_000_000
            n, m = (t // n_chunks + (k < t % n_chunks) for t in (n_leads, n_deals))
            leads = make_leads(company, rng, n)
            accounts, contacts = make_accounts(company, rng, leads, max(3, m // 2))
            deals = make_deals(company, rng, leads, accounts, m)
            for entity, columns in chunk_records(company, rng, leads, accounts, contacts, deals, written).items():
                write(entity, columns)
            past = deals.close < REVIEW
            seen += np.array([((deals.enter < NEVER) & past[:, None]).sum(axis=0), ((deals.enter < NEVER) & (past & deals.won)[:, None]).sum(axis=0), np.full(4, deals.amount[deals.won].sum())])
        for entity, columns in _organisation(company, np.random.default_rng([seed, 0, 1]), seen).items():
            write(entity, columns)
        lake.set_fields(_field_rows(filled))
    return pd.DataFrame([(e, *map(int, told[e])) for e in schema.ENTITIES if e in told], columns=["entity", "n_records", "n_versions"])


def _clear(lake) -> None:
    """Drop the records of an earlier demo, of whatever size."""
    for entity in schema.ENTITIES:
        if not lake.is_empty(entity):
            merge = lake.store.merge(entity, pa.table({"source": [SOURCE]}), f"t.id >= '{SOURCE}:' and t.id < '{SOURCE};'")
            merge.merger = merge.merger.when_matched_delete()
            merge.run()


def _field_rows(filled: set[tuple[str, str]]) -> list[dict]:
    """How each filled field is known, for table `field`."""
    own = {(e, f): {"kind": kind, "known_at": known, "meaning": meaning, "personal": personal} for e, f, kind, known, meaning, personal in OWN}
    rows = []
    for entity, name in sorted(filled - {(e, c) for e, c in filled if c in {v[0] for v in schema.VERSION}}):
        f = schema.entity(entity).fields.get(name)
        told = {"kind": f.kind, "known_at": f.known_at, "meaning": f.meaning, "personal": f.personal} if f else {}
        rows.append({"source": SOURCE, "entity": entity, "field": name} | told | {k: v for k, v in own.get((entity, name), {}).items() if v != ""})
    return rows


def _organisation(c: Company, rng: np.random.Generator, seen: np.ndarray) -> dict[str, dict]:
    """Users, stages, campaigns, products, exchange rates and quotas; `seen` = deals that reached each stage, those of them won, value won."""
    return {"user": _users(c, rng), "stage": _stages(seen), "campaign": _campaigns(c, rng), "product": _products(), "fx_rate": _rates(rng), "quota": _quotas(c, rng, seen[2, 0])}


def _users(c: Company, rng: np.random.Generator) -> dict:
    n = len(c.hired)
    who, team = np.arange(n), np.arange(n) % len(TEAMS)
    story = Story(c.left)
    story.add(who >= 0, c.hired, final=True, team=team, active=1)
    story.add((rng.random(n) < .2) & (who >= len(TEAMS)), c.hired + rng.random(n) * 900 * DAY, team=(team + 1) % len(TEAMS))
    story.add(who >= 0, c.left, final=True, active=0)
    row, at, v = story.versions(LAST)
    team = v["team"].to_numpy().astype(int)
    names = [f"{FIRST[i * 7 % len(FIRST)]} {SURNAMES[(i * 31 + i // len(FIRST)) % len(SURNAMES)]}" for i in range(n)]
    mail = [f"{x.lower().replace(' ', '.').replace('ö', 'o')}{i}@demo-organisation.test" for i, x in enumerate(names)]
    return {"id": keys("u", row + 1), "valid_from": times(at), "name": words(names, row), "email": words(mail, row), "manager": words(names, np.where(row == team, -1, team)),
            "team": words([t[0] for t in TEAMS], team), "territory": words([t[1] for t in TEAMS], team), "is_active": flags(v["active"])}


def _stages(seen: np.ndarray) -> dict:
    rates = [*np.round(seen[1] / np.maximum(seen[0], 1), 2), 1, 0]
    i, later = np.tile(np.arange(6), 2), np.repeat([False, True], 6)
    return {"id": keys("s", i + 1), "valid_from": times(np.where(later, REVIEW, START)), "pipeline": words(["Sales"], i * 0), "name": words(STAGES, i), "position": numbers(i + 1.0, 0),
            "probability": numbers(np.where(later, np.array(rates)[i], np.array(GUESS)[i])), "outcome": words(["open", "won", "lost"], np.maximum(i - 3, 0))}


def _campaigns(c: Company, rng: np.random.Generator) -> dict:
    i = np.arange(len(c.campaigns))
    start = np.floor(c.campaigns)
    names = [f"{CAMPAIGNS[k % 3]} {PRODUCTS[k % len(PRODUCTS)][1]} {pd.Timestamp(start[k], unit='s'):%Y-%m}" for k in i]
    return {"id": keys("k", i + 1), "valid_from": times(np.maximum(start - 14 * DAY, START)), "name": words(names, i), "kind": words(list(CAMPAIGNS), i % 3), "starts_on": days(start),
            "ends_on": days(start + np.array([0, 2, 20])[i % 3] * DAY), "cost": numbers(np.round(np.array([1500, 9000, 600])[i % 3] * np.exp(rng.normal(0, .3, len(i))), -2)), "currency": words(["EUR"], i * 0)}


def _products() -> dict:
    i = np.arange(len(PRODUCTS))
    return {"id": keys("p", i + 1), "valid_from": times(np.full(len(i), START)), "name": words([p[0] for p in PRODUCTS], i), "family": words([p[1] for p in PRODUCTS], i),
            "list_price": numbers(np.array([p[2] for p in PRODUCTS], dtype=float)), "currency": words(["EUR"], i * 0)}


def _rates(rng: np.random.Generator) -> dict:
    """Month-end rates against the euro; the last is the last event of all."""
    day = pd.date_range("2022-06-30", END, freq="ME")
    at = np.maximum(day.as_unit("s").astype("int64").to_numpy() + DAY - 1, START)
    walk = WORTH * np.exp(np.cumsum(rng.normal(0, .015, (len(day), 4)), axis=0) * [0, 1, 1, 1])
    i, m = np.tile(np.arange(4), len(day)), np.repeat(np.arange(len(day)), 4)
    ids = [f"demo:fx-{CURRENCIES[a]}-{day[b]:%Y-%m-%d}" for a, b in zip(i, m, strict=True)]
    return {"id": pa.array(ids), "valid_from": times(at[m]), "currency": words(CURRENCIES, i), "on_date": days(day.as_unit("s").astype("int64").to_numpy()[m]), "rate": numbers(walk[m, i], 4)}


def _quotas(c: Company, rng: np.random.Generator, won: float) -> dict:
    """A target a user and quarter, agreed ten days before: what a seller brings in, a tenth more, growing; less in the first half-year."""
    starts = pd.date_range("2022-07-01", END, freq="QS")
    begin, stop = (s.as_unit("s").astype("int64").to_numpy().astype(float) for s in (starts, starts + pd.offsets.QuarterEnd(0)))
    user, q = (a.ravel() for a in np.meshgrid(np.arange(len(c.hired)), np.arange(len(starts)), indexing="ij"))
    kept = (c.hired[user] <= begin[q]) & (c.left[user] > begin[q])
    user, q = user[kept], q[kept]
    amount = 1.1 * won / len(user) * np.exp(.054 * (q - 7.5)) * np.where(begin[q] - c.hired[user] < 180 * DAY, .6, 1) * np.exp(rng.normal(0, .1, len(user)))
    return {"id": pa.array([f"demo:q-{u + 1}-{starts[k]:%Y-%m}" for u, k in zip(user, q, strict=True)]), "valid_from": times(np.maximum(begin[q] - 10 * DAY, START)), "user_id": keys("u", user + 1),
            "starts_on": days(begin[q]), "ends_on": days(stop[q]), "amount": numbers(np.round(amount, -3)), "currency": words(["EUR"], user * 0)}
