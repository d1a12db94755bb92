"""A stand-in for the Agentbox (Reapit Sales) API, version 2: `python -m tests.servers.agentbox --port 8103`.

Answers in the recorded shapes: every scalar but a real boolean is a string, "" stands for nothing, `items`, `current` and `last` are strings, limit=0 gives
one page whose last is INF (NAN without items), contacts are Active unless asked otherwise, a numeric price is only in a listing's own answer. What no source
tells is answered strictly: an unknown filter, order or block is refused with 422 (`strict = False` ignores it), so that a client which guesses is found out.
"""

from __future__ import annotations

import argparse
import html
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, ClassVar

from tests.servers import agentbox_org as estate
from tests.servers.agentbox_org import ZONE, stamp
from tests.servers.base import Refusal, Reply, Request, Route, Server, serve
from tests.servers.organisation import Organisation, organisation

VERSIONS = ("1", "2")


@lru_cache(200_000)
def parsed(text: str) -> datetime:
    """A stamp or bare local time as naive UTC."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=ZONE)).astimezone(UTC).replace(tzinfo=None)


def texts(value: object) -> object:
    """JSON as Agentbox writes it: numbers become strings, null becomes "", booleans stay.

    >>> texts({"id": 18, "price": 1.5, "sold": None, "hidden": False, "tags": [{"id": 2}]})
    {'id': '18', 'price': '1.5', 'sold': '', 'hidden': False, 'tags': [{'id': '2'}]}
    """
    if isinstance(value, dict):
        return {k: texts(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [texts(v) for v in value]
    whole = isinstance(value, float) and value.is_integer()
    return value if isinstance(value, (bool, str)) else "" if value is None else str(int(value) if whole else value)


def at_path(record: dict, path: str) -> object:
    """The value at `property.address.suburb`; "" where there is none."""
    for part in path.split("."):
        record = record.get(part, "") if isinstance(record, dict) else ""
    return record


Filter = Callable[[dict, list[str]], bool]


def same(path: str) -> Filter:
    """Equal to one of the values, ignoring case."""
    return lambda record, values: str(at_path(record, path)).lower() in [v.lower() for v in values]


def with_id(path: str, inner: str = "id") -> Filter:
    """Some entry of the list (or the block) at `path` has one of the ids; inner: the id's place in an entry."""
    def holds(record: dict, values: list[str]) -> bool:
        found = at_path(record, path)
        return any(str(at_path(entry, inner)) in values for entry in (found if isinstance(found, list) else [found]) if entry)
    return holds


def since(path: str) -> Filter:
    """On or after: inclusive."""
    return lambda record, values: at_path(record, path) != "" and parsed(str(at_path(record, path))) >= parsed(values[0])


def until(path: str) -> Filter:
    """On or before: inclusive; a bare date means the whole day."""
    def holds(record: dict, values: list[str]) -> bool:
        limit = parsed(values[0]) + (timedelta(days=1, seconds=-1) if len(values[0]) == 10 else timedelta())
        return at_path(record, path) != "" and parsed(str(at_path(record, path))) <= limit
    return holds


def state(default: str) -> Filter:
    """A status filter; All asks for every one."""
    return lambda record, values: "all" in [v.lower() for v in values or [default]] or str(record.get("status", "")).lower() in [v.lower() for v in values or [default]]


CHANGED = {"modifiedAfter": since("lastModified"), "modifiedBefore": until("lastModified")}
CREATED = {"createdAfter": since("firstCreated"), "createdBefore": until("firstCreated")}


@dataclass(frozen=True)
class Resource:
    """One collection: its two keys, which keys a list item shows, what `include` and `fields` add, filters, orders, and the status shown by default."""

    many: str
    one: str = ""
    shown: tuple[str, ...] = ()  # () = all but the blocks
    blocks: tuple[str, ...] = ()  # blocks of a list item, by include
    detail_blocks: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()  # by fields=
    filters: dict[str, Filter] = field(default_factory=dict)
    orders: tuple[str, ...] = ()
    default: str = ""  # status
    needed: tuple[str, ...] = ()  # one of these filters must be given


CONTACT = ("id", "type", "status", "title", "firstName", "lastName", "jobTitle", "website", "salutation", "customSalutation", "companyName", "email", "mobile",
           "homePhone", "workPhone", "source", "firstCreated", "lastModified", "links")
LISTING = ("id", "externalId", "officeId", "officeName", "type", "status", "marketingStatus", "hiddenListing", "offMarketListing", "method", "webLink", "listedDate",
           "expiryDate", "auctionDate", "timezone", "auctionVenue", "eoiClosingDate", "availableDate", "onMarketDate", "expectedOnMarketDate", "leasedDate", "bond",
           "displayPrice", "soldDate", "property", "mainHeadline", "firstCreated", "lastModified", "links", "inspectionType", "outgoings")
PROPERTY = ("id", "type", "category", "name", "newConstruction", "address", "location", "bedrooms", "bathrooms", "totalParking", "landArea", "landSizeText", "buildingArea")
STAFF = ("id", "status", "officeId", "officeName", "externalMemberId", "firstName", "lastName", "role", "jobTitle", "email", "mobile", "phone", "hideMobileOnWeb",
         "firstCreated", "lastModified", "links")
OFFICE = ("id", "name", "status", "externalId", "financeId", "franchiseGroup", "companyName", "tradingName", "address", "location", "website", "email", "phone",
          "lastModified", "links")
NAMED = {"query": lambda record, values: values[0].lower() in str(record.get("name", "")).lower()}
RESOURCES = {
    "contacts": Resource(
        "contacts", "contact", CONTACT, ("streetAddress", "contactClasses", "relatedStaffMembers", "subscriptions", "communicationRestrictions", "permissions"),
        ("relatedStaffMembers", "searchRequirements", "permissions"), ("lastContacted", "clientRef"),
        CHANGED | CREATED | {k: same(k) for k in ("id", "firstName", "lastName", "email", "companyName", "mobile", "type", "clientRef")}
        | {"status": state("Active"), "contactClassId": with_id("contactClasses"), "memberId": with_id("relatedStaffMembers", "staffMember.id")},
        ("firstName", "lastName", "companyName", "firstCreated", "lastModified", "lastContacted"), "Active"),
    "listings": Resource(
        "listings", "listing", LISTING, ("relatedContacts", "relatedStaffMembers", "internalInformation", "inspectionDates", "mainImage", "documents", "mainDescription",
                                         "contractDetails", "permissions", "permissionsExtended", "externalAgents", "hiddenImages"),
        ("appraisalDetails", "comparableProperties", "images", "floorPlans", "documents", "documents.permissions", "externalLinks", "relatedStaffMembers", "relatedContacts",
         "internalInformation", "inspectionDates", "grossCommissionFeeStructure", "exportSearchRange", "investmentPotential", "tenancyDetails", "permissions",
         "permissionsExtended", "externalAgents", "mainImage"), (),
        CHANGED | CREATED | {k: same(k) for k in ("officeId", "type", "status", "marketingStatus")}
        | {"propertyType": same("property.type"), "propertyCategory": same("property.category"), "suburb": same("property.address.suburb"),
           "contactId": with_id("relatedContacts", "contact.id"), "memberId": with_id("relatedStaffMembers", "staffMember.id")},
        ("soldPrice", "searchPrice", "address", "lastModified", "firstCreated", "listedDate", "onMarketDate", "auctionDate", "soldDate", "appraisalDate",
         "presentationDate", "status", "marketingStatus", "leasedDate")),
    "staff": Resource("staffMembers", "staffMember", STAFF, ("mainImage", "permissions", "userAccess", "relatedOffices"), ("mainImage", "permissions", "userAccess", "relatedOffices"), (),
                      CHANGED | CREATED | {k: same(k) for k in ("officeId", "firstName", "lastName", "email", "role")} | {"status": state("Active")},
                      ("firstName", "lastName", "firstCreated", "lastModified"), "Active"),
    "offices": Resource("offices", "office", OFFICE, ("mainImage", "permissions"), ("mainImage", "permissions"), (), CHANGED | {"status": state("Active")}, ("name", "lastModified"), "Active"),
    "search-requirements": Resource("searchRequirements", "searchRequirement", filters=CHANGED | CREATED | {"contactId": same("contactId")}, orders=("firstCreated", "lastModified")),
    "enquiries": Resource("enquiries", "", (), ("contact", "listing"), filters={"dateFrom": since("enquiryDate"), "dateTo": until("enquiryDate"), "listingOfficeId": same("_office")},
                          orders=("enquiryDate",)),
    "inspections": Resource("inspections", "", (), ("contact", "listing", "project"), orders=("startDate",),
                            filters={"modifiedAfter": since("lastModified"), "startDateFrom": since("startDate"), "startDateTo": until("startDate"), "listingOfficeId": same("_office")}),
    "notes": Resource("notes", "note", (), ("attachedListings", "attachedContacts", "attachedStaffMembers"), ("attachedListings", "attachedContacts", "attachedStaffMembers"), ("description",),
                      {"listingId": with_id("attachedListings"), "contactId": with_id("attachedContacts")}),
    "listing-links": Resource("listingLinks", filters={"listingId": same("_listing")}),
    "tasks": Resource("tasks", filters={"contactId": with_id("attachedContacts")}),
    "contact-classes": Resource("contactClasses", blocks=("group", "staffMember"), filters=NAMED),
    "contact-sources": Resource("contactSources"), "enquiry-types": Resource("enquiryTypes"), "enquiry-sources": Resource("enquirySources"),
    "enquiry-interest-levels": Resource("enquiryInterestLevels"), "property-types": Resource("propertyTypes", blocks=("categories", "categories.subCategories")),
    "regions": Resource("regions", filters={"name": same("name"), "state": same("state")}),
    "suburbs": Resource("suburbs", filters={k: same(k) for k in ("postcode", "name", "state", "region")}, needed=("postcode", "name", "state", "region")),
    "subscription": Resource("subscriptions"),
}



def refused(status: int, title: str, detail: str, code: str = "") -> Refusal:
    """An application error; `Agentbox._form` gives it one of the vendor's forms."""
    return Refusal(Reply(status, {"code": code or str(status), "title": title, "detail": detail}))


def unprocessable(detail: str) -> Refusal:
    """422."""
    return refused(422, "Unprocessable Entity Http Exception", detail)


@dataclass(frozen=True)
class Question:
    """A request's query, read: filters, blocks, extra fields, orders (name, descending), page, limit."""

    filters: dict[str, list[str]]
    include: set[str]
    fields: set[str]
    orders: list[tuple[str, bool]]
    page: int
    limit: int

    @classmethod
    def of(cls, pairs: list[tuple[str, str]]) -> Question:
        """Read `filter[a]=1,2`, `filter[a][]=1`, `include=a,b`, `include[]=a`, `orderBy=a&order=DESC`, `orderBy[a]=DESC`, page and limit."""
        filters: dict[str, list[str]] = {}
        lists: dict[str, set[str]] = {"include": set(), "fields": set()}
        plain: dict[str, str] = {}
        orders = []
        for key, value in pairs:
            if m := re.fullmatch(r"filter\[(\w+)\](\[\])?", key):
                filters.setdefault(m[1], []).extend(v for v in value.split(",") if v)
            elif m := re.fullmatch(r"(include|fields)(\[\])?", key):
                lists[m[1]] |= {v for v in value.split(",") if v}
            elif m := re.fullmatch(r"orderBy\[(\w+)\]", key):
                orders.append((m[1], value.upper() == "DESC"))
            else:
                plain[key] = value
        if "orderBy" in plain:
            orders.append((plain["orderBy"], plain.get("order", "ASC").upper() == "DESC"))
        for key, least in (("page", 1), ("limit", 0)):
            if not plain.get(key, "1").isdigit() or int(plain.get(key, "1")) < least:
                raise unprocessable(f"{key} must be a number of {least} or more")
        return cls(filters, lists["include"], lists["fields"], orders, int(plain.get("page", 1)), int(plain.get("limit", 20)))


def sort_key(value: object) -> tuple[int, float, str]:
    """Numbers by size before instants by time before texts."""
    text = "" if value is None else str(value)
    if re.match(r"\d{4}-\d\d-\d\d", text):
        return 1, parsed(text).replace(tzinfo=UTC).timestamp(), ""
    return (0, float(text), "") if re.fullmatch(r"-?\d+(\.\d+)?", text) else (2, 0.0, text.lower())


class Agentbox(Server):
    """Knobs: error_form (new, old, capital R); errors_in_200 (so many next refusals come with HTTP 200); strict; ignored (filters that are taken and not obeyed);
    note_contacts (notes tell whom they are about); largest (limit is cut to it); denied (collections that this key may not read); drift (collection -> function
    that alters a row before it is shown)."""

    crm: ClassVar[str] = "agentbox"
    expresses: ClassVar[dict[str, tuple[str, ...]]] = {
        "user": ("name", "email", "is_active"),
        "contact": ("name", "email", "phone", "title", "owner_id", "country", "city", "do_not_email", "do_not_call", "created_at"),
        "listing": ("address", "suburb", "postcode", "kind", "bedrooms", "bathrooms", "car_spaces", "land_square_metres", "price_low", "price_high", "currency", "status", "owner_id",
                    "created_at", "sold_at", "sold_amount"),
        "requirement": ("contact_id", "suburbs", "kind", "bedrooms_min", "price_min", "price_max", "currency", "created_at"),
        "lead": ("name", "email", "phone", "source", "created_at"),
        "activity": ("kind", "subject", "contact_id", "created_at", "happened_at")}
    client, key = "aHR0cHM6Ly9kZW1vLmFnZW50Ym94Y3JtLmNvbS5hdS9hZG1pbi8=", "agentbox-key-canary"

    def __init__(self, org: Organisation, **more: Any):
        super().__init__(org, **more)
        self.error_form, self.errors_in_200, self.strict, self.note_contacts, self.largest = "new", 0, True, True, 1000
        self.ignored: set[str] = set()
        self.denied: set[str] = set()
        self.drift: dict[str, Callable[[dict], None]] = {}
        self.written: dict[str, dict[str, dict]] = {name: {} for name in RESOURCES}  # what was written through the API, over the organisation's
        self.dropped: set[tuple[str, str]] = set()
        self._tables: dict[str, tuple[Any, dict[str, dict]]] = {}  # collection -> (what it was made of, its records)

    # ---- what base asks
    def routes(self) -> list[Route]:
        """One route; `handle` finds the collection."""
        return [(m, r"/?(.*)", self.handle) for m in ("GET", "POST", "PUT", "DELETE")]

    def unauthorized(self) -> Reply:
        """What the gateway says without a key."""
        return Reply(401, {"error": "Authorization field missing"}, self._rates())

    def too_many(self, told: bool) -> Reply:
        """A 429 body has not been seen; the headers exist."""
        return Reply(429, {"error": "API Rate Limit Exceeded"}, self._rates(0) if told else {})

    def native_id(self, entity: str, key: int) -> str:
        """Staff 1stf0006, listings 1P0203, notes behind `note-`; the others plain numbers."""
        return {"user": estate.staff_id, "listing": estate.listing_id, "activity": "note-{}".format}.get(entity, str)(key)

    def expected(self, entity: str) -> dict[str, dict[str, Any]]:
        """As base tells it; a lead is an enquiry with its person's name, an activity a note, an inspection or an enquiry's words."""
        with self.lock:
            if entity == "activity":
                return self._activities()
            if entity != "lead":
                found = super().expected(entity)
                for key, r in self.org.standing(entity).items():
                    if entity == "contact" and estate.contact_status(key) == "Do Not Contact":
                        found[str(key)].update(do_not_email=True, do_not_call=True)
                    elif entity == "listing":  # one number is all that is told
                        found[estate.listing_id(key)]["price_low"] = r["price_high"]
                return found
            found = {}
            for key, r in self.org.standing("enquiry").items():
                person = self.org.records["contact"][r["contact_id"]]
                found[str(key)] = {n: person.get(n) for n in ("name", "email", "phone")} | {"source": r["source"], "created_at": r["created_at"]}
            return found

    def _activities(self) -> dict[str, dict[str, Any]]:
        found = {}
        for key, r in estate.told(self.org, "notes").items():
            found[f"note-{key}"] = {"kind": "note", "subject": r["subject"], "contact_id": str(r["contact_id"]) if self.note_contacts else None, "created_at": r["created_at"],
                                    "happened_at": r["happened_at"]}
        for key, r in self.org.standing("inspection").items():
            found[f"inspection-{key}"] = {"kind": "meeting", "subject": None, "happened_at": r["happened_at"], "contact_id": str(r["contact_id"]),
                                          "created_at": r["created_at"]}
        for key, r in self.org.standing("enquiry").items():
            found[f"enquiry-{key}"] = {"kind": "email", "subject": None, "happened_at": r["created_at"], "contact_id": str(r["contact_id"]),
                                       "created_at": r["created_at"]}
        return found

    # ---- answering
    def handle(self, request: Request, path: str) -> Reply:
        """Gateway first (key, path), then the application (client, version, permission), then the collection."""
        name, _, id = path.strip("/").partition("/")
        if not request.headers.get("x-api-key"):
            return self.unauthorized()
        if request.headers["x-api-key"] != self.key or name not in RESOURCES:
            return Reply(404, f"<html><body><h1>URL not found</h1><p>/{html.escape(path)}</p></body></html>", self._rates(-1, -1))
        try:
            if request.headers.get("x-client-id") != self.client:
                raise refused(401, "Unauthorized Http Exception", "Invalid Client ID")
            if request.query.get("version") not in VERSIONS:
                raise refused(400, "Invalid Version", f"Valid versions: {', '.join(VERSIONS)}", "300")
            if name in self.denied:
                raise refused(403, "Forbidden Http Exception", f"No permission for {name}")
            status, told = self._do(request, name, id)
            return Reply(status, {"response": texts(told)}, self._rates())
        except Refusal as refusal:
            return self._form(refusal.reply)

    def _rates(self, left: int = 999, limit: int = 1000) -> dict[str, str]:
        return {"x-ratelimit-limit": str(limit), "x-ratelimit-remaining": str(left), "x-ratelimit-reset": str(int(self.clock_seconds()) + (left >= 0)) if limit > 0 else "-1"}

    def _form(self, reply: Reply) -> Reply:
        """The error in the form that is set."""
        status, self.errors_in_200 = (200, self.errors_in_200 - 1) if self.errors_in_200 else (reply.status, 0)
        old = {"errorCode": reply.status, "errorMessage": reply.body["detail"]}
        return Reply(status, {"new": {"response": {"errors": [reply.body]}}, "old": old, "capital": {"Response": old}}[self.error_form], self._rates())

    def resource(self, name: str) -> Resource:
        """The collection as it is set to behave."""
        blocks = ("attachedListings",) if name == "notes" and not self.note_contacts else RESOURCES[name].blocks
        return replace(RESOURCES[name], blocks=blocks)

    def table(self, name: str) -> dict[str, dict]:
        """Id -> record as the detail answer shows it, with what was written; made anew when the organisation or a knob changed."""
        kinds = {k: (len(rows), sum(hash((r["modified_at"], r["deleted_at"])) for r in rows.values())) for k, rows in self.org.records.items() if k in estate.SHOWN.get(name, ())}
        mark = (len(self.org.changes), kinds, self.skew, self.note_contacts, repr(self.written[name]), set(self.dropped))
        if name not in self.drift and self._tables.get(name, (None,))[0] == mark:
            return self._tables[name][1]
        found = {str(row.get("id", n)): row for n, row in enumerate(estate.rows(self.org, name, self.skew))}
        for id, values in self.written[name].items():
            found[id] = found.get(id, {}) | values
        found = {i: r for i, r in found.items() if (name, i) not in self.dropped}
        for row in found.values():
            if name == "notes" and not self.note_contacts:
                row["_contacts"] = row.pop("attachedContacts", [])
                row.pop("attachedStaffMembers", None)
            if name in self.drift:
                self.drift[name](row)
        self._tables[name] = mark, found
        return found

    def _do(self, request: Request, name: str, id: str) -> tuple[int, dict]:
        resource, table, method = self.resource(name), self.table(name), request.method
        if id and id not in table:
            raise refused(404, "Not Found Http Exception", f"{name} {id} does not exist")
        if name == "contacts" and (method, bool(id)) in (("POST", False), ("PUT", True)):
            return self._write_contact(table, id, _body(request, "contact"))
        if name == "notes" and (method, id) == ("POST", ""):
            return self._write_note(table, _body(request, "note"))
        if method == "DELETE" and id and name in ("notes", "search-requirements", "listing-links"):
            self.dropped.add((name, id))
            return 200, {"id": id, "status": "Success"}
        if method != "GET" or id and not resource.one:
            raise refused(405, "Method Not Allowed Http Exception", f"{method} {name}")
        pairs = [(k, v) for k, values in request.queries.items() for v in values if k != "version"]
        question = Question.of(pairs)
        if id:
            self._known("include", question.include - {"all"}, resource.detail_blocks)
            return 200, {resource.one: self._detail(resource, table[id], question.include)}
        return 200, self._page(request, resource, table, question)

    def _known(self, what: str, given: Iterable[str], known: Iterable[str]) -> None:
        if self.strict and (unknown := set(given) - set(known)):
            raise unprocessable(f"Invalid {what}: {', '.join(sorted(unknown))}")

    def _page(self, request: Request, resource: Resource, table: dict[str, dict], question: Question) -> dict:
        """One page of a list. `last` is the number of the last page; with limit 0 it is INF, or NAN where there is nothing."""
        self._known("filter", set(question.filters) - self.ignored, resource.filters)
        self._known("orderBy", [o for o, _ in question.orders], resource.orders)
        self._known("include", question.include - {"all"}, resource.blocks)
        if resource.needed and not set(question.filters) & set(resource.needed):
            raise unprocessable(f"One of filter[{'], filter['.join(resource.needed)}] is required")
        obeyed = [(resource.filters[f], v) for f, v in question.filters.items() if v and f in resource.filters and f not in self.ignored]
        if resource.default and "status" not in question.filters:
            obeyed.append((resource.filters["status"], []))
        try:
            rows = [r for r in table.values() if all(holds(r, values) for holds, values in obeyed)]
        except (ValueError, TypeError, OverflowError):
            raise unprocessable("A date must be given as YYYY-MM-DDThh:mm:ss+hh:mm") from None
        rows.sort(key=lambda r: sort_key(r.get("id", r.get("name"))))
        for order, descending in reversed([o for o in question.orders if o[0] in resource.orders]):
            rows.sort(key=lambda r: sort_key(r.get(order)), reverse=descending)
        limit = min(question.limit, self.largest)
        first = (question.page - 1) * limit
        shown = rows[first:first + limit] if limit else rows
        last = -(-len(rows) // limit) if limit else "INF" if rows else "NAN"
        shown = self.repeated(request, shown, rows[max(0, first - limit):first])
        return {"items": len(rows), "current": question.page, "last": last, resource.many: [self._item(resource, r, question) for r in shown]}

    def _item(self, resource: Resource, record: dict, question: Question) -> dict:
        """A record as a list shows it: its short keys, the blocks and extra fields that were asked for, and keys outside the contract."""
        blocks = set(resource.blocks) if "all" in question.include else question.include
        hidden = set(resource.blocks) - blocks | set(resource.extra) - question.fields
        told = set(resource.shown) | blocks | question.fields
        item = {k: v for k, v in record.items() if k[0] != "_" and k not in hidden and (not resource.shown or k in told or k.startswith("custom"))}
        if "property" in item:
            item["property"] = {k: v for k, v in item["property"].items() if k in PROPERTY}
        return item

    def _detail(self, resource: Resource, record: dict, include: set[str]) -> dict:
        """A record's own answer: everything but the blocks that were not asked for, and those that only lists have."""
        hidden = (set() if "all" in include else set(resource.detail_blocks) - include) | ({"contractDetails"} if resource.one == "listing" else set())
        return {k: v for k, v in record.items() if k[0] != "_" and k not in hidden}

    # ---- writing
    def _write_contact(self, table: dict[str, dict], id: str, given: dict) -> tuple[int, dict]:
        """POST or PUT of a contact: a list REPLACES the stored one unless its appendable switch is true."""
        if not id and not (given.get("firstName") and given.get("lastName")):
            raise unprocessable("firstName and lastName are required")
        if given.get("mobile") and any(c.get("mobile") == given["mobile"] and i != id for i, c in table.items()):
            raise unprocessable("A contact with this mobile exists already")
        appended = {"contactClasses": "contactClassesAppendable", "subscriptions": "subscriptionsAppendable", "attachedRelatedStaffMembers": "attachedRelatedStaffAppendable"}
        for name, switch in appended.items():
            if name in given and given.get(switch) is True:
                kept = table[id].get(name, []) if id else []
                given[name] = [*kept, *(e for e in given[name] if str(e.get("id", e.get("name"))) not in {str(k.get("id", k.get("name"))) for k in kept})]
        if "contactClasses" in given:
            names = self.table("contact-classes")
            given["contactClasses"] = [names.get(str(c.get("id")), c) for c in given["contactClasses"]]
        started = {} if id else {"id": _next(table), "type": "Person", "status": "Active", "firstCreated": stamp(self.now), "contactClasses": [], "communicationRestrictions": {}}
        return self._write("contacts", "contact", id, started | {k: v for k, v in given.items() if k not in appended.values()})

    def _write_note(self, table: dict[str, dict], given: dict) -> tuple[int, dict]:
        """POST of a note; the headline is required."""
        if not given.get("headline"):
            raise unprocessable("headline is required")
        started = {"id": _next(table), "isPublic": False, "category": None, "subCategory": None, "description": None, "date": stamp(self.now), "firstCreated": stamp(self.now),
                   "attachedListings": [], "attachedContacts": [], "attachedStaffMembers": []}
        return self._write("notes", "note", "", started | given)

    def _write(self, name: str, one: str, id: str, values: dict) -> tuple[int, dict]:
        status, id = (200, id) if id else (201, str(values["id"]))
        self.written[name][id] = self.written[name].get(id, {}) | values | {"lastModified": stamp(self.now)}
        return status, {"status": "success", one: {"id": id, "links": {"self": f"/{name}/{id}?version=2"}}}


def _next(table: dict[str, dict]) -> int:
    return max([int(i) for i in table if i.isdigit()], default=0) + 1


def _body(request: Request, key: str) -> dict:
    try:
        return dict(request.json()[key])
    except (ValueError, KeyError, TypeError):
        raise unprocessable(f'The body must be {{"{key}": {{...}}}}') from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8103)
    serve(Agentbox(organisation(), port=parser.parse_args().port))
