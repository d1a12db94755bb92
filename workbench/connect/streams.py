"""From a CRM's native rows to the lake's: what a stream is, field maps, custom fields, types, and versions out of changes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from workbench import schema
from workbench.errors import WorkbenchError
from workbench.rows import ARROW, x_name

if TYPE_CHECKING:
    from workbench.connect.http import Budget

Path = str | Callable[[dict], Any]  # where a value stands in a native row: "Owner.Name" (see `at`), "a | b" = the first of two, "=x" = always x; or a function of the row


@dataclass(frozen=True)
class Stream:
    """One kind of object of a CRM, and the table that its rows fill.

    name: the CRM's own word (Opportunity, deals): what errors and `workbench status` say.
    entity: table of the lake ("" = rows that no table of their own holds; `parts` may use them). Two streams of one table differ by `prefix`.
    fields: canonical field -> where its value stands. Ids stay native here: "<source>:" is put before every key field (also
        merged_into, record_id, other_id) by the sync. `deleted_at` and `merged_into` may be mapped like any field.
        None, "" and a value that its type cannot hold (a finding) are missing. Of a lead, is_lost is False while it is open (empty reads as lost).
    cursor: where the stamp of the last modification stands, "" = none: the stream is pulled whole each time, and what is absent is deleted.
    key: where the native id stands. prefix: letters before it where two streams share a table ("task-").
    prefixes: key field -> prefix of the ids that it points to.
    historized: fields whose changes `history` tells, by their canonical names; "*" = the customer's own, too. assumed: fields whose value of today is taken to have stood
        since creation (reports list them); any other field that is not fixed is unknown before the first sync saw it.
    parts: streams made of the same rows (line items within a deal, links of an activity): `each` names the list within the row whose items
        are theirs, each item a dict ({"value": item} where it is none) with the whole row under "_row"; "" = the row itself. A part's key is a
        function or path of that item; None makes no record. within: the part's key field that holds its row's id; items that a row no
        longer has are deleted.
    ordered: pull gives rows by ascending cursor, so that what came before a failure may be kept.
    swept: False where comparing ids is too dear: deletions stay unknown.
    more: what only the connector understands (object name, path of the endpoint ...).
    """

    name: str
    entity: str = ""
    fields: Mapping[str, Path] = field(default_factory=dict)
    cursor: str = ""
    key: Path = "id"
    prefix: str = ""
    prefixes: Mapping[str, str] = field(default_factory=dict)
    historized: frozenset[str] = frozenset()
    assumed: frozenset[str] = frozenset()
    parts: tuple[Stream, ...] = ()
    each: str = ""
    within: str = ""
    ordered: bool = False
    swept: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CustomField:
    """A field of the customer's own, as the CRM describes it now.

    native: its key in the CRM, which stays when the label changes. path: where its value stands in a row. label: as people read it (hostile).
    kind: text, long (text that is kept only as a hash unless keep_bodies), int, float, money, bool, date or time. options: value as in the row (as text) -> label, for choices; a list of values, or a text
    parted by `separator`, is a multi-select and becomes labels joined by "; ". Options that were removed are kept from earlier syncs.
    """

    native: str
    path: Path
    label: str
    kind: str = "text"
    options: Mapping[str, str] = field(default_factory=dict)
    separator: str = ""


class Connector(Protocol):
    """What a CRM must be able to tell. Iterators stream: a batch is one page of the CRM, never a whole table.

    Instants are naive UTC. Anything that fails raises WorkbenchError; the sync adds CRM and stream, keeps that stream's cursor, and goes on.
    """

    name: str  # the CRM: salesforce, pipedrive, agentbox
    streams: Sequence[Stream]  # in the order in which they are pulled
    budget: Budget  # of its HttpClient(s): calls so far, what may still be spent
    # untold (where history is fetched record by record): list of ids that the sync sets before `history`, of records whose changes the lake never heard
    keep_bodies: bool  # long personal text is kept, not only a hash of it

    def check(self) -> list[dict]:
        """What the user behind the credentials may read: one row a stream: stream, entity, readable (bool), rows (or None), history (bool), costs
        (what the models lose where it is denied, "" otherwise)."""
        ...

    def discover(self, stream: Stream) -> list[CustomField]:
        """The customer's own fields of this stream."""
        ...

    def pull(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Native rows modified at or after `since` (None = all), inclusive; a row may come more than once, the one with the latest cursor counts."""
        ...

    def tracked(self, stream: Stream) -> dict[str, datetime | None]:
        """Canonical (or native custom) field -> since when its changes are told for every record (None = since each record's creation); {} = none
        are, or it is known per record only (see history)."""
        ...

    def history(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Changes at or after `since`: id (native, without prefix), at (datetime), field (canonical name, or a custom field's native key),
        old, new (native values). A row with field "" says: this record's changes are told since `at` (None = since its creation)."""
        ...

    def deletions(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Records deleted at or after `since`: id (native), at (datetime), merged_into (native id or None)."""
        ...

    def ids(self, stream: Stream) -> Iterator[list[str]] | None:
        """Native ids of every record that stands, for the periodic sweep; None where there is no cheaper way than a whole pull."""
        ...


def with_fields(streams: Iterable[Stream], fields: Mapping[str, Mapping[str, str]]) -> list[Stream]:
    """The streams with the customer's own field map over them, [sources.NAME.fields.ENTITY] canonical = "native path"."""
    for entity, told in fields.items():
        if unknown := set(told) - set(schema.entity(entity).fields):
            raise WorkbenchError(f"[sources.NAME.fields.{entity}]: {', '.join(sorted(unknown))} is no field.", fix="`workbench dictionary` lists them.")
    return [replace(s, fields={**s.fields, **fields.get(s.entity, {})}) for s in streams]


# ---- types: whatever JSON holds -> the Python value of a kind; ValueError where it is none of it
def _number(value: Any) -> Decimal:
    number = Decimal(str(value).strip())
    if isinstance(value, bool) or not number.is_finite() or abs(number) >= 10**18:
        raise ValueError
    return number


def _int(value: Any) -> int:
    if (number := _number(value)) != number.to_integral_value():
        raise ValueError
    return int(number)


def _money(value: Any) -> Decimal:
    return _number(value).quantize(Decimal("0.01"), "ROUND_HALF_UP") if abs(_number(value)) < 10**15 else _number("refused")


def _bool(value: Any) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).strip().lower()]


def _date(value: Any) -> date:
    return value if type(value) is date else (value.date() if isinstance(value, datetime) else date.fromisoformat(value[:10]))


def _time(value: Any) -> datetime:
    instant = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return instant if instant.tzinfo is None else instant.astimezone(UTC).replace(tzinfo=None)


def _text(value: Any, before: str = "") -> str:
    if isinstance(value, (list, tuple)):
        return before + "; ".join(map(_text, value))
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value).lower() if isinstance(value, bool) else str(value)
    return before + (text if text.isascii() and "\0" not in text else re.sub("[\0\ud800-\udfff]", "\ufffd", text))  # what Parquet cannot hold


def _hashed(value: Any) -> str:
    return "blake2b:" + hashlib.blake2b(_text(value).encode(), digest_size=16).hexdigest()


_KINDS: dict[str, Callable[[Any], Any]] = {"text": _text, "long": _hashed, "int": _int, "float": lambda v: float(_number(v)), "money": _money, "bool": _bool, "date": _date, "time": _time}
_MISSING: tuple = (None, "", [], {})


def at(row: Any, *paths: str) -> Any:
    """The first value that is told at one of the paths ("a.b"); a list on the way stands for its primary element, else its first."""
    for path in paths:
        value = row
        for name in path.split("."):
            value = next((e for e in value if isinstance(e, dict) and e.get("primary")), value[0]) if isinstance(value, list) and value else value
            value = value.get(name) if isinstance(value, dict) else None
        if value not in _MISSING:
            return value
    return None


def _getter(path: Path) -> Callable[[dict], Any]:
    if callable(path):
        return path
    if path[0] == "=":
        return lambda row: path[1:]
    paths = path.split(" | ")
    return (lambda row: at(row, *paths)) if "." in path or len(paths) > 1 else lambda row: row.get(path)


def _labelled(custom: CustomField, value: Any) -> Any:
    """Choices by their labels; what is no option any more stays as it is."""
    several = value if isinstance(value, list) else _text(value).split(custom.separator) if custom.separator else [value]
    return "; ".join(custom.options.get(_text(v), _text(v)) for v in several)


class Mapper:
    """Turns the native rows of a stream (or part) into an Arrow table: id, _stamp (of the cursor), _n (order of arrival), then typed columns.

    custom: the customer's own fields by the name that they have in the lake. bad: column -> [values that its type cannot hold, one id of them].
    """

    def __init__(self, stream: Stream, source: str, custom: Mapping[str, CustomField], *, keep_bodies: bool = False, stamp: Path = ""):
        self.stream, self.n, self.bad, self.keep_bodies = stream, 0, dict[str, list](), keep_bodies
        known, self.source = schema.entity(stream.entity).fields, source
        told = {c.path: c for c in custom.values() if isinstance(c.path, str)}
        self.columns: dict[str, tuple[str, Callable, Callable]] = {}  # name -> (kind, where it stands, what makes a value of it)
        for name, path in stream.fields.items():
            kind = "time" if name == "created_at" else known[name].kind  # a birth that the table has no column for
            points = known[name].references or name in ("merged_into", "record_id", "other_id") if name in known else ""
            before = f"{source}:{stream.prefixes.get(name, stream.prefix if name == 'merged_into' else '')}"
            make = partial(_text, before=before) if points else self.maker(
                "long" if name == "body" else kind, told.get(path) if isinstance(path, str) else None)
            self.columns[name] = kind, _getter(path), make
        for name, c in custom.items():
            if c.path not in stream.fields.values():
                self.columns[name] = "text" if c.kind == "long" else c.kind, _getter(c.path), self.maker(c.kind, c)
        self._id, self._stamp = _getter(stream.key), _getter(stamp) if stamp else lambda row: None
        self.schema = pa.schema([("id", pa.string()), ("_stamp", ARROW["time"]), ("_n", pa.int64()), *((n, ARROW[k]) for n, (k, _, _) in self.columns.items())])

    def maker(self, kind: str, custom: CustomField | None) -> Callable[[Any], Any]:
        """What makes a value of `kind` of a native one."""
        make = _KINDS["text" if kind == "long" and self.keep_bodies else kind]
        return (lambda value: make(_labelled(custom, value))) if custom and custom.options else make

    def rows(self, batch: list[dict]) -> list[dict]:
        """The rows of this stream within a batch: the batch itself, or the items of a part."""
        if not self.stream.each:
            return batch
        items = ((row, item) for row in batch for item in _getter(self.stream.each)(row) or [])
        return [{**(item if isinstance(item, dict) else {"value": item}), "_row": row} for row, item in items]

    def id_of(self, native: Any) -> str:
        """A native id as the lake's."""
        return f"{self.source}:{self.stream.prefix}{_text(native)}"

    def table(self, batch: list[dict]) -> pa.Table:
        """The batch in the lake's words; rows without an id are counted under `id`."""
        kept = [(i, row) for row in self.rows(batch) if (i := self._id(row)) not in _MISSING]
        ids = [self.id_of(i) for i, _ in kept]
        data: list[Any] = [ids, self._made("_stamp", "time", _time, [self._stamp(row.get("_row", row)) for _, row in kept], ids), range(self.n, self.n + len(kept))]
        self.n += len(kept)
        for name, (kind, get, make) in self.columns.items():
            data.append(self._made(name, kind, make, [get(row) for _, row in kept], ids))
        return pa.Table.from_arrays([pa.array(values, t.type) for values, t in zip(data, self.schema, strict=True)], schema=self.schema)

    def _made(self, name: str, kind: str, make: Callable, values: list, ids: list[str]) -> list:
        try:
            return [None if v in _MISSING else make(v) for v in values]
        except (ValueError, TypeError, KeyError, InvalidOperation, OverflowError, AttributeError):
            return [self.value(name, make, v, i) for v, i in zip(values, ids, strict=True)]

    def value(self, name: str, make: Callable, native: Any, record: str) -> Any:
        """One value; None, and counted, where its type cannot hold it."""
        try:
            return None if native in _MISSING else make(native)
        except (ValueError, TypeError, KeyError, InvalidOperation, OverflowError, AttributeError):
            self.bad.setdefault(name, [0, record])[0] += 1
            return None

    def told(self, change: dict) -> dict | None:
        """A change of `Connector.history` in the lake's words: id, moment, field, old, new (as text); None for a field that is not kept."""
        name, record = change["field"], self.id_of(change["id"])
        if name and name not in self.columns:
            return None
        texts = {}
        for side in ("old", "new") if name else ():
            value = self.value(name, self.columns[name][2], change[side], record)
            texts[side] = None if value is None else value.isoformat() if isinstance(value, date) else _text(value)
        return {"id": record, "moment": change["at"], "field": name, "old": texts.get("old"), "new": texts.get("new")}


def named_fields(found: Iterable[CustomField], known: list[dict], taken: Mapping[str, str]) -> dict[str, CustomField]:
    """Each custom field by its name in the lake: the one that it had (rows `known` of table custom_field: field, native, kind), else one made of its label.

    A field whose type changed gets another column, and comes back to the old one with the old type. taken: column -> DuckDB type of the table.
    """
    had, out = {(k["native"], k["kind"]): k["field"] for k in known}, dict[str, CustomField]()
    for custom in found:
        kind = schema.DUCKDB_TYPES["text" if custom.kind == "long" else custom.kind]
        label = x_name(custom.label)[:60].rstrip("_")
        base = label if len(label) > 1 else x_name(custom.native)
        others = {k["field"] for k in known} | set(out)
        names = (base, f"{base}_{custom.kind}", *(f"{base}_{custom.kind}_{n}" for n in range(2, 1000)))
        name = had.get((custom.native, custom.kind)) or next(n for n in names if n not in others and taken.get(n, kind) == kind)
        options: dict = next((json.loads(k["options"]) for k in known if k["native"] == custom.native and k["options"]), {})
        out[name] = replace(custom, options={**options, **custom.options}) if custom.options else custom
    return out
