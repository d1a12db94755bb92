"""The neutral organisation as a Salesforce org: its whole past is replayed, so that every history object holds what the vendor's would.

A deleted record lies in the recycle bin for 15 days; a field's history is kept 18 months from the day tracking was switched on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tests.servers.organisation import CustomDefinition, Organisation
from tests.servers.salesforce_org import Org, make_field, native_id
from tests.servers.soql import stamp

OBJECT = {"user": "User", "stage": "OpportunityStage", "product": "Product2", "campaign": "Campaign", "account": "Account", "contact": "Contact", "lead": "Lead",
          "deal": "Opportunity", "membership": "CampaignMember", "deal_product": "OpportunityLineItem", "deal_contact": "OpportunityContactRole", "quota": "ForecastingQuota",
          "fx_rate": "DatedConversionRate"}
PREFIX = {"User": "005", "OpportunityStage": "01J", "Product2": "01t", "Campaign": "701", "Account": "001", "Contact": "003", "Lead": "00Q", "Opportunity": "006",
          "CampaignMember": "00v", "OpportunityLineItem": "00k", "OpportunityContactRole": "00K", "ForecastingQuota": "0J9", "DatedConversionRate": "04w", "Task": "00T",
          "Event": "00U"}
TRACKED = {"Lead": {"Status", "Rating", "OwnerId", "Fleet__c"}, "Opportunity": {"OwnerId", "NextStep", "Score__c"}, "Contact": {"OwnerId", "Title"},
           "Account": {"Industry", "NumberOfEmployees"}}
KINDS = {"text": "string", "long": "long", "int": "double", "float": "double", "bool": "boolean", "date": "date", "time": "datetime", "money": "currency",
         "choice": "picklist", "choices": "multipicklist", "url": "url", "user": "reference"}
CATEGORY = {"open": "Pipeline", "won": "Closed", "lost": "Omitted"}
BIN_DAYS, HISTORY_DAYS = 15, 548
TASK = {"call": {"TaskSubtype": "Call"}, "email": {"TaskSubtype": "Email"}, "task": {"TaskSubtype": "Task"}, "note": {"TaskSubtype": "Task", "Type": "Note"}}


def object_of(entity: str, record: dict[str, Any]) -> str:
    """The object that a record is kept in."""
    return OBJECT.get(entity) or ("Event" if record["kind"] == "meeting" else "Task")


def id_of(entity: str, key: int | None, record: dict[str, Any] | None = None) -> str | None:
    """The native id of a record."""
    if key is None:
        return None
    name = object_of(entity, record or {})
    return native_id(PREFIX[name], 1000 + key)


def option(label: str) -> str:
    """The API value of a choice, which is not its label."""
    return re.sub(r"\W+", "_", label).strip("_")


def api_name(key: str) -> str:
    """The API name of a custom field."""
    return f"{key[:1].upper()}{key[1:]}__c"


def custom_value(told: CustomDefinition, value: Any) -> Any:
    """A custom value as the org keeps it."""
    if value is None:
        return False if told.kind == "bool" else None  # a checkbox is never empty
    if told.kind in ("choice", "choices"):
        return ";".join(map(option, value)) if isinstance(value, list) else option(value)
    if told.kind == "user":
        return id_of("user", value)
    return stamp(value) if told.kind == "time" else value.isoformat() if told.kind == "date" else float(value) if told.kind in ("int", "float", "money") else value


def _day(value: date | None) -> str | None:
    return None if value is None else value.isoformat()[:10]


def _named(r: dict) -> dict:
    return {"FirstName": r["first_name"], "LastName": r["last_name"], "Email": r["email"], "Phone": r["phone"], "Title": r["title"], "OwnerId": id_of("user", r["owner_id"]),
            "HasOptedOutOfEmail": r["do_not_email"], "DoNotCall": r["do_not_call"]}


def _deal(r: dict) -> dict:
    return {"Name": r["name"], "AccountId": id_of("account", r["account_id"]), "ContactId": id_of("contact", r["contact_id"]), "OwnerId": id_of("user", r["owner_id"]),
            "CampaignId": id_of("campaign", r["campaign_id"]), "RecordTypeId": record_type(r["pipeline"]), "StageName": r["stage"], "Type": r["kind"], "LeadSource": r["source"],
            "Amount": r["amount"], "CurrencyIsoCode": r["currency"], "CloseDate": _day(r["close_on"]), "NextStep": r["next_step"], "Loss_Reason__c": r["lost_reason"]}


def _lead(r: dict) -> dict:
    return _named(r) | {"Company": r["company"], "Industry": r["industry"], "NumberOfEmployees": r["employees"], "Country": r["country"], "City": r["city"], "LeadSource": r["source"],
                        "Status": r["status"], "Rating": r["rating"], "IsConverted": bool(r["is_converted"]), "ConvertedDate": _day(r["converted_at"]),
                        "ConvertedAccountId": id_of("account", r["converted_account_id"]), "ConvertedContactId": id_of("contact", r["converted_contact_id"]),
                        "ConvertedOpportunityId": id_of("deal", r["converted_deal_id"])}


def _activity(r: dict) -> dict:
    told = {"WhoId": id_of("lead", r["lead_id"]) or id_of("contact", r["contact_id"]), "WhatId": id_of("deal", r["deal_id"]) or id_of("account", r["account_id"]),
            "AccountId": id_of("account", r["account_id"]), "Subject": r["subject"], "Description": r["body"], "OwnerId": id_of("user", r["user_id"])}
    if r["kind"] == "meeting":
        ends = r["happened_at"] + timedelta(minutes=r["duration_minutes"] or 0)
        return told | {"StartDateTime": stamp(r["happened_at"]), "ActivityDateTime": stamp(r["happened_at"]), "EndDateTime": stamp(ends), "EventSubtype": "Event",
                       "ActivityDate": _day(r["happened_at"]), "DurationInMinutes": int(r["duration_minutes"] or 0)}
    seconds = None if r["duration_minutes"] is None else int(r["duration_minutes"] * 60)
    calls = {"CallType": {"in": "Inbound", "out": "Outbound"}.get(r["direction"]), "CallDurationInSeconds": seconds} if r["kind"] == "call" else {}
    return told | TASK[r["kind"]] | calls | {"ActivityDate": _day(r["happened_at"]), "Status": "Completed" if r["is_done"] else "Not Started", "Priority": "Normal"}


def _account(r: dict) -> dict:
    return {"Name": r["name"], "Industry": r["industry"], "NumberOfEmployees": r["employees"], "AnnualRevenue": r.get("annual_revenue"), "BillingCountry": r["country"],
            "BillingCity": r["city"], "ParentId": id_of("account", r.get("parent_id")), "OwnerId": id_of("user", r["owner_id"]), "CurrencyIsoCode": r["currency"]}


WRITERS: dict[str, Callable[[dict], dict]] = {
    "user": lambda r: {"FirstName": r["first_name"], "LastName": r["last_name"], "Email": r["email"], "Username": r["email"], "IsActive": r["is_active"],
                       "ManagerId": id_of("user", r["manager_id"]), "UserRoleId": role(r["team"]), "UserType": "Standard"},
    "stage": lambda r: {"MasterLabel": r["name"], "ApiName": r["name"], "SortOrder": r["key"], "IsActive": True, "IsClosed": r["outcome"] != "open", "IsWon": r["outcome"] == "won",
                        "DefaultProbability": r["probability"] * 100, "ForecastCategory": CATEGORY[r["outcome"]], "ForecastCategoryName": CATEGORY[r["outcome"]]},
    "product": lambda r: {"Name": r["name"], "Family": r["family"], "IsActive": True, "CurrencyIsoCode": r["currency"]},
    "campaign": lambda r: {"Name": r["name"], "Type": r["kind"], "Status": r["status"], "StartDate": _day(r["starts_on"]), "EndDate": _day(r["ends_on"]), "ActualCost": r["cost"],
                           "CurrencyIsoCode": r["currency"], "IsActive": True},
    "account": _account, "lead": _lead, "deal": _deal, "activity": _activity,
    "contact": lambda r: _named(r) | {"AccountId": id_of("account", r["account_id"]), "MailingCountry": r["country"], "MailingCity": r["city"]},
    "membership": lambda r: {"CampaignId": id_of("campaign", r["campaign_id"]), "LeadId": id_of("lead", r["lead_id"]), "ContactId": id_of("contact", r["contact_id"]), "Status": r["status"]},
    "deal_product": lambda r: {"OpportunityId": id_of("deal", r["deal_id"]), "Product2Id": id_of("product", r["product_id"]), "Quantity": r["quantity"], "TotalPrice": r["amount"],
                               "UnitPrice": round(r["amount"] / r["quantity"], 2), "CurrencyIsoCode": r["currency"]},
    "deal_contact": lambda r: {"OpportunityId": id_of("deal", r["deal_id"]), "ContactId": id_of("contact", r["contact_id"]), "Role": r["role"], "IsPrimary": r["is_primary"]},
    "quota": lambda r: {"QuotaOwnerId": id_of("user", r["user_id"]), "PeriodId": period(r["starts_on"]), "StartDate": _day(r["starts_on"]), "QuotaAmount": r["amount"], "IsAmount": True,
                        "CurrencyIsoCode": r["currency"]},
    "fx_rate": lambda r: {"IsoCode": r["currency"], "StartDate": _day(r["on_date"]), "NextStartDate": "9999-12-31", "ConversionRate": 1 / r["rate"]},
}


def role(team: str) -> str:
    """Id of the role that a team is."""
    return native_id("00E", sum(map(ord, team)))


def record_type(pipeline: str) -> str:
    """Id of the record type that a pipeline is."""
    return native_id("012", sum(map(ord, pipeline)))


def period(start: date) -> str:
    """Id of the quarter that begins on a day."""
    return native_id("026", start.toordinal())


def fill(org: Organisation, *, skew: timedelta = timedelta(0), tracked: dict[str, set[str]] | None = None, tracked_from: datetime | None = None, **more: Any) -> Org:
    """The organisation as an Org of this moment; `tracked` as in Org, `tracked_from` when tracking was switched on."""
    features = {"territories", "quotas", "currencies", *more.get("features", ())}
    sf = Org(org.now.replace(tzinfo=UTC), features=features, tracked=TRACKED if tracked is None else tracked, currency="EUR",
             tracked_from=max(tracked_from or datetime.min, org.now - timedelta(days=HISTORY_DAYS)))
    _settings(org, sf)
    by_key: dict[tuple[str, int], list[dict]] = {}
    for change in org.changes:
        by_key.setdefault((change["entity"], change["key"]), []).append(change)
    events: list[tuple[datetime, int, Callable[[], None]]] = []
    for entity in (*OBJECT, "activity"):
        for record in org.records.get(entity, {}).values():
            events += _life(sf, org, entity, record, by_key.get((entity, record["key"]), []))
    for _, _, happen in sorted(events, key=lambda e: e[:2]):
        happen()
    _stamped(org, sf, skew)
    return sf


def _settings(org: Organisation, sf: Org) -> None:
    begin = datetime(2020, 1, 1)
    sf.add_field("Opportunity", make_field("RecordTypeId", "reference", to=("RecordType",)))
    sf.add_field("Opportunity", make_field("Loss_Reason__c", "picklist", label="Loss reason"))
    for entity, definitions in org.custom.items():
        for told in definitions:
            if not told.dropped:
                options = tuple((option(o), o, o in told.options) for o in told.options + told.removed)
                sf.add_field(OBJECT[entity], make_field(api_name(told.key), KINDS[told.kind], to=("User",) if told.kind == "user" else (), label=told.label, options=options,
                                                        scale=0 if told.kind == "int" else 2))
    for pipeline in dict.fromkeys(r["pipeline"] for r in org.records["stage"].values()):
        sf.insert("RecordType", {"Id": record_type(pipeline), "Name": pipeline, "DeveloperName": pipeline, "SobjectType": "Opportunity", "IsActive": True}, begin)
    territories = {name: native_id("0MI", 1 + n) for n, name in enumerate(sorted({r["territory"] for r in org.records["user"].values()}))}
    for name, native in territories.items():
        sf.insert("Territory2", {"Id": native, "Name": name, "DeveloperName": name}, begin)
    for team in dict.fromkeys(r["team"] for r in org.records["user"].values()):
        sf.insert("UserRole", {"Id": role(team), "Name": team, "DeveloperName": team}, begin)
    for key, r in org.records["user"].items():
        sf.insert("UserTerritory2Association", {"Id": native_id("0Mi", key), "UserId": id_of("user", key), "Territory2Id": territories[r["territory"]], "IsActive": True}, begin)
    for n, (name, converted) in enumerate({"New": False, "Working": False, "Unqualified": False, "Converted": True}.items()):
        sf.insert("LeadStatus", {"Id": native_id("01J", 500 + n), "ApiName": name, "MasterLabel": name, "IsDefault": n == 0, "IsConverted": converted, "SortOrder": n + 1}, begin)
    book = sf.insert("Pricebook2", {"Id": native_id("01s", 1), "Name": "Standard", "IsActive": True, "IsStandard": True}, begin)
    for key, r in org.records["product"].items():
        sf.insert("PricebookEntry", {"Id": native_id("01u", key), "Pricebook2Id": book, "Product2Id": id_of("product", key), "UnitPrice": r["list_price"], "IsActive": True,
                                     "CurrencyIsoCode": r["currency"]}, begin)
    for starts, ends in dict.fromkeys((r["starts_on"], r["ends_on"]) for r in org.records["quota"].values()):
        sf.insert("Period", {"Id": period(starts), "StartDate": _day(starts), "EndDate": _day(ends), "Type": "Quarter", "Number": 1 + starts.month // 3}, begin)
    for n, (currency, rate) in enumerate([("EUR", 1.0)] + [(r["currency"], r["rate"]) for r in org.records["fx_rate"].values()]):
        sf.insert("CurrencyType", {"Id": native_id("01L", 1 + n), "IsoCode": currency, "ConversionRate": 1 / rate, "DecimalPlaces": 2, "IsActive": True, "IsCorporate": n == 0}, begin)


def _life(sf: Org, org: Organisation, entity: str, record: dict, changes: list[dict]) -> list[tuple[datetime, int, Callable[[], None]]]:
    """What happens to one record, as (when, order, deed)."""
    definitions = {told.key: told for told in org.custom.get(entity, []) if not told.dropped}
    state = {k: v for k, v in record.items() if k != "custom"}
    custom = dict(record["custom"])
    for change in reversed(changes):
        holder, name = (custom, change["field"][7:]) if change["field"].startswith("custom.") else (state, change["field"])
        holder[name] = change["old"]
    write = WRITERS[entity]
    native = id_of(entity, record["key"], record)

    def values() -> dict:
        return write(state) | {api_name(k): custom_value(told, custom.get(k)) for k, told in definitions.items()}

    def creation() -> None:
        sf.insert(object_of(entity, record), {"Id": native} | values(), record["created_at"], by=id_of("user", record["created_by"]))
        if entity == "activity" and record["kind"] != "meeting" and state["is_done"]:
            sf.amend(native, {"CompletedDateTime": stamp(state["happened_at"])})
        if entity == "activity" and record["kind"] == "email":
            sf.insert("EmailMessage", {"Id": native_id("02s", record["key"]), "ActivityId": native, "Subject": record["subject"], "TextBody": record["body"], "Status": "3",
                                       "Incoming": record["direction"] == "in", "MessageDate": stamp(record["happened_at"]), "RelatedToId": id_of("deal", state["deal_id"])}, record["created_at"])

    def alteration(batch: list[dict]) -> Callable[[], None]:
        def alter() -> None:
            for change in batch:
                holder, name = (custom, change["field"][7:]) if change["field"].startswith("custom.") else (state, change["field"])
                holder[name] = change["new"]
            at = batch[0]["at"]
            done = {"CompletedDateTime": stamp(at)} if any(c["field"] == "is_done" and c["new"] for c in batch) and record["kind"] != "meeting" else {}
            if native in sf.by_id:
                sf.update(native, values() | done, at, by=id_of("user", batch[0]["by"]))
        return alter

    def deletion() -> None:
        if native in sf.by_id:
            gone = org.now - record["deleted_at"] > timedelta(days=BIN_DAYS)
            sf.delete(native, record["deleted_at"], hard=record["hard"] or gone, master=id_of(entity, record["merged_into"]))

    batches: dict[datetime, list[dict]] = {}
    for change in changes:
        batches.setdefault(change["at"], []).append(change)
    told: list[tuple[datetime, int, Callable[[], None]]] = [(record["created_at"], 0, creation)]
    told += [(at, 1, alteration(batch)) for at, batch in sorted(batches.items())]
    if entity == "lead" and record["converted_at"]:
        told.append((record["converted_at"], 2, lambda: sf.converted(str(native), record["converted_at"])))
    return told + ([(record["deleted_at"], 3, deletion)] if record["deleted_at"] else [])


def _stamped(org: Organisation, sf: Org, skew: timedelta) -> None:
    """The stamps that bulk edits left, and those of a clock that goes wrong."""
    for entity in (*OBJECT, "activity"):
        for record in org.records.get(entity, {}).values():
            native = id_of(entity, record["key"], record)
            if native in sf.by_id and (at := stamp(record["modified_at"] + skew)) > sf.by_id[native][1]["SystemModstamp"]:
                sf.amend(native, {"SystemModstamp": at, "LastModifiedDate": at})
