"""A stand-in for Salesforce: OAuth, describe, SOQL, updated / deleted, Bulk 2.0 query jobs and limits over real HTTP on the loopback.

Forms and errors as in the vendor's "REST API Developer Guide" and "Bulk API 2.0 and Bulk API Developer Guide". SOAP login is absent, versions before 31 are gone.
`python -m tests.servers.salesforce --port 8101` runs one with the small organisation.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from urllib.parse import unquote

from tests.servers import soql
from tests.servers.base import Refusal, Reply, Request, Route, Server, serve
from tests.servers.salesforce_fill import fill, id_of, object_of
from tests.servers.salesforce_org import Org, SObject
from tests.servers.soql import SoqlError, stamp

VERSIONS = range(31, 69)  # 7 to 30 are retired
CLIENT_ID, CLIENT_SECRET, USERNAME, PASSWORD, REFRESH = "3MVG9.stand.in", "9205371918321623741", "admin@example.com", "secret-and-token", "5Aep861stand.in.refresh"
PARENTS = {"deal_product": ("deal",), "deal_contact": ("deal", "contact"), "membership": ("campaign", "lead", "contact")}  # deleted with them


def failure(status: int, code: str, message: str, fields: list[str] | None = None) -> Refusal:
    """A refusal in the vendor's form: an array of one object."""
    return Refusal(Reply(status, [{"message": message, "errorCode": code} | ({"fields": fields} if fields else {})]))


class Salesforce(Server):
    """The stand-in over an `Org`; `page` rows a page at most, and every page holds fewer than were asked for.

    session_minutes: how long a token lives by the CRM's clock. api_calls: the daily allowance. public_key: PEM of the key that signs JWTs.
    bulk_steps: how often a job is seen unfinished. no_bulk: objects that bulk jobs refuse.
    """

    crm = "salesforce"
    expresses = {
        "user": ("name", "email", "manager", "team", "territory", "is_active"), "stage": ("name", "probability", "outcome"),
        "campaign": ("name", "kind", "starts_on", "ends_on", "cost", "currency"), "product": ("name", "family", "list_price", "currency"),
        "account": ("name", "industry", "employees", "annual_revenue", "currency", "country", "city", "parent_id", "owner_id", "created_at"),
        "contact": ("name", "email", "phone", "title", "account_id", "owner_id", "country", "city", "do_not_email", "do_not_call", "created_at"),
        "lead": ("name", "email", "phone", "company", "title", "industry", "employees", "country", "city", "source", "owner_id", "status", "rating", "do_not_email", "do_not_call",
                 "created_at", "is_converted", "converted_at", "is_lost", "converted_contact_id", "converted_deal_id"),
        "deal": ("name", "account_id", "contact_id", "owner_id", "campaign_id", "source_lead_id", "pipeline", "stage", "kind", "source", "amount", "currency", "close_on",
                 "next_step", "created_at", "is_won", "closed_at"),
        "activity": ("kind", "direction", "subject", "lead_id", "contact_id", "deal_id", "account_id", "user_id", "created_at", "happened_at", "is_done", "duration_minutes"),
        "deal_product": ("deal_id", "product_id", "quantity", "amount", "currency"), "deal_contact": ("deal_id", "contact_id", "role"),
        "membership": ("campaign_id", "lead_id", "contact_id", "status", "created_at"), "quota": ("user_id", "starts_on", "ends_on", "amount", "currency"),
        "fx_rate": ("currency", "on_date", "rate")}

    def __init__(self, org=None, *, port: int = 0, page: int = 2000, sf: Org | None = None, session_minutes: float = 120, api_calls: int = 100_000,
                 public_key: bytes = b"", bulk_steps: int = 1, no_bulk: tuple[str, ...] = (), **more):
        super().__init__(org, port=port, page=page, **more)
        self._given, self._made, self._print, self.hidden, self.denied = sf, None, None, dict[str, set[str]](), set[str]()
        self.session, self.api_calls, self.public_key, self.bulk_steps = timedelta(minutes=session_minutes), api_calls, public_key, bulk_steps
        self.no_bulk, self.groups = set(no_bulk), True  # groups: aggregate queries are answered
        self.used, self.tokens, self.cursors, self.jobs, self._n = 0, dict[str, datetime](), dict[str, soql.Answer](), dict[str, dict](), 0
        self.refresh_tokens = {REFRESH}

    @property
    def sf(self) -> Org:
        """The org of this moment: the given one, or the organisation's replayed again after each edit."""
        if self._given is not None:
            return self._given
        with self.lock:  # tests look in from other threads
            mark = (len(self.org.changes), self.org.now, self.skew, repr(self.org.custom), repr(self.hidden), sorted(self.denied), tuple(self.more.items()).__repr__(),
                    tuple((name, len(rows), sum(hash((r["modified_at"], r["deleted_at"], r["hard"])) for r in rows.values())) for name, rows in self.org.records.items()))
            if mark != self._print:
                self._made, self._print = fill(self.org, skew=self.skew, **self.more), mark
                self._made.denied = set(self.denied)
                for name, fields in self.hidden.items():
                    self._made.objects[name.lower()].hidden = set(fields)
            return self._made

    def native_id(self, entity: str, key: int) -> str:
        """Id of a record in the lake behind "<source>:"."""
        record = self.org.records[entity][key]
        letter = f"{object_of(entity, record).lower()}-" if entity == "activity" else ""
        return f"{letter}{id_of(entity, key, record)}"

    def expected(self, entity: str) -> dict[str, dict]:
        """As of the base, with what goes with its parent, what a Task or Event tells otherwise, the org's own user and the undated rates."""
        with self.lock:
            out, records = super().expected(entity), self.org.standing(entity)
            for key, record in records.items():
                row = out[self.native_id(entity, key)]
                if any(record.get(f"{parent}_id") and record[f"{parent}_id"] not in self.org.standing(parent) for parent in PARENTS.get(entity, ())):
                    del out[self.native_id(entity, key)]
                if entity == "deal" and row["source_lead_id"] not in self.sf.by_id:  # the lead left the recycle bin
                    row["source_lead_id"] = None
                if entity == "lead":
                    row["is_lost"] = bool(record["is_lost"])
                if entity == "activity" and record["kind"] == "meeting":
                    row |= {"is_done": None, "duration_minutes": record["duration_minutes"] or 0.0, "direction": None}
                elif entity == "activity":
                    done = [c["at"] for c in self.org.of("activity", key, ["is_done"]) if c["new"]]
                    due = datetime.combine(record["happened_at"].date(), datetime.min.time())
                    row["happened_at"] = due if not record["is_done"] else done[-1] if done else record["happened_at"]
                    row["direction"] = record["direction"] if record["kind"] in ("call", "email") else None
                    row["duration_minutes"] = record["duration_minutes"] if record["kind"] == "call" else None
                if entity == "fx_rate":
                    row["rate"] = 1 / (1 / record["rate"])
            if entity == "user":
                out[self.sf.admin] = {"name": "Admin", "email": USERNAME, "manager": None, "team": None, "territory": None, "is_active": True}
            if entity == "fx_rate":
                out |= {f"type-{r['Id']}": {"currency": r["IsoCode"], "on_date": date(1970, 1, 1), "rate": 1 / r["ConversionRate"]} for r in self.sf.objects["currencytype"].rows.values()}
            return out

    def routes(self) -> list[Route]:
        """Login, then what needs a token."""
        api, v = self.api, r"/services/data/v(\d+\.\d)"
        return [("GET", "/services/data/?", self.versions), ("POST", "/services/oauth2/token", self.token), ("POST", "/services/oauth2/revoke", self.revoke),
                ("GET", "/services/oauth2/userinfo", api(self.identity)), ("GET", "/id/(?:[^/]+)/(?:[^/]+)", api(self.identity)),
                ("POST", r"/services/Soap/[uc]/([\d.]+)(?:/.*)?", self.soap), ("GET", v + "/?", api(self.resources)), ("GET", v + "/limits/?", api(self.limits)),
                ("GET", v + "/sobjects/?", api(self.sobjects)), ("GET", v + r"/sobjects/(\w+)/describe/?", api(self.describe)),
                ("GET", v + r"/sobjects/(\w+)/?", api(self.basics)), ("GET", v + r"/sobjects/(\w+)/(updated|deleted)/?", api(self.window)),
                ("GET", v + r"/sobjects/(\w+)/(\w{15}|\w{18})", api(self.record)), ("POST", v + r"/sobjects/(\w+)/?", api(self.create)),
                ("PATCH", v + r"/sobjects/(\w+)/(\w{15}|\w{18})", api(self.change)), ("DELETE", v + r"/sobjects/(\w+)/(\w{15}|\w{18})", api(self.remove)),
                ("GET", v + "/(query|queryAll)/?", api(self.query)), ("GET", v + r"/(?:query|queryAll)/(\w+)-(\d+)", api(self.more_rows)),
                ("GET", v + "/(?:query|queryAll)/(.+)", api(self.dead_cursor)),
                ("POST", v + "/jobs/query/?", api(self.bulk_open)), ("GET", v + "/jobs/query/?", api(self.bulk_list)), ("GET", v + r"/jobs/query/(\w+)/?", api(self.bulk_state)),
                ("GET", v + r"/jobs/query/(\w+)/results/?", api(self.bulk_results)), ("PATCH", v + r"/jobs/query/(\w+)/?", api(self.bulk_abort)),
                ("DELETE", v + r"/jobs/query/(\w+)/?", api(self.bulk_delete))]

    # ---- refusals ---------------------------------------------------------------------------------------------------
    def unknown(self, request: Request) -> Reply:
        """No such resource."""
        return Reply(404, [{"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}])

    def unauthorized(self) -> Reply:
        """The session ended."""
        return Reply(401, [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}])

    def expire(self) -> None:
        """End every access token."""
        self.tokens.clear()

    def limited(self) -> Reply:
        """Too many long requests at once: 403, for a moment."""
        return Reply(403, [{"message": "ConcurrentPerOrgLongTxn Limit exceeded", "errorCode": "REQUEST_LIMIT_EXCEEDED"}])

    def spent(self) -> Reply:
        """The rolling 24 hours are used up: 403, and the header says so."""
        return Reply(403, [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}], {"Sforce-Limit-Info": f"api-usage={self.api_calls}/{self.api_calls}"})

    def api(self, function: Callable[..., Reply]) -> Callable[..., Reply]:
        """A route that needs a session and a supported version, costs one call, and tells the usage."""
        def checked(request: Request, *parts: str) -> Reply:
            versioned = request.path.startswith("/services/data/v")
            if versioned and int(float(parts[0])) < VERSIONS[0]:
                raise failure(410, "UNSUPPORTED_API_VERSION", f"The version of the API that you are using ({parts[0]}) is no longer supported")
            if versioned and int(float(parts[0])) not in VERSIONS:
                return self.unknown(request)
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() not in ("bearer", "oauth") or self.tokens.get(token, datetime.min.replace(tzinfo=UTC)) < self.clock:
                return self.unauthorized()
            if self.used >= self.api_calls:
                return self.spent()
            self.used += 1
            self.tokens[token] = self.clock + self.session  # a session ends after so long without use
            try:
                reply = function(request, *parts)
            except SoqlError as error:
                raise failure(400, error.code, error.message) from None
            reply.headers["Sforce-Limit-Info"] = f"api-usage={self.used}/{self.api_calls}"
            return reply
        return checked

    @property
    def clock(self) -> datetime:
        """The CRM's clock, with its zone."""
        return (self._given.now if self._given is not None else self.org.now.replace(tzinfo=UTC)) + self.skew

    def clock_seconds(self) -> float:
        """The header Date."""
        return self.clock.timestamp()

    def _object(self, name: str) -> SObject:
        found = self.sf.sobject(name)
        if found is None:
            raise failure(404, "NOT_FOUND", "The requested resource does not exist")
        return found

    # ---- login ------------------------------------------------------------------------------------------------------
    def token(self, request: Request) -> Reply:
        """POST /services/oauth2/token: client credentials, JWT bearer, refresh token, password."""
        form = request.form()
        if (basic := request.headers.get("authorization", "")).startswith("Basic "):
            form["client_id"], _, form["client_secret"] = (unquote(p) for p in base64.b64decode(basic[6:]).decode().partition(":"))
        kind = form.get("grant_type", "")
        checks = {"client_credentials": self._by_client, "urn:ietf:params:oauth:grant-type:jwt-bearer": self._by_jwt, "refresh_token": self._by_refresh, "password": self._by_password}
        if kind not in checks:
            return Reply(400, {"error": "unsupported_grant_type", "error_description": "grant type not supported"})
        wrong = checks[kind](form)
        if wrong:
            return Reply(401 if wrong[0] == "invalid_client" else 400, {"error": wrong[0], "error_description": wrong[1]})
        self._n += 1
        token = f"{self.sf.id[:15]}!AQ{sha256(f'{self.port} {self._n}'.encode()).hexdigest()}"
        self.tokens[token] = self.clock + self.session
        issued = str(int(self.clock.timestamp() * 1000))
        return Reply(200, {"access_token": token, "signature": base64.b64encode(sha256(issued.encode()).digest()).decode(), "scope": "api refresh_token", "instance_url": self.url,
                           "id": f"{self.url}/id/{self.sf.id}/{self.sf.admin}", "token_type": "Bearer", "issued_at": issued})

    def _by_client(self, form: dict, secret: bool = True) -> tuple[str, str] | None:
        if form.get("client_id") != CLIENT_ID:
            return "invalid_client_id", "client identifier invalid"
        if secret and form.get("client_secret") != CLIENT_SECRET:
            return "invalid_client", "invalid client credentials"
        return None

    def _by_refresh(self, form: dict) -> tuple[str, str] | None:
        wrong = self._by_client(form, "client_secret" in form)
        return wrong or (None if form.get("refresh_token") in self.refresh_tokens else ("invalid_grant", "expired access/refresh token"))

    def _by_password(self, form: dict) -> tuple[str, str] | None:
        wrong = self._by_client(form)
        return wrong or (None if (form.get("username"), form.get("password")) == (USERNAME, PASSWORD) else ("invalid_grant", "authentication failure"))

    def _by_jwt(self, form: dict) -> tuple[str, str] | None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
        unpad = lambda part: base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))  # noqa: E731
        try:
            head, body, signature = form.get("assertion", "").split(".")
            claims = json.loads(unpad(body))
            if json.loads(unpad(head))["alg"] != "RS256":
                return "invalid_grant", "invalid assertion"
            load_pem_public_key(self.public_key).verify(unpad(signature), f"{head}.{body}".encode(), PKCS1v15(), SHA256())
        except (ValueError, KeyError, InvalidSignature):
            return "invalid_grant", "invalid assertion"
        if claims.get("iss") != CLIENT_ID:
            return "invalid_client_id", "client identifier invalid"
        if claims.get("sub") != USERNAME:
            return "invalid_grant", "user hasn't approved this consumer"
        if claims.get("aud") not in ("https://login.salesforce.com", "https://test.salesforce.com", self.url, self.url.replace("http://", "https://")):
            return "invalid_grant", "audience is invalid"
        clocks = (datetime.now(UTC).timestamp(), self.clock_seconds())  # clients reckon by the machine's clock, or by the header Date
        return None if any(now < float(claims.get("exp", 0)) < now + 330 for now in clocks) else ("invalid_grant", "assertion is expired or too far in the future")

    def revoke(self, request: Request) -> Reply:
        """POST /services/oauth2/revoke."""
        self.tokens.pop(request.form().get("token", ""), None)
        return Reply(200)

    def soap(self, request: Request, version: str) -> Reply:
        """SOAP login() is off in new organizations, and not there from 65.0 on."""
        if float(version) >= 65:
            return Reply(404, "", {"Content-Type": "text/xml"})
        words = "INVALID_OPERATION: SOAP API login() is disabled by default in this org."
        fault = f"<soapenv:Fault><faultcode>sf:INVALID_OPERATION</faultcode><faultstring>{words}</faultstring></soapenv:Fault>"
        return Reply(500, f'<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
                     f'xmlns:sf="urn:fault.partner.soap.sforce.com"><soapenv:Body>{fault}</soapenv:Body></soapenv:Envelope>', {"Content-Type": "text/xml;charset=UTF-8"})

    def identity(self, request: Request) -> Reply:
        """GET /id/ORG/USER and /services/oauth2/userinfo."""
        user = self.sf.objects["user"].rows[self.sf.admin]
        return Reply(200, {"id": f"{self.url}/id/{self.sf.id}/{self.sf.admin}", "user_id": self.sf.admin, "organization_id": self.sf.id, "username": user["Username"],
                           "display_name": user["Name"], "email": user["Email"], "active": True, "user_type": "STANDARD", "language": "en_US", "locale": "en_US",
                           "urls": {"rest": f"{self.url}/services/data/v{{version}}/", "query": f"{self.url}/services/data/v{{version}}/query/"}})

    # ---- what there is ----------------------------------------------------------------------------------------------
    def versions(self, request: Request) -> Reply:
        """GET /services/data: no session needed."""
        return Reply(200, [{"label": f"Release {v}", "url": f"/services/data/v{v}.0", "version": f"{v}.0"} for v in VERSIONS])

    def resources(self, request: Request, version: str) -> Reply:
        """GET /services/data/vXX.0."""
        return Reply(200, {name: f"/services/data/v{version}/{name}" for name in ("query", "queryAll", "sobjects", "limits", "jobs")})

    def limits(self, request: Request, version: str) -> Reply:
        """GET /limits."""
        whole = {"DailyApiRequests": (self.api_calls, self.api_calls - self.used), "DailyBulkApiBatches": (15000, 15000), "DailyBulkV2QueryFileStorageMB": (976562, 976562),
                 "DailyBulkV2QueryJobs": (10000, 10000 - len(self.jobs)), "DataStorageMB": (1024, 1000), "HourlyODataCallout": (1000, 1000)}
        return Reply(200, {name: {"Max": most, "Remaining": left} for name, (most, left) in whole.items()})

    def _about(self, sobject: SObject, version: str) -> dict:
        base, name = f"/services/data/v{version}/sobjects/{sobject.name}", sobject.name
        history = "History" in name
        return {"activateable": False, "createable": not history, "custom": name.endswith("__c"), "customSetting": False, "deletable": not history, "deprecatedAndHidden": False,
                "feedEnabled": False, "hasSubtypes": False, "isInterface": False, "isSubtype": False, "keyPrefix": None if history else sobject.prefix,
                "label": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name), "labelPlural": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name) + "s", "layoutable": not history,
                "mergeable": name in ("Account", "Contact", "Lead", "Case"), "mruEnabled": False, "name": name, "queryable": sobject.queryable,
                "replicateable": "s" in sobject.letters, "retrieveable": True, "searchable": False, "triggerable": not history, "undeletable": "d" in sobject.letters and not history,
                "updateable": not history, "urls": {"sobject": base, "describe": f"{base}/describe", "rowTemplate": f"{base}/{{ID}}"}}

    def sobjects(self, request: Request, version: str) -> Reply:
        """GET /sobjects."""
        return Reply(200, {"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": [self._about(o, version) for o in self.sf.visible()]})

    def basics(self, request: Request, version: str, name: str) -> Reply:
        """GET /sobjects/X."""
        return Reply(200, {"objectDescribe": self._about(self._object(name), version), "recentItems": []})

    def describe(self, request: Request, version: str, name: str) -> Reply:
        """GET /sobjects/X/describe: what field-level security hides is not there."""
        sobject = self._object(name)
        fields = [f.described(self.sf.options(sobject, f)) for f in sobject.visible()]
        children = [{"cascadeDelete": False, "childSObject": child.name, "deprecatedAndHidden": False, "field": key, "junctionIdListNames": [], "junctionReferenceTo": [],
                     "relationshipName": relationship, "restrictedDelete": False} for child, key, relationship in sobject.children if self.sf.sobject(child.name)]
        return Reply(200, self._about(sobject, version) | {"fields": fields, "childRelationships": children, "recordTypeInfos": [], "supportedScopes": [], "namedLayoutInfos": []})

    def window(self, request: Request, version: str, name: str, which: str) -> Reply:
        """GET /sobjects/X/updated and /deleted?start&end."""
        sobject = self._object(name)
        if "s" not in sobject.letters:
            raise failure(400, "INVALID_TYPE_FOR_OPERATION", f"object type {name} is not replicable")
        try:
            start, end = (datetime.fromisoformat(request.query[k]).astimezone(UTC) for k in ("start", "end"))
        except (KeyError, ValueError):
            raise failure(400, "INVALID_PARAMETER", "start and end must be ISO 8601 dates") from None
        if start >= end:
            raise failure(400, "INVALID_REPLICATION_DATE", "startDate must chronologically precede endDate")
        if start < self.clock - timedelta(days=30):
            raise failure(400, "INVALID_REPLICATION_DATE", "startDate cannot be more than 30 days ago")
        return Reply(200, self.sf.deleted(sobject.name, start, end) if which == "deleted" else self.sf.updated(sobject.name, start, end))

    # ---- records ----------------------------------------------------------------------------------------------------
    def _standing(self, name: str, native: str) -> dict:
        sobject = self._object(name)
        row = next((r for i, r in sobject.rows.items() if i[:15] == native[:15] and not r.get("IsDeleted")), None)
        if row is None:
            raise failure(404, "NOT_FOUND", "The requested resource does not exist")
        return row

    def record(self, request: Request, version: str, name: str, native: str) -> Reply:
        """GET /sobjects/X/ID?fields=."""
        sobject, row = self._object(name), self._standing(name, native)
        wanted = request.query.get("fields")
        names = [f.name for f in sobject.visible()] if not wanted else [(sobject.field(n) or self._no_field(n, name)).name for n in wanted.split(",")]
        return Reply(200, {"attributes": {"type": sobject.name, "url": f"/services/data/v{version}/sobjects/{sobject.name}/{row['Id']}"}} | {n: row.get(n) for n in names})

    def _no_field(self, field: str, name: str):
        raise failure(400, "INVALID_FIELD", f"No such column '{field}' on sobject of type {name}", [field])

    def _values(self, request: Request, name: str) -> dict:
        sobject = self._object(name)
        try:
            given = {k: v for k, v in (request.json() or {}).items() if k != "attributes"}
        except ValueError:
            raise failure(400, "JSON_PARSER_ERROR", "Unexpected character in the body") from None
        return {(sobject.field(k) or self._no_field(k, name)).name: v for k, v in given.items()}

    def create(self, request: Request, version: str, name: str) -> Reply:
        """POST /sobjects/X."""
        sobject, values = self._object(name), self._values(request, name)
        system = {"id", "ownerid", "isdeleted", "createddate", "createdbyid", "lastmodifieddate", "lastmodifiedbyid", "systemmodstamp", "name"}
        missing = [f.name for f in sobject.visible() if not f.nillable and f.type != "boolean" and f.name.lower() not in system and values.get(f.name) in (None, "")]
        if missing:
            raise failure(400, "REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(missing)}]", missing)
        return Reply(201, {"id": self.sf.insert(name, values, self.clock), "success": True, "errors": []})

    def change(self, request: Request, version: str, name: str, native: str) -> Reply:
        """PATCH /sobjects/X/ID."""
        row, values = self._standing(name, native), self._values(request, name)
        self.sf.update(row["Id"], values, self.clock)
        return Reply(204)

    def remove(self, request: Request, version: str, name: str, native: str) -> Reply:
        """DELETE /sobjects/X/ID."""
        self.sf.delete(self._standing(name, native)["Id"], self.clock)
        return Reply(204)

    # ---- queries ----------------------------------------------------------------------------------------------------
    def query(self, request: Request, version: str, which: str) -> Reply:
        """GET /query and /queryAll."""
        if "explain" in request.query:
            return Reply(200, {"plans": [{"cardinality": 1, "fields": [], "leadingOperationType": "TableScan", "relativeCost": 1.0, "sobjectCardinality": 1, "sobjectType": "", "notes": []}]})
        query = soql.parse(request.query.get("q", ""))
        if query.aggregates and not query.counts and not self.groups:
            raise failure(400, "MALFORMED_QUERY", "unexpected token: 'GROUP'")
        answer = soql.execute(query, self.sf, version, deleted=which == "queryAll")
        wide = len(answer.columns) > 60
        asked = int((re.search(r"batchSize=(\d+)", request.headers.get("sforce-query-options", "")) or [0, 2000])[1])
        size = max(1, min(self.page, max(200, min(asked, 2000)) // (2 if wide else 1)))
        self._n += 1
        locator = f"01g{sha256(f'cursor {self._n}'.encode()).hexdigest()[:12].upper()}AAA"
        self.cursors[locator] = answer
        answer.size = size
        return self._page(request, version, locator, 0)

    def _page(self, request: Request, version: str, locator: str, start: int) -> Reply:
        answer = self.cursors[locator]
        fewer = answer.size - (start * 7 // answer.size) % (answer.size // 4 + 1)  # pages may hold fewer rows than were asked for
        rows, end = answer.rows[start:start + fewer], start + fewer
        if start:
            rows = self.repeated(request, rows, answer.rows[max(0, start - answer.size):start])
        told: dict = {"totalSize": answer.total, "done": end >= len(answer.rows)}
        if not told["done"]:
            told["nextRecordsUrl"] = f"/services/data/v{version}/query/{locator}-{end}"
        return Reply(200, told | {"records": [answer.render(row) for row in rows]})

    def more_rows(self, request: Request, version: str, locator: str, start: str) -> Reply:
        """GET /query/LOCATOR-OFFSET."""
        if locator not in self.cursors or int(start) >= len(self.cursors[locator].rows):
            return self.dead_cursor(request, version)
        return self._page(request, version, locator, int(start))

    def dead_cursor(self, request: Request, version: str, *_: str) -> Reply:
        """A cursor that is no more."""
        raise failure(400, "INVALID_QUERY_LOCATOR", "invalid query locator")

    # ---- Bulk 2.0 ---------------------------------------------------------------------------------------------------
    def bulk_open(self, request: Request, version: str) -> Reply:
        """POST /jobs/query."""
        try:
            told = request.json() or {}
        except ValueError:
            raise failure(400, "JSON_PARSER_ERROR", "Unexpected character in the body") from None
        if told.get("operation") not in ("query", "queryAll") or not told.get("query"):
            raise failure(400, "INVALIDJOB", "operation must be query or queryAll, and query must be given")
        if told.get("contentType", "CSV") != "CSV":
            raise failure(400, "INVALIDJOB", "Unsupported content type")
        query = soql.parse(told["query"])
        if query.aggregates or query.counts or query.group or query.offset or any(not isinstance(i, soql.Item) or i.function == "FIELDS" for i in query.items):
            raise failure(400, "API_ERROR", "Aggregate functions, GROUP BY, OFFSET, TYPEOF, FIELDS and nested queries are not supported in Bulk Query")
        sobject = self.sf.sobject(query.source)
        if sobject and sobject.name in self.no_bulk:
            raise failure(400, "INVALIDENTITY", f"Entity '{sobject.name}' is not supported by the Bulk API.")
        if sobject and any((f := sobject.field(i.path)) and f.type == "address" for i in query.items):
            raise failure(400, "API_ERROR", "Selecting compound data not supported in Bulk Query")
        answer = soql.execute(query, self.sf, version, deleted=told["operation"] == "queryAll")
        self._n += 1
        now = stamp(self.clock)
        job = {"id": f"750{sha256(f'job {self._n}'.encode()).hexdigest()[:12].upper()}AAA", "operation": told["operation"], "object": answer.sobject.name, "createdById": self.sf.admin,
               "createdDate": now, "systemModstamp": now, "state": "UploadComplete", "concurrencyMode": "Parallel", "contentType": "CSV", "apiVersion": float(version),
               "lineEnding": told.get("lineEnding", "LF"), "columnDelimiter": told.get("columnDelimiter", "COMMA")}
        self.jobs[job["id"]] = {"told": job, "answer": answer, "seen": 0, "version": version}
        return Reply(200, job)

    def _job(self, native: str) -> dict:
        if native not in self.jobs:
            raise failure(404, "NOT_FOUND", "The requested resource does not exist")
        return self.jobs[native]

    def bulk_list(self, request: Request, version: str) -> Reply:
        """GET /jobs/query."""
        return Reply(200, {"done": True, "records": [job["told"] for job in self.jobs.values()], "nextRecordsUrl": None})

    def bulk_state(self, request: Request, version: str, native: str) -> Reply:
        """GET /jobs/query/ID: UploadComplete, InProgress, JobComplete."""
        job = self._job(native)
        if job["told"]["state"] in ("UploadComplete", "InProgress"):
            job["told"]["state"] = "JobComplete" if job["seen"] >= self.bulk_steps else "InProgress"
            job["seen"] += 1
        done = job["told"]["state"] == "JobComplete"
        return Reply(200, job["told"] | {"jobType": "V2Query", "numberRecordsProcessed": len(job["answer"].rows) if done else 0, "retries": 0, "totalProcessingTime": 100,
                                         "isPkChunkingSupported": True})

    def bulk_results(self, request: Request, version: str, native: str) -> Reply:
        """GET /jobs/query/ID/results?maxRecords&locator: CSV; Sforce-Locator says where the next part begins, `null` at the end."""
        job = self._job(native)
        if version != job["version"]:
            raise failure(409, "API_ERROR", "The API version of the request differs from the job's")
        if job["told"]["state"] != "JobComplete":
            raise failure(400, "INVALIDJOBSTATE", f"Job {native} is not complete: {job['told']['state']}")
        start = 0
        if request.query.get("locator"):
            try:
                start = int(base64.urlsafe_b64decode(request.query["locator"]).decode())
            except ValueError:
                raise failure(400, "INVALID_LOCATOR", "invalid locator") from None
        answer = job["answer"]
        size = max(1, min(int(request.query.get("maxRecords") or 50_000), 25 * self.page))  # a part may hold fewer than were asked for
        rows, end = answer.rows[start:start + size], start + size
        if start:
            rows = self.repeated(request, rows, answer.rows[max(0, start - size):start])
        out = io.StringIO()
        delimiter = {"COMMA": ",", "TAB": "\t", "SEMICOLON": ";", "PIPE": "|", "CARET": "^", "BACKQUOTE": "`"}[job["told"]["columnDelimiter"]]
        writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\r\n" if job["told"]["lineEnding"] == "CRLF" else "\n")
        writer.writerow(answer.columns)
        writer.writerows([_cell(value) for value in answer.cells(row)] for row in rows)
        locator = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(answer.rows) else "null"
        return Reply(200, out.getvalue().encode(), {"Content-Type": "text/csv", "Sforce-NumberOfRecords": str(len(rows)), "Sforce-Locator": locator})

    def bulk_abort(self, request: Request, version: str, native: str) -> Reply:
        """PATCH /jobs/query/ID."""
        job = self._job(native)
        job["told"]["state"] = "Aborted"
        return Reply(200, job["told"])

    def bulk_delete(self, request: Request, version: str, native: str) -> Reply:
        """DELETE /jobs/query/ID."""
        self._job(native)
        del self.jobs[native]
        return Reply(204)


def main() -> None:
    """Run one from the command line."""
    from argparse import ArgumentParser

    from tests.servers.organisation import organisation
    parser = ArgumentParser(description="A stand-in for Salesforce on the loopback.")
    parser.add_argument("--port", type=int, default=0)
    serve(Salesforce(organisation(), port=parser.parse_args().port))


def _cell(value: object) -> str:
    """A value in CSV: null is an empty cell, datetimes end in Z."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text[:-5] + "Z" if len(text) == 28 and text.endswith("+0000") and text[10] == "T" else text


if __name__ == "__main__":
    main()
