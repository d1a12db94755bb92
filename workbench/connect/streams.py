"""From a CRM's native rows to the lake's: what a stream is, field maps, custom fields, types, and versions out of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from workbench.connect.http import Budget

Path = str | Callable[[dict], Any]  # where a value stands in a native row: "Owner.Name", or a function of the row


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
    historized: fields whose changes `history` tells, by their canonical names. assumed: fields whose value of today is taken to have stood
        since creation (reports list them); any other field that is not fixed is unknown before the first sync saw it.
    parts: streams made of the same rows (line items within a deal, links of an activity): `each` names the list within the row whose items
        are theirs, each item a dict ({"value": item} where it is none) with the whole row under "_row"; "" = the row itself. A part's key is a
        function or path of that item; None makes no record. within: the part's key field that holds its row's id; items that a row no
        longer has are deleted.
    ordered: pull gives rows by ascending cursor, so that what came before a failure may be kept.
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
