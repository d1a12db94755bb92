"""The organisation's real-estate side as Agentbox shows it: one function a collection, from a neutral record to the vendor's own (detail) answer.

Numbers and None stay here; `agentbox.texts` makes strings of them on the way out. Keys that begin with _ are for filters and never shown.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from tests.servers.organisation import SOURCES, Organisation

ZONE = ZoneInfo("Australia/Sydney")
ENQUIRY_SOURCES = ["Database", "Domain.com.au", "Website", "Word Of Mouth"]
MARKETING = {"Available": "Available", "Conditional": "Under Contract", "Unconditional": "Under Contract", "Settled": "Sold", "Leased": "Leased"}
LOOKUPS = {
    "contact-sources": [{"id": n, "name": s} for n, s in enumerate(SOURCES, 1)],
    "enquiry-types": [{"id": 1, "name": "General Enquiry"}],
    "enquiry-sources": [{"id": n, "name": s} for n, s in enumerate(ENQUIRY_SOURCES, 1)],
    "enquiry-interest-levels": [{"id": n, "name": s} for n, s in enumerate(("Hot", "Warm", "Cold"), 1)],
    "property-types": [{"id": n, "type": s} for n, s in enumerate(("Residential", "Rural", "Commercial", "Holiday", "Business"), 1)],
    "regions": [{"name": "Inner West", "group": "Sydney", "state": "NSW", "country": "Australia"}],
    "suburbs": [{"id": n, "name": s, "postcode": str(2000 + n), "state": "NSW", "country": "Australia", "region": "Inner West"}
                for n, s in enumerate(("Newtown", "Glebe", "Bondi"), 1)],
    "subscription": [{"id": 1, "name": "Weekly newsletter", "webDisplay": True}],
}


def stamp(at: datetime) -> str:
    """A naive UTC instant as Agentbox writes it: agency time with offset, whole seconds.

    >>> stamp(datetime(2022, 6, 26, 23, 56, 9)), stamp(datetime(2022, 1, 1))
    ('2022-06-27T09:56:09+10:00', '2022-01-01T11:00:00+11:00')
    """
    return at.replace(tzinfo=UTC, microsecond=0).astimezone(ZONE).isoformat()


def local(at: datetime | None) -> str | None:
    """The bare local form of some date fields: '2022-06-27 09:56:09'."""
    return stamp(at)[:19].replace("T", " ") if at else None


def staff_id(key: int) -> str:
    """'1stf0006'."""
    return f"1stf{key:04}"


def listing_id(key: int) -> str:
    """'1P0203'."""
    return f"1P{key:04}"


class Shown:
    """What is derived from an organisation for the rows of one answer."""

    def __init__(self, org: Organisation, skew: timedelta):
        self.org, self.skew = org, skew
        self.reached: dict[tuple[int, str], datetime] = {}  # (listing, status) -> when it was first reached
        for c in org.changes:
            if c["entity"] == "listing" and c["field"] == "status":
                self.reached.setdefault((c["key"], c["new"]), c["at"])

    def dated(self, record: dict, path: str, id: object) -> dict:
        """firstCreated, lastModified, links."""
        return {"firstCreated": stamp(record["created_at"]), "lastModified": stamp(record["modified_at"] + self.skew), "links": {"self": f"/{path}/{id}?version=2"}}

    def person(self, key: int | None) -> dict | None:
        """A contact as other records show it, also one that was deleted since: their stamps do not move."""
        r = self.org.records["contact"].get(key) if key else None
        return r and {"id": r["key"], "type": "Person", "firstName": r["first_name"], "lastName": r["last_name"], "email": r["email"], "mobile": r["phone"]}

    def house(self, key: int | None) -> dict | None:
        """A listing as other records show it, also one that was deleted since."""
        r = self.org.records["listing"].get(key) if key else None
        return r and {"id": listing_id(r["key"]), "type": "Sale", "status": r["status"], "property": {"address": {"streetAddress": r["address"], "suburb": r["suburb"]}}}

    def agent(self, key: int | None, role: str) -> list[dict]:
        """relatedStaffMembers with one entry."""
        r = self.org.standing("user").get(key) if key else None
        return [{"role": role, "displayOrder": 1, "webDisplay": True, "staffMember": {"id": staff_id(r["key"]), "firstName": r["first_name"], "lastName": r["last_name"],
                                                                                     "email": r["email"]}}] if r else []

    def contact(self, key: int, r: dict) -> dict:
        """Status, classes, source and subscriptions are drawn from the key."""
        company = self.org.records["account"][r["account_id"]]["name"] if r.get("account_id") else None
        classes = [c for c in self.org.standing("class").values() if c["key"] == 1 + key % 4 or key % 7 == 0 and c["key"] == 1 + (key + 1) % 4]
        return {"id": key, "type": "Person", "status": contact_status(key), "title": "Ms" if key % 2 else "", "firstName": r["first_name"], "lastName": r["last_name"],
                "jobTitle": r["title"], "website": None, "salutation": r["first_name"], "customSalutation": None, "companyName": company, "email": r["email"],
                "mobile": r["phone"], "homePhone": None, "workPhone": None, "source": SOURCES[key % 5], **self.dated(r, "contacts", key),
                "clientRef": None, "addressTo": r["name"], "legalName": None, "fax": None,
                "streetAddress": {"address": f"{key} High Street", "suburb": r["city"], "state": "NSW", "country": r["country"], "postcode": 2000 + key},
                "postalAddress": {"same": True}, "prefContactMethod": "Email", "comments": f"private words about {key}", "lastContacted": local(r["modified_at"]),
                "contactClasses": [{"id": c["key"], "name": c["name"], "type": "Standard", "displayName": c["name"]} for c in classes],
                "subscriptions": [{"name": "Weekly newsletter"}] if key % 3 == 0 else [], "keyDates": [],
                "communicationRestrictions": {"doNotCall": r["do_not_call"], "doNotSMS": False, "doNotEmail": r["do_not_email"], "doNotMail": False},
                "relatedStaffMembers": self.agent(r["owner_id"], "Primary Owner"), "permissions": {"edit": True}}

    def listing(self, key: int, r: dict) -> dict:
        """The list shows the price as words; the number, `searchPrice`, is in the detail alone."""
        sold = r["sold_at"]
        address = {"streetAddress": r["address"], "streetNum": key, "suburb": r["suburb"], "state": "NSW", "postcode": r["postcode"], "country": "Australia", "hideAddress": False}
        house = {"id": 9000 + key, "type": "Residential", "category": r["kind"].title(), "name": None, "newConstruction": False, "address": address, "location": {"lat": -33.9, "long": 151.2},
                 "bedrooms": r["bedrooms"], "bathrooms": r["bathrooms"], "totalParking": r["car_spaces"], "landArea": {"value": r["land_square_metres"], "unit": "sqm" if r["land_square_metres"] else None},
                 "buildingArea": {"value": None, "unit": None}, "yearBuilt": 1900 + key, "features": ["Pool"] if key % 4 == 0 else []}
        office = self.org.standing("office").get(r["office_id"], {"name": None})
        return {"id": listing_id(key), "externalId": None, "officeId": r["office_id"], "officeName": office["name"], "type": "Sale", "status": r["status"],
                "marketingStatus": MARKETING.get(r["status"], "Not Listed"), "hiddenListing": False, "offMarketListing": False, "method": "Auction" if key % 2 else "Private Treaty",
                "webLink": None, "listedDate": local(self.reached.get((key, "Available"))), "expiryDate": None, "auctionDate": None, "timezone": "Australia/Sydney", "availableDate": None,
                "onMarketDate": None, "leasedDate": None, "bond": None, "displayPrice": f"Guide ${r['price_low']:,.0f} - ${r['price_high']:,.0f}", "soldDate": local(sold),
                "property": house, "mainHeadline": f"<b>{r['address']}</b>", **self.dated(r, "listings", listing_id(key)), "inspectionType": None,
                "authority": "Exclusive", "searchPrice": r["price_high"], "searchWeeklyRent": None, "soldPrice": r["sold_amount"], "mainDescription": "A long text", "statusComment": None,
                "contractDetails": {"contractDate": local(sold), "price": r["sold_amount"]} if sold else {},
                "relatedStaffMembers": self.agent(r["owner_id"], "Listing Agent"),
                "relatedContacts": [{"role": "Vendor", "contact": p}] if (p := self.person(r["contact_id"])) else []}

    def staff(self, key: int, r: dict) -> dict:
        """The office is drawn from the key."""
        office = self.org.standing("office")[1 + key % 2]
        return {"id": staff_id(key), "status": "Active" if r["is_active"] else "Inactive", "officeId": office["key"], "officeName": office["name"], "externalMemberId": None,
                "firstName": r["first_name"], "lastName": r["last_name"], "role": "Listing Agent", "jobTitle": None, "email": r["email"], "mobile": None, "phone": None,
                "hideMobileOnWeb": False, **self.dated(r, "staff", staff_id(key)), "dateOfBirth": "1980-01-01", "teams": []}

    def office(self, key: int, r: dict) -> dict:
        """An office, Active; its time zone is in the detail."""
        row = {"id": key, "name": r["name"], "status": "Active", "externalId": None, "companyName": r["name"], "address": {"suburb": "Newtown", "state": "NSW", "country": "Australia"},
               **self.dated(r, "offices", key), "timezone": "Australia/Sydney"}
        del row["firstCreated"]  # offices have none
        return row

    def requirement(self, key: int, r: dict) -> dict:
        """A buyer's wish."""
        return {"id": key, "name": f"Wish {key}", "contactId": r["contact_id"], "listingType": "Sale", "propertyType": "Residential", "propertyCategories": [{"name": r["kind"].title()}],
                "price": {"from": r["price_min"], "to": r["price_max"], "unit": "AUD"}, "bedrooms": {"from": r["bedrooms_min"], "to": None}, "bathrooms": {"from": None, "to": None},
                "parking": {"from": None, "to": None}, "landArea": {"from": None, "to": None, "unit": None}, "suburbs": [{"name": s, "postcode": None, "state": "NSW"} for s in r["suburbs"].split(";")],
                "surroundingSuburbs": False, "regions": [], "features": [], "matchAllFeatures": False, "investment": None, "completionByDate": None, "notes": None,
                **self.dated(r, "search-requirements", key)}

    def enquiry(self, key: int, r: dict) -> dict:
        """No stamp but the date, as far as recordings tell."""
        return {"id": key, "enquiryDate": stamp(r["created_at"]), "comment": r["comment"], "type": "General Enquiry", "source": r["source"], "contact": self.person(r["contact_id"]),
                "listing": self.house(r["listing_id"]), "_office": 1}

    def inspection(self, key: int, r: dict) -> dict:
        """An appointment, or somebody who came to an open house."""
        return {"id": key, "comment": r["comment"], "isAppointment": r["is_appointment"], "startDate": stamp(r["happened_at"]),
                "endDate": stamp(r["happened_at"] + timedelta(minutes=r["duration_minutes"])), "contact": self.person(r["contact_id"]), "listing": self.house(r["listing_id"]),
                **self.dated(r, "inspections", key), "_office": 1}

    def note(self, key: int, r: dict) -> dict:
        """A note about a contact."""
        return {"id": key, "isPublic": True, "category": "General", "subCategory": None, "headline": r["subject"], "description": r["body"], "date": stamp(r["happened_at"]),
                **self.dated(r, "notes", key), "attachedListings": [], "attachedContacts": [{"id": r["contact_id"]}], "attachedStaffMembers": [{"id": staff_id(r["user_id"])}]}

    def class_(self, key: int, r: dict) -> dict:
        """A class of contacts, the agency's own."""
        return {"id": key, "name": r["name"], "type": "Standard", "displayName": r["name"]}


def contact_status(key: int) -> str:
    """Most contacts are Active; lists hide the others unless asked for."""
    return "Archived" if key % 13 == 5 else "Do Not Contact" if key % 17 == 3 else "Active"


def is_note(record: dict) -> bool:
    """Of the organisation's activities Agentbox holds the notes about contacts."""
    return record["kind"] == "note" and record["contact_id"] is not None


# Collection -> the neutral tables that its rows are made of, its own first.
SHOWN = {"contacts": ("contact", "user", "account", "class"), "listings": ("listing", "user", "office", "contact"), "staff": ("user", "office"), "offices": ("office",),
         "search-requirements": ("requirement",), "enquiries": ("enquiry", "contact", "listing"), "inspections": ("inspection", "contact", "listing"), "notes": ("activity",),
         "contact-classes": ("class",)}


def told(org: Organisation, path: str) -> dict[int, dict]:
    """Key -> neutral record of everything that collection `path` shows now."""
    return {k: r for k, r in org.standing(SHOWN[path][0]).items() if path != "notes" or is_note(r)}


SHOW: dict[str, Callable[[Shown, int, dict], dict]] = {
    "contacts": Shown.contact, "listings": Shown.listing, "staff": Shown.staff, "offices": Shown.office, "search-requirements": Shown.requirement,
    "enquiries": Shown.enquiry, "inspections": Shown.inspection, "notes": Shown.note, "contact-classes": Shown.class_}


def rows(org: Organisation, path: str, skew: timedelta) -> list[dict]:
    """Every record of a collection, as its detail answer shows it."""
    if path not in SHOW:
        return [dict(r) for r in LOOKUPS.get(path, [])]
    shown = Shown(org, skew)
    return [SHOW[path](shown, key, record) for key, record in told(org, path).items()]
