"""A Salesforce organization in memory: objects, fields, records, their histories, and what a user may see of them.

Records are dicts as REST tells them (datetimes as text ending in .000+0000). Changes go through `insert`, `update`, `delete`, `merge`, `convert`, each at an
instant, so that OpportunityHistory and the field histories arise as they do at the vendor's ("Object Reference": OpportunityHistory, LeadHistory, ...).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from threading import RLock

from tests.servers.soql import IDS, NUMBER, TEXT, stamp

# One line an object: name, key prefix, flags, then fields. `!` cannot be null, `:type` (string where none is told), `>Parent|Parent<ChildRelationship`.
# Flags: o owned by users, g or by queues, d has IsDeleted, c CreatedDate, m LastModifiedDate, s SystemModstamp, q queryable only where a feature is on.
OBJECTS = """
Organization 00D cms Name! DefaultCurrencyIsoCode:picklist IsSandbox:boolean OrganizationType:picklist TimeZoneSidKey:picklist FiscalYearStartMonth:int
UserRole 00E ms Name! ParentRoleId>UserRole DeveloperName! RollupDescription
User 005 cms Username! FirstName LastName! Name Email:email! IsActive:boolean UserRoleId>UserRole ProfileId>Profile ManagerId>User Department Division Title TimeZoneSidKey:picklist LocaleSidKey:picklist UserType:picklist LastLoginDate:datetime ForecastEnabled:boolean
Profile 00e cms Name! UserType:picklist
Group 00G cms Name! Type:picklist DeveloperName
RecordType 012 cms Name! DeveloperName! SobjectType:picklist IsActive:boolean
Account 001 odcms Name! Type:picklist ParentId>Account<ChildAccounts BillingStreet:textarea BillingCity BillingState BillingPostalCode BillingCountry BillingAddress:address Phone:phone Website:url Industry:picklist AnnualRevenue:currency NumberOfEmployees:int Ownership:picklist Rating:picklist AccountSource:picklist Sic TickerSymbol YearStarted Description:long LastActivityDate:date MasterRecordId>Account
Contact 003 odcms AccountId>Account<Contacts Salutation:picklist FirstName LastName! Name MailingStreet:textarea MailingCity MailingState MailingPostalCode MailingCountry MailingAddress:address Phone:phone MobilePhone:phone HomePhone:phone Email:email Title Department ReportsToId>Contact LeadSource:picklist Birthdate:date Description:long HasOptedOutOfEmail:boolean DoNotCall:boolean EmailBouncedDate:datetime LastActivityDate:date MasterRecordId>Contact
Lead 00Q ogdcms Salutation:picklist FirstName LastName! Name Title Company! Street:textarea City State PostalCode Country Address:address Phone:phone MobilePhone:phone Fax:phone Email:email Website:url Description:long LeadSource:picklist Status:picklist! Industry:picklist Rating:picklist AnnualRevenue:currency NumberOfEmployees:int HasOptedOutOfEmail:boolean DoNotCall:boolean EmailBouncedDate:datetime EmailBouncedReason IsConverted:boolean ConvertedDate:date ConvertedAccountId>Account ConvertedContactId>Contact ConvertedOpportunityId>Opportunity IsUnreadByOwner:boolean LastActivityDate:date LastTransferDate:date MasterRecordId>Lead
LeadStatus 01J cms ApiName MasterLabel IsDefault:boolean IsConverted:boolean SortOrder:int
Opportunity 006 odcms AccountId>Account<Opportunities Name! StageName:picklist! CloseDate:date! Amount:currency Probability:percent ExpectedRevenue:currency TotalOpportunityQuantity:double Type:picklist NextStep LeadSource:picklist IsClosed:boolean IsWon:boolean ForecastCategory:picklist ForecastCategoryName:picklist CampaignId>Campaign<Opportunities ContactId>Contact Pricebook2Id>Pricebook2 HasOpportunityLineItem:boolean Fiscal FiscalYear:int FiscalQuarter:int Description:long LastActivityDate:date LastStageChangeDate:datetime IsPrivate:boolean
OpportunityStage 01J cms ApiName MasterLabel! SortOrder:int IsActive:boolean IsClosed:boolean IsWon:boolean DefaultProbability:percent ForecastCategory:picklist ForecastCategoryName:picklist Description
OpportunityContactRole 00K dcms OpportunityId>Opportunity<OpportunityContactRoles ContactId>Contact<OpportunityContactRoles Role:picklist IsPrimary:boolean
OpportunityTeamMember 00q dcms OpportunityId>Opportunity<OpportunityTeamMembers UserId>User TeamMemberRole:picklist
OpportunityLineItem 00k dcms OpportunityId>Opportunity<OpportunityLineItems PricebookEntryId>PricebookEntry Product2Id>Product2 ProductCode Name Quantity:double UnitPrice:currency ListPrice:currency TotalPrice:currency Discount:percent Subtotal:currency ServiceDate:date SortOrder:int Description
Product2 01t dcms Name! ProductCode Description:long Family:picklist IsActive:boolean QuantityUnitOfMeasure:picklist StockKeepingUnit
Pricebook2 01s dcms Name! IsActive:boolean IsStandard:boolean Description
PricebookEntry 01u dcms Name Pricebook2Id>Pricebook2<PricebookEntries Product2Id>Product2<PricebookEntries UnitPrice:currency IsActive:boolean UseStandardPrice:boolean ProductCode
Campaign 701 odcms Name! ParentId>Campaign<ChildCampaigns Type:picklist Status:picklist StartDate:date EndDate:date BudgetedCost:currency ActualCost:currency ExpectedRevenue:currency ExpectedResponse:percent NumberSent:double NumberOfLeads:int NumberOfContacts:int NumberOfResponses:int NumberOfOpportunities:int IsActive:boolean Description:long
CampaignMember 00v dcms CampaignId>Campaign<CampaignMembers LeadId>Lead<CampaignMembers ContactId>Contact<CampaignMembers LeadOrContactId:id Status:picklist HasResponded:boolean FirstRespondedDate:date
Task 00T ogdcms WhoId>Contact|Lead<Tasks WhatId>Account|Opportunity|Campaign|Case|Product2<Tasks Subject:combobox ActivityDate:date Status:picklist! Priority:picklist IsHighPriority:boolean IsClosed:boolean TaskSubtype:picklist Type:picklist CallType:picklist CallDurationInSeconds:int CallDisposition CompletedDateTime:datetime IsArchived:boolean AccountId>Account Description:long
Event 00U ogdcms WhoId>Contact|Lead<Events WhatId>Account|Opportunity|Campaign|Case|Product2<Events Subject:combobox StartDateTime:datetime EndDateTime:datetime ActivityDateTime:datetime ActivityDate:date DurationInMinutes:int IsAllDayEvent:boolean Location Type:picklist EventSubtype:picklist IsArchived:boolean IsChild:boolean GroupEventType:picklist AccountId>Account Description:long
EmailMessage 02s dcms ParentId>Case<EmailMessages RelatedToId>Account|Opportunity|Case|Campaign<Emails ActivityId>Task FromAddress:email FromName ToAddress CcAddress Subject TextBody:long HtmlBody:long Incoming:boolean Status:picklist MessageDate:datetime ThreadIdentifier HasAttachment:boolean IsOpened:boolean FirstOpenedDate:datetime
Case 500 ogdcms CaseNumber! AccountId>Account<Cases ContactId>Contact<Cases Subject Description:long Status:picklist Priority:picklist Origin:picklist Reason:picklist Type:picklist IsClosed:boolean ClosedDate:datetime IsEscalated:boolean ParentId>Case<Cases MasterRecordId>Case
Territory2 0MI msq:territories Name! ParentTerritory2Id>Territory2 Territory2TypeId:id Territory2ModelId:id DeveloperName! Description
UserTerritory2Association 0Mi msq:territories UserId>User Territory2Id>Territory2<UserTerritory2Associations IsActive:boolean RoleInTerritory2:picklist
ObjectTerritory2Association 0Mj dmsq:territories ObjectId>Account Territory2Id>Territory2<ObjectTerritory2Associations AssociationCause:picklist SobjectType:picklist
Period 026 sq:quotas StartDate:date EndDate:date Type:picklist Number:int IsForecastPeriod:boolean PeriodLabel:picklist FullyQualifiedLabel
ForecastingType 0Db cmsq:quotas DeveloperName! MasterLabel! IsActive:boolean IsAmount:boolean IsQuantity:boolean
ForecastingQuota 0J9 cmsq:quotas QuotaOwnerId>User PeriodId>Period StartDate:date ProductFamily:picklist QuotaAmount:currency QuotaQuantity:double IsAmount:boolean IsQuantity:boolean ForecastingTypeId>ForecastingType
CurrencyType 01L cmsq:currencies IsoCode:picklist! ConversionRate:double DecimalPlaces:int IsActive:boolean IsCorporate:boolean
DatedConversionRate 04w cmsq:currencies IsoCode:picklist! StartDate:date NextStartDate:date ConversionRate:double
ScoreIntelligence 0EM cmsq:einstein BaseId>Lead Score:double
OpportunityHistory 008 dcs OpportunityId>Opportunity<OpportunityHistories StageName:picklist Amount:currency ExpectedRevenue:currency CloseDate:date Probability:percent ForecastCategory:picklist PrevAmount:currency PrevCloseDate:date
OpportunityFieldHistory 017 dch OpportunityId>Opportunity<Histories
LeadHistory 017 dch LeadId>Lead<Histories
ContactHistory 017 dch ContactId>Contact<Histories
AccountHistory 017 dch AccountId>Account<Histories
CaseHistory 017 dch CaseId>Case<Histories
"""
HISTORIES = {"Opportunity": "OpportunityFieldHistory", "Lead": "LeadHistory", "Contact": "ContactHistory", "Account": "AccountHistory", "Case": "CaseHistory"}
OWNED_ROWS = {"Opportunity": ("OpportunityHistory", "OpportunityFieldHistory", "OpportunityLineItem", "OpportunityContactRole"), "Lead": ("LeadHistory", "CampaignMember"),
              "Contact": ("ContactHistory", "OpportunityContactRole", "CampaignMember"), "Account": ("AccountHistory",), "Campaign": ("CampaignMember",)}
ADDRESSES = {"Account": ("BillingAddress", "Billing"), "Contact": ("MailingAddress", "Mailing"), "Lead": ("Address", "")}
STAGE_FIELDS = ("Amount", "Probability", "StageName", "CloseDate")
MONEY_OBJECTS = ("User", "Account", "Contact", "Lead", "Opportunity", "OpportunityLineItem", "OpportunityHistory", "Product2", "PricebookEntry", "Campaign",
                 "CampaignMember", "ForecastingQuota", "Task", "Event")
_LENGTHS = {"string": 255, "picklist": 255, "combobox": 255, "textarea": 255, "phone": 40, "url": 255, "email": 80, "id": 18, "reference": 18, "multipicklist": 4099}
_SOAP = {"boolean": "xsd:boolean", "int": "xsd:int", "double": "xsd:double", "currency": "xsd:double", "percent": "xsd:double", "date": "xsd:date",
         "datetime": "xsd:dateTime", "id": "tns:ID", "reference": "tns:ID", "address": "urn:address"}
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Field:
    """A field as describe tells it."""

    name: str
    type: str
    label: str
    reference_to: tuple[str, ...] = ()
    relationship: str = ""
    child: str = ""
    nillable: bool = True
    filterable: bool = True
    length: int = 0
    options: tuple = ()  # (value, label, active)
    compound: str = ""
    formula: str = ""
    scale: int = 2

    @property
    def sortable(self) -> bool:
        """May stand in ORDER BY."""
        return self.filterable and self.type not in ("multipicklist", "address")

    def described(self, options: Iterable[tuple]) -> dict:
        """The describe answer's object of this field."""
        text = self.type in TEXT | IDS
        return {"aggregatable": self.filterable, "aiPredictionField": False, "autoNumber": False, "byteLength": self.length * 3 if text else 0, "calculated": bool(self.formula),
                "calculatedFormula": self.formula or None, "cascadeDelete": False, "caseSensitive": False, "compoundFieldName": self.compound or None,
                "controllerName": None, "createable": self.type not in ("id", "address"), "custom": self.name.endswith("__c"), "defaultValue": False if self.type == "boolean" else None,
                "defaultedOnCreate": self.type == "boolean", "dependentPicklist": False, "deprecatedAndHidden": False, "digits": 8 if self.type == "int" else 0,
                "encrypted": False, "externalId": False, "extraTypeInfo": None, "filterable": self.filterable, "groupable": self.filterable and self.type not in NUMBER,
                "idLookup": self.type == "id", "inlineHelpText": None, "label": self.label, "length": self.length if text else 0, "name": self.name,
                "nameField": self.name == "Name", "nillable": self.nillable, "permissionable": True, "polymorphicForeignKey": len(self.reference_to) > 1,
                "precision": 18 if self.type in NUMBER - {"int"} else 0, "scale": self.scale if self.type in ("currency", "percent", "double") else 0,
                "picklistValues": [{"active": active, "defaultValue": False, "label": label, "validFor": None, "value": value} for value, label, active in options],
                "referenceTo": list(self.reference_to), "relationshipName": self.relationship or None, "restrictedPicklist": False, "soapType": _SOAP.get(self.type, "xsd:string"),
                "sortable": self.sortable, "type": self.type, "unique": self.type == "id", "updateable": self.type not in ("id", "address")}


def _label(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.removesuffix("__c").removesuffix("Id") or name).replace("_", " ")


def make_field(name: str, kind: str = "string", *, to: tuple[str, ...] = (), child: str = "", label: str = "", nillable: bool = True, options: tuple = (),
               formula: str = "", scale: int = 2) -> Field:
    """A field; `long` is text that can be neither filtered nor sorted, `options` are values or (value, label, active)."""
    long = kind in ("long", "anyType")
    relationship = "" if not to else name[:-1] + "r" if name.endswith("__c") else name.removesuffix("Id")
    told = tuple(o if isinstance(o, tuple) else (o, o, True) for o in options)
    kind = "textarea" if kind == "long" else kind
    return Field(name, kind, label or _label(name), to, relationship, child, nillable, not long and kind != "address", 32000 if long else _LENGTHS.get(kind, 0), told, formula=formula, scale=scale)


class SObject:
    """One object: its fields, its records by id, and which of its fields the user may see."""

    def __init__(self, name: str, prefix: str, flags: str, fields: list[Field]):
        self.name, self.prefix, self.rows = name, prefix, dict[str, dict]()
        self.letters, _, self.feature = flags.partition(":")
        system = [make_field("Id", "id", nillable=False)]
        system += [make_field("OwnerId", "reference", to=("User", "Group") if "g" in self.letters else ("User",), nillable=False)] if "o" in self.letters else []
        system += [make_field("IsDeleted", "boolean", nillable=False)] if "d" in self.letters else []
        tail = [make_field("CreatedDate", "datetime", nillable=False), make_field("CreatedById", "reference", to=("User",), nillable=False)] if "c" in self.letters else []
        tail += [make_field("LastModifiedDate", "datetime", nillable=False), make_field("LastModifiedById", "reference", to=("User",), nillable=False)] if "m" in self.letters else []
        tail += [make_field("SystemModstamp", "datetime", nillable=False)] if "s" in self.letters else []
        tail += [make_field("Field", "picklist"), make_field("DataType", "picklist"), make_field("OldValue", "anyType"), make_field("NewValue", "anyType")] if "h" in self.letters else []
        self.fields = {f.name.lower(): f for f in system + fields + tail}
        self.hidden, self.queryable = set[str](), True

    def visible(self) -> list[Field]:
        """The fields that field-level security lets the user see."""
        return [f for f in self.fields.values() if f.name not in self.hidden]

    def field(self, name: str) -> Field | None:
        """A visible field by its name in any case."""
        found = self.fields.get(name.lower())
        return found if found and found.name not in self.hidden else None

    def relation(self, name: str) -> Field | None:
        """The visible lookup whose relationship is called so."""
        return next((f for f in self.visible() if f.relationship.lower() == name.lower()), None) if name else None

    def child(self, name: str):
        """(child object, its lookup's name, the relationship's name); set by the organization."""
        return next((found for found in self.children if found[2].lower() == name.lower()), None)

    children: list = []


def parsed_objects() -> Iterator[SObject]:
    """The objects of OBJECTS."""
    for line in OBJECTS.strip().splitlines():
        name, prefix, flags, *specs = line.split()
        fields = []
        for spec in specs:
            found = re.fullmatch(r"(\w+?)(?::(\w+))?(?:>([\w|]+))?(?:<(\w+))?(!?)", spec.replace("!:", ":"))
            required = "!" in spec
            field_name, kind, to, child, _ = found.groups()
            fields.append(make_field(field_name, "reference" if to else kind or "string", to=tuple(to.split("|")) if to else (), child=child or "", nillable=not required))
        sobject = SObject(name, prefix, flags, fields)
        if name in ADDRESSES:
            compound, start = ADDRESSES[name]
            for part in ("Street", "City", "State", "PostalCode", "Country"):
                sobject.fields[(start + part).lower()] = replace(sobject.fields[(start + part).lower()], compound=compound)
        yield sobject


def native_id(prefix: str, number: int) -> str:
    """An id of 18 characters: prefix, instance, number in base 62, and the check letters that make it independent of case.

    >>> native_id("00Q", 1), len(native_id("00Q", 1))
    ('00QRO00000000012AA', 18)
    """
    digits = ""
    while number:
        number, rest = divmod(number, 62)
        digits = _ALPHABET[rest] + digits
    short = f"{prefix}RO{digits.rjust(10, '0')}"
    check = [sum(1 << i for i, letter in enumerate(short[k:k + 5]) if letter.isupper()) for k in (0, 5, 10)]
    return short + "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[c] for c in check)


class Org:
    """The organization: `sobject(name)`, `row(id)` and `now` are what SOQL needs; the rest changes it."""

    def __init__(self, now: datetime, *, features: Iterable[str] = ("territories", "quotas"), tracked: dict[str, set[str]] | None = None,
                 tracked_from: datetime | None = None, currency: str = "USD"):
        self.now, self.lock, self.features, self.currency = now, RLock(), set(features), currency
        self.tracked, self.tracked_from = tracked or {}, tracked_from
        self.denied, self.log, self._n, self.by_id = set[str](), dict[str, list[tuple[str, str]]](), 0, dict[str, tuple[SObject, dict]]()
        self.objects = {o.name.lower(): o for o in parsed_objects()}
        if "currencies" in self.features:
            for name in MONEY_OBJECTS:
                self.add_field(name, make_field("CurrencyIsoCode", "picklist"))
        if "einstein" in self.features:
            self.add_field("Lead", make_field("ScoreIntelligenceId", "reference", to=("ScoreIntelligence",)))
        for sobject in self.objects.values():
            sobject.children = [(child, f.name, f.child) for child in self.objects.values() for f in child.fields.values() if f.child and sobject.name in f.reference_to]
        self.earliest_deleted: datetime | None = None
        self.admin = self.insert("User", {"Username": "admin@example.com", "LastName": "Admin", "Name": "Admin", "Email": "admin@example.com", "IsActive": True}, now - timedelta(days=3650))
        self.id = self.insert("Organization", {"Name": "Example", "DefaultCurrencyIsoCode": currency, "OrganizationType": "Enterprise Edition"}, now - timedelta(days=3650))

    # ---- what a user sees -------------------------------------------------------------------------------------------
    def sobject(self, name: str) -> SObject | None:
        """The object, where it is there and the user may see it."""
        found = self.objects.get(name.lower())
        return found if found and found.name not in self.denied and (not found.feature or found.feature in self.features) else None

    def visible(self) -> list[SObject]:
        """Every object that the user may see."""
        return [o for o in self.objects.values() if self.sobject(o.name)]

    def row(self, native: str | None) -> tuple[SObject, dict] | None:
        """(object, record) of an id; None where there is none."""
        return self.by_id.get(native) if native else None

    def options(self, sobject: SObject, found: Field) -> list[tuple]:
        """Picklist values: the declared ones, then whatever records hold."""
        if found.type not in ("picklist", "multipicklist", "combobox"):
            return []
        if (sobject.name, found.name) == ("Opportunity", "StageName"):
            return [(r["MasterLabel"], r["MasterLabel"], r["IsActive"]) for r in self.objects["opportunitystage"].rows.values()]
        known = {o[0]: o for o in found.options}
        for row in sobject.rows.values() if not found.options else ():
            if row.get(found.name):
                known.setdefault(row[found.name], (row[found.name], row[found.name], True))
        return list(known.values())

    # ---- shape ------------------------------------------------------------------------------------------------------
    def add_field(self, sobject: str, found: Field) -> None:
        """Add a field, or put one in the place of another of its name (retyped, other label)."""
        self.objects[sobject.lower()].fields[found.name.lower()] = found

    def drop_field(self, sobject: str, name: str) -> None:
        """Take a field and its values away."""
        with self.lock:
            found = self.objects[sobject.lower()]
            gone = found.fields.pop(name.lower()).name
            for row in found.rows.values():
                row.pop(gone, None)

    # ---- records ----------------------------------------------------------------------------------------------------
    def insert(self, name: str, values: dict, at: datetime, *, by: str | None = None, modified: datetime | None = None) -> str:
        """A new record; its id."""
        with self.lock:
            sobject = self.objects[name.lower()]
            if not (native := values.get("Id")):
                self._n += 1
                native = native_id(sobject.prefix, self._n)
            when, by = stamp(at), by or getattr(self, "admin", native)
            row: dict = {f.name: (False if f.type == "boolean" else None) for f in sobject.fields.values()} | values | {"Id": native}
            letters = sobject.letters
            row |= {"CreatedDate": when, "CreatedById": by} if "c" in letters else {}
            row |= {"LastModifiedDate": when, "LastModifiedById": by} if "m" in letters else {}
            row |= {"SystemModstamp": stamp(modified or at)} if "s" in letters else {}
            if "o" in letters and not row["OwnerId"]:
                row["OwnerId"] = by
            if "CurrencyIsoCode" in row and not row["CurrencyIsoCode"]:
                row["CurrencyIsoCode"] = self.currency
            self._derive(sobject, row, when)
            sobject.rows[native] = row
            self.by_id[native] = (sobject, row)
            self._historize(sobject, None, row, at, by)
            return native

    def update(self, native: str, values: dict, at: datetime, *, by: str | None = None) -> None:
        """Change a record; a change of nothing moves no stamp."""
        with self.lock:
            sobject, row = self.by_id[native]
            if all(row.get(k) == v for k, v in values.items()):
                return
            old = dict(row)
            new = row | values
            if sobject.name == "Opportunity" and "StageName" in values:
                new |= {k: None for k in ("Probability",) if k not in values}
            new |= {"LastModifiedDate": stamp(at), "LastModifiedById": by or self.admin} if "m" in sobject.letters else {}
            new |= {"SystemModstamp": stamp(at)} if "s" in sobject.letters else {}
            self._derive(sobject, new, stamp(at), old)
            sobject.rows[native] = new
            self.by_id[native] = (sobject, new)
            self._historize(sobject, old, new, at, by or self.admin)

    def amend(self, native: str, values: dict) -> None:
        """Set values without a trace: no stamp moves, no history is written."""
        with self.lock:
            sobject, row = self.by_id[native]
            sobject.rows[native] = row | values
            self.by_id[native] = (sobject, sobject.rows[native])

    def _derive(self, sobject: SObject, row: dict, when: str, old: dict | None = None) -> None:
        if sobject.name in ADDRESSES:
            compound, start = ADDRESSES[sobject.name]
            parts = {key: row.get(start + part) for key, part in (("city", "City"), ("country", "Country"), ("postalCode", "PostalCode"), ("state", "State"), ("street", "Street"))}
            row[compound] = parts | {"geocodeAccuracy": None, "latitude": None, "longitude": None} if any(parts.values()) else None
        if sobject.name in ("Lead", "Contact", "User") and (row.get("FirstName") or not row.get("Name")):
            row["Name"] = " ".join(filter(None, (row.get("FirstName"), row.get("LastName"))))
        if sobject.name == "Opportunity":
            stage = next((r for r in self.objects["opportunitystage"].rows.values() if r["MasterLabel"] == row["StageName"]), {})
            row |= {"IsClosed": bool(stage.get("IsClosed")), "IsWon": bool(stage.get("IsWon")), "ForecastCategory": stage.get("ForecastCategory", "Pipeline"),
                    "ForecastCategoryName": stage.get("ForecastCategoryName", "Pipeline")}
            row["Probability"] = stage.get("DefaultProbability") if row.get("Probability") is None else row["Probability"]
            row["ExpectedRevenue"] = None if row.get("Amount") is None else round(row["Amount"] * (row["Probability"] or 0) / 100, 2)
            day = row["CloseDate"]
            row |= {"FiscalYear": int(day[:4]), "FiscalQuarter": (int(day[5:7]) + 2) // 3, "Fiscal": f"{day[:4]} {(int(day[5:7]) + 2) // 3}"}
            if old is None or old["StageName"] != row["StageName"]:
                row["LastStageChangeDate"] = when if old else None
        if sobject.name == "Task":
            row["IsClosed"] = row.get("Status") == "Completed"
            row["IsHighPriority"] = row.get("Priority") == "High"
        if sobject.name == "CampaignMember":
            row["LeadOrContactId"] = row.get("ContactId") or row.get("LeadId")

    def _historize(self, sobject: SObject, old: dict | None, new: dict, at: datetime, by: str) -> None:
        if sobject.name == "Opportunity" and (old is None or any(old[f] != new[f] for f in STAGE_FIELDS)):
            told = {f: new[f] for f in ("StageName", "Amount", "ExpectedRevenue", "CloseDate", "Probability", "ForecastCategory")}
            told |= {"PrevAmount": old["Amount"], "PrevCloseDate": old["CloseDate"]} if old else {}
            told |= {"CurrencyIsoCode": new["CurrencyIsoCode"]} if "CurrencyIsoCode" in new else {}
            self.insert("OpportunityHistory", {"Id": self._history_id("008", new["Id"], at), "OpportunityId": new["Id"]} | told, at, by=by)
        tracked = self.tracked.get(sobject.name, set())
        if sobject.name not in HISTORIES or not tracked or (self.tracked_from and at.replace(tzinfo=None) < self.tracked_from):
            return
        for name in sorted(tracked) if old else ():
            if old.get(name) != new.get(name):
                found = sobject.fields[name.lower()]
                self._field_history(sobject, new["Id"], at, by, name.removesuffix("Id") if found.reference_to and not name.endswith("__c") else name, found, old.get(name), new.get(name))
        if old is None:
            self._field_history(sobject, new["Id"], at, by, "created", None, None, None)

    def _field_history(self, sobject: SObject, native: str, at: datetime, by: str, name: str, found: Field | None, old, new) -> None:
        """One row; of a lookup two (names and ids), of long text one without values."""
        key, history = f"{sobject.name}Id", HISTORIES[sobject.name]
        kind = "Text" if found is None else {"reference": "EntityId", "picklist": "DynamicEnum", "currency": "Currency", "date": "DateOnly", "datetime": "DateTime",
                                             "boolean": "Boolean", "int": "Double", "double": "Double", "percent": "Percent"}.get(found.type, "Text")
        values = [(kind, old, new)]
        if found is not None and found.reference_to:
            names = [(self.row(v) or (None, {}))[1].get("Name") for v in (old, new)]
            values = [("Text", *names), ("EntityId", old, new)]
        if found is not None and not found.filterable:
            values = [("Text", None, None)]
        for data_type, before, after in values:
            told = {"Id": self._history_id("017", native, at, name, data_type), key: native, "Field": name, "DataType": data_type, "OldValue": before, "NewValue": after}
            self.insert(history, told, at, by=by)

    @staticmethod
    def _history_id(prefix: str, *told: object) -> str:
        """The same change has the same id in every replay."""
        return native_id(prefix, int(sha256(repr(told).encode()).hexdigest()[:14], 16))

    def delete(self, native: str, at: datetime, *, hard: bool = False, logged: bool = True, master: str | None = None) -> None:
        """Into the recycle bin, or (hard) out of it; `logged` False: the delete log forgot it too. What belongs to the record goes with it."""
        with self.lock:
            sobject, row = self.by_id[native]
            for child in OWNED_ROWS.get(sobject.name, ()):
                key = next(f.name for f in self.objects[child.lower()].fields.values() if sobject.name in f.reference_to)
                for owned in [r["Id"] for r in self.objects[child.lower()].rows.values() if r.get(key) == native and not r["IsDeleted"]]:
                    self.delete(owned, at, hard=hard, logged=logged)
            if logged:
                self.log.setdefault(sobject.name, []).append((native, stamp(at)))
            if hard:
                del sobject.rows[native], self.by_id[native]
                return
            told = {"IsDeleted": True} | ({"MasterRecordId": master} if master else {}) | ({"SystemModstamp": stamp(at)} if "s" in sobject.letters else {})
            told |= {"LastModifiedDate": stamp(at)} if "m" in sobject.letters else {}
            sobject.rows[native] = row | told
            self.by_id[native] = (sobject, sobject.rows[native])

    def undelete(self, native: str, at: datetime) -> None:
        """Out of the recycle bin, back among the living."""
        with self.lock:
            self.log[self.by_id[native][0].name] = [d for d in self.log.get(self.by_id[native][0].name, []) if d[0] != native]
            self.update(native, {"IsDeleted": False}, at)

    def merge(self, winner: str, losers: Iterable[str], at: datetime, values: dict | None = None) -> None:
        """The losers' rows go to the winner; the losers are deleted with MasterRecordId."""
        with self.lock:
            losers, kind = set(losers), self.by_id[winner][0].name
            self._repoint(losers, winner, kind, at)
            for loser in sorted(losers):
                self.delete(loser, at, master=winner)
            self.update(winner, values or {}, at)

    def _repoint(self, olds: set[str], new: str, kind: str, at: datetime) -> None:
        for sobject in self.objects.values():
            keys = [f.name for f in sobject.fields.values() if kind in f.reference_to and f.child]
            if not keys or "History" in sobject.name:
                continue
            for row in [r for r in sobject.rows.values() if any(r.get(k) in olds for k in keys)]:
                self.update(row["Id"], {k: new for k in keys if row.get(k) in olds}, at)

    def convert(self, lead: str, at: datetime, *, account: str, contact: str, opportunity: str | None = None, status: str = "Qualified") -> None:
        """Close a lead as converted; its activities move to the contact and the opportunity, its campaign members get the contact."""
        with self.lock:
            self.update(lead, {"IsConverted": True, "ConvertedDate": at.date().isoformat(), "ConvertedAccountId": account, "ConvertedContactId": contact,
                               "ConvertedOpportunityId": opportunity, "Status": status}, at)
            for name in ("Task", "Event"):
                for row in [r for r in self.objects[name.lower()].rows.values() if r.get("WhoId") == lead]:
                    self.update(row["Id"], {"WhoId": contact, "WhatId": row["WhatId"] or opportunity or account, "AccountId": account}, at)
            for row in [r for r in self.objects["campaignmember"].rows.values() if r.get("LeadId") == lead]:
                self.update(row["Id"], {"ContactId": contact}, at)
            self.converted(lead, at)

    def converted(self, lead: str, at: datetime) -> None:
        """The history's row of a conversion, where leads are tracked."""
        if lead in self.by_id and self.tracked.get("Lead") and not (self.tracked_from and at.replace(tzinfo=None) < self.tracked_from):
            self._field_history(self.objects["lead"], lead, at, self.admin, "leadConverted", None, None, None)

    def deleted(self, name: str, start: datetime, end: datetime) -> dict:
        """The answer of /deleted: what the delete log still knows within 15 days."""
        floor = max(self.now - timedelta(days=15), self.earliest_deleted or self.now - timedelta(days=15))
        rows = [(i, at) for i, at in self.log.get(name, []) if stamp(max(start, floor)) <= at < stamp(end)]
        return {"deletedRecords": [{"id": i, "deletedDate": at} for i, at in rows], "earliestDateAvailable": stamp(floor), "latestDateCovered": stamp(min(end, self.now))}

    def updated(self, name: str, start: datetime, end: datetime) -> dict:
        """The answer of /updated."""
        key = next(k for k in ("SystemModstamp", "LastModifiedDate", "CreatedDate") if k.lower() in self.objects[name.lower()].fields)
        rows = [r["Id"] for r in self.objects[name.lower()].rows.values() if stamp(start) <= r[key] <= stamp(end) and not r.get("IsDeleted")]
        return {"ids": rows, "latestDateCovered": stamp(min(end, self.now))}


def utc(year: int, month: int, day: int, hour: int = 0) -> datetime:
    """A UTC instant."""
    return datetime(year, month, day, hour, tzinfo=UTC)
