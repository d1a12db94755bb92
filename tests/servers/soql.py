"""SOQL as the Salesforce stand-in answers it: parsed, checked against what the user may see, compiled to closures over rows.

What it covers: SELECT of fields, parent paths (polymorphic ones too), child subqueries, TYPEOF, FIELDS(), aggregates with GROUP BY and HAVING,
date functions; WHERE with AND / OR / NOT, = != < <= > >=, LIKE, IN and NOT IN (lists and semi-joins), INCLUDES / EXCLUDES, date literals; ORDER BY
with NULLS FIRST / LAST, LIMIT, OFFSET. Comparison of text ignores case, ids compare in their 15- and 18-character forms, `!=` holds for null: as in
the vendor's "SOQL and SOSL Reference". What is refused there is refused here (AND mixed with OR without brackets, a quoted date, a filter on long text).

A catalog is anything with `sobject(name)` (None where the user may not see it), `row(id)` -> (object, row) or None, and `now` (datetime, UTC).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

TEXT = {"string", "picklist", "multipicklist", "combobox", "textarea", "phone", "url", "email", "encryptedstring"}
NUMBER = {"int", "double", "currency", "percent", "long"}
IDS = {"id", "reference"}
AGGREGATES = {"COUNT", "COUNT_DISTINCT", "SUM", "AVG", "MIN", "MAX"}
PLAIN = {"TOLABEL", "FORMAT", "CONVERTCURRENCY", "CONVERTTIMEZONE"}  # answered as the bare field
NAME_FIELDS = {"id": "Id", "name": "Name", "type": "Type", "firstname": "FirstName", "lastname": "LastName", "email": "Email", "phone": "Phone",
               "title": "Title", "username": "Username", "isactive": "IsActive", "userroleid": "UserRoleId", "profileid": "ProfileId"}
_TOKEN = re.compile(r"""\s*(?:(?P<string>'(?:[^'\\]|\\.)*')
    |(?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))|(?P<date>\d{4}-\d\d-\d\d)(?![\dT])
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![A-Za-z_])
    |(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?::\d+)?)|(?P<op><=|>=|!=|<>|[=<>(),]))""", re.VERBOSE)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\", "_": "\\_", "%": "\\%"}
_RESERVED = {"FROM", "WHERE", "ORDER", "GROUP", "HAVING", "LIMIT", "OFFSET", "WITH", "FOR", "USING", "ALL", "ASC", "DESC", "NULLS", "AND", "OR",
             "NOT", "IN", "LIKE", "INCLUDES", "EXCLUDES"}


class SoqlError(Exception):
    """A query that the vendor refuses, with its code and words."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True)
class Item:
    """One thing selected, grouped or compared: a path, or a function of a path."""

    path: str
    function: str = ""
    alias: str = ""


@dataclass
class Query:
    """A parsed query; `items` are Item, Query (child subquery, its `source` a relationship) or ("TYPEOF", path, whens, otherwise)."""

    items: list
    source: str
    alias: str = ""
    where: tuple | None = None
    group: list[Item] = field(default_factory=list)
    having: tuple | None = None
    order: list[tuple[Item, bool, bool]] = field(default_factory=list)  # item, descending, nulls last
    limit: int | None = None
    offset: int = 0
    text: str = ""

    @property
    def counts(self) -> bool:
        """SELECT COUNT() FROM ...: the answer is a total without rows."""
        return len(self.items) == 1 and self.items[0] == Item("", "COUNT", "")

    @property
    def aggregates(self) -> bool:
        """The answer's rows are groups."""
        return bool(self.group) or any(isinstance(i, Item) and i.function in AGGREGATES for i in self.items)


class _Parser:
    def __init__(self, text: str):
        self.text, self.tokens, at = text, [], 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if not found:
                bad = text[at:].strip()[:1]
                raise SoqlError("MALFORMED_QUERY", f"\n{text}\n{' ' * at}^\nERROR at Row:1:Column:{at + 1}\nunexpected token: '{bad}'")
            kind = found.lastgroup
            self.tokens.append((kind, found.group(kind), found.start(kind)))
            at = found.end()
        self.i = 0

    def fail(self, words: str | None = None) -> SoqlError:
        token, at = self.tokens[self.i][1:] if self.i < len(self.tokens) else ("<EOF>", len(self.text))
        said = words or f"unexpected token: '{token}'"
        return SoqlError("MALFORMED_QUERY", f"\n{self.text}\n{' ' * at}^\nERROR at Row:1:Column:{at + 1}\n{said}")

    def peek(self, *words: str, ahead: int = 0) -> bool:
        i = self.i + ahead
        return i < len(self.tokens) and self.tokens[i][0] in ("name", "op") and self.tokens[i][1].upper() in words

    def take(self, *words: str) -> bool:
        if self.peek(*words):
            self.i += 1
            return True
        return False

    def need(self, word: str) -> None:
        if not self.take(word):
            raise self.fail()

    def name(self) -> str:
        if self.i >= len(self.tokens) or self.tokens[self.i][0] != "name" or self.tokens[self.i][1].upper() in _RESERVED:
            raise self.fail()
        self.i += 1
        return self.tokens[self.i - 1][1]

    def integer(self) -> int:
        if self.i >= len(self.tokens) or not re.fullmatch(r"\d+", self.tokens[self.i][1]):
            raise self.fail()
        self.i += 1
        return int(self.tokens[self.i - 1][1])

    def query(self, nested: bool = False) -> Query:
        self.need("SELECT")
        items = [self.item()]
        while self.take(","):
            items.append(self.item())
        self.need("FROM")
        query = Query(items, self.name(), text=self.text)
        if self.i < len(self.tokens) and self.tokens[self.i][0] == "name" and self.tokens[self.i][1].upper() not in _RESERVED:
            query.alias = self.name()
        if self.take("USING"):
            self.need("SCOPE")
            self.name()
        if self.take("WHERE"):
            query.where = self.condition()
        if self.take("WITH"):  # SECURITY_ENFORCED, USER_MODE, SYSTEM_MODE
            self.name()
        if self.take("GROUP"):
            self.need("BY")
            query.group = [self.operand()]
            while self.take(","):
                query.group.append(self.operand())
            if self.take("HAVING"):
                query.having = self.condition()
        if self.take("ORDER"):
            self.need("BY")
            query.order = [self.ordering()]
            while self.take(","):
                query.order.append(self.ordering())
        if self.take("LIMIT"):
            query.limit = self.integer()
        if self.take("OFFSET"):
            query.offset = self.integer()
            if query.offset > 2000:
                raise SoqlError("NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000")
        if self.take("FOR"):
            self.name()
        if self.peek("ALL"):
            raise self.fail("ALL ROWS not allowed in this context")
        if not nested and self.i < len(self.tokens):
            raise self.fail()
        return query

    def item(self):
        if self.take("("):
            query = self.query(nested=True)
            self.need(")")
            return query
        if self.take("TYPEOF"):
            return self.typeof()
        item = self.operand(aggregate=True)
        if self.i < len(self.tokens) and self.tokens[self.i][0] == "name" and self.tokens[self.i][1].upper() not in _RESERVED:
            item = Item(item.path, item.function, self.name())
        return item

    def typeof(self) -> tuple:
        path, whens, otherwise = self.name(), {}, []
        while self.take("WHEN"):
            kind = self.name()
            self.need("THEN")
            whens[kind.lower()] = self.names()
        if self.take("ELSE"):
            otherwise = self.names()
        self.need("END")
        return ("TYPEOF", path, whens, otherwise)

    def names(self) -> list[str]:
        names = [self.name()]
        while self.take(","):
            names.append(self.name())
        return names

    def operand(self, aggregate: bool = False) -> Item:
        name = self.name()
        if not self.take("("):
            return Item(name)
        function = name.upper()
        if function == "COUNT" and self.take(")"):
            return Item("", "COUNT")
        if function == "FIELDS" and self.peek("ALL", "STANDARD", "CUSTOM"):
            self.i += 1
            inner = Item(self.tokens[self.i - 1][1])
        else:
            inner = self.operand()
        self.need(")")
        return Item(inner.path, function if function not in PLAIN else inner.function)

    def ordering(self) -> tuple[Item, bool, bool]:
        item = self.operand()
        descending = self.take("DESC") or (self.take("ASC") and False)
        last = False
        if self.take("NULLS"):
            last = self.take("LAST")
            if not last:
                self.need("FIRST")
        return item, descending, last

    def condition(self) -> tuple:
        parts, joint = [self.unary()], ""
        while self.peek("AND", "OR"):
            word = self.tokens[self.i][1].upper()
            if joint and word != joint:
                raise self.fail()
            joint = word
            self.i += 1
            parts.append(self.unary())
        return (joint, parts) if joint else parts[0]

    def unary(self) -> tuple:
        if self.take("NOT"):
            return ("NOT", [self.unary()])
        if self.take("("):
            inner = self.condition()
            self.need(")")
            return inner
        left = self.operand()
        if self.take("NOT"):
            self.need("IN")
            return ("NOT IN", left, self.values())
        if self.peek("IN", "INCLUDES", "EXCLUDES"):
            word = self.tokens[self.i][1].upper()
            self.i += 1
            return (word, left, self.values())
        if not self.peek("=", "!=", "<>", "<", "<=", ">", ">=", "LIKE"):
            raise self.fail()
        word = self.tokens[self.i][1].upper().replace("<>", "!=")
        self.i += 1
        return (word, left, self.value())

    def values(self):
        self.need("(")
        if self.peek("SELECT"):
            inner = self.query(nested=True)
        else:
            inner = [self.value()]
            while self.take(","):
                inner.append(self.value())
        self.need(")")
        return inner

    def value(self) -> tuple:
        if self.i >= len(self.tokens) or self.tokens[self.i][0] == "op":
            raise self.fail()
        kind, text, _ = self.tokens[self.i]
        if kind == "name" and text.upper() in _RESERVED:
            raise self.fail()
        self.i += 1
        if kind == "string":
            return ("string", re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), text[1:-1], flags=re.DOTALL))
        if kind == "number":
            return ("number", float(text) if re.search(r"[.eE]", text) else int(text))
        if kind == "name":
            word = text.upper()
            return ("boolean", word == "TRUE") if word in ("TRUE", "FALSE") else ("null", None) if word == "NULL" else ("literal", word)
        return (kind, text)


def parse(text: str) -> Query:
    """The query that a text tells; SoqlError where it is none."""
    if not text.strip():
        raise SoqlError("MALFORMED_QUERY", "A query string has to be specified")
    return _Parser(text).query()


def stamp(text: str | datetime) -> str:
    """A datetime in the form of REST answers.

    >>> stamp("2026-01-31T10:20:30+01:00")
    '2026-01-31T09:20:30.000+0000'
    """
    at = datetime.fromisoformat(text) if isinstance(text, str) else text
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}+0000"


def _month(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, 1)


def date_range(word: str, today: date) -> tuple[date, date] | None:
    """First day and the day after the last one that a date literal means; None where it is none.

    >>> date_range("LAST_MONTH", date(2026, 3, 10))
    (datetime.date(2026, 2, 1), datetime.date(2026, 3, 1))
    """
    name, _, number = word.partition(":")
    n, day = int(number or 0), timedelta(days=1)
    week = today - timedelta(days=(today.weekday() + 1) % 7)  # weeks begin on Sunday
    month, quarter, year = today.replace(day=1), _month(today, -((today.month - 1) % 3)), date(today.year, 1, 1)
    fixed = {"TODAY": (today, today + day), "YESTERDAY": (today - day, today), "TOMORROW": (today + day, today + 2 * day),
             "LAST_90_DAYS": (today - 90 * day, today + day), "NEXT_90_DAYS": (today + day, today + 91 * day)}
    if not number and name in fixed:
        return fixed[name]
    name = name.replace("FISCAL_", "")
    by_n = {"LAST_N_DAYS": (today - n * day, today + day), "NEXT_N_DAYS": (today + day, today + (n + 1) * day),
            "N_DAYS_AGO": (today - n * day, today - (n - 1) * day)}
    if number and name in by_n:
        return by_n[name]
    steps = {"WEEK": lambda k: week + timedelta(weeks=k), "MONTH": lambda k: _month(month, k), "QUARTER": lambda k: _month(quarter, 3 * k),
             "YEAR": lambda k: _month(year, 12 * k)}
    for unit, step in steps.items():
        spans = {f"LAST_N_{unit}S": (-n, 0), f"NEXT_N_{unit}S": (1, n + 1), f"N_{unit}S_AGO": (-n, 1 - n)} if number else \
                {f"LAST_{unit}": (-1, 0), f"THIS_{unit}": (0, 1), f"NEXT_{unit}": (1, 2)}
        if name in spans:
            return step(spans[name][0]), step(spans[name][1])
    return None


DATE_FUNCTIONS: dict[str, Callable[[str], object]] = {
    "CALENDAR_YEAR": lambda v: int(v[:4]), "CALENDAR_MONTH": lambda v: int(v[5:7]), "CALENDAR_QUARTER": lambda v: (int(v[5:7]) + 2) // 3,
    "DAY_IN_MONTH": lambda v: int(v[8:10]), "DAY_ONLY": lambda v: v[:10], "HOUR_IN_DAY": lambda v: int(v[11:13]),
    "DAY_IN_WEEK": lambda v: (date.fromisoformat(v[:10]).weekday() + 1) % 7 + 1, "DAY_IN_YEAR": lambda v: date.fromisoformat(v[:10]).timetuple().tm_yday,
    "WEEK_IN_MONTH": lambda v: (int(v[8:10]) + 6) // 7, "WEEK_IN_YEAR": lambda v: (date.fromisoformat(v[:10]).timetuple().tm_yday + 6) // 7}
DATE_FUNCTIONS |= {f.replace("CALENDAR", "FISCAL"): g for f, g in DATE_FUNCTIONS.items() if f.startswith("CALENDAR")}


@dataclass
class Answer:
    """Rows that a query found, in order, and how each is told."""

    total: int
    rows: list
    render: Callable[[dict], dict]
    columns: list[str]
    cells: Callable[[dict], list]
    sobject: object = None


class _Compiler:
    """Turns the parts of one query into closures over rows of `sobject`."""

    def __init__(self, catalog, sobject, query: Query, version: str):
        self.catalog, self.sobject, self.query, self.version = catalog, sobject, query, version

    def _no_column(self, name: str, entity: str, relation: bool = False) -> SoqlError:
        at = self.query.text.lower().find(name.lower()) + 1
        line = f"\n{self.query.text}\n{' ' * (at - 1)}^\nERROR at Row:1:Column:{at}\n"
        if relation:
            return SoqlError("INVALID_FIELD", f"{line}Didn't understand relationship '{name}' in field path. If you are attempting to use a custom "
                             "relationship, be sure to append the '__r' after the custom relationship name. Please reference your WSDL or the describe call for the appropriate names.")
        return SoqlError("INVALID_FIELD", f"{line}No such column '{name}' on entity '{entity}'. If you are attempting to use a custom field, be sure to "
                         "append the '__c' after the custom field name. Please reference your WSDL or the describe call for the appropriate names.")

    def path(self, path: str, sobject=None) -> tuple[list[str], object, Callable[[dict], object]]:
        """(names as described, the last field, getter) of a path."""
        parts, sobject = path.split("."), sobject or self.sobject
        if len(parts) > 1 and sobject is self.sobject and parts[0].lower() in (self.query.alias.lower(), sobject.name.lower()):
            parts = parts[1:]
        if len(parts) == 1:
            found = sobject.field(parts[0])
            if found is None:
                raise self._no_column(parts[0], sobject.name)
            name = found.name
            return [name], found, lambda row: row.get(name)
        if len(parts) > 6:
            raise SoqlError("MALFORMED_QUERY", "A relationship path may be at most 5 levels deep")
        lookup = sobject.relation(parts[0])
        targets = [t for t in map(self.catalog.sobject, lookup.reference_to) if t is not None] if lookup else []
        if not targets:
            raise self._no_column(parts[0], sobject.name, relation=True)
        if len(lookup.reference_to) > 1:
            return self._polymorphic(lookup, parts)
        names, last, get = self.path(".".join(parts[1:]), targets[0])
        key, row_of = lookup.name, self.catalog.row

        def parent(row: dict):
            found = row_of(row.get(key)) if row else None
            return get(found[1]) if found else None
        return [lookup.relationship, *names], last, parent

    def _polymorphic(self, lookup, parts: list[str]):
        if len(parts) > 2 or parts[1].lower() not in NAME_FIELDS:
            raise self._no_column(parts[1], "Name")
        name, key, row_of = NAME_FIELDS[parts[1].lower()], lookup.name, self.catalog.row

        def parent(row: dict):
            found = row_of(row.get(key))
            return None if not found else found[0].name if name == "Type" else found[1].get(name)
        users = self.catalog.sobject("User")
        last = users.field("Name") if name == "Type" or users.field(name) is None else users.field(name)
        return [lookup.relationship, name], last, parent

    def item(self, item: Item) -> tuple[object, Callable[[dict], object]]:
        """(field, getter) of an operand that is no aggregate."""
        _, last, get = self.path(item.path)
        if not item.function:
            return last, get
        if item.function not in DATE_FUNCTIONS:
            raise SoqlError("MALFORMED_QUERY", f"unexpected token: '{item.function}'")
        work = DATE_FUNCTIONS[item.function]

        def worked(row: dict):
            value = get(row)
            return None if value is None else work(value)
        kind = "date" if item.function == "DAY_ONLY" else "int"
        return type(last)(name=last.name, type=kind, label=last.label), worked

    # ---- conditions -------------------------------------------------------------------------------------------------
    def condition(self, tree: tuple | None, operand: Callable[[Item], tuple] | None = None) -> Callable[[dict], bool]:
        if tree is None:
            return lambda row: True
        if tree[0] in ("AND", "OR", "NOT"):
            parts = [self.condition(part, operand) for part in tree[1]]
            if tree[0] == "NOT":
                return lambda row: not parts[0](row)
            if len(parts) == 2:
                one, two = parts
                return (lambda row: one(row) and two(row)) if tree[0] == "AND" else (lambda row: one(row) or two(row))
            return (lambda row: all(p(row) for p in parts)) if tree[0] == "AND" else (lambda row: any(p(row) for p in parts))
        word, left, right = tree
        last, get = (operand or self.item)(left)
        if not getattr(last, "filterable", True):
            raise SoqlError("INVALID_FIELD", f"\n{self.query.text}\n^\nERROR at Row:1:Column:1\nfield '{last.name}' can not be filtered in a query call")
        if word in ("IN", "NOT IN"):
            return self._among(word, last, get, right)
        if word in ("INCLUDES", "EXCLUDES"):
            wanted = [set(self._plain(last, v).lower().split(";")) for v in right]
            inside = lambda row: any(w <= set((get(row) or "").lower().split(";")) for w in wanted)  # noqa: E731
            return inside if word == "INCLUDES" else lambda row: not inside(row)
        if word == "LIKE":
            if last.type not in TEXT:
                raise SoqlError("INVALID_QUERY_FILTER_OPERATOR", f"invalid operator on {last.type} field")
            pattern = _like(self._plain(last, right))
            return lambda row: bool(pattern.fullmatch(get(row) or ""))
        if right[0] == "literal":
            return self._span(word, last, get, right[1])
        value = self._plain(last, right)
        key = _key(last)
        if word in ("=", "!="):
            if value is None:
                return (lambda row: get(row) in (None, "")) if word == "=" else (lambda row: get(row) not in (None, ""))
            wanted = key(value)
            same = lambda row: (found := get(row)) is not None and key(found) == wanted  # noqa: E731
            return same if word == "=" else lambda row: not same(row)
        if value is None or last.type in IDS - {"id"} or last.type in ("boolean", "multipicklist"):
            raise SoqlError("INVALID_QUERY_FILTER_OPERATOR", f"invalid operator on {last.type} field")
        wanted = key(value)
        tests = {"<": lambda f: f < wanted, "<=": lambda f: f <= wanted, ">": lambda f: f > wanted, ">=": lambda f: f >= wanted}
        test = tests[word]
        return lambda row: (found := get(row)) is not None and test(key(found))

    def _among(self, word: str, last, get, right):
        if isinstance(right, Query):
            inner = execute(right, self.catalog, self.version)
            if len(inner.columns) != 1:
                raise SoqlError("MALFORMED_QUERY", "The inner select must have exactly one field")
            values = [inner.cells(row)[0] for row in inner.rows]
        else:
            values = [self._plain(last, v) for v in right]
        key, empty = _key(last), any(v is None for v in values)
        wanted = {key(v) for v in values if v is not None}
        inside = lambda row: empty if (found := get(row)) is None else key(found) in wanted  # noqa: E731
        return inside if word == "IN" else lambda row: not inside(row)

    def _span(self, word: str, last, get, name: str):
        span = date_range(name, self.catalog.now.date())
        if span is None or last.type not in ("date", "datetime"):
            raise SoqlError("MALFORMED_QUERY", f"\n{self.query.text}\nunexpected token: '{name}'")
        start, end = (stamp(datetime.combine(d, datetime.min.time())) if last.type == "datetime" else d.isoformat() for d in span)
        tests = {"=": lambda v: start <= v < end, "!=": lambda v: not start <= v < end, "<": lambda v: v < start, "<=": lambda v: v < end,
                 ">": lambda v: v >= end, ">=": lambda v: v >= start}
        test = tests[word]
        return lambda row: (found := get(row)) is not None and test(found)

    def _plain(self, last, value: tuple):
        """The literal as the field's values are stored; refused where its kind isn't the field's."""
        kind, told = value
        if kind == "null":
            return None
        wanted = ("string" if last.type in TEXT | IDS else "number" if last.type in NUMBER else last.type)
        if wanted == "string" and last.type in IDS and kind == "string":
            if told and not re.fullmatch(r"[A-Za-z0-9]{15}|[A-Za-z0-9]{18}", told):
                raise SoqlError("INVALID_QUERY_FILTER_OPERATOR", f"\n{self.query.text}\ninvalid ID field: {told}")
            return told
        if kind != wanted and not (wanted == "time" and kind == "string"):
            names = {"number": "double", "datetime": "dateTime"}
            quotes = "should be enclosed in quotes" if wanted == "string" else "should not be enclosed in quotes"
            raise SoqlError("INVALID_FIELD", f"\n{self.query.text}\nvalue of filter criterion for field '{last.name}' must be of type "
                            f"{names.get(wanted, wanted)} and {quotes}")
        try:
            return stamp(told) if kind == "datetime" else date.fromisoformat(told).isoformat() if kind == "date" else told
        except ValueError:
            raise SoqlError("MALFORMED_QUERY", f"\n{self.query.text}\nInvalid date: {told}") from None

    # ---- selection --------------------------------------------------------------------------------------------------
    def selected(self) -> list:
        """The items with FIELDS() written out and doubles refused."""
        items, seen = [], set()
        for item in self.query.items:
            if isinstance(item, Item) and item.function == "FIELDS":
                which = item.path.upper()
                if which != "STANDARD" and not (self.query.limit or 201) <= 200:
                    raise SoqlError("MALFORMED_QUERY", "The SOQL FIELDS function must have a LIMIT of at most 200")
                items += [Item(f.name) for f in self.sobject.visible() if which == "ALL" or f.name.endswith("__c") == (which == "CUSTOM")]
            else:
                items.append(item)
        for item in items:
            if isinstance(item, Item) and not item.function:
                key = tuple(self.path(item.path)[0])
                if key in seen:
                    raise SoqlError("INVALID_FIELD", f"duplicate field selected: {key[-1]}")
                seen.add(key)
        return items

    def rendering(self) -> tuple[Callable[[dict], dict], list[str], Callable[[dict], list]]:
        """(row -> JSON record, columns, row -> cells) for a query without groups."""
        plain, nested, special, columns, getters = [], {}, [], [], []
        for item in self.selected():
            if isinstance(item, Query):
                special.append(self._children(item))
            elif isinstance(item, tuple):
                special.append(self._typed(item))
            else:
                names, _, get = self.path(item.path)
                if item.function:
                    raise SoqlError("MALFORMED_QUERY", f"Grouped field should not be selected through {item.function} without GROUP BY")
                columns.append(".".join(names))
                getters.append(get)
                if len(names) == 1:
                    plain.append(names[0])
                else:
                    nested.setdefault(names[0], []).append((names[1:], get))
        kind, prefix = self.sobject.name, f"/services/data/v{self.version}/sobjects/{self.sobject.name}/"
        row_of = self.catalog.row

        def render(row: dict) -> dict:
            record = {"attributes": {"type": kind, "url": prefix + row.get("Id", "")}}
            for name in plain:
                record[name] = row.get(name)
            for relation, leaves in nested.items():
                record[relation] = self._nest(row, relation, leaves, row_of)
            for key, make in special:
                record[key] = make(row)
            return record
        return render, columns, lambda row: [get(row) for get in getters]

    def _nest(self, row: dict, relation: str, leaves: list, row_of) -> dict | None:
        lookup = self.sobject.relation(relation)
        found = row_of(row.get(lookup.name))
        if not found:
            return None
        nest: dict = {"attributes": self._attributes(found)}
        for names, get in leaves:
            place, step = nest, found
            for name in names[:-1]:
                lower = step[0].relation(name) if step else None
                step = row_of(step[1].get(lower.name)) if lower else None
                if step is None:
                    place[name] = None
                    break
                place = place.setdefault(name, {"attributes": self._attributes(step)})
            else:
                place[names[-1]] = get(row)
        return nest

    def _attributes(self, found: tuple) -> dict:
        return {"type": found[0].name, "url": f"/services/data/v{self.version}/sobjects/{found[0].name}/{found[1]['Id']}"}

    def _children(self, query: Query) -> tuple[str, Callable[[dict], dict | None]]:
        child = self.sobject.child(query.source)
        if child is None:
            raise self._no_column(query.source, self.sobject.name, relation=True)
        sobject, key, relationship = child
        answer = execute(query, self.catalog, self.version, sobject=sobject, whole=True)
        groups: dict[str, list] = {}
        for row in answer.rows:
            groups.setdefault(row.get(key), []).append(row)

        def children(row: dict) -> dict | None:
            found = groups.get(row["Id"], [])[query.offset:][:query.limit]
            return {"totalSize": len(found), "done": True, "records": [answer.render(r) for r in found]} if found else None
        return relationship, children

    def _typed(self, item: tuple) -> tuple[str, Callable[[dict], dict | None]]:
        _, path, whens, otherwise = item
        lookup = self.sobject.relation(path)
        if lookup is None or len(lookup.reference_to) < 2:
            raise self._no_column(path, self.sobject.name, relation=True)

        def told(row: dict) -> dict | None:
            found = self.catalog.row(row.get(lookup.name))
            if not found:
                return None
            names = whens.get(found[0].name.lower(), otherwise)
            return {"attributes": self._attributes(found)} | {n: self.path(n, found[0])[2](found[1]) for n in names}
        return lookup.relationship, told

    # ---- groups -----------------------------------------------------------------------------------------------------
    def groups(self, rows: list[dict]) -> tuple[list[dict], list[str]]:
        """Rows of an aggregate query, ordered and limited by the caller; each is a dict of column -> value."""
        keys = [self.item(item)[1] for item in self.query.group]
        named = {(i.path.lower(), i.function): i for i in self.query.group}
        columns, makers, n = [], [], 0
        for item in self.query.items:
            if not isinstance(item, Item):
                raise SoqlError("MALFORMED_QUERY", "Aggregate queries take fields and aggregates only")
            if item.function in AGGREGATES:
                name, make = item.alias or f"expr{n}", self._aggregate(item)
                n += not item.alias
            elif (item.path.lower(), item.function) in named:
                name, make = item.alias or (f"expr{n}" if item.function else self.path(item.path)[0][-1]), self._first(item)
                n += bool(item.function and not item.alias)
            else:
                raise SoqlError("MALFORMED_QUERY", f"Field must be grouped or aggregated: {item.path}")
            columns.append(name)
            makers.append(make)
        gathered: dict[tuple, list[dict]] = {} if self.query.group else {(): rows}
        for row in rows if self.query.group else []:
            gathered.setdefault(tuple(get(row) for get in keys), []).append(row)
        kept = self._having(list(gathered.values()))
        for item, descending, last in reversed(self.query.order):
            kept = _sorted(kept, self._aggregate(item) if item.function in AGGREGATES else self._first(item), descending, last)
        return [{c: make(group) for c, make in zip(columns, makers, strict=True)} for group in kept], columns

    def _having(self, groups: list[list[dict]]) -> list[list[dict]]:
        if self.query.having is None:
            return groups

        def operand(item: Item):
            if item.function in AGGREGATES:
                number = type(self.sobject.field("Id"))(name=item.path or "Id", type="double", label="")
                return number, self._aggregate(item)
            return self.item(item)[0], self._first(item)
        holds = self.condition(self.query.having, operand)
        return [group for group in groups if holds(group)]

    def _first(self, item: Item) -> Callable[[list[dict]], object]:
        get = self.item(item)[1]
        return lambda group: get(group[0])

    def _aggregate(self, item: Item) -> Callable[[list[dict]], object]:
        if item.function == "COUNT" and not item.path:
            return len
        last, get = self.item(Item(item.path))
        if item.function in ("SUM", "AVG") and last.type not in NUMBER:
            raise SoqlError("MALFORMED_QUERY", f"field {last.name} does not support aggregate operator {item.function}")
        work = {"COUNT": len, "COUNT_DISTINCT": lambda v: len({_key(last)(x) for x in v}), "SUM": lambda v: sum(v) if v else None,
                "AVG": lambda v: sum(v) / len(v) if v else None, "MIN": lambda v: min(v, default=None), "MAX": lambda v: max(v, default=None)}[item.function]
        return lambda group: work([v for v in map(get, group) if v is not None])


def _like(pattern: str) -> re.Pattern:
    parts = re.findall(r"\\.|.", pattern, flags=re.DOTALL)
    told = "".join(".*" if p == "%" else "." if p == "_" else re.escape(p[-1]) for p in parts)
    return re.compile(told, re.IGNORECASE | re.DOTALL)


def _key(last) -> Callable:
    """How values of a field compare: text without case, ids by their first 15 characters, the rest as it is."""
    if last.type in IDS:
        return lambda v: v[:15]
    return str.lower if last.type in TEXT else lambda v: v


def _sorted(rows: list, get: Callable, descending: bool, last: bool) -> list:
    empty = [r for r in rows if get(r) is None]
    told = sorted((r for r in rows if get(r) is not None), key=get, reverse=descending) if empty else sorted(rows, key=get, reverse=descending)
    return told + empty if last else empty + told


def execute(query: Query, catalog, version: str, *, deleted: bool = False, sobject=None, whole: bool = False) -> Answer:
    """Answer a query; with `deleted` rows in the recycle bin and archived activities count too (queryAll); `whole` leaves LIMIT to the caller."""
    sobject = sobject or catalog.sobject(query.source)
    if sobject is None or not sobject.queryable:
        raise SoqlError("INVALID_TYPE", f"\n{query.text}\n^\nERROR at Row:1:Column:{query.text.upper().find('FROM') + 6}\nsObject type '{query.source}' is not "
                        "supported. If you are attempting to use a custom object, be sure to append the '__c' after the entity name. Please reference "
                        "your WSDL or the describe call for the appropriate names.")
    maker = _Compiler(catalog, sobject, query, version)
    holds = maker.condition(query.where)
    standing = sobject.rows.values() if deleted else [r for r in sobject.rows.values() if not r.get("IsDeleted") and not r.get("IsArchived")]
    rows = [row for row in standing if holds(row)] if query.where else list(standing)
    start, end = (0, None) if whole else (query.offset, None if query.limit is None else query.offset + query.limit)
    if query.counts:
        return Answer(len(rows[start:end]), [], dict, [], list, sobject)
    if query.aggregates:
        told, columns = maker.groups(rows)
        told = told[start:end]
        return Answer(len(told), told, lambda row: {"attributes": {"type": "AggregateResult"}} | row, columns, lambda row: list(row.values()), sobject)
    render, columns, cells = maker.rendering()
    for item, descending, last in reversed(query.order):
        found, get = maker.item(item)
        if not found.sortable:
            raise SoqlError("MALFORMED_QUERY", f"field '{found.name}' can not be sorted in a query call")
        lower = found.type in TEXT
        rows = _sorted(rows, (lambda row, get=get: None if (v := get(row)) is None else v.lower()) if lower else get, descending, last)
    rows = rows[start:end]
    return Answer(len(rows), rows, render, columns, cells, sobject)


