"""A stand-in for the Agentbox (Reapit Sales) API, version 2: `python -m tests.servers.agentbox --port 8103`.

Answers in the recorded shapes: every scalar but a real boolean is a string, "" stands for nothing, `items`, `current` and `last` are strings, limit=0 gives
one page whose last is INF (NAN without items), contacts are Active unless asked otherwise, a numeric price is only in a listing's own answer. What no source
tells is answered strictly: an unknown filter, order or block is refused with 422 (`strict = False` ignores it), so that a client which guesses is found out.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("Australia/Sydney")
VERSIONS = ("1", "2")


def stamp(at: datetime) -> str:
    """A naive UTC instant as Agentbox writes it: agency time with offset, whole seconds.

    >>> stamp(datetime(2022, 6, 26, 23, 56, 9)), stamp(datetime(2022, 1, 1))
    ('2022-06-27T09:56:09+10:00', '2022-01-01T11:00:00+11:00')
    """
    return at.replace(tzinfo=UTC, microsecond=0).astimezone(ZONE).isoformat()


def local(at: datetime) -> str:
    """The bare local form of some date fields: '2022-06-27 09:56:09'."""
    return stamp(at)[:19].replace("T", " ")


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
    return value if isinstance(value, (bool, str)) else "" if value is None else str(value)


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
    "notes": Resource("notes", "note", (), ("attachedListings",), ("attachedListings",), ("description",),
                      {"listingId": with_id("attachedListings"), "contactId": with_id("_contacts")}),
    "listing-links": Resource("listingLinks", filters={"listingId": same("_listing")}),
    "tasks": Resource("tasks", filters={"contactId": with_id("attachedContacts")}),
    "contact-classes": Resource("contactClasses", blocks=("group", "staffMember"), filters=NAMED),
    "contact-sources": Resource("contactSources"), "enquiry-types": Resource("enquiryTypes"), "enquiry-sources": Resource("enquirySources"),
    "enquiry-interest-levels": Resource("enquiryInterestLevels"), "property-types": Resource("propertyTypes", blocks=("categories", "categories.subCategories")),
    "regions": Resource("regions", filters={"name": same("name"), "state": same("state")}),
    "suburbs": Resource("suburbs", filters={k: same(k) for k in ("postcode", "name", "state", "region")}, needed=("postcode", "name", "state", "region")),
    "subscription": Resource("subscriptions"),
}


class Refused(Exception):
    """An application error: HTTP status, code, title, detail."""

    def __init__(self, status: int, title: str, detail: str, code: str = ""):
        super().__init__(detail)
        self.status, self.told = status, {"code": code or str(status), "title": title, "detail": detail}


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
            if (m := re.fullmatch(r"filter\[(\w+)\](\[\])?", key)):
                filters.setdefault(m[1], []).extend(v for v in value.split(",") if v)
            elif (m := re.fullmatch(r"(include|fields)(\[\])?", key)):
                lists[m[1]] |= {v for v in value.split(",") if v}
            elif (m := re.fullmatch(r"orderBy\[(\w+)\]", key)):
                orders.append((m[1], value.upper() == "DESC"))
            else:
                plain[key] = value
        if "orderBy" in plain:
            orders.append((plain["orderBy"], plain.get("order", "ASC").upper() == "DESC"))
        for key, least in (("page", 1), ("limit", 0)):
            if not plain.get(key, "1").isdigit() or int(plain.get(key, "1")) < least:
                raise Refused(422, "Unprocessable Entity Http Exception", f"{key} must be a number of {least} or more")
        return cls(filters, lists["include"], lists["fields"], orders, int(plain.get("page", 1)), int(plain.get("limit", 20)))


def number_or_text(value: object) -> tuple[int, float, str]:
    """A sort key: numbers by size before texts, instants by time."""
    text = str(value)
    if re.match(r"\d{4}-\d\d-\d\d", text):
        return 1, parsed(text).replace(tzinfo=UTC).timestamp(), ""
    return (0, float(text), "") if re.fullmatch(r"-?\d+(\.\d+)?", text) else (2, 0.0, text.lower())


class Agency:
    """The records of one agency, as their detail answers show them, and what the API makes of a request.

    Records hold numbers and None; `texts` turns them into strings on the way out. `change`, `put` and `drop` stamp lastModified with `now` (naive UTC).
    error_form: new, old or capital. errors_in_200: so many next refusals come with HTTP 200. strict: refuse what no source tells of.
    """

    def __init__(self, now: datetime, *, client: str = "aHR0cHM6Ly9kZW1vLmFnZW50Ym94Y3JtLmNvbS5hdS9hZG1pbi8=", key: str = "key-1"):
        self.now, self.client, self.key = now, client, key
        self.tables: dict[str, dict[str, dict]] = {name: {} for name in RESOURCES}
        self.error_form, self.errors_in_200, self.strict, self.limit_zero = "new", 0, True, True
        self.denied: set[str] = set()  # paths that this key may not read
        self.calls: list[str] = []

    def put(self, path: str, record: dict) -> dict:
        """Add or replace a record; its stamps where they are missing."""
        record.setdefault("firstCreated", stamp(self.now))
        record["lastModified"] = record.get("lastModified") or record["firstCreated"]
        record.setdefault("links", {"self": f"/{path}/{record.get('id')}?version=2"})
        self.tables[path][str(record.get("id", len(self.tables[path])))] = record
        return record

    def change(self, path: str, id: str, **values: object) -> dict:
        """Change fields of a record (property__bedrooms for a nested one) and stamp it."""
        record = self.tables[path][str(id)]
        for name, value in values.items():
            *outer, last = name.split("__")
            place = record
            for part in outer:
                place = place.setdefault(part, {})
            place[last] = value
        record["lastModified"] = stamp(self.now)
        return record

    def drop(self, path: str, id: str) -> None:
        """Delete for good: no trace is left."""
        del self.tables[path][str(id)]

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, str, bytes]:
        """(status, content type, body) for a request; headers by lower-case name."""
        path, pairs = urlsplit(target).path.strip("/"), parse_qsl(urlsplit(target).query, keep_blank_values=True)
        self.calls.append(f"{method} {target}")
        if not headers.get("x-api-key"):
            return self._json(401, {"error": "Authorization field missing"})
        name, _, id = path.partition("/")
        if headers["x-api-key"] != self.key or name not in RESOURCES:
            return 404, "text/html; charset=UTF-8", f"<html><body><h1>URL not found</h1><p>/{html.escape(path)}</p></body></html>".encode()
        try:
            if not headers.get("x-client-id") or headers["x-client-id"] != self.client:
                raise Refused(401, "Unauthorized Http Exception", "Invalid Client ID")
            if dict(pairs).get("version") not in VERSIONS:
                raise Refused(400, "Invalid Version", f"Valid versions: {', '.join(VERSIONS)}", "300")
            if name in self.denied:
                raise Refused(403, "Forbidden Http Exception", f"No permission for {name}")
            status, told = self._do(method, name, id, [(k, v) for k, v in pairs if k != "version"], body)
            return self._json(status, {"response": texts(told)})
        except Refused as refusal:
            status, self.errors_in_200 = (200, self.errors_in_200 - 1) if self.errors_in_200 else (refusal.status, 0)
            old = {"errorCode": refusal.status, "errorMessage": refusal.told["detail"]}
            return self._json(status, {"new": {"response": {"errors": [refusal.told]}}, "old": old, "capital": {"Response": old}}[self.error_form])

    def _json(self, status: int, value: object) -> tuple[int, str, bytes]:
        return status, "application/json", json.dumps(value).encode()

    def _do(self, method: str, name: str, id: str, pairs: list[tuple[str, str]], body: bytes) -> tuple[int, dict]:
        resource, table = RESOURCES[name], self.tables[name]
        if method == "POST" and name in WRITERS and not id or method == "PUT" and name in WRITERS and id in table:
            return WRITERS[name](self, id, _body(body, resource.one or WRITTEN[name]))
        if id and id not in table:
            raise Refused(404, "Not Found Http Exception", f"{name} {id} does not exist")
        if method == "DELETE" and id and name in ("notes", "search-requirements", "listing-links"):
            self.drop(name, id)
            return 200, {"id": id, "status": "Success"}
        if method != "GET" or id and not resource.one:
            raise Refused(405, "Method Not Allowed Http Exception", f"{method} {name}")
        question = Question.of(pairs)
        if id:
            self._known("include", question.include - {"all"}, set(resource.detail_blocks))
            return 200, {resource.one: self._detail(resource, table[id], question.include)}
        return 200, self._page(name, question)

    def _known(self, what: str, given: Iterable[str], known: Iterable[str]) -> None:
        if self.strict and (unknown := set(given) - set(known)):
            raise Refused(422, "Unprocessable Entity Http Exception", f"Invalid {what}: {', '.join(sorted(unknown))}")

    def _page(self, name: str, question: Question) -> dict:
        """One page of a list. `last` is the number of the last page; with limit 0 it is INF, or NAN where there is nothing."""
        resource = RESOURCES[name]
        self._known("filter", question.filters, resource.filters)
        self._known("orderBy", [o for o, _ in question.orders], resource.orders)
        self._known("include", question.include - {"all"}, resource.blocks)
        if resource.needed and not set(question.filters) & set(resource.needed):
            raise Refused(422, "Unprocessable Entity Http Exception", f"One of filter[{'], filter['.join(resource.needed)}] is required")
        try:
            rows = [r for r in self.tables[name].values() if all(resource.filters[f](r, v) for f, v in question.filters.items() if f in resource.filters and v)]
        except (ValueError, TypeError, OverflowError):
            raise Refused(422, "Unprocessable Entity Http Exception", "A date must be given as YYYY-MM-DDThh:mm:ss+hh:mm") from None
        if resource.default and "status" not in question.filters:
            rows = [r for r in rows if resource.filters["status"](r, [])]
        rows.sort(key=lambda r: number_or_text(r.get("id", r.get("name", ""))))
        for order, descending in reversed([o for o in question.orders if o[0] in resource.orders]):
            rows.sort(key=lambda r: number_or_text(r.get(order, "")), reverse=descending)
        limit = question.limit or (0 if self.limit_zero else 20)
        first = (question.page - 1) * limit
        shown = rows[first:first + limit] if limit else rows
        last = -(-len(rows) // limit) if limit else "INF" if rows else "NAN"
        return {"items": len(rows), "current": question.page, "last": last, resource.many: [self._item(resource, r, question) for r in shown]}

    def _item(self, resource: Resource, record: dict, question: Question) -> dict:
        """A record as a list shows it: its short keys, the blocks and extra fields that were asked for."""
        blocks = set(resource.blocks) if "all" in question.include else question.include
        hidden = set(resource.blocks) - blocks | set(resource.extra) - question.fields
        keys = [k for k in record if not k.startswith("_") and k not in hidden and (not resource.shown or k in resource.shown or k in blocks | question.fields or k in self.unlisted)]
        item = {k: record[k] for k in keys}
        if "property" in item:
            item["property"] = {k: v for k, v in item["property"].items() if k in PROPERTY}
        return item

    unlisted: frozenset[str] = frozenset()  # keys outside the contract that lists show too (a field that the vendor adds one day)

    def _detail(self, resource: Resource, record: dict, include: set[str]) -> dict:
        """A record's own answer: everything but the blocks that were not asked for; blocks of the list alone are not in it."""
        listed = set(resource.blocks) - set(resource.detail_blocks) - {"streetAddress", "contactClasses", "subscriptions", "communicationRestrictions", "mainDescription"}
        hidden = (set() if "all" in include else set(resource.detail_blocks) - include) | listed
        return {k: v for k, v in record.items() if not k.startswith("_") and k not in hidden}

    def _new_id(self, path: str) -> int:
        return max([int(i) for i in self.tables[path] if i.isdigit()], default=0) + 1

    def write_contact(self, id: str, given: dict) -> tuple[int, dict]:
        """POST or PUT of a contact: a list REPLACES the stored one unless its appendable switch is true."""
        if not id and not (given.get("firstName") and given.get("lastName")):
            raise Refused(422, "Unprocessable Entity Http Exception", "firstName and lastName are required")
        if given.get("mobile") and any(c.get("mobile") == given["mobile"] and str(c["id"]) != id for c in self.tables["contacts"].values()):
            raise Refused(422, "Unprocessable Entity Http Exception", "A contact with this mobile exists already")
        appended = {"contactClasses": "contactClassesAppendable", "subscriptions": "subscriptionsAppendable", "attachedRelatedStaffMembers": "attachedRelatedStaffAppendable"}
        record = self.tables["contacts"].get(id) or {"id": self._new_id("contacts"), "type": "Person", "status": "Active"}
        for name, switch in appended.items():
            if name in given and given.get(switch) is True:
                given[name] = [*record.get(name, []), *(e for e in given[name] if e not in record.get(name, []))]
        names = {str(c["id"]): c for c in self.tables["contact-classes"].values()}
        if "contactClasses" in given:
            given["contactClasses"] = [names.get(str(c.get("id")), c) for c in given["contactClasses"]]
        record |= {k: v for k, v in given.items() if k not in appended.values()} | {"lastModified": stamp(self.now)}
        return 200 if id else 201, self._written("contacts", "contact", self.put("contacts", record))

    def write_note(self, id: str, given: dict) -> tuple[int, dict]:
        """POST of a note; the headline is required."""
        if id or not given.get("headline"):
            raise Refused(422, "Unprocessable Entity Http Exception", "headline is required")
        record = {"id": self._new_id("notes"), "isPublic": False, "category": "", "subCategory": "", "description": "", "date": stamp(self.now),
                  "attachedListings": [], "_contacts": given.pop("attachedContacts", [])} | given
        return 201, self._written("notes", "note", self.put("notes", record))

    def _written(self, path: str, one: str, record: dict) -> dict:
        return {"status": "success", one: {"id": record["id"], "links": {"self": f"/{path}/{record['id']}?version=2"}}}


WRITERS: dict[str, Callable[[Agency, str, dict], tuple[int, dict]]] = {"contacts": Agency.write_contact, "notes": Agency.write_note}
WRITTEN = {"contacts": "contact", "notes": "note"}


def _body(body: bytes, key: str) -> dict:
    try:
        value = json.loads(body)[key]
        return dict(value)
    except (ValueError, KeyError, TypeError):
        raise Refused(422, "Unprocessable Entity Http Exception", f'The body must be {{"{key}": {{...}}}}') from None
