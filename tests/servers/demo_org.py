"""The demo organisation as a stand-in CRM would hold it: every version of every record of a lake becomes an Organisation with its whole past.

What no CRM of the three holds is left out: web visits, and all but the latest rate of a currency. For Agentbox the same people sell houses: a lead is an enquiry of a
contact of its own about a listing, a deal is a listing whose status follows the deal's stage, a meeting is an inspection.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any

from tests.servers.organisation import CustomDefinition, Organisation
from workbench import schema

ENTITIES = ("user", "stage", "campaign", "product", "account", "contact", "lead", "deal", "activity", "deal_product", "deal_contact", "membership", "quota", "fx_rate")
VERSION = ("id", "valid_from", "valid_to", "recorded_at", "origin", "deleted_at", "merged_into")
KINDS = {"VARCHAR": "text", "BOOLEAN": "bool", "DOUBLE": "float", "BIGINT": "int", "DATE": "date", "TIMESTAMP": "time", "DECIMAL(18,2)": "money"}
NEEDED = {"deal_product": ("deal_id", "product_id"), "deal_contact": ("deal_id", "contact_id"), "membership": ("campaign_id",)}
STATUS = {"Discovery": "Appraisal", "Qualification": "Presentation", "Proposal": "Available", "Negotiation": "Conditional", "Won": "Settled", "Lost": "Withdrawn"}
SUBURBS, HOUSES = ("Newtown", "Glebe", "Bondi", "Marrickville", "Leichhardt"), ("house", "unit", "townhouse")


def demo_organisation(lake: Any, now: datetime, source: str = "demo") -> Organisation:
    """The records of `source`, moved by whole days so that what was latest there is less than a day old at `now`."""
    org = Organisation(now)
    moved = timedelta(days=(now - lake.latest_event(source)).days)
    keys: dict[str, int] = {}  # id in the lake -> key
    told = {entity: list(_records(lake, entity, source)) for entity in ENTITIES}
    for entity in ENTITIES:
        if needed := NEEDED.get(entity):  # a line item of a product that nobody knows cannot stand in a CRM
            told[entity] = [(id, versions) for id, versions in told[entity] if all(versions[0][name] in keys for name in needed)]
        for n, (id, _) in enumerate(told[entity], 1):
            keys[id] = n
        org.custom[entity] = [CustomDefinition(name[2:], name[2:].replace("_", " ").capitalize(), KINDS[kind]) for name, kind in lake.column_types(entity).items() if name[:2] == "x_"]
    for entity in ENTITIES:
        for id, versions in told[entity]:
            _record(org, entity, keys[id], [_moved(entity, v, keys, moved) for v in versions])
    _complete(org)
    org.changes.sort(key=lambda c: c["at"])
    return org


def _records(lake: Any, entity: str, source: str) -> Iterator[tuple[str, list[dict]]]:
    """(id, its versions in order) of every record."""
    more = {"fx_rate": " qualify row_number() over (partition by currency order by on_date desc) = 1", "activity": " and kind <> 'web'"}.get(entity, "")
    rows = lake.sql(f"select * from {entity}_versions where starts_with(id, '{source}:'){more} order by min(valid_from) over (partition by id), id, valid_from").to_arrow_table().to_pylist()
    return ((id, list(versions)) for id, versions in groupby(rows, key=lambda r: r["id"]))


def _moved(entity: str, version: dict, keys: dict[str, int], moved: timedelta) -> dict[str, Any]:
    """A version with keys for ids, floats for money, and every instant moved."""
    fields, out = schema.entity(entity).fields, {}
    for name, value in version.items():
        if name in ("merged_into",) or name in fields and fields[name].references:
            value = keys.get(value) if value else None
        elif isinstance(value, Decimal):
            value = float(value)
        elif isinstance(value, date) and value.year > 1900:
            value = value + moved
            value = value.replace(microsecond=0) if isinstance(value, datetime) else value
        out[name] = value
    if entity == "lead" and out["rating"]:
        out["rating"] = out["rating"].capitalize()
    if entity == "deal":  # no CRM opens a deal without them
        out |= {"close_on": out["close_on"] or ((out["created_at"] or out["valid_from"]) + timedelta(days=60)).date(), "name": out["name"] or "Unnamed"}
    return out


def _record(org: Organisation, entity: str, key: int, versions: list[dict]) -> None:
    """One record as it stands, and what changed from version to version."""
    first, last = versions[0], versions[-1]
    born, by = min(first.get("created_at") or first["valid_from"], first["valid_from"]), first.get("owner_id") or first.get("user_id") or 1
    names = [n for n in last if n not in VERSION and n != "created_at"]
    org.records.setdefault(entity, {})[key] = {
        "key": key, "created_at": born, "modified_at": max(born, last["valid_from"]), "deleted_at": last["deleted_at"], "merged_into": last["merged_into"], "hard": False, "created_by": by,
        "modified_by": by, "custom": {n[2:]: last[n] for n in names if n[:2] == "x_" and last[n] is not None}, **{n: last[n] for n in names if n[:2] != "x_"}}
    for before, after in zip(versions, versions[1:], strict=False):
        org.changes += [{"entity": entity, "key": key, "at": after["valid_from"], "field": f"custom.{n[2:]}" if n[:2] == "x_" else n, "old": before[n], "new": after[n], "by": by}
                        for n in names if before[n] != after[n]]
    org._keys[entity] = max(org._keys.get(entity, 0), key)


def _complete(org: Organisation) -> None:
    """What a CRM holds beside: first and last names, managers' keys, the stage's probability, the account of a conversion, activities that moved with it."""
    users = {r["name"]: k for k, r in org.records["user"].items()}
    chances = {r["name"]: r["probability"] for r in org.records["stage"].values()}
    for entity in ("user", "contact", "lead"):
        for r in org.records[entity].values():
            r["name"] = r["name"] or "Unknown"
            r["first_name"], _, r["last_name"] = r["name"].rpartition(" ")
    for r in org.records["user"].values():
        r |= {"manager_id": users.get(r["manager"]), "team": r["team"] or "Sales", "territory": r["territory"] or "Everywhere"}
    for r in org.records["deal"].values():
        r["stage"] = r["stage"] if r["stage"] in chances else "Won" if r["is_won"] else "Lost"  # a stage of before, which a CRM would have moved
        r["probability"] = chances[r["stage"]]
        r["closed_at"] = (r["closed_at"] or r["modified_at"]) if r["is_won"] is not None else None
    for c in org.changes:
        if c["entity"] == "deal" and c["field"] == "stage":
            won = org.records["deal"][c["key"]]["is_won"]
            c |= {side: c[side] if c[side] in chances else "Won" if won else "Lost" for side in ("old", "new")}
    org.changes = [c for c in org.changes if c["old"] != c["new"]]
    org.changes += [c | {"field": "probability", "old": chances[c["old"]], "new": chances[c["new"]]} for c in org.changes if c["entity"] == "deal" and c["field"] == "stage"]
    for r in org.records["deal_contact"].values():
        r["is_primary"] = r["contact_id"] == org.records["deal"][r["deal_id"]]["contact_id"]
    for r in org.records["campaign"].values():
        r["status"] = "Completed"
    for r in org.records["lead"].values():
        r["converted_at"] = (r["converted_at"] or r["closed_at"] or r["modified_at"]) if r["is_converted"] else None  # a CRM stamps it itself
        r["converted_account_id"] = r["converted_contact_id"] and org.records["contact"][r["converted_contact_id"]]["account_id"]
    for key, r in org.records["activity"].items():
        r["ended_at"], lead = None, org.records["lead"].get(r["lead_id"] or 0)
        if lead and lead["is_converted"] and lead["converted_contact_id"] and lead["converted_at"] >= r["created_at"]:
            org.change("activity", key, lead["converted_at"], lead_id=None, contact_id=lead["converted_contact_id"], account_id=lead["converted_account_id"], deal_id=lead["converted_deal_id"])


def as_agency(org: Organisation) -> Organisation:
    """The same people as a real-estate agency: offices, classes, listings, requirements, enquiries, inspections, notes."""
    for n in range(2):
        org.create("office", min(r["created_at"] for r in org.records["user"].values()), name=f"Office {n + 1}")
    for name in ("Buyer", "Vendor", "Investor", "Past client"):
        org.create("class", org.now, name=name)
    steps: dict[int, list[dict]] = {}
    for c in org.changes:
        if c["entity"] == "deal" and c["field"] == "stage":
            steps.setdefault(c["key"], []).append(c)
    for key, r in sorted(org.records["deal"].items()):
        _listing(org, key, r, steps.get(key, []))
    people = {key: _enquiry(org, key, r) for key, r in sorted(org.records["lead"].items())}
    for key, r in org.records["activity"].items():
        r["contact_id"] = r["contact_id"] or people.get(r["lead_id"] or 0)
        if r["kind"] == "meeting" and r["contact_id"]:
            org.create("inspection", r["created_at"], contact_id=r["contact_id"], listing_id=r["deal_id"] or 1 + key % len(org.records["listing"]), comment=r["subject"], happened_at=r["happened_at"],
                       duration_minutes=r["duration_minutes"] or 30.0, is_appointment=key % 2 == 0, user_id=r["user_id"] or 1)
        r["user_id"] = r["user_id"] or 1
    org.changes.sort(key=lambda c: c["at"])
    return org


def _listing(org: Organisation, key: int, deal: dict, steps: list[dict]) -> None:
    """A listing with the deal's key; 1,000 of the deal's money are 30,000 of the house's."""
    price = round(300_000 + 30 * (deal["amount"] or 10_000), -3)
    sold = {"sold_at": deal["closed_at"], "sold_amount": round(price * (.94 + key % 13 / 100), -2)} if deal["is_won"] else {"sold_at": None, "sold_amount": None}
    listing = org.create("listing", deal["created_at"], by=deal["owner_id"] or 1, address=f"{1 + key % 190} {('George', 'King', 'Station', 'Church')[key % 4]} Street", suburb=SUBURBS[key % 5],
                         postcode=str(2042 + key % 5), kind=HOUSES[key % 3], bedrooms=1 + key % 5, bathrooms=1 + key % 3, car_spaces=key % 3, land_square_metres=150. + key % 600 if key % 3 == 0 else None,
                         price_low=price, price_high=price, currency="AUD", status=STATUS[deal["stage"]], owner_id=deal["owner_id"], contact_id=deal["contact_id"], office_id=1 + key % 2, **sold)
    org.records["listing"][listing]["modified_at"] = max([deal["created_at"], *(c["at"] for c in steps)])
    org.changes += [c | {"entity": "listing", "key": listing, "field": "status", "old": STATUS[c["old"]], "new": STATUS[c["new"]]} for c in steps]


def _enquiry(org: Organisation, key: int, lead: dict) -> int:
    """The contact that a lead is: it enquires about a listing, and every third says what it looks for."""
    known = {n: lead[n] for n in ("first_name", "last_name", "name", "email", "phone", "title", "country", "city", "owner_id")}
    contact = org.create("contact", lead["created_at"], by=lead["owner_id"] or 1, account_id=None, do_not_email=bool(lead["do_not_email"]), do_not_call=bool(lead["do_not_call"]), **known)
    listing = 1 + key * 7 % len(org.records["listing"])
    org.create("enquiry", lead["created_at"], contact_id=contact, listing_id=listing, comment=f"Is {org.records['listing'][listing]['address']} still for sale?", source=lead["source"],
               user_id=lead["owner_id"] or 1)
    if key % 3 == 0:
        org.create("requirement", lead["created_at"], contact_id=contact, suburbs=";".join({SUBURBS[key % 5]: 0, SUBURBS[key % 7 % 5]: 0}), kind=HOUSES[key % 3], bedrooms_min=1 + key % 4,
                   price_min=400_000. + 5_000 * (key % 40), price_max=700_000. + 10_000 * (key % 60), currency="AUD")
    return contact
