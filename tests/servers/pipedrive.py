"""A stand-in for Pipedrive: API v2 and what remains of v1, from one account in memory.

`Account` holds records in their native shape and knows what a change does to them (change log, update_time, soft deletion,
conversion, archiving, merging); `Pipedrive` answers requests: authentication, token budget, burst limit, paging, errors.
Where the vendor's behaviour is not confirmed a switch imitates both readings: `lists_deleted`, `limit_headers`.
"""

from __future__ import annotations

import base64
import bisect
import hashlib
import hmac
import json
import re
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from tests.servers.base import Refusal, Reply, Request, Server, serve
from tests.servers.organisation import Organisation, organisation

PURGED_AFTER = timedelta(days=30)
OPTIONAL = {  # include_fields: what describes a record now and is left out unless asked for
    "deals": ("next_activity_id", "last_activity_id", "first_won_time", "products_count", "files_count", "notes_count", "followers_count",
              "email_messages_count", "activities_count", "done_activities_count", "undone_activities_count", "participants_count",
              "last_incoming_mail_time", "last_outgoing_mail_time", "smart_bcc_email", "source_lead_id"),
    "persons": ("next_activity_id", "last_activity_id", "open_deals_count", "closed_deals_count", "won_deals_count", "lost_deals_count",
                "activities_count", "notes_count", "email_messages_count", "last_incoming_mail_time", "last_outgoing_mail_time", "marketing_status"),
    "organizations": ("open_deals_count", "closed_deals_count", "won_deals_count", "lost_deals_count", "people_count", "activities_count"),
    "activities": ("attendees",), "products": (), "pipelines": (), "stages": ()}
ONE = {"deals": "deal", "persons": "person", "organizations": "organization", "activities": "activity", "products": "product",
       "pipelines": "pipeline", "stages": "stage"}
DEFAULTS: dict[str, dict] = {
    "deals": {"title": "", "owner_id": None, "creator_user_id": None, "person_id": None, "org_id": None, "pipeline_id": None, "stage_id": None,
              "value": 0, "currency": "EUR", "add_time": None, "update_time": None, "stage_change_time": None, "is_deleted": False,
              "is_archived": False, "archive_time": None, "status": "open", "probability": None, "lost_reason": None, "visible_to": 3,
              "close_time": None, "won_time": None, "lost_time": None, "expected_close_date": None, "label_ids": [], "origin": "ManuallyCreated",
              "origin_id": None, "channel": None, "channel_id": None, "source_lead_id": None, "arr": None, "mrr": None, "acv": None},
    "persons": {"name": "", "first_name": None, "last_name": None, "owner_id": None, "org_id": None, "add_time": None, "update_time": None,
                "emails": [], "phones": [], "is_deleted": False, "visible_to": 3, "label_ids": [], "picture_id": None},
    "organizations": {"name": "", "owner_id": None, "add_time": None, "update_time": None, "is_deleted": False, "visible_to": 3, "address": None,
                      "label_ids": [], "website": None, "linkedin": None, "industry": None, "annual_revenue": None, "employee_count": None},
    "activities": {"subject": "", "type": "task", "owner_id": None, "creator_user_id": None, "is_deleted": False, "add_time": None,
                   "update_time": None, "deal_id": None, "lead_id": None, "person_id": None, "org_id": None, "project_id": None, "due_date": None,
                   "due_time": None, "duration": None, "busy": False, "done": False, "marked_as_done_time": None, "location": None,
                   "participants": [], "conference_meeting_client": None, "conference_meeting_url": None, "conference_meeting_id": None,
                   "public_description": None, "priority": None, "outcome": None, "note": None},
    "products": {"name": "", "code": None, "unit": None, "tax": 0, "is_deleted": False, "is_linkable": True, "visible_to": 3, "owner_id": None,
                 "add_time": None, "update_time": None, "description": None, "category": None, "billing_frequency": "one-time",
                 "billing_frequency_cycles": None, "prices": []},
    "pipelines": {"name": "", "order_nr": 1, "is_deleted": False, "is_deal_probability_enabled": True, "add_time": None, "update_time": None},
    "stages": {"name": "", "order_nr": 1, "is_deleted": False, "deal_probability": 100, "pipeline_id": None, "is_deal_rot_enabled": False,
               "days_to_rotten": None, "add_time": None, "update_time": None},
    "deal_products": {"deal_id": None, "product_id": None, "product_variation_id": None, "name": "", "quantity": 1, "item_price": 0,
                      "currency": "EUR", "sum": 0, "tax": 0, "tax_method": "exclusive", "discount": 0, "discount_type": "percentage",
                      "is_enabled": True, "order_nr": None, "comments": None, "billing_frequency": "one-time", "billing_frequency_cycles": None,
                      "billing_start_date": None, "add_time": None, "update_time": None},
    "leads": {"title": "", "owner_id": None, "creator_id": None, "label_ids": [], "person_id": None, "organization_id": None,
              "source_name": "Manually created", "origin": "ManuallyCreated", "origin_id": None, "channel": None, "channel_id": None,
              "source_deal_id": None, "is_archived": False, "was_seen": True, "value": None, "expected_close_date": None,
              "next_activity_id": None, "add_time": None, "update_time": None, "visible_to": "3", "cc_email": "company+lead@pipedrivemail.com"},
    "notes": {"content": "", "add_time": None, "update_time": None, "active_flag": True, "user_id": None, "last_update_user_id": None,
              "deal_id": None, "lead_id": None, "person_id": None, "org_id": None, "project_id": None, "task_id": None,
              "pinned_to_deal_flag": False, "pinned_to_person_flag": False, "pinned_to_organization_flag": False, "pinned_to_project_flag": False,
              "pinned_to_task_flag": False}}
CUSTOM = ("deals", "persons", "organizations", "products", "leads")  # leads carry the deals' custom fields
LOGGED = ("deals", "persons", "organizations")  # records with a change log
SILENT = {"update_time", "stage_change_time", "won_time", "lost_time", "close_time", "archive_time", "add_time"}  # follow from another change
V1_KEYS = {"owner_id": "user_id"}  # names in the change log where they differ from v2


def v1_time(value: str | None) -> str | None:
    """`2026-01-02T03:04:05Z` as v1 writes it: `2026-01-02 03:04:05`."""
    return value and value.replace("T", " ").removesuffix("Z")


def as_log(value: object) -> str | None:
    """A value as the change log writes it: text, whatever its type; a set as ids with commas."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(map(str, value)) or None
    return ("1" if value else "0") if isinstance(value, bool) else str(value)


def parts(key: str, value: object) -> dict[str, object]:
    """A custom value in v1's flat form: its main part under `key`, the others under `key_part`; nothing where it is not set."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return {key + ("" if name == "value" else f"_{name}"): part for name, part in value.items()}
    return {key: as_log(value) if isinstance(value, list) else value}


class Account:
    """The records of one company. `clock` gives the server's time; every change takes effect at it, or at `at`."""

    def __init__(self, clock: Callable[[], datetime]):
        self.clock = clock
        self.rows: dict[str, dict] = defaultdict(dict)
        self.changes: dict[tuple[str, int], list[dict]] = defaultdict(list)
        self.fields: dict[str, list[dict]] = defaultdict(list)  # by kind of record; v2 form plus `options_deleted`
        self.mails: dict[int, dict] = {}
        self.sorted: dict[tuple[str, str], list[tuple]] = {}
        self.users: list[dict] = []
        self.flat: dict[str, list[dict]] = {"activityTypes": [], "currencies": [], "leadLabels": [], "leadSources": []}
        self.actor, self.purged = 1, datetime.min

    def stamp(self, at: datetime | None = None) -> str:
        """An instant in v2's form, whole seconds."""
        return (at or self.clock()).strftime("%Y-%m-%dT%H:%M:%SZ")

    def touched(self, kind: str) -> None:
        """Forget the sorted lists of a kind."""
        for key in [k for k in self.sorted if k[0] == kind]:
            del self.sorted[key]

    def create(self, kind: str, *, at: datetime | None = None, **values: object) -> dict:
        """Add a record; ids count up, a lead's is a UUID. Values that are no field of the kind are custom fields by key."""
        now, table = self.stamp(at), self.rows[kind]
        new = values.pop("id", None) or (str(uuid.uuid5(uuid.NAMESPACE_OID, f"lead {len(table)} {now}")) if kind == "leads" else max(table, default=0) + 1)
        row = {"id": new} | {k: list(v) if isinstance(v, list) else v for k, v in DEFAULTS[kind].items()} | {"add_time": now, "update_time": now}
        if kind in CUSTOM:
            row["custom_fields"] = {f["field_code"]: None for f in self.definitions(kind) if f["is_custom_field"]}
        custom = values.pop("custom_fields", None) or {}
        unknown = set(values) - set(row)
        row |= {k: v for k, v in values.items() if k not in unknown}
        for key, value in (custom | {k: values[k] for k in unknown}).items():
            row["custom_fields"][key] = value
        if kind == "deals" and row["stage_id"] and not row["pipeline_id"]:
            row["pipeline_id"] = self.rows["stages"][row["stage_id"]]["pipeline_id"]
        table[new] = row
        self.touched(kind)
        return row

    def definitions(self, kind: str) -> list[dict]:
        """Field definitions of a kind; leads inherit the deals'."""
        return self.fields["deals" if kind == "leads" else kind]

    def update(self, kind: str, id: object, *, at: datetime | None = None, **values: object) -> dict:
        """Change a record, as a user or the API would: what follows is set, every difference is logged, update_time moves."""
        row, now = self.rows[kind][id], self.stamp(at)
        custom = values.pop("custom_fields", None) or {}
        custom |= {k: values.pop(k) for k in list(values) if k not in row}
        told = {k: v for k, v in values.items() if row[k] != v}
        if kind == "deals":
            told |= self.follows(row, told, now)
        for key, value in told.items():
            self.log(kind, row["id"], key, row[key], value, now)
            row[key] = value
        for key, value in custom.items():
            old = row["custom_fields"].get(key)
            before, after = parts(key, old), parts(key, value)
            for part in dict.fromkeys([*before, *after]):
                self.log(kind, row["id"], part, before.get(part), after.get(part), now)
            row["custom_fields"][key] = value
        row["update_time"] = now
        self.touched(kind)
        return row

    def follows(self, row: dict, told: dict, now: str) -> dict:
        """What a change of a deal's stage, status or archive brings with it."""
        more: dict[str, object] = {}
        if "stage_id" in told:
            more |= {"stage_change_time": now, "pipeline_id": self.rows["stages"][told["stage_id"]]["pipeline_id"]}
        if "status" in told:
            won, lost = told["status"] == "won", told["status"] == "lost"
            more |= {"won_time": now if won else None, "lost_time": now if lost else None, "close_time": now if won or lost else None}
            more |= {} if lost else {"lost_reason": None}
        if "is_archived" in told:
            more |= {"archive_time": now if told["is_archived"] else None}
        return {k: v for k, v in more.items() if row[k] != v and k not in told}

    def log(self, kind: str, id: int, key: str, old: object, new: object, now: str) -> None:
        """Write one difference into the change log of a record that has one."""
        if kind in LOGGED and key not in SILENT and as_log(old) != as_log(new):
            self.changes[kind, id].append({
                "field_key": V1_KEYS.get(key, key), "old_value": as_log(old), "new_value": as_log(new), "actor_user_id": self.actor, "time": v1_time(now),
                "change_source": "app", "change_source_user_agent": None, "is_bulk_update_flag": False})

    def delete(self, kind: str, id: object, *, at: datetime | None = None) -> None:
        """Delete softly what v2 deletes softly (purged 30 days later); leads, notes and line items go at once."""
        if "is_deleted" in self.rows[kind][id]:
            self.update(kind, id, at=at, **{"is_deleted": True} | ({"status": "deleted"} if kind == "deals" else {}))
        elif kind == "notes":
            self.update(kind, id, at=at, active_flag=False)
        else:
            del self.rows[kind][id]
            self.touched(kind)

    def purge(self) -> None:
        """Drop what was deleted more than 30 days ago."""
        if self.purged == self.clock():
            return
        self.purged = self.clock()
        edge = self.stamp(self.purged - PURGED_AFTER)
        for kind in ONE:
            if gone := [i for i, r in self.rows[kind].items() if r["is_deleted"] and r["update_time"] < edge]:
                for id in gone:
                    del self.rows[kind][id]
                self.touched(kind)

    def merge(self, kind: str, loser: int, winner: int, *, at: datetime | None = None) -> None:
        """Merge a person, organization or deal into another: the loser is gone, what hung on it hangs on the winner."""
        column = {"persons": "person_id", "organizations": "org_id", "deals": "deal_id"}[kind]
        for other in ("deals", "persons", "activities", "notes", "leads"):
            key = "organization_id" if (other, column) == ("leads", "org_id") else column
            for row in [r for r in self.rows[other].values() if r.get(key) == loser]:
                self.update(other, row["id"], at=at, **{key: winner})
        del self.rows[kind][loser]
        self.update(kind, winner, at=at)

    def convert(self, lead: str, *, at: datetime | None = None, stage_id: int, **values: object) -> dict:
        """Turn a lead into a deal: the lead vanishes, its activities and notes move to the deal, which names it as its source."""
        old = self.rows["leads"][lead]
        value = old["value"] or {"amount": 0, "currency": "EUR"}
        deal = self.create("deals", at=at, **{
            "title": old["title"], "owner_id": old["owner_id"], "creator_user_id": old["creator_id"], "person_id": old["person_id"],
            "org_id": old["organization_id"], "value": value["amount"], "currency": value["currency"], "stage_id": stage_id,
            "expected_close_date": old["expected_close_date"], "origin": old["origin"], "origin_id": old["origin_id"], "channel": old["channel"],
            "channel_id": old["channel_id"], "source_lead_id": lead, "custom_fields": dict(old["custom_fields"])} | values)
        for kind in ("activities", "notes"):
            for row in [r for r in self.rows[kind].values() if r["lead_id"] == lead]:
                self.update(kind, row["id"], at=at, lead_id=None, deal_id=deal["id"])
        for mail in self.mails.values():
            if mail["lead_id"] == lead:
                mail |= {"lead_id": None, "deal_id": deal["id"]}
        del self.rows["leads"][lead]
        self.touched("leads")
        return deal

    def add_field(self, kind: str, name: str, field_type: str, labels: Iterable[str] = (), *, code: str | None = None) -> dict:
        """Define a custom field (code: 40 hex digits); every record gets it, unset. Labels become options."""
        code = code or hashlib.sha1(f"{kind} {name}".encode()).hexdigest()
        new = {"field_name": name, "field_code": code, "description": None, "field_type": field_type,
               "options": [self.option(i, label) for i, label in enumerate(labels, self.next_option())] or None, "subfields": None,
               "is_custom_field": True, "is_optional_response_field": False, "options_deleted": []}
        self.fields[kind].append(new)
        for row in [r for k in ((kind, "leads") if kind == "deals" else (kind,)) for r in self.rows[k].values()]:
            row["custom_fields"].setdefault(code, None)
        return new

    def option(self, id: int, label: str) -> dict:
        """One option of an enum or set."""
        now = self.stamp()
        return {"id": id, "label": label, "color": None, "add_time": now, "update_time": now}

    def next_option(self) -> int:
        """Option ids are unique in the account."""
        return 1 + max((o["id"] for fs in self.fields.values() for f in fs for o in [*(f["options"] or []), *f["options_deleted"]]
                        if isinstance(o["id"], int)), default=10)

    def remove_option(self, kind: str, code: str, label: str) -> None:
        """Take an option away; records keep its id."""
        its = next(f for f in self.fields[kind] if f["field_code"] == code)
        its["options_deleted"] += [o for o in its["options"] if o["label"] == label]
        its["options"] = [o for o in its["options"] if o["label"] != label]

    def remove_field(self, kind: str, code: str) -> None:
        """Drop a custom field, definition and values."""
        self.fields[kind] = [f for f in self.fields[kind] if f["field_code"] != code]
        for row in [r for k in ((kind, "leads") if kind == "deals" else (kind,)) for r in self.rows[k].values()]:
            row["custom_fields"].pop(code, None)

    def add_mail(self, *, at: datetime, **values: object) -> dict:
        """One message of the synced mailbox; deal_id, lead_id and person_id say what it is linked to."""
        new = len(self.mails) + 1
        party = {"id": None, "email_address": "", "name": "", "linked_person_id": None, "linked_person_name": None, "mail_message_party_id": new}
        when = self.stamp(at)
        mail = {"id": new, "user_id": self.actor, "mail_thread_id": new, "subject": "", "snippet": "", "body": "", "sent_flag": 0, "deal_id": None,
                "lead_id": None, "person_id": None, "time": when, "from": [], "to": []} | values
        for end in ("from", "to"):
            mail[end] = [party | person for person in mail[end]]
        self.mails[new] = mail
        for kind, key in (("deals", "deal_id"), ("persons", "person_id")):
            if mail[key] in self.rows[kind]:
                self.rows[kind][mail[key]]["update_time"] = max(when, self.rows[kind][mail[key]]["update_time"])
                self.touched(kind)
        return mail

    def grouped(self, kind: str, key: str) -> dict[Any, list[dict]]:
        """The records of a kind by what their `key` says; kept until something changes."""
        if (kind, f"by {key}") not in self.sorted:
            groups: dict[Any, list[dict]] = defaultdict(list)
            for row in self.rows[kind].values():
                groups[row.get(key)].append(row)
            self.sorted[kind, f"by {key}"] = groups  # type: ignore[assignment]
        return self.sorted[kind, f"by {key}"]  # type: ignore[return-value]

    def ordered(self, kind: str, by: str) -> list[tuple]:
        """(key, id) of every record of a kind, ascending; kept until something changes."""
        if (kind, by) not in self.sorted:
            self.sorted[kind, by] = sorted((r[by] or "", i) for i, r in self.rows[kind].items()) if by != "id" else sorted((i, i) for i in self.rows[kind])
        return self.sorted[kind, by]


# -- the organisation in Pipedrive's shape ---------------------------------------------------------------------------------------

KINDS = {"text": "varchar", "long": "text", "int": "double", "float": "double", "bool": "enum", "date": "date", "time": "varchar", "money": "monetary",
         "choice": "enum", "choices": "set", "url": "varchar", "user": "user"}
HOMES = {"lead": "deals", "deal": "deals", "account": "organizations", "contact": "persons"}  # entity -> kind of record that its custom fields hang on
LEAD_PEOPLE = 100_000  # the person and organization that a lead is about have the lead's key and this as their id
TYPES = ["call", "meeting", "task", "email", "deadline", "lunch"]
SYSTEM = {
    "deals": [("Title", "title", "varchar"), ("Value", "value", "monetary"), ("Currency", "currency", "varchar"), ("Owner", "owner_id", "user"),
              ("Stage", "stage_id", "stage"), ("Status", "status", "status"), ("Probability", "probability", "int"),
              ("Expected close date", "expected_close_date", "date"), ("Lost reason", "lost_reason", "varchar_options"),
              ("Source channel", "channel", "enum"), ("Source channel ID", "channel_id", "varchar"), ("Label", "label_ids", "set")],
    "persons": [("Name", "name", "varchar"), ("Organization", "org_id", "org"), ("Owner", "owner_id", "user"), ("Job title", "job_title", "varchar")],
    "organizations": [("Name", "name", "varchar"), ("Owner", "owner_id", "user"), ("Industry", "industry", "enum"),
                      ("Employee count", "employee_count", "int"), ("Annual revenue", "annual_revenue", "double")],
    "products": [("Name", "name", "varchar"), ("Category", "category", "enum")],
    "activities": [("Subject", "subject", "varchar"), ("Type", "type", "enum"), ("Done", "done", "boolean")]}


class Mirror:
    """Renders an Organisation into an Account, record by record, whenever one changed; the change log follows `org.changes`."""

    def __init__(self, org: Organisation, account: Account):
        self.org, self.account = org, account
        self.known: dict[tuple[str, int], tuple] = {}
        self.drawn = self.n_changes = 0
        self.skew = timedelta(0)  # how far stamps of modification are ahead
        self.options: dict[tuple, int] = {}
        self.codes: dict[str, tuple[str, Any]] = {}  # "entity.key" -> (field code, definition)
        self.moves: dict[tuple[str, int], list[dict]] = defaultdict(list)  # changes by record
        self.stages = {(r["pipeline"], r["name"]): k for k, r in org.records["stage"].items() if r["outcome"] == "open"}
        self.pipelines = {name: n for n, name in enumerate(dict.fromkeys(r["pipeline"] for r in org.records["stage"].values()), 1)}
        self.became: dict[tuple[str, int], int] = {}  # ("contact" | "account", key) -> key of the lead that it was
        self.were: dict[tuple[str, int], int] = {}  # the other way round
        self.labels = {"Hot": "f08b42a0-4e75-11ea-9643-03698ef1cfd6", "Warm": "f08b42a1-4e75-11ea-9643-03698ef1cfd6", "Cold": "f08b42a2-4e75-11ea-9643-03698ef1cfd6"}
        self._settings()

    def option(self, *key: object) -> int:
        """The id of an option, the same for ever."""
        return self.options.setdefault(key, 11 + len(self.options))

    def lead_id(self, key: int) -> str:
        """A lead's id: a version-1 UUID, which carries the time of creation."""
        at = self.org.records["lead"][key]["created_at"]
        ticks = int((at - datetime(1582, 10, 15)).total_seconds()) * 10_000_000
        return str(uuid.UUID(fields=(ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF | 0x1000, 0x87, 0x9B, 0x05D71F000000 + key)))

    def person_id(self, key: int | None) -> int | None:
        """The person behind a contact: a converted lead's stays the one that the lead was about."""
        return None if key is None else LEAD_PEOPLE + self.became["contact", key] if ("contact", key) in self.became else key

    def org_id(self, key: int | None) -> int | None:
        """The organization behind an account."""
        return None if key is None else LEAD_PEOPLE + self.became["account", key] if ("account", key) in self.became else key

    def _settings(self) -> None:
        """What does not change: pipelines, activity types, labels, currencies, sources."""
        stamp, account = self.account.stamp, self.account
        start = min(r["created_at"] for r in self.org.records["stage"].values())
        for name, n in self.pipelines.items():
            account.create("pipelines", at=start, id=n, name=name, order_nr=n)
        days = {"add_time": v1_time(stamp(start)), "update_time": v1_time(stamp(start))}
        account.flat["activityTypes"] = [{"id": n, "name": t.title(), "icon_key": t, "color": "FFFFFF", "order_nr": n, "key_string": t, "active_flag": True,
                                          "is_custom_flag": False} | days for n, t in enumerate(TYPES, 1)]
        account.flat["leadLabels"] = [{"id": i, "name": n, "color": c} | days for (n, i), c in zip(self.labels.items(), ("red", "yellow", "blue"), strict=True)]
        account.flat["leadSources"] = [{"name": n} for n in ("Manually created", "Deal", "Web forms", "Prospector", "API", "Import")]
        account.flat["currencies"] = [{"id": n, "code": c, "name": c, "decimal_points": 2, "symbol": c, "active_flag": True, "is_custom_flag": False}
                                      for n, c in enumerate(("EUR", "USD", "AUD"), 1)]

    def refresh(self) -> None:
        """Bring the account to what the organisation shows now."""
        self._definitions()
        for change in self.org.changes[self.n_changes:]:
            self.moves[change["entity"], change["key"]].append(change)
        fresh = self.org.changes[self.n_changes:]
        self.n_changes = len(self.org.changes)
        for key, r in self.org.records["lead"].items():
            for other in ("contact", "account"):
                if r["converted_deal_id"] and (other, key) not in self.were:  # a merge later on points elsewhere
                    self.were[other, key] = r[f"converted_{other}_id"]
                    self.became[other, r[f"converted_{other}_id"]] = key
        self._users()
        for entity in ("stage", "product", "account", "contact", "lead", "deal", "deal_product", "activity"):
            for key, record in list(self.org.records.get(entity, {}).items()):
                drawn = (record["modified_at"], record["deleted_at"], record["hard"], record.get("merged_into"), self.skew, self.drawn if entity in HOMES else 0)
                if self.known.get((entity, key)) != drawn:
                    getattr(self, "_" + entity)(key, record)
                    self.known[entity, key] = drawn
        for change in fresh:
            self._log(change)

    def _definitions(self) -> None:
        """Field definitions: the system's own, then the customer's; leads' fields are the deals'."""
        told = {code: sorted({r[name] for entity in entities for r in self.org.records.get(entity, {}).values() if r.get(name)}) for code, name, *entities in (
            ("channel", "source", "lead", "deal"), ("industry", "industry", "lead", "account"), ("category", "family", "product"))}
        if (mark := hash(str((self.org.custom, told)))) == self.drawn:
            return
        self.drawn, stamp = mark, self.account.stamp(self.org.now)

        def options(place: str, labels: list[str]) -> list[dict]:
            return [{"id": self.option(place, label), "label": label, "color": None, "add_time": stamp, "update_time": stamp} for label in labels]

        fixed = told | {"label_ids": ["Key", "Risk"]}
        self.account.fields = defaultdict(list, {kind: [{
            "field_name": name, "field_code": code, "description": None, "field_type": kept, "options": options(code, fixed[code]) if code in fixed else None,
            "subfields": None, "is_custom_field": False, "is_optional_response_field": False, "options_deleted": []} for name, code, kept in its]
            for kind, its in SYSTEM.items()})
        self.codes = {}
        for entity, kind in HOMES.items():
            for its in self.org.custom.get(entity, []):
                code = hashlib.sha1(f"{entity}.{its.key}".encode()).hexdigest()
                if its.dropped:
                    continue
                place, labels = code, ["Yes", "No"] if its.kind == "bool" else its.options
                self.codes[f"{entity}.{its.key}"] = (code, its)
                self.account.fields[kind].append({
                    "field_name": its.label, "field_code": code, "description": None, "field_type": KINDS[its.kind], "options": options(place, labels) or None,
                    "subfields": None, "is_custom_field": True, "is_optional_response_field": False, "options_deleted": options(place, its.removed)})

    def custom(self, entity: str, values: dict, currency: str = "EUR") -> dict:
        """A record's custom values in v2's form, unset ones as null."""
        return {code: self.value(code, its.kind, values.get(name.split(".", 1)[1]), currency)
                for name, (code, its) in self.codes.items() if name.startswith(entity + ".")}

    def value(self, code: str, kind: str, value: Any, currency: str = "EUR") -> Any:
        """One custom value in v2's form."""
        if value is None or kind in ("text", "long", "url", "user"):
            return value
        told: dict[str, Callable[[Any], Any]] = {
            "int": float, "float": float, "bool": lambda v: self.option(code, "Yes" if v else "No"), "date": lambda v: v.isoformat(),
            "time": lambda v: v.isoformat(sep=" "), "money": lambda v: {"value": v, "currency": currency}, "choice": lambda v: self.option(code, v),
            "choices": lambda v: [self.option(code, one) for one in v]}
        return told[kind](value)

    def put(self, kind: str, record: dict, id: object, **values: Any) -> None:
        """Write one native row; a record that is gone leaves, unless this kind is deleted softly."""
        table, account = self.account.rows[kind], self.account
        soft, at = "is_deleted" in DEFAULTS[kind], max(account.stamp(record["modified_at"] + self.skew), table.get(id, {}).get("update_time", ""))
        if record["hard"] or record.get("merged_into") is not None or (record["deleted_at"] is not None and not soft):
            table.pop(id, None)
        else:
            gone = {"is_deleted": True} | ({"status": "deleted"} if kind == "deals" else {}) if record["deleted_at"] else {}
            table[id] = {"id": id} | DEFAULTS[kind] | {"add_time": account.stamp(record["created_at"])} | values | gone | {"update_time": at}
        account.touched(kind)

    def _users(self) -> None:
        self.account.users = [{
            "id": k, "name": r["name"], "email": r["email"], "phone": None, "lang": 1, "locale": "de_DE", "default_currency": "EUR", "active_flag": r["is_active"],
            "activated": True, "is_deleted": r["deleted_at"] is not None, "last_login": v1_time(self.account.stamp(self.org.now)),
            "created": v1_time(self.account.stamp(r["created_at"])), "modified": v1_time(self.account.stamp(r["modified_at"])), "role_id": 1,
            "has_created_company": k == 1, "access": [{"app": "sales", "admin": k == 1, "permission_set_id": "62cc4d7f-4038-4352-abf3-a8c1c822b631"}],
            "timezone_name": "Europe/Berlin", "timezone_offset": "+01:00", "icon_url": None} for k, r in self.org.records["user"].items()]

    def _stage(self, key: int, r: dict) -> None:
        if r["outcome"] == "open":  # won and lost are a deal's status here, no stage
            self.put("stages", r, key, name=r["name"], order_nr=r["position"], deal_probability=round(r["probability"] * 100), pipeline_id=self.pipelines[r["pipeline"]])

    def _product(self, key: int, r: dict) -> None:
        prices = [{"product_id": key, "price": r["list_price"], "currency": r["currency"], "cost": 0, "direct_cost": None, "notes": ""}]
        self.put("products", r, key, name=r["name"], category=str(self.option("category", r["family"])), prices=prices, owner_id=1)

    def _organization(self, record: dict, id: int, r: dict, name: str, custom: dict) -> None:
        address = {"value": f"{r['city']}, {r['country']}", "country": r["country"], "locality": r["city"], "admin_area_level_1": None, "admin_area_level_2": None,
                   "sublocality": None, "route": None, "street_number": None, "subpremise": None, "postal_code": None}
        self.put("organizations", record, id, name=name, owner_id=r["owner_id"], address=address, employee_count=r["employees"], annual_revenue=r.get("annual_revenue"),
                 industry=r["industry"] and self.option("industry", r["industry"]), custom_fields=custom)

    def _account(self, key: int, r: dict) -> None:
        if ("account", key) in self.became:
            return self._lead_people(self.became["account", key])
        return self._organization(r, key, r, r["name"], self.custom("account", r["custom"]))

    def _person(self, record: dict, id: int, r: dict, org: int | None, custom: dict) -> None:
        first, last = r.get("first_name"), r.get("last_name")
        self.put("persons", record, id, name=r["name"], first_name=first, last_name=last, owner_id=r["owner_id"], org_id=org, job_title=r["title"],
                 emails=[{"value": r["email"], "primary": True, "label": "work"}] if r["email"] else [],
                 phones=[{"value": r["phone"], "primary": True, "label": "work"}] if r["phone"] else [], custom_fields=custom)

    def _contact(self, key: int, r: dict) -> None:
        if ("contact", key) in self.became:
            return self._lead_people(self.became["contact", key])
        return self._person(r, key, r, self.org_id(r["account_id"]), self.custom("contact", r["custom"]))

    def _lead_people(self, key: int) -> None:
        """The person and the organization that a lead is about; once converted they are the contact and the account."""
        lead, id, records = self.org.records["lead"][key], LEAD_PEOPLE + key, self.org.records
        contact, account = records["contact"].get(self.were.get(("contact", key), 0)), records["account"].get(self.were.get(("account", key), 0))
        for entity, its, put in (("account", account, self._organization), ("contact", contact, self._person)):
            r = its or lead
            record = r | {"created_at": lead["created_at"], "modified_at": max(r["modified_at"], lead["created_at"])}
            if its is None:  # a lead's end is not the end of the person
                record |= {"deleted_at": None, "hard": False, "merged_into": None}
            custom = self.custom(entity, its["custom"] if its else {})
            if entity == "account":
                put(record, id, r, lead["company"] if its is None else r["name"], custom)  # type: ignore[call-arg, arg-type]
            else:
                put(record, id, r, self.org_id(r["account_id"]) if its else id, custom)  # type: ignore[call-arg, arg-type]

    def _lead(self, key: int, r: dict) -> None:
        self._lead_people(key)
        id = self.lead_id(key)
        gone = {"hard": True} if r["converted_deal_id"] else {}
        self.put("leads", r | gone, id, title=f"{r['name']} lead", owner_id=r["owner_id"], creator_id=r["created_by"], label_ids=[self.labels[r["rating"]]] if r["rating"] else [],
                 person_id=LEAD_PEOPLE + key, organization_id=LEAD_PEOPLE + key, source_name="Manually created", channel=self.option("channel", r["source"]),
                 is_archived=bool(r["is_lost"] or r["is_converted"]), custom_fields={c: None for c, _ in self.codes.values()} | self.custom("lead", r["custom"]))

    def status(self, r: dict) -> str:
        """open, won or lost."""
        return "open" if r["is_won"] is None else "won" if r["is_won"] else "lost"

    def open_stage(self, key: int, r: dict) -> int:
        """The stage that a deal stands in, or stood in when it was closed: the last open one."""
        names = [r["stage"], *(c["old"] for c in reversed(self.moves["deal", key]) if c["field"] == "stage")]
        return next(self.stages[r["pipeline"], n] for n in names if (r["pipeline"], n) in self.stages)

    def _deal(self, key: int, r: dict) -> None:
        stamp, status = self.account.stamp, self.status(r)
        closed = stamp(r["closed_at"]) if r["closed_at"] else None
        lead = self.org.records["lead"].get(r.get("source_lead_id") or 0)
        moved = [c["at"] for c in self.moves["deal", key] if c["field"] == "stage" and (r["pipeline"], c["new"]) in self.stages]
        custom = (self.custom("lead", lead["custom"]) if lead else self.custom("lead", {})) | self.custom("deal", r["custom"], r["currency"])
        self.put("deals", r, key, title=r["name"], owner_id=r["owner_id"], creator_user_id=r["created_by"], person_id=self.person_id(r["contact_id"]),
                 org_id=self.org_id(r["account_id"]), stage_id=self.open_stage(key, r), pipeline_id=self.pipelines[r["pipeline"]], value=r["amount"],
                 currency=r["currency"], stage_change_time=stamp(max(moved)) if moved else None, status=status, lost_reason=r["lost_reason"], close_time=closed,
                 won_time=closed if status == "won" else None, lost_time=closed if status == "lost" else None, expected_close_date=r["close_on"].isoformat(),
                 channel=self.option("channel", r["source"]), source_lead_id=self.lead_id(r["source_lead_id"]) if lead else None, custom_fields=custom)

    def _deal_product(self, key: int, r: dict) -> None:
        self.put("deal_products", r, key, deal_id=r["deal_id"], product_id=r["product_id"], quantity=r["quantity"], item_price=r["amount"] / r["quantity"],
                 sum=r["amount"], currency=r["currency"], name=self.org.records["product"][r["product_id"]]["name"])

    def kind(self, r: dict) -> str:
        """activities, notes or mails: where an activity of the organisation stands in Pipedrive. Mails about leads are logged as activities."""
        return "notes" if r["kind"] == "note" else "mails" if r["kind"] == "email" and r["lead_id"] is None and r["contact_id"] and not self.was_lead(r) else "activities"

    def was_lead(self, r: dict) -> bool:
        """It was entered while it was about a lead."""
        told = [c["old"] for c in self.moves["activity", r["key"]] if c["field"] == "lead_id"]
        return bool(told and told[0] is not None)

    def _activity(self, key: int, r: dict) -> None:
        lead = r["lead_id"] and self.org.records["lead"][r["lead_id"]]
        person = self.person_id(r["contact_id"]) if r["contact_id"] else LEAD_PEOPLE + r["lead_id"] if lead else None
        organization = self.org_id(r["account_id"]) if r["account_id"] else LEAD_PEOPLE + r["lead_id"] if lead else None
        about = {"deal_id": r["deal_id"], "lead_id": self.lead_id(r["lead_id"]) if lead else None, "person_id": person, "org_id": organization}
        stamp = self.account.stamp
        if self.kind(r) == "notes":
            self.put("notes", r | ({"hard": True} if r["deleted_at"] else {}), key, content=r["body"] or "", user_id=r["user_id"], last_update_user_id=r["user_id"], **about)
        elif self.kind(r) == "mails":
            self._mail(key, r, about)
        else:
            done = next((c["at"] for c in reversed(self.moves["activity", key]) if c["field"] == "is_done" and c["new"]), r["happened_at"]) if r["is_done"] else None
            minutes = int(r["duration_minutes"] or 0)
            self.put("activities", r, key, subject=r["subject"], type=r["kind"], owner_id=r["user_id"], creator_user_id=r["created_by"], note=r["body"],
                     due_date=r["happened_at"].date().isoformat(), due_time=r["happened_at"].strftime("%H:%M"), done=r["is_done"],
                     duration=f"{minutes // 60:02}:{minutes % 60:02}" if minutes else None, marked_as_done_time=stamp(done) if done else None,
                     participants=[{"person_id": person, "primary": True}] if person else [], **about)

    def _mail(self, key: int, r: dict, about: dict) -> None:
        if r["deleted_at"]:
            self.account.mails.pop(key, None)
            return
        contact, user = self.org.records["contact"][r["contact_id"]], self.org.records["user"][r["user_id"]]
        party = {"id": None, "mail_message_party_id": key}
        there = party | {"email_address": contact["email"] or "", "name": contact["name"], "linked_person_id": about["person_id"], "linked_person_name": contact["name"]}
        here = party | {"email_address": user["email"], "name": user["name"], "linked_person_id": None, "linked_person_name": None}
        out, when = r["direction"] == "out", self.account.stamp(r["happened_at"])
        self.account.mails[key] = {"id": key, "user_id": r["user_id"], "mail_thread_id": key, "subject": r["subject"], "snippet": (r["body"] or "")[:60], "body": r["body"] or "",
                                   "sent_flag": int(out), "time": when, "from": [here if out else there], "to": [there if out else here], **about}
        for kind, id in (("deals", about["deal_id"]), ("persons", about["person_id"])):
            if row := self.account.rows[kind].get(id):  # a mail that comes, or is linked, counts as a change of what it is linked to
                row["update_time"] = max(row["update_time"], self.account.stamp(r["modified_at"] + self.skew))
                self.account.touched(kind)

    def _log(self, c: dict) -> None:
        """One change of the organisation in the change log of its record."""
        entity, key, name, old, new, r = c["entity"], c["key"], c["field"], c["old"], c["new"], self.org.records[c["entity"]][c["key"]]
        kind = {"deal": "deals", "contact": "persons", "account": "organizations"}.get(entity)
        if kind is None or (entity, key) in self.became:
            return
        now, id, log = self.account.stamp(c["at"]), key, self.account.log
        self.account.actor = c["by"]
        if name.startswith("custom."):
            code, its = self.codes.get(f"{entity}.{name[7:]}", ("", None))
            if its is not None:
                before, after = (parts(code, self.value(code, its.kind, v, r.get("currency", "EUR"))) for v in (old, new))
                for part in dict.fromkeys([*before, *after]):
                    log(kind, id, part, before.get(part), after.get(part), now)
        elif name == "stage":
            before = next((self.stages[r["pipeline"], o["old"]] for o in reversed(self.moves["deal", key][:self.moves["deal", key].index(c) + 1])
                           if o["field"] == "stage" and (r["pipeline"], o["old"]) in self.stages), None)
            log(kind, id, "stage_id", before, self.stages.get((r["pipeline"], new), before), now)
        elif name == "is_won":
            log(kind, id, "status", self.status({"is_won": old}), self.status({"is_won": new}), now)
        elif name == "close_on":
            log(kind, id, "expected_close_date", old.isoformat(), new.isoformat(), now)
        elif name == "industry":
            log(kind, id, "industry", *(v and self.option("industry", v) for v in (old, new)), now)
        elif name in ("contact_id", "account_id"):
            log(kind, id, {"contact_id": "person_id", "account_id": "org_id"}[name], *(getattr(self, {"contact_id": "person_id", "account_id": "org_id"}[name])(v) for v in (old, new)), now)
        else:
            native = {"deal": {"amount": "value", "owner_id": "owner_id", "name": "title", "lost_reason": "lost_reason"},
                      "contact": {"name": "name", "title": "job_title", "owner_id": "owner_id", "email": "email", "phone": "phone"},
                      "account": {"name": "name", "employees": "employee_count", "annual_revenue": "annual_revenue", "owner_id": "owner_id"}}[entity].get(name)
            if native:
                log(kind, id, native, old, new, now)


def refused(status: int, error: str, info: str = "Please check developers.pipedrive.com") -> Refusal:
    """An answer that is no success, in the form that v1's examples show."""
    return Refusal(Reply(status, {"success": False, "error": error, "errorCode": status, "error_info": info}))


@dataclass
class Grant:
    """Whom a token stands for: scopes None = an API token, which may do what its user may."""

    user_id: int = 1
    scopes: frozenset[str] | None = None
    expires: float = float("inf")  # monotonic seconds


@dataclass
class Asked:
    """One request to the API, taken apart."""

    request: Request
    method: str
    version: str
    path: str
    query: dict[str, str]
    body: dict
    grant: Grant

    def number(self, name: str, default: int) -> int:
        """A query parameter that must be a whole number."""
        text = self.query.get(name, str(default))
        if not re.fullmatch(r"\d+", text):
            raise refused(400, f"{name} must be a number")
        return int(text)

    def numbers(self, name: str) -> list[int] | None:
        """A comma list of up to 100 ids."""
        if name not in self.query:
            return None
        ids = self.query[name].split(",")
        if len(ids) > 100 or not all(i.isdigit() for i in ids):
            raise refused(400, f"{name}: up to 100 ids, separated by commas")
        return [int(i) for i in ids]

    def since(self, name: str) -> str | None:
        """A time in any RFC 3339 form as v2 stores it; a fraction of a second is cut off."""
        if name not in self.query:
            return None
        try:
            told = datetime.fromisoformat(self.query[name])
        except ValueError:
            raise refused(400, f"{name} must be an RFC 3339 time") from None
        return (told - (told.utcoffset() or timedelta())).strftime("%Y-%m-%dT%H:%M:%SZ")


FIELDS = {"dealFields": "deals", "personFields": "persons", "organizationFields": "organizations", "productFields": "products",
          "activityFields": "activities", "leadFields": "deals"}
SCOPES = {"deals": "deals", "pipelines": "deals", "stages": "deals", "notes": "deals", "activities": "activities", "activityTypes": "activities",
          "persons": "contacts", "organizations": "contacts", "products": "products", "leads": "leads", "leadLabels": "leads", "leadSources": "leads",
          "leadFields": "leads", "mailbox": "mail", "users": "users", "currencies": "", "dealFields": "deals", "personFields": "contacts",
          "organizationFields": "contacts", "productFields": "products", "activityFields": "activities"}


ALL_SCOPES = [f"{name}:full" for name in ("deals", "contacts", "activities", "products", "leads", "mail")] + ["users:read", "recents:read", "search:read"]
TOKEN, CLIENT = "stand-in-api-token-0123456789abcdef0123", ("stand-in-client", "stand-in-client-secret")


def price(asked: Asked) -> int:
    """What a request costs in tokens of the daily budget."""
    first, is_single = asked.path.split("/")[0], bool(re.search(r"/([0-9]+|[0-9a-f-]{36}|[0-9a-f]{40}|me)$", asked.path))
    v1 = 2 if asked.version == "v1" else 1
    if asked.method != "GET":
        return 40 if "/convert/" in asked.path else (3 if asked.method == "DELETE" else 5) * v1
    if asked.path.endswith("/flow") or (asked.version, asked.path) == ("v1", "leads/archived"):
        return 40
    if asked.path == "deals/archived":
        return 20
    if is_single or "/convert/" in asked.path:
        return v1
    return (5 if first in ("pipelines", "stages") else 10) * v1


class Pipedrive(Server):
    """Answers the requests to one account; `log` keeps what was asked and what it cost, `used` the tokens spent today.

    daily: tokens a day; burst: requests in any two seconds, by token. Switches: limit_headers (the rate headers are sent), lists_deleted (lists of
    persons, organizations, activities and products show deleted rows), lasts (seconds that an access token lasts).
    """

    crm: ClassVar[str] = "pipedrive"

    def __init__(self, org: Organisation, *, port: int = 0, page: int = 0, daily: int = 600_000, burst: int = 100_000, **more: Any):
        super().__init__(org, port=port, page=page, **more)
        self.account = Account(lambda: self.now)
        self.mirror = Mirror(org, self.account)
        self.mirror.refresh()
        self.daily, self.burst = daily, burst
        self.used, self.day = 0, self.now.date()
        self.tokens: dict[str, Grant] = {TOKEN: Grant()}
        self.clients = dict([CLIENT])  # OAuth: client id -> secret
        self.renewals: dict[str, Grant] = {}
        self.codes: dict[str, Grant] = {}
        self.log: list[dict] = []
        self.limit_headers, self.lists_deleted, self.lasts = True, False, 3600
        self.window: dict[str, deque[float]] = defaultdict(deque)
        self.ignored: dict[str, int] = defaultdict(int)  # 429s that a token called through
        self.before: dict[str, list[dict]] = {}  # the page before, by path

    # -- refusals that the base sends on demand ----------------------------------------------------------------------------------

    def unauthorized(self) -> Reply:
        """401."""
        return refused(401, "unauthorized access").reply

    def expire(self) -> None:
        """End every access token given by OAuth; API tokens stay (a 401 passes)."""
        self.tokens = {token: grant for token, grant in self.tokens.items() if grant.scopes is None}

    def too_many(self, told: bool) -> Reply:
        """429 for the burst."""
        headers = {"x-ratelimit-limit": str(self.burst), "x-ratelimit-remaining": "0", "x-ratelimit-reset": "0"} if told else {}
        return Reply(429, {"success": False, "error": "request over limit", "errorCode": 429}, headers)

    def spent(self) -> Reply:
        """429 for the day: nothing is left before midnight."""
        headers = {"x-daily-ratelimit-token-limit": str(self.daily), "x-daily-ratelimit-token-remaining": "0"} if self.limit_headers else {}
        return Reply(429, {"success": False, "error": "Daily API token budget is exceeded", "errorCode": 429}, headers)

    # -- one request -------------------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Reply:
        """Authenticate, count, route."""
        entry = {"method": request.method, "path": request.path, "query": dict(request.query), "cost": 0, "status": 0}
        self.log.append(entry)
        with self.lock:
            try:
                reply = self.oauth(request) if request.path.startswith("/oauth/") else self.api(request, entry)
            except Refusal as refusal:
                reply = refusal.reply
        entry["status"] = reply.status
        return reply

    def api(self, request: Request, entry: dict) -> Reply:
        """The reply to a request below /api."""
        headers, query = request.headers, dict(request.query)
        token = headers.get("x-api-token") or headers.get("authorization", "").removeprefix("Bearer ") or query.pop("api_token", "")
        grant = self.tokens.get(token)
        if grant is None or grant.expires < time.monotonic():
            raise refused(401, "unauthorized access")
        match = re.fullmatch(r"(?:/api)?/(v1|v2)/(.+?)/?", request.path)
        if not match:
            raise refused(404, "unknown method")
        try:
            given = request.json() or {}
        except ValueError:
            raise refused(400, "body is no JSON") from None
        asked = Asked(request, request.method, match[1], match[2], query, given, grant)
        if blocked := self.limited_by(token, asked, entry):
            return blocked
        self.check_scope(asked)
        status, answer = self.route(asked)
        return Reply(status, answer, self.limits(token))

    def limits(self, token: str) -> dict[str, str]:
        """The headers that tell how much is left."""
        if not self.limit_headers:
            return {}
        return {"x-ratelimit-limit": str(self.burst), "x-ratelimit-remaining": str(max(0, self.burst - len(self.window[token]))), "x-ratelimit-reset": "2",
                "x-daily-ratelimit-token-limit": str(self.daily), "x-daily-ratelimit-token-remaining": str(max(0, self.daily - self.used))}

    def limited_by(self, token: str, asked: Asked, entry: dict) -> Reply | None:
        """Count a request against the rolling two seconds and the day; the 429, or the CDN's 403 page for who calls through 20 of them."""
        if (today := self.now.date()) != self.day:
            self.day, self.used = today, 0
        now, window, cost = time.monotonic(), self.window[token], price(asked)
        while window and window[0] < now - 2:
            window.popleft()
        if len(window) >= self.burst or self.used + cost > self.daily:
            self.ignored[token] += 1
            if self.ignored[token] > 20:
                return Reply(403, "<!DOCTYPE html><html><head><title>Access denied</title></head><body><h1>Error 1015</h1></body></html>")
            if self.used + cost > self.daily:
                return self.spent()
            reply = self.too_many(self.limit_headers)
            return Reply(429, reply.body, reply.headers | ({"x-ratelimit-reset": "2"} if reply.headers else {}))
        self.ignored[token] = 0
        window.append(now)
        self.used += cost
        entry["cost"] = cost
        return None

    def check_scope(self, asked: Asked) -> None:
        """403 where an OAuth grant lacks the scope that the path needs."""
        first = asked.path.split("/")[0]
        needed = "recents" if re.search(r"/(flow|changelog)$", asked.path) else "mail" if "mailMessages" in asked.path else SCOPES.get(first, "")
        held = asked.grant.scopes
        rights = {f"{needed}:full"} | ({f"{needed}:read"} if asked.method == "GET" else set())
        if needed and asked.path != "users/me" and held is not None and not rights & held:
            raise refused(403, "Scope and URL mismatch")

    # -- OAuth -----------------------------------------------------------------------------------------------------------------

    def oauth(self, request: Request) -> Reply:
        """Exchange a code or a refresh token; a refresh token works once, its answer brings the next."""
        given, form = request.headers.get("authorization", ""), request.form()
        client, _, secret = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":") if given.startswith("Basic ") else ("", "", "")
        if not secret or not hmac.compare_digest(self.clients.get(client, ""), secret):
            return Reply(401, {"success": False, "error": "invalid_client", "message": "Client authentication failed"})
        if request.path == "/oauth/revoke":
            self.tokens.pop(form.get("token", ""), None)
            self.renewals.pop(form.get("token", ""), None)
            return Reply(200, {"success": True})
        store, name = {"authorization_code": (self.codes, "code"), "refresh_token": (self.renewals, "refresh_token")}.get(form.get("grant_type", ""), ({}, ""))
        grant = store.pop(form.get(name, ""), None)
        if grant is None:
            return Reply(400, {"success": False, "error": "invalid_grant", "message": f"Invalid grant: {name or 'grant_type'} is invalid"})
        access, renewal = (f"{grant.user_id}:{kind}:{uuid.uuid4().hex}" for kind in ("access", "refresh"))
        self.tokens[access] = Grant(grant.user_id, grant.scopes or frozenset(ALL_SCOPES), time.monotonic() + self.lasts)
        self.renewals[renewal] = grant
        return Reply(200, {"access_token": access, "token_type": "Bearer", "refresh_token": renewal, "scope": " ".join(sorted(self.tokens[access].scopes or ())),
                           "expires_in": self.lasts, "api_domain": self.url})

    # -- routes ----------------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show what the organisation is now; what was deleted 30 days ago is purged."""
        self.mirror.skew = self.skew
        self.mirror.refresh()
        self.account.purge()

    # -- what a lake should hold -------------------------------------------------------------------------------------------------

    expresses: ClassVar[dict[str, tuple[str, ...]]] = {
        "user": ("name", "email", "is_active"), "stage": ("pipeline", "name", "position", "probability", "outcome"), "product": ("name", "family", "list_price", "currency"),
        "account": ("name", "industry", "employees", "annual_revenue", "country", "city", "owner_id", "created_at"),
        "contact": ("name", "email", "phone", "title", "account_id", "owner_id", "created_at"),
        "lead": ("name", "email", "phone", "company", "title", "industry", "employees", "country", "city", "source", "owner_id", "rating", "created_at", "is_converted", "is_lost"),
        "deal": ("name", "account_id", "contact_id", "owner_id", "source_lead_id", "pipeline", "source", "amount", "currency", "close_on", "created_at", "is_won", "closed_at", "lost_reason"),
        "deal_product": ("deal_id", "product_id", "quantity", "amount", "currency"),
        "activity": ("kind", "subject", "lead_id", "contact_id", "deal_id", "account_id", "user_id", "created_at", "is_done", "duration_minutes")}

    def native_id(self, entity: str, key: int) -> str:
        """The id that the lake knows behind "<source>:"."""
        m = self.mirror
        if entity == "activity":
            kind = m.kind(self.org.records["activity"][key])
            return {"activities": "activity", "notes": "note", "mails": "mail"}[kind] + f"-{key}"
        return str({"account": m.org_id, "contact": m.person_id, "lead": m.lead_id}.get(entity, lambda k: k)(key))

    def expected(self, entity: str) -> dict[str, dict[str, Any]]:
        """As of the base; with the people of leads, and with what this CRM tells otherwise or not at all."""
        with self.lock:
            self.refresh()
            out, records, m = super().expected(entity), self.org.standing(entity), self.mirror
            for key, record in self.org.records["lead"].items() if entity in ("account", "contact") else ():
                if not record["converted_deal_id"]:
                    id, owner = str(LEAD_PEOPLE + key), record["owner_id"] and self.native_id("user", record["owner_id"])
                    out[id] = {n: record.get(n) for n in self.expresses[entity]} | {"owner_id": owner} | (
                        {"name": record["company"]} if entity == "account" else {"account_id": id})
            for key, record in self.org.records.get(entity, {}).items():
                if row := out.get(id := self.native_id(entity, key)):
                    getattr(self, f"_expected_{entity}", lambda *given: None)(out, id, key, record, row)
            if entity == "lead":  # converted leads are told by their deals, as long as these are
                for key, record in self.org.records["lead"].items():
                    if (deal := record["converted_deal_id"]) and deal in self.account.rows["deals"] and key not in records:
                        out[m.lead_id(key)] = {"is_converted": True, "is_lost": False}
            return out

    def _expected_stage(self, out: dict, id: str, key: int, record: dict, row: dict) -> None:
        if record["outcome"] != "open":
            del out[id]

    def _expected_account(self, out: dict, id: str, key: int, record: dict, row: dict) -> None:
        if lead := self.mirror.became.get(("account", key)):
            row["created_at"] = self.org.records["lead"][lead]["created_at"]

    def _expected_contact(self, out: dict, id: str, key: int, record: dict, row: dict) -> None:
        if lead := self.mirror.became.get(("contact", key)):
            row["created_at"] = self.org.records["lead"][lead]["created_at"]

    def _expected_lead(self, out: dict, id: str, key: int, record: dict, row: dict) -> None:
        archived = bool(record["is_lost"] or (record["is_converted"] and not record["converted_deal_id"]))
        row |= {"is_converted": bool(record["converted_deal_id"]), "is_lost": archived}
        if archived:
            row["closed_at"] = record["modified_at"]
        if row["is_converted"]:  # owner and rating are not told any more, and people are told as their deal last brought them
            out[id] = {n: row[n] for n in ("source", "created_at", "is_converted", "is_lost")} | {
                "converted_at": record["converted_at"], "closed_at": record["converted_at"], "converted_deal_id": str(record["converted_deal_id"]), "owner_id": None, "rating": None}
            if record["converted_deal_id"] not in self.account.rows["deals"]:
                del out[id]

    def _expected_deal(self, out: dict, id: str, key: int, record: dict, row: dict) -> None:
        row["stage"] = self.org.records["stage"][self.mirror.open_stage(key, record)]["name"]

    def _expected_deal_product(self, out: dict, id: str, key: int, record: dict, row: dict) -> None:
        if record["deal_id"] not in self.org.standing("deal"):
            del out[id]

    def _expected_activity(self, out: dict, id: str, key: int, record: dict, row: dict) -> None:
        kind, lead = id.split("-")[0], record["lead_id"]
        if lead:
            row |= {"contact_id": str(LEAD_PEOPLE + lead), "account_id": str(LEAD_PEOPLE + lead)}
        if kind == "activity":
            done = [c["at"] for c in self.mirror.moves["activity", key] if c["field"] == "is_done" and c["new"]]
            row |= {"direction": None, "happened_at": done[-1] if done else record["happened_at"] if record["is_done"] else record["happened_at"].replace(second=0)}
        else:
            row |= {"subject": record["subject"] if kind == "mail" else None, "happened_at": record["happened_at"] if kind == "mail" else record["created_at"], "is_done": True,
                    "duration_minutes": None}
        if kind == "mail":
            row |= {"account_id": None, "direction": record["direction"], "created_at": record["happened_at"]}
            if record["deal_id"] is None and any(d["contact_id"] == record["contact_id"] for d in self.org.records["deal"].values()):
                del out[id]  # a mail of somebody with deals that is linked to none of them is not asked for

    def routes(self) -> list:
        """Routing is by version; see `route`."""
        return []

    def route(self, asked: Asked) -> tuple[int, dict]:
        """Find the method for a path; 404 where there is none in this version."""
        self.refresh()
        for version, method, pattern, name in ROUTES:
            if version == asked.version and method == asked.method and (match := re.fullmatch(pattern, asked.path)):
                answer = getattr(self, name)(asked, *match.groups())
                return (201 if method == "POST" else 200), {"success": True} | answer
        raise refused(404, "unknown method")

    def seen(self, asked: Asked, row: dict) -> bool:
        """A user who is no administrator sees what is shared and what is hers."""
        user = next((u for u in self.account.users if u["id"] == asked.grant.user_id), {})
        return any(a["admin"] for a in user.get("access", [])) or str(row.get("visible_to")) != "1" or row.get("owner_id") == asked.grant.user_id

    def cursor(self, asked: Asked, last: tuple | None = None) -> tuple | None:
        """Read the cursor of a request, or (with `last`) write the next one into the answer; it holds for the same parameters only."""
        same = json.dumps([asked.path, sorted((k, v) for k, v in asked.query.items() if k != "cursor")])
        if last is not None:
            told = json.dumps(last).encode()
            return (base64.urlsafe_b64encode(hmac.new(b"cursor key", told + same.encode(), "sha256").digest()[:12] + told).decode(),)
        if not asked.query.get("cursor"):
            return None
        try:
            raw = base64.urlsafe_b64decode(asked.query["cursor"])
        except ValueError:
            raise refused(400, "Invalid cursor") from None
        if raw[:12] != hmac.new(b"cursor key", raw[12:] + same.encode(), "sha256").digest()[:12]:
            raise refused(400, "Invalid cursor")
        return tuple(json.loads(raw[12:]))

    def limit(self, asked: Asked) -> int:
        """`limit`, 100 by default and 500 at most; never more than the `page` that a test sets."""
        limit = asked.number("limit", 100)
        if not 1 <= limit <= 500:
            raise refused(400, "limit must be between 1 and 500")
        return min(limit, self.page or limit)

    def keyset(self, asked: Asked, order: list[tuple], row_of: Callable[[tuple], dict | None], show: Callable[[dict], dict]) -> dict:
        """One page of v2: after the cursor's key, in ascending or descending order, `limit` rows that `row_of` lets through."""
        limit, after, down = self.limit(asked), self.cursor(asked), asked.query.get("sort_direction", "asc") == "desc"
        if down:
            at = bisect.bisect_left(order, after) - 1 if after else len(order) - 1
        else:
            at = bisect.bisect_right(order, after) if after else 0
        rows: list[dict] = []
        last: tuple = ()
        for n in range(at, -1, -1) if down else range(at, len(order)):
            row = row_of(order[n])
            if row is None:
                continue
            if len(rows) == limit:
                return {"data": self.paged(asked, rows), "additional_data": {"next_cursor": self.cursor(asked, last)[0]}}  # type: ignore[index]
            rows.append(show(row))
            last = order[n]
        return {"data": self.paged(asked, rows), "additional_data": {"next_cursor": None}}

    def paged(self, asked: Asked, rows: list[dict]) -> list[dict]:
        """A page's rows, with those of the page before where `duplicated` is due."""
        follows = asked.query.get("cursor") or asked.query.get("start", "0") != "0"
        shown = self.repeated(asked.request, rows, self.before.get(asked.path, []) if follows else [])
        self.before[asked.path] = rows
        return shown

    def collection(self, asked: Asked, kind: str, archived: str = "") -> dict:
        """A list of v2: filters, bounds (updated_since inclusive, updated_until exclusive), sorting, cursor."""
        by, query, table = asked.query.get("sort_by", "id"), asked.query, self.account.rows[kind]
        if by not in ("id", "update_time", "add_time") + (("due_date",) if kind == "activities" else ()) or query.get("sort_direction", "asc") not in ("asc", "desc"):
            raise refused(400, "sort_by or sort_direction is invalid")
        since, until, ids = asked.since("updated_since"), asked.since("updated_until") if kind != "products" else None, asked.numbers("ids")
        same = {k: asked.number(k, 0) for k in ("owner_id", "person_id", "org_id", "pipeline_id", "stage_id", "deal_id") if k in query}
        statuses = set(query["status"].split(",")) if "status" in query else None
        if statuses and statuses - {"open", "won", "lost", "deleted"}:
            raise refused(400, "status is invalid")
        wanted = set(ids) if ids is not None else None

        def row_of(key: tuple) -> dict | None:
            row = table[key[1]]
            if (since and row["update_time"] < since) or (until and row["update_time"] >= until) or (wanted is not None and row["id"] not in wanted):
                return None
            if kind == "deals" and (row["is_archived"] != bool(archived) or (row["status"] not in statuses if statuses else row["is_deleted"])):
                return None
            if kind != "deals" and row["is_deleted"] and not self.lists_deleted:
                return None
            if any(row.get(k) != v for k, v in same.items()) or ("done" in query and row.get("done") != (query["done"] in ("true", "1"))):
                return None
            return row if self.seen(asked, row) else None

        order = self.account.ordered(kind, by) if wanted is None else sorted((table[i][by] or "" if by != "id" else i, i) for i in wanted if i in table)
        if since and by == "update_time" and query.get("sort_direction", "asc") == "asc":
            order = order[bisect.bisect_left(order, (since,)):]
        return self.keyset(asked, order, row_of, lambda row: self.shown(asked, kind, row))

    def shown(self, asked: Asked, kind: str, row: dict) -> dict:
        """A record as v2 shows it: optional fields when asked for, custom fields thinned, options labelled."""
        extra = [f for f in asked.query.get("include_fields", "").split(",") if f]
        if unknown := set(extra) - set(OPTIONAL[kind]):
            raise refused(400, f"include_fields: {', '.join(sorted(unknown))} unknown")
        row = {k: v for k, v in row.items() if k != "source_lead_id" or extra or "custom_fields" in row} | {k: self.optional(kind, row, k) for k in extra}
        if keys := asked.query.get("custom_fields"):
            if len(keys.split(",")) > 15:
                raise refused(400, "custom_fields: up to 15 keys")
            row["custom_fields"] = {k: v for k, v in row["custom_fields"].items() if k in keys.split(",")}
        if asked.query.get("include_option_labels") == "true" and kind in ("deals", "persons", "organizations") and asked.path != "deals/archived":
            row["custom_fields"] = self.labelled(kind, row["custom_fields"])
        return row

    def labelled(self, kind: str, custom: dict) -> dict:
        """Custom fields with enum and set values as {id, label}."""
        labels = {f["field_code"]: {o["id"]: o["label"] for o in f["options"] or []} for f in self.account.fields[kind] if f["field_type"] in ("enum", "set")}

        def one(key: str, id: int) -> dict:
            return {"id": id, "label": labels[key].get(id)}

        return {k: v if v is None or k not in labels else [one(k, i) for i in v] if isinstance(v, list) else one(k, v) for k, v in custom.items()}

    def optional(self, kind: str, row: dict, name: str) -> object:
        """The present value of an optional field, counted from the account."""
        if name in row:
            return row[name]
        key = {"deals": "deal_id", "persons": "person_id", "organizations": "org_id"}.get(kind, "")
        mails = [m for m in self.account.mails.values() if m.get(key) == row["id"]] if "mail" in name else []
        if name in ("last_incoming_mail_time", "last_outgoing_mail_time"):
            return max((m["time"] for m in mails if m["sent_flag"] == ("outgoing" in name)), default=None)
        if name == "email_messages_count":
            return len(mails)
        counted = {"notes_count": ("notes", {}), "activities_count": ("activities", {}), "done_activities_count": ("activities", {"done": True}),
                   "undone_activities_count": ("activities", {"done": False}), "products_count": ("deal_products", {}),
                   "open_deals_count": ("deals", {"status": "open"}), "won_deals_count": ("deals", {"status": "won"}),
                   "lost_deals_count": ("deals", {"status": "lost"}), "closed_deals_count": ("deals", {"is_closed": True}), "people_count": ("persons", {})}
        if name in counted:
            other, same = counted[name]
            mine = self.account.grouped(other, key).get(row["id"], [])
            return sum(all((r["status"] in ("won", "lost") if k == "is_closed" else r[k]) == v for k, v in same.items()) for r in mine)
        if name == "attendees":
            return [{"email": p, "is_organizer": False} for p in ()]
        return 0 if name.endswith("_count") else None

    def single(self, asked: Asked, kind: str, id: str) -> dict:
        """One record of v2; 404 once purged or merged away."""
        row = self.account.rows[kind].get(int(id))
        if row is None or not self.seen(asked, row):
            raise refused(404, f"{ONE[kind].capitalize()} not found")
        return {"data": self.shown(asked, kind, row)}

    def line_items(self, asked: Asked, id: str = "") -> dict:
        """Line items of one deal, or of up to 100."""
        wanted = [int(id)] if id else asked.numbers("deal_ids")
        if not wanted:
            raise refused(400, "deal_ids is required")
        table, by_deal = self.account.rows["deal_products"], self.account.grouped("deal_products", "deal_id")
        order = sorted((r["id"], r["id"]) for deal in set(wanted) for r in by_deal.get(deal, []))
        return self.keyset(asked, order, lambda key: table[key[1]], dict)

    def definitions(self, asked: Asked, name: str, code: str = "") -> dict:
        """Field definitions of v2."""
        fields = [{k: v for k, v in f.items() if k != "options_deleted"} for f in self.account.fields[FIELDS[name]]]
        if code:
            its = [f for f in fields if f["field_code"] == code]
            if not its:
                raise refused(404, "Field not found")
            return {"data": its[0]}
        return self.keyset(asked, [(n, n) for n in range(len(fields))], lambda key: fields[key[1]], dict)

    def definitions_v1(self, asked: Asked, name: str) -> dict:
        """Field definitions of v1, which also tell the options that were removed."""
        return self.offset(asked, [{
            "id": n, "key": V1_KEYS.get(f["field_code"], f["field_code"]), "name": f["field_name"], "order_nr": n, "field_type": f["field_type"],
            "add_time": v1_time(self.account.stamp()), "active_flag": True, "edit_flag": f["is_custom_field"], "options": f["options"],
            "options_deleted": f["options_deleted"]} for n, f in enumerate(self.account.fields[FIELDS[name]], 1)], flat=True)

    def offset(self, asked: Asked, rows: list, *, flat: bool, show: Callable[[dict], dict] = dict) -> dict:
        """One page of v1: `start` and `limit`; `flat` puts them directly into additional_data, without next_start. No row = null."""
        start, limit = asked.number("start", 0), min(asked.number("limit", 100), self.page or 500, 500)
        more = len(rows) > start + limit
        page = {"start": start, "limit": limit, "more_items_in_collection": more}
        return {"data": self.paged(asked, [show(r) for r in rows[start:start + limit]]) or (None if not flat else []),
                "additional_data": page if flat else {"pagination": page | ({"next_start": start + limit} if more else {})}}

    def leads(self, asked: Asked, archived: str = "") -> dict:
        """Leads (v1), sorted by creation unless told otherwise; updated_since is unknown to the archived ones."""
        since = None if archived else asked.since("updated_since")
        by, _, direction = asked.query.get("sort", "add_time ASC").partition(" ")
        if by not in DEFAULTS["leads"] or direction not in ("", "ASC", "DESC"):
            raise refused(400, "sort is invalid")
        same = {k: asked.number(k, 0) for k in ("owner_id", "person_id", "organization_id") if k in asked.query}
        rows = [r for r in self.account.rows["leads"].values() if r["is_archived"] == bool(archived) and not (since and r["update_time"] < since)
                and all(r[k] == v for k, v in same.items()) and self.seen(asked, r)]
        rows.sort(key=lambda r: (str(r[by] or ""), r["id"]), reverse=direction == "DESC")
        return self.offset(asked, rows, flat=True, show=self.lead_row)

    def lead_row(self, row: dict) -> dict:
        """A lead with its custom fields flat at the root; what is not set is absent. Times carry milliseconds."""
        flat = {k: v for key, value in row["custom_fields"].items() for k, v in parts(key, value).items()}
        shown = {k: v for k, v in row.items() if k != "custom_fields"} | flat
        return shown | {k: row[k].replace("Z", ".000Z") for k in ("add_time", "update_time")}

    def lead(self, asked: Asked, id: str) -> dict:
        """One lead; 404 once converted or deleted."""
        if id not in self.account.rows["leads"]:
            raise refused(404, "Lead not found")
        return {"data": self.lead_row(self.account.rows["leads"][id])}

    def notes(self, asked: Asked) -> dict:
        """Notes (v1), newest last; deleted ones are no longer listed."""
        since = asked.since("updated_since")
        same = {k: asked.query[k] for k in ("user_id", "lead_id", "deal_id", "person_id", "org_id") if k in asked.query}
        rows = [r for r in self.account.rows["notes"].values() if r["active_flag"] and not (since and r["update_time"] < since)
                and all(str(r[k]) == v for k, v in same.items())]
        return self.offset(asked, rows, flat=False, show=self.note_row)

    def note_row(self, row: dict) -> dict:
        """A note in v1's shape, with the names of what it is about."""
        rows = self.account.rows
        deal, person, org = rows["deals"].get(row["deal_id"]), rows["persons"].get(row["person_id"]), rows["organizations"].get(row["org_id"])
        user = next((u for u in self.account.users if u["id"] == row["user_id"]), {"email": None, "name": None})
        return row | {"add_time": v1_time(row["add_time"]), "update_time": v1_time(row["update_time"]), "deal": deal and {"title": deal["title"]},
                      "person": person and {"name": person["name"]}, "organization": org and {"name": org["name"]}, "project": None, "task": None,
                      "user": {"email": user["email"], "name": user["name"], "icon_url": None, "is_you": row["user_id"] == 1}}

    def note(self, asked: Asked, id: str) -> dict:
        """One note, deleted ones too."""
        if int(id) not in self.account.rows["notes"]:
            raise refused(404, "Note not found")
        return {"data": self.note_row(self.account.rows["notes"][int(id)])}

    def users(self, asked: Asked) -> dict:
        """Every user, unpaged."""
        return {"data": [u | {"is_you": u["id"] == asked.grant.user_id} for u in self.account.users]}

    def user(self, asked: Asked, id: str) -> dict:
        """One user; `me` also tells the company."""
        its = [u for u in self.account.users if u["id"] == (asked.grant.user_id if id == "me" else int(id))]
        if not its:
            raise refused(404, "User not found")
        company = {"company_id": 1, "company_name": "Example", "company_domain": "example", "company_country": "DE", "company_industry": None}
        return {"data": its[0] | {"is_you": its[0]["id"] == asked.grant.user_id} | (company if id == "me" else {})}

    def plain(self, asked: Asked, name: str) -> dict:
        """A small list of v1, unpaged."""
        return {"data": self.account.flat[name]}

    def changelog(self, asked: Asked, kind: str, id: str) -> dict:
        """The changes of one record, by cursor."""
        if int(id) not in self.account.rows[kind]:
            raise refused(404, f"{ONE[kind].capitalize()} not found")
        rows = self.account.changes[kind, int(id)]
        return self.keyset(asked, [(n, n) for n in range(len(rows))], lambda key: rows[key[1]], dict)

    def flow(self, asked: Asked, kind: str, id: str) -> dict:
        """What happened to one record, newest first: changes (custom fields only with all_changes=1), activities, notes, mails."""
        if int(id) not in self.account.rows[kind]:
            raise refused(404, f"{ONE[kind].capitalize()} not found")
        number, one = int(id), ONE[kind]
        key = {"deals": "deal_id", "persons": "person_id", "organizations": "org_id"}[kind]
        wanted = set(asked.query["items"].split(",")) if asked.query.get("items") else None
        seen = [({"object": f"{one}Change", "timestamp": c["time"], "data": {
            "id": n, "item_id": number, "user_id": c["actor_user_id"], "field_key": c["field_key"], "old_value": c["old_value"], "new_value": c["new_value"],
            "is_bulk_update_flag": c["is_bulk_update_flag"], "log_time": c["time"], "change_source": c["change_source"], "additional_data": {}}},
            {"change", f"{one}Change"}) for n, c in enumerate(self.account.changes[kind, number], 1)
            if asked.query.get("all_changes") == "1" or not re.match(r"[0-9a-f]{40}", c["field_key"])]
        seen += [({"object": "activity", "timestamp": v1_time(r["add_time"]), "data": r}, {"activity" if r["done"] else "plannedActivity"})
                 for r in self.account.rows["activities"].values() if r[key] == number and not r["is_deleted"]]
        seen += [({"object": "note", "timestamp": v1_time(r["add_time"]), "data": self.note_row(r)}, {"note"})
                 for r in self.account.rows["notes"].values() if r[key] == number and r["active_flag"]]
        seen += [(m, {"mailMessage"}) for m in self.messages(key, number)]
        rows = sorted((item for item, names in seen if wanted is None or names & wanted), key=lambda item: item["timestamp"], reverse=True)
        return self.offset(asked, rows, flat=True) | {"related_objects": {one: {id: {"id": number}}}}

    def message(self, mail: dict, *, body: bool = False) -> dict:
        """A mail in v1's shape; its text only when asked for."""
        zero = ("read_flag", "draft_flag", "synced_flag", "deleted_flag", "has_attachments_flag", "has_inline_attachments_flag", "has_real_attachments_flag",
                "smart_bcc_flag", "mail_link_tracking_enabled_flag", "sent_from_pipedrive_flag")
        when = v1_time(mail["time"])
        return {"id": mail["id"], "from": mail["from"], "to": mail["to"], "cc": [], "bcc": [], "body_url": "", "account_id": "1", "user_id": mail["user_id"],
                "mail_thread_id": mail["mail_thread_id"], "subject": mail["subject"], "snippet": mail["snippet"], "mail_tracking_status": None, "draft": "",
                "has_body_flag": 1, "sent_flag": mail["sent_flag"], "message_time": when, "add_time": when, "update_time": when} | dict.fromkeys(zero, 0) | (
                    {"body": mail["body"]} if body else {})

    def messages(self, key: str, id: object, body: bool = False) -> list[dict]:
        """Mails linked to a record, as items of a list."""
        its = [m for m in self.account.mails.values() if m.get(key) == id]
        return [{"object": "mailMessage", "timestamp": v1_time(m["time"]), "data": self.message(m, body=body)} for m in its]

    def linked_mails(self, asked: Asked, kind: str, id: str) -> dict:
        """Mails of a deal, person or organization."""
        if int(id) not in self.account.rows[kind]:
            raise refused(404, f"{ONE[kind].capitalize()} not found")
        key = {"deals": "deal_id", "persons": "person_id", "organizations": "org_id"}[kind]
        return self.offset(asked, self.messages(key, int(id), asked.query.get("include_body") == "1"), flat=True)

    def threads(self, asked: Asked) -> dict:
        """The threads in the mailbox of the token's own user."""
        folder = asked.query.get("folder")
        if folder not in ("inbox", "drafts", "sent", "archive"):
            raise refused(400, "folder is required")
        its = [m for m in self.account.mails.values() if m["user_id"] == asked.grant.user_id and bool(m["sent_flag"]) == (folder == "sent")]
        return self.offset(asked, [{"id": m["mail_thread_id"], "account_id": "1", "user_id": m["user_id"], "subject": m["subject"], "snippet": m["snippet"],
                                    "folders": [folder], "message_count": 1, "add_time": v1_time(m["time"]), "update_time": v1_time(m["time"]),
                                    "deal_id": m["deal_id"], "lead_id": m["lead_id"]} for m in its], flat=False)

    def thread(self, asked: Asked, id: str) -> dict:
        """The messages of one thread."""
        return {"data": [self.message(m) for m in self.account.mails.values() if m["mail_thread_id"] == int(id)]}

    def mail(self, asked: Asked, id: str) -> dict:
        """One message, with its text when include_body=1."""
        if int(id) not in self.account.mails:
            raise refused(404, "Mail message not found")
        return {"data": self.message(self.account.mails[int(id)], body=asked.query.get("include_body") == "1")}

    # -- writing ---------------------------------------------------------------------------------------------------------------

    def add(self, asked: Asked, kind: str) -> dict:
        """Create a record (v2)."""
        needed = {"activities": "subject", "deals": "title"}.get(kind, "name")
        if not asked.body.get(needed):
            raise refused(400, f"{needed} is required")
        first = min((s["id"] for s in self.account.rows["stages"].values()), default=None)
        given = ({"stage_id": first} if kind == "deals" else {}) | ({"owner_id": asked.grant.user_id} if "owner_id" in DEFAULTS[kind] else {}) | asked.body
        return {"data": dict(self.account.create(kind, **given))}

    def change(self, asked: Asked, kind: str, id: str) -> dict:
        """PATCH a record (v2)."""
        self.single(asked, kind, id)
        return {"data": dict(self.account.update(kind, int(id), **asked.body))}

    def remove(self, asked: Asked, kind: str, id: str) -> dict:
        """Delete a record softly (v2)."""
        self.single(asked, kind, id)
        self.account.delete(kind, int(id))
        return {"data": {"id": int(id)}}

    def add_lead(self, asked: Asked) -> dict:
        """Create a lead (v1)."""
        if not asked.body.get("title") or not (asked.body.get("person_id") or asked.body.get("organization_id")):
            raise refused(400, "title and person_id or organization_id are required")
        return {"data": self.lead_row(self.account.create("leads", **({"owner_id": asked.grant.user_id, "creator_id": asked.grant.user_id} | asked.body)))}

    def change_lead(self, asked: Asked, id: str) -> dict:
        """PATCH a lead (v1), custom fields flat."""
        self.lead(asked, id)
        return {"data": self.lead_row(self.account.update("leads", id, **asked.body))}

    def remove_lead(self, asked: Asked, id: str) -> dict:
        """Delete a lead (v1)."""
        self.lead(asked, id)
        self.account.delete("leads", id)
        return {"data": {"id": id}}

    def convert_lead(self, asked: Asked, id: str) -> dict:
        """Convert a lead (v2); done at once, though the answer only names a conversion to ask after."""
        self.lead(asked, id)
        first = min(s["id"] for s in self.account.rows["stages"].values())
        self.account.convert(id, stage_id=asked.body.get("stage_id") or first)
        return {"data": {"conversion_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"conversion {id}"))}}

    def conversion(self, asked: Asked, id: str, conversion: str) -> dict:
        """How a conversion stands."""
        deal = next((d for d in self.account.rows["deals"].values() if d["source_lead_id"] == id), None)
        if deal is None or conversion != str(uuid.uuid5(uuid.NAMESPACE_OID, f"conversion {id}")):
            raise refused(404, "Conversion not found")
        return {"data": {"lead_id": id, "deal_id": deal["id"], "conversion_id": conversion, "status": "completed"}}


_V2, _LOGGED, _UUID = "(" + "|".join(ONE) + ")", "(" + "|".join(LOGGED) + ")", "([0-9a-f-]{36})"
_FIELDS = "(dealFields|personFields|organizationFields|productFields|activityFields)"
ROUTES = [
    ("v2", "GET", "(deals)/(archived)", "collection"), ("v2", "GET", "deals/products", "line_items"), ("v2", "GET", r"deals/(\d+)/products", "line_items"),
    ("v2", "GET", _V2, "collection"), ("v2", "GET", _V2 + r"/(\d+)", "single"), ("v2", "POST", _V2, "add"), ("v2", "PATCH", _V2 + r"/(\d+)", "change"),
    ("v2", "DELETE", _V2 + r"/(\d+)", "remove"), ("v2", "GET", _FIELDS, "definitions"), ("v2", "GET", _FIELDS + r"/(\w+)", "definitions"),
    ("v2", "POST", f"leads/{_UUID}/convert/deal", "convert_lead"), ("v2", "GET", f"leads/{_UUID}/convert/status/{_UUID}", "conversion"),
    ("v1", "GET", "leads", "leads"), ("v1", "GET", "leads/(archived)", "leads"), ("v1", "GET", f"leads/{_UUID}", "lead"),
    ("v1", "POST", "leads", "add_lead"), ("v1", "PATCH", f"leads/{_UUID}", "change_lead"), ("v1", "DELETE", f"leads/{_UUID}", "remove_lead"),
    ("v1", "GET", "notes", "notes"), ("v1", "GET", r"notes/(\d+)", "note"), ("v1", "GET", "users", "users"), ("v1", "GET", r"users/(me|\d+)", "user"),
    ("v1", "GET", "(activityTypes|currencies|leadLabels|leadSources)", "plain"), ("v1", "GET", _FIELDS.replace(")", "|leadFields)"), "definitions_v1"),
    ("v1", "GET", _LOGGED + r"/(\d+)/changelog", "changelog"), ("v1", "GET", _LOGGED + r"/(\d+)/flow", "flow"),
    ("v1", "GET", _LOGGED + r"/(\d+)/mailMessages", "linked_mails"), ("v1", "GET", "mailbox/mailThreads", "threads"),
    ("v1", "GET", r"mailbox/mailThreads/(\d+)/mailMessages", "thread"), ("v1", "GET", r"mailbox/mailMessages/(\d+)", "mail")]


def main() -> None:
    """`python -m tests.servers.pipedrive --port 8102`: the stand-in with the small organisation; token and client are printed."""
    import argparse

    told = argparse.ArgumentParser(description=main.__doc__)
    told.add_argument("--port", type=int, default=8102)
    print(f"API token {TOKEN}; OAuth client {CLIENT[0]}, secret {CLIENT[1]}", flush=True)
    serve(Pipedrive(organisation(), port=told.parse_args().port))


if __name__ == "__main__":
    main()
