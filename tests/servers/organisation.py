"""The same small organisation for every stand-in, in words of no CRM: deterministic, with its whole past, and editable day by day.

`org.records[entity][key]` is a record as it stands: the fields of workbench/schema.txt (keys of other records are their integer keys), and

    key, created_at, modified_at, deleted_at, merged_into (key), hard (deleted without a trace), created_by, modified_by (user keys),
    custom {field key: value}

`org.changes` is every change ever: entity, key, at, field (custom ones as "custom.KEY"), old, new, by. `org.custom[entity]` describes the
customer's own fields (CustomDefinition). A record may hold more than the schema knows: a lead's or contact's first_name and last_name, a deal's
probability, an activity's listing_id, ended_at, priority; tables `enquiry`, `inspection`, `office` and `class` are the real-estate side's.

Values of choices are labels; instants are naive UTC to the second; money is a float with two digits.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

START, NOW = datetime(2024, 9, 2, 8), datetime(2026, 3, 2, 9)
DAY = timedelta(days=1)
HOSTILE = ["<script>alert(1)</script> & Sons", "O'Brien \"Quotes\" GmbH", "=HYPERLINK(\"http://x\")", "Zoë Ünïcode 株式会社", "Robert'); DROP TABLE deal;--", "a,b;c\td"]
STAGES = {"Sales": [("New", .1, "open"), ("Qualified", .25, "open"), ("Proposal", .5, "open"), ("Negotiation", .75, "open"), ("Closed Won", 1., "won"),
                    ("Closed Lost", 0., "lost")],
          "Renewals": [("Due", .6, "open"), ("Quoted", .8, "open"), ("Renewed", 1., "won"), ("Churned", 0., "lost")]}
FIRST = ["Ann", "Ben", "Chloé", "Dmitri", "Eva", "Farid", "Grace", "Hiro", "Ines", "Jack", "Kofi", "Lena"]
LAST = ["Abbott", "Brown", "Castillo", "D'Souza", "Evans", "Fischer", "García", "Huang", "Ito", "Jones", "Kowalski", "Li"]
CITIES = [("Germany", "Berlin"), ("Germany", "Köln"), ("France", "Lyon"), ("Australia", "Sydney"), ("Australia", "Perth"), ("USA", "Austin")]
SOURCES = ["Web", "Phone Inquiry", "Partner Referral", "Trade Show", "Other"]
LISTING_STATUS = ["Appraisal", "Presentation", "Pending", "Available", "Conditional", "Unconditional", "Settled"]


@dataclass
class CustomDefinition:
    """A field of the customer's own. kind: text, long, int, float, bool, date, time, money, choice, choices, url, user."""

    key: str
    label: str
    kind: str
    options: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)  # options that records may still hold
    dropped: bool = False


def _definitions() -> dict[str, list[CustomDefinition]]:
    budget = CustomDefinition("budget", "Budget <b>approved</b>?", "choice", ["Yes, in full", "Partly", "No"], ["Don't know"])
    return {
        "lead": [budget, CustomDefinition("fleet", "Fleet size", "int"), CustomDefinition("interests", "Interests; all, of them", "choices",
                 ["Vans", "Cars, small", "Trucks & trailers"], ["Bikes"])],
        "deal": [CustomDefinition("score", "Fit \"score\" (0-100 %)", "float"), CustomDefinition("renews", "Renews on", "date"),
                 CustomDefinition("tender", "Is tender", "bool"), CustomDefinition("deposit", "Deposit", "money"),
                 CustomDefinition("models", "Models", "choices", ["S", "M, wide", "L"]), CustomDefinition("briefing", "Briefing", "long"),
                 CustomDefinition("reviewed", "Reviewed at", "time"), CustomDefinition("sponsor", "Sponsor", "user"),
                 CustomDefinition("clash", "Fit score 0 100", "text")],
        "account": [CustomDefinition("segment", "Segment", "choice", ["A", "B", "C"]), CustomDefinition("site", "Intranet", "url")],
        "contact": [CustomDefinition("vip", "VIP", "bool"), CustomDefinition("birthday", "Jahrestag (Ä)", "date")],
    }


class Organisation:
    """Records, changes and custom fields; `now` is the clock of whoever shows it."""

    def __init__(self, now: datetime = NOW):
        self.now, self.lock = now, threading.RLock()
        self.records: dict[str, dict[int, dict[str, Any]]] = {}
        self.changes: list[dict[str, Any]] = []
        self.custom = _definitions()
        self._keys: dict[str, int] = {}

    # ---- reading
    def all(self, entity: str) -> dict[int, dict[str, Any]]:
        """Every record that left a trace, deleted ones too (not those deleted hard)."""
        return {k: r for k, r in self.records.get(entity, {}).items() if not r["hard"]}

    def standing(self, entity: str) -> dict[int, dict[str, Any]]:
        """The records that stand now."""
        return {k: r for k, r in self.records.get(entity, {}).items() if r["deleted_at"] is None}

    def of(self, entity: str, key: int, fields: Iterable[str] = ()) -> list[dict[str, Any]]:
        """The changes of one record in order, of these fields (all, when none is named)."""
        wanted = set(fields)
        return [c for c in self.changes if c["entity"] == entity and c["key"] == key and (not wanted or c["field"] in wanted)]

    def first(self, entity: str, key: int, name: str) -> Any:
        """The value that a field had when its record was created."""
        told = self.of(entity, key, [name])
        return told[0]["old"] if told else self.records[entity][key].get(name)

    # ---- writing
    def create(self, entity: str, at: datetime | None = None, *, by: int = 1, custom: dict | None = None, **values: Any) -> int:
        """A new record; its key."""
        with self.lock:
            at = at or self.now
            key = self._keys[entity] = self._keys.get(entity, 0) + 1
            self.records.setdefault(entity, {})[key] = {"key": key, "created_at": at, "modified_at": at, "deleted_at": None, "merged_into": None, "hard": False,
                                                        "created_by": by, "modified_by": by, "custom": custom or {}, **values}
            return key

    def change(self, entity: str, key: int, at: datetime | None = None, *, by: int = 1, custom: dict | None = None, **values: Any) -> None:
        """Set fields at an instant; only what differs is a change."""
        with self.lock:
            record, at = self.records[entity][key], at or self.now
            for name, new, holder in [(n, v, record) for n, v in values.items()] + [(n, v, record["custom"]) for n, v in (custom or {}).items()]:
                if (old := holder.get(name)) != new:
                    holder[name] = new
                    self.changes.append({"entity": entity, "key": key, "at": at, "field": name if holder is record else f"custom.{name}", "old": old, "new": new, "by": by})
                    record["modified_at"], record["modified_by"] = max(record["modified_at"], at), by

    def delete(self, entity: str, key: int, at: datetime | None = None, *, hard: bool = False, merged_into: int | None = None) -> None:
        """Delete a record (into the bin, or without a trace); with `merged_into` it lives on in another one, which takes over what pointed to it."""
        with self.lock:
            at, record = at or self.now, self.records[entity][key]
            record.update(deleted_at=at, merged_into=merged_into, hard=hard, modified_at=max(record["modified_at"], at))
            if merged_into is not None:
                for table, rows in self.records.items():
                    for k, r in rows.items():
                        for name in (f"{entity}_id", f"converted_{entity}_id"):
                            if r.get(name) == key and r["deleted_at"] is None:
                                self.change(table, k, max(at, r["created_at"]), **{name: merged_into})

    def restore(self, entity: str, key: int, at: datetime | None = None) -> None:
        """Take a record out of the bin."""
        with self.lock:
            self.records[entity][key].update(deleted_at=None, merged_into=None, modified_at=at or self.now)

    def convert(self, key: int, at: datetime | None = None, *, deal: bool = True, by: int = 1) -> None:
        """Turn a lead into a new contact at a new account, and (with `deal`) a new deal; its activities move to them."""
        with self.lock:
            lead, at = self.records["lead"][key], at or self.now
            account = self.create("account", at, by=by, name=lead["company"], industry=lead["industry"], employees=lead["employees"], country=lead["country"],
                                  city=lead["city"], owner_id=lead["owner_id"], currency="EUR")
            contact = self.create("contact", at, by=by, **{n: lead[n] for n in ("first_name", "last_name", "name", "email", "phone", "title", "country", "city",
                                                                             "owner_id", "do_not_email", "do_not_call")}, account_id=account)
            opened = self.create("deal", at, by=by, name=f"{lead['company']} - first order", account_id=account, contact_id=contact, owner_id=lead["owner_id"],
                                 source_lead_id=key, source=lead["source"], campaign_id=lead["campaign_id"], pipeline="Sales", stage="New", probability=.1,
                                 kind="New Business", amount=round(500. + 37 * key, 2), currency="EUR", close_on=(at + 60 * DAY).date(), is_won=None, closed_at=None,
                                 lost_reason=None, next_step=None, product_id=None) if deal else None
            self.change("lead", key, at, by=by, status="Converted", is_converted=True, converted_at=at, closed_at=at, converted_contact_id=contact,
                        converted_account_id=account, converted_deal_id=opened)
            for k, activity in self.standing("activity").items():
                if activity["lead_id"] == key and activity["created_at"] <= at:
                    self.change("activity", k, at, by=by, lead_id=None, contact_id=contact, account_id=account, deal_id=opened)

    def move(self, key: int, stage: str, at: datetime | None = None, *, by: int = 1, reason: str | None = None) -> None:
        """Put a deal into a stage of its pipeline; a final one closes it."""
        at, pipeline = at or self.now, self.records["deal"][key]["pipeline"]
        probability, outcome = next((p, o) for name, p, o in STAGES[pipeline] if name == stage)
        closed = {"is_won": outcome == "won", "closed_at": at, "close_on": at.date(), "lost_reason": reason if outcome == "lost" else None}
        opened = {"is_won": None, "closed_at": None, "lost_reason": None}
        self.change("deal", key, at, by=by, stage=stage, probability=probability, **(opened if outcome == "open" else closed))


def organisation(seed: int = 1) -> Organisation:
    """The organisation as it stands at NOW, after 18 months."""
    org, rng = Organisation(), random.Random(seed)
    _base(org, rng)
    _people(org, rng)
    _leads(org, rng)
    _deals(org, rng)
    _activities(org, rng)
    _real_estate(org, rng)
    for key in [k for k, r in org.records["lead"].items() if not r["is_converted"] and r["created_at"] < datetime(2025, 3, 1)][:12]:
        pass_at = min(org.records["lead"][key]["created_at"] + 70 * DAY, NOW - DAY)
        org.change("lead", key, pass_at, status="Unqualified", is_lost=True, closed_at=pass_at)
    for key in [k for k, r in org.standing("lead").items() if r["is_converted"] is False and not r["is_lost"] and r["created_at"] < NOW - 200 * DAY][:14]:
        lead = org.records["lead"][key]
        org.convert(key, lead["created_at"] + timedelta(days=20 + key % 40, hours=key % 9), deal=key % 5 > 0, by=lead["owner_id"])
    for key in (7, 19):
        org.delete("lead", key, NOW - 40 * DAY)
    org.delete("deal", 11, NOW - 12 * DAY)
    org.delete("activity", 33, NOW - 5 * DAY)
    org.delete("account", 9, NOW - 20 * DAY, merged_into=8)
    org.delete("contact", 14, NOW - 8 * DAY, merged_into=13)
    org.changes.sort(key=lambda c: c["at"])
    return org


def _between(rng: random.Random, first: datetime, last: datetime) -> datetime:
    return first + timedelta(seconds=rng.randrange(max(1, int((last - first).total_seconds()))))


def _base(org: Organisation, rng: random.Random) -> None:
    for n in range(8):
        name = f"{FIRST[n]} {LAST[-1 - n]}"
        org.create("user", START, first_name=FIRST[n], last_name=LAST[-1 - n], name=name, email=f"user{n}@example.com", manager=None if n == 0 else f"{FIRST[0]} {LAST[-1]}",
                   team="Enterprise" if n % 2 else "Mid-market", territory="EMEA" if n % 3 else "APAC", is_active=n != 6, manager_id=None if n == 0 else 1)
    for pipeline, steps in STAGES.items():
        for position, (name, probability, outcome) in enumerate(steps, 1):
            org.create("stage", START, pipeline=pipeline, name=name, position=position, probability=probability, outcome=outcome)
    for n in range(8):
        org.create("product", START, name=f"Van {n}" if n else HOSTILE[0], family="Vans" if n % 2 else "Service", list_price=round(1000 * 1.3 ** n, 2), currency="EUR")
    for n in range(5):
        org.create("campaign", START + n * 60 * DAY, name=f"Campaign {n}", kind=["Webinar", "Email", "Event", "Ads", "Partner"][n], currency="EUR",
                   starts_on=(START + n * 60 * DAY).date(), ends_on=(START + (n * 60 + 30) * DAY).date(), cost=1000. * (n + 1), status="Completed" if n < 4 else "Planned")
    for n, user in enumerate(range(1, 9)):
        for quarter in range(3):
            org.create("quota", START, user_id=user, starts_on=date(2025, 3 * quarter + 4, 1), ends_on=date(2025 + (quarter == 2), 12 if quarter == 2 else 3 * quarter + 6, 30),
                       amount=50_000. + 5_000 * n, currency="EUR")
    for currency, rate in (("USD", .92), ("AUD", .61)):
        org.create("fx_rate", START, currency=currency, on_date=date(2024, 9, 1), rate=rate)


def _people(org: Organisation, rng: random.Random) -> None:
    for n in range(40):
        country, city = CITIES[n % len(CITIES)]
        at = _between(rng, START, NOW - 100 * DAY)
        key = org.create("account", at, by=1 + n % 6, name=HOSTILE[n % 6] if n < 6 else f"Firma {n} AG", industry=["Retail", "Energy", "Health", None][n % 4], employees=n * 13 or None,
                         annual_revenue=round(1e5 * (n + 1), 2) if n % 5 else None, currency="EUR", country=country, city=city, parent_id=n if n % 11 == 10 else None,
                         owner_id=1 + n % 6, custom={"segment": "ABC"[n % 3]} | ({"site": f"https://intranet.example/{n}"} if n % 4 == 0 else {}))
        if n % 6 == 0:
            org.change("account", key, _between(rng, at, NOW - 30 * DAY), employees=500 + n, industry="Logistics")
    for n in range(60):
        account = 1 + n % 40
        at = _between(rng, max(org.records["account"][account]["created_at"], START), NOW - 60 * DAY)
        first, last = FIRST[n % 12], LAST[(n * 5 + n // 12) % 12]
        country, city = CITIES[n % len(CITIES)]
        key = org.create("contact", at, by=1 + n % 6, first_name=first, last_name=last, name=f"{first} {last}", email=f"{first.lower()}.{n}@example.com" if n % 9 else None,
                         phone=f"+49 30 55{n:04}" if n % 4 else None, title=["CEO", "Buyer", "Fleet manager", None][n % 4], account_id=account, owner_id=1 + n % 6,
                         country=country, city=city, do_not_email=n % 10 == 0, do_not_call=n % 15 == 0,
                         custom={"vip": n % 7 == 0} | ({"birthday": date(2020, 1 + n % 12, 1 + n % 28)} if n % 3 == 0 else {}))
        if n % 8 == 0:
            org.change("contact", key, _between(rng, at, NOW - 20 * DAY), title="Managing director", owner_id=2 + n % 5)


def _leads(org: Organisation, rng: random.Random) -> None:
    for n in range(120):
        at = START + n * timedelta(days=4, hours=5, seconds=n)
        first, last = FIRST[(n * 7) % 12], LAST[(n + n // 12) % 12]
        country, city = CITIES[(n * 5) % len(CITIES)]
        custom: dict[str, Any] = {"budget": ["Yes, in full", "Partly", "No", "Don't know", None][n % 5], "fleet": n % 50}
        if n % 3 == 0:
            custom["interests"] = [["Vans"], ["Vans", "Cars, small"], ["Trucks & trailers", "Bikes"]][n // 3 % 3]
        key = org.create("lead", at, by=1 + n % 6, first_name=first, last_name=last, name=f"{first} {last}", email=f"lead{n}@example.com" if n % 8 else None, phone=None if n % 3 else f"0{n:07}",
                         company=HOSTILE[n // 9 % 6] if n % 9 == 0 else f"Prospect {n}", title=["Owner", "Buyer", None][n % 3], industry=["Retail", "Energy", None][n % 3],
                         employees=n * 3 or None, country=country, city=city, source=SOURCES[n % 5], campaign_id=1 + n % 5 if n % 2 else None, owner_id=1 + n % 6, status="New",
                         rating=["Hot", "Warm", "Cold", None][n % 4], do_not_email=n % 12 == 0, do_not_call=False, is_converted=False, converted_at=None, is_lost=False,
                         closed_at=None, converted_contact_id=None, converted_deal_id=None, converted_account_id=None, custom={k: v for k, v in custom.items() if v is not None})
        if n % 2:
            org.change("lead", key, _between(rng, at, min(at + 10 * DAY, NOW - DAY)), status="Working", by=1 + n % 6)
        if n % 6 == 0:
            org.change("lead", key, _between(rng, at, min(at + 15 * DAY, NOW - DAY)), rating="Hot", owner_id=1 + (n + 1) % 6, custom={"fleet": 99})
    for n in range(40):
        kind = {"lead_id": 1 + 3 * n, "contact_id": None} if n % 4 else {"lead_id": None, "contact_id": 1 + n}
        made = max(org.records["lead"][kind["lead_id"]]["created_at"] if kind["lead_id"] else org.records["contact"][1 + n]["created_at"], START) + DAY
        key = org.create("membership", made, campaign_id=1 + n % 5, status="Sent", **kind)
        if n % 3 == 0:
            org.change("membership", key, made + 2 * DAY, status="Responded")


def _deals(org: Organisation, rng: random.Random) -> None:
    for n in range(80):
        pipeline = "Renewals" if n % 4 == 3 else "Sales"
        steps, contact = STAGES[pipeline], 1 + n % 60
        at = max(START + n * timedelta(days=6, hours=7, minutes=n), org.records["contact"][contact]["created_at"])
        at = min(at, NOW - 3 * DAY)
        custom: dict[str, Any] = {"score": n * 1.25, "tender": n % 5 == 0}
        custom |= {"renews": date(2026, 1 + n % 12, 15), "deposit": round(n * 10.5, 2), "models": ["S", "M, wide"] if n % 4 else ["L"]} if n % 2 else {}
        custom |= {"briefing": f"Paragraph one.\nParagraph two of deal {n} <i>x</i>.", "reviewed": at + timedelta(hours=3), "sponsor": 1 + n % 6, "clash": f"c{n}"} if n % 3 == 0 else {}
        key = org.create("deal", at, by=1 + n % 6, name=HOSTILE[n % 6] if n % 13 == 0 else f"Deal {n}", account_id=org.records["contact"][contact]["account_id"], contact_id=contact, owner_id=1 + n % 6,
                         campaign_id=1 + n % 5 if n % 6 == 0 else None, source_lead_id=None, product_id=None, pipeline=pipeline, stage=steps[0][0], probability=steps[0][1],
                         kind="Renewal" if pipeline == "Renewals" else "New Business", source=SOURCES[n % 5], amount=round(900 + 113.37 * n, 2), currency=["EUR", "EUR", "USD", "AUD"][n % 4],
                         close_on=(at + 45 * DAY).date(), next_step=f"Call {n}" if n % 4 == 0 else None, is_won=None, closed_at=None, lost_reason=None, custom=custom)
        when, opened = at, [s for s in steps if s[2] == "open"]
        for name, _, _ in opened[1:1 + n % (len(opened) + 1)]:
            when = _between(rng, when + timedelta(hours=1), when + 14 * DAY)
            if when < NOW - DAY:
                org.move(key, name, when, by=1 + n % 6)
                if n % 3 == 0:
                    org.change("deal", key, when + timedelta(minutes=9), amount=round(org.records["deal"][key]["amount"] * 1.1, 2))
                if n % 5 == 0:
                    org.change("deal", key, when + timedelta(minutes=19), close_on=org.records["deal"][key]["close_on"] + 21 * DAY, custom={"score": n * 1.25 + 5})
        if n % 5 in (1, 2, 3) and when + 9 * DAY < NOW:
            won = n % 5 == 1
            org.move(key, next(s[0] for s in steps if s[2] == ("won" if won else "lost")), when + 9 * DAY, reason=["Price", "Timing, budget", "Competitor"][n % 3])
        for line in range(n % 3):
            product = 1 + (n + line) % 8
            org.create("deal_product", at + timedelta(minutes=5), deal_id=key, product_id=product, quantity=float(1 + line), amount=round(org.records["product"][product]["list_price"] * (1 + line), 2),
                       currency=org.records["deal"][key]["currency"])
        org.create("deal_contact", at + timedelta(minutes=1), deal_id=key, contact_id=contact, role="Decision Maker", is_primary=True)
        if n % 4 == 0 and contact != 1 + (contact + 3) % 60:
            org.create("deal_contact", at + timedelta(minutes=2), deal_id=key, contact_id=1 + (contact + 3) % 60, role="Evaluator", is_primary=False)


def _activities(org: Organisation, rng: random.Random) -> None:
    kinds = ["call", "email", "meeting", "task", "note"]
    for n in range(600):
        kind, whom = kinds[n % 5], n % 3
        none: dict[str, int | None] = {"lead_id": None, "contact_id": None, "deal_id": None, "account_id": None}
        if whom == 0:
            target, about = 1 + (n * 7) % 120, {"lead_id": 1 + (n * 7) % 120}
            born = org.records["lead"][target]["created_at"]
        elif whom == 1:
            target = 1 + n % 80
            deal = org.records["deal"][target]
            born, about = deal["created_at"], {"deal_id": target, "contact_id": deal["contact_id"], "account_id": deal["account_id"]}
        else:
            target = 1 + n % 60
            born, about = org.records["contact"][target]["created_at"], {"contact_id": target, "account_id": org.records["contact"][target]["account_id"]}
        at = _between(rng, born, min(born + 60 * DAY, NOW))
        planned = kind in ("meeting", "task", "call") and n % 7 == 0
        happened = (at + timedelta(days=3 + n % 9)).replace(minute=0, second=0) if planned else at
        done = not planned or happened < NOW - 2 * DAY
        key = org.create("activity", at, by=1 + n % 6, kind=kind, direction=["in", "out"][n % 2] if kind in ("call", "email") else None, subject=f"{kind.title()} {n}" if n % 31 else HOSTILE[n % 6],
                         body=f"About {target}: line one.\nLine two <b>{n}</b>" if kind in ("email", "note") else None, user_id=1 + n % 6, happened_at=happened, is_done=not planned,
                         duration_minutes=float(15 + n % 4 * 15) if kind in ("call", "meeting") else None, ended_at=None, **{**none, **about})
        if planned and done:
            org.change("activity", key, happened + timedelta(minutes=30), is_done=True)


def _real_estate(org: Organisation, rng: random.Random) -> None:
    for n in range(2):
        org.create("office", START, name=f"Office {n}")
    for name in ("Buyer", "Vendor", "Investor", "Past client"):
        org.create("class", START, name=name)
    for n in range(50):
        at = START + n * timedelta(days=9, hours=3)
        key = org.create("listing", at, by=1 + n % 6, address=f"{n + 1} George Street", suburb=["Newtown", "Glebe", "Bondi"][n % 3], postcode=str(2000 + n), kind=["house", "unit", "townhouse"][n % 3],
                         bedrooms=1 + n % 5, bathrooms=1 + n % 3, car_spaces=n % 3, land_square_metres=float(200 + 10 * n) if n % 3 == 0 else None, price_low=500_000. + 10_000 * n,
                         price_high=550_000. + 10_000 * n, currency="AUD", status=LISTING_STATUS[0], owner_id=1 + n % 6, sold_at=None, sold_amount=None, contact_id=1 + n % 60, office_id=1 + n % 2)
        when = at
        for status in LISTING_STATUS[1:1 + n % 7]:
            when = _between(rng, when + DAY, when + 20 * DAY)
            if when < NOW - DAY:
                sold = {"sold_at": when, "sold_amount": 520_000. + 10_000 * n} if status == "Unconditional" else {}
                org.change("listing", key, when, status=status, **sold)
    for n in range(40):
        org.create("requirement", START + n * timedelta(days=11), contact_id=1 + n, suburbs=["Newtown", "Newtown;Glebe", "Bondi"][n % 3], kind=["house", "unit", "townhouse"][n % 3],
                   bedrooms_min=1 + n % 4, price_min=400_000. + 5_000 * n, price_max=700_000. + 10_000 * n, currency="AUD")
    for n in range(160):
        listing, contact = 1 + n % 50, 1 + (n * 7) % 60
        at = _between(rng, max(org.records["listing"][listing]["created_at"], org.records["contact"][contact]["created_at"]), NOW)
        if n % 3:
            org.create("enquiry", at, contact_id=contact, listing_id=listing, comment=f"Is {n} still for sale?", source=["Domain.com.au", "Website", "Word Of Mouth"][n % 3], user_id=1 + n % 6)
        else:
            org.create("inspection", at, contact_id=contact, listing_id=listing, comment=None, happened_at=(at + 2 * DAY).replace(minute=0, second=0),
                       duration_minutes=30.0, is_appointment=n % 2 == 0, user_id=1 + n % 6)


def edits(org: Organisation, day: int) -> None:
    """One working day: the clock moves on by a day, and people create, change, convert, merge and delete."""
    rng = random.Random(1000 + day)
    with org.lock:
        start, org.now = org.now, org.now + DAY

        def at(hours: float) -> datetime:
            return start + timedelta(seconds=int(3600 * hours) + day)

        for n in range(3):
            org.create("lead", at(1 + n), by=2, first_name="New", last_name=f"Lead{day}-{n}", name=f"New Lead{day}-{n}", email=f"new{day}.{n}@example.com", phone=None, company=f"Startup {day}-{n}",
                       title=None, industry="Retail", employees=5, country="Germany", city="Berlin", source="Web", campaign_id=None, owner_id=2 + n, status="New", rating=None, do_not_email=False,
                       do_not_call=False, is_converted=False, converted_at=None, is_lost=False, closed_at=None, converted_contact_id=None, converted_deal_id=None,
                       converted_account_id=None, custom={"fleet": n})
        still = [k for k, r in org.standing("deal").items() if r["is_won"] is None]
        for n, key in enumerate(rng.sample(still, min(5, len(still)))):
            steps = STAGES[org.records["deal"][key]["pipeline"]]
            place = [s[0] for s in steps].index(org.records["deal"][key]["stage"])
            org.move(key, steps[min(place + 1, len(steps) - 1)][0], at(2 + n), by=3, reason="Price")
            if n % 2:
                org.change("deal", key, at(2.5 + n), amount=round(org.records["deal"][key]["amount"] + 10, 2), custom={"score": float(day)})
        leads = [k for k, r in org.standing("lead").items() if not r["is_converted"] and not r["is_lost"]]
        org.change("lead", leads[day % len(leads)], at(3), status="Working", rating="Warm")
        contacts, deals = list(org.standing("contact")), list(org.standing("deal"))
        for n in range(8):
            contact, deal = rng.choice(contacts), rng.choice(deals)
            org.create("activity", at(4 + n / 2), kind=["call", "email", "meeting", "task"][n % 4], direction="out" if n % 2 else None, subject=f"Day {day}, {n}", body=None, user_id=1 + n % 6,
                       lead_id=leads[(day + n) % len(leads)] if n % 3 == 0 else None, contact_id=contact if n % 3 else None, deal_id=deal if n % 3 == 1 else None, account_id=None,
                       happened_at=at(4 + n / 2), is_done=True, duration_minutes=30.0 if n % 4 == 0 else None, ended_at=None)
        org.convert(leads[(day * 3 + 1) % len(leads)], at(9), deal=day % 2 == 1)
        listings = list(org.standing("listing"))
        org.change("listing", listings[day % len(listings)], at(6), status="Withdrawn")
        if day % 2 == 0:
            org.delete("deal", rng.choice(deals), at(10))
            org.delete("activity", rng.choice(list(org.standing("activity"))), at(10.5), hard=day % 4 == 0)
        if day % 3 == 0:
            loser, winner = rng.sample(contacts, 2)
            org.delete("contact", loser, at(11), merged_into=winner)


def moved(org: Organisation, entity: str, n: int, at: datetime | None = None) -> list[int]:
    """Give `n` standing records one and the same stamp of modification (a bulk edit); their keys."""
    with org.lock:
        keys = list(org.standing(entity))[:n]
        for key in keys:
            org.records[entity][key]["modified_at"] = at or org.now
        return keys
