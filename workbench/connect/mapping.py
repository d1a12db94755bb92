"""A mapping: which column of which file is which field, when it became known, and which values mean what (docs/mapping.md)."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

from workbench import schema
from workbench.errors import WorkbenchError

TYPES = tuple(schema.DUCKDB_TYPES)
_FILE_KEYS = {"name", "entity", "columns", "placeholders", "constants", "order_by", "delimiter", "encoding", "sheet"}
_COLUMN_KEYS = {"field", "type", "format", "known_at", "values", "placeholders", "reference", "personal", "ignore", "meaning"}


@dataclass(frozen=True)
class Target:
    """One field that a column feeds."""

    column: str
    field: str
    kind: str
    known_at: str
    format: tuple[str, ...] = ()
    values: dict = field(default_factory=dict)
    placeholders: tuple[str, ...] = ()
    reference: str = ""
    personal: bool = False
    meaning: str = ""


@dataclass(frozen=True)
class FileMapping:
    """One file (a glob is allowed) that holds records of one entity."""

    name: str
    entity: str
    targets: tuple[Target, ...]
    ignored: frozenset
    constants: dict
    order_by: str = ""
    delimiter: str = ""
    encoding: str = ""
    sheet: str = ""


@dataclass(frozen=True)
class Mapping:
    """All files of one source."""

    source: str
    files: tuple[FileMapping, ...]
    exported_at: datetime | None = None
    time_zone: str = "UTC"
    bad_share: float = 0.05


def read_mapping(path: str | Path) -> Mapping:
    """Read and check a mapping file; errors name the key and the nearest right one."""
    path = Path(path)
    if not path.is_file():
        raise WorkbenchError(f"There is no mapping {path}.", fix="Draft one: `workbench mapping FILE... > mapping.toml`.")
    try:
        return parse_mapping(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise WorkbenchError(f"{path} is not UTF-8 text.", fix="A mapping is a TOML file; the data files go with --data FOLDER.") from None


def parse_mapping(text: str, name: str = "mapping") -> Mapping:
    """A mapping from TOML text.

    >>> m = parse_mapping('source="s"\\n[[file]]\\nname="a.csv"\\nentity="lead"\\n[file.columns]\\nId={field="id"}')
    >>> m.files[0].targets[0].field
    'id'
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WorkbenchError(f"{name} is not valid TOML: {error}.", fix="Mend the line that it names.") from None
    _known(raw, {"source", "exported_on", "time_zone", "bad_share", "file"}, name)
    if not re.fullmatch(r"[a-z0-9_]+", str(raw.get("source", ""))):
        raise WorkbenchError(f"{name}: source {raw.get('source')!r} is no source name.", fix="Use a-z, 0-9 and _.")
    if not raw.get("file"):
        raise WorkbenchError(f"{name} names no [[file]].", fix="Draft one: `workbench mapping FILE...`.")
    exported = raw.get("exported_on")
    if isinstance(exported, date) and not isinstance(exported, datetime):
        exported = datetime(exported.year, exported.month, exported.day, 23, 59, 59)
    return Mapping(raw["source"], tuple(_file(f, name) for f in raw["file"]), exported, raw.get("time_zone", "UTC"), float(raw.get("bad_share", 0.05)))


def _known(given: dict, known: set[str], where: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise WorkbenchError(f"{where}: key {key!r} is unknown.", fix=f"Did you mean {near[0]!r}?" if near else f"Keys: {', '.join(sorted(known))}.")


def _file(raw: dict, name: str) -> FileMapping:
    where = f"{name}, file {raw.get('name')!r}"
    _known(raw, _FILE_KEYS, where)
    if not raw.get("name") or not raw.get("entity"):
        raise WorkbenchError(f"{where}: name and entity are needed.", fix="See docs/mapping.md.")
    entity = schema.entity(raw["entity"])
    targets, ignored = [], set()
    for column, told in raw.get("columns", {}).items():
        for one in told if isinstance(told, list) else [told]:
            _known(one, _COLUMN_KEYS, f"{where}, column {column!r}")
            if one.get("ignore"):
                ignored.add(column)
            else:
                targets.append(_target(column, one, entity, raw.get("placeholders", []), where))
    names = [t.field for t in targets]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise WorkbenchError(f"{where}: {', '.join(twice)} is fed by two columns.", fix="Map each field once.")
    return FileMapping(raw["name"], raw["entity"], tuple(targets), frozenset(ignored), raw.get("constants", {}), raw.get("order_by", ""),
                       raw.get("delimiter", ""), raw.get("encoding", ""), raw.get("sheet", ""))


def _target(column: str, one: dict, entity: schema.Entity, placeholders: list, where: str) -> Target:
    name = one.get("field", "")
    known = entity.fields.get(name)
    if name != "id" and known is None and not re.fullmatch(r"x_[a-z0-9_]+", name):
        near = difflib.get_close_matches(name, entity.fields, 1)
        raise WorkbenchError(f"{where}, column {column!r}: {entity.name} has no field {name!r}.",
                             fix=f"Did you mean {near[0]!r}? " * bool(near) + "A field of your own is called x_...")
    kind = "text" if name == "id" else known.kind if known else one.get("type", "text")
    default = "fixed" if name == "id" else known.known_at if known else "assumed"
    told = one.get("known_at", "assumed" if default == "historized" else default)
    if kind not in TYPES or told not in schema.KNOWN_AT:
        raise WorkbenchError(f"{where}, column {column!r}: type {kind!r} or known_at {told!r} is unknown.",
                             fix=f"Types: {', '.join(TYPES)}; known_at: {', '.join(schema.KNOWN_AT)}.")
    formats = one.get("format", [])
    return Target(column, name, kind, told, tuple([formats] if isinstance(formats, str) else formats), one.get("values", {}),
                  tuple(one.get("placeholders", placeholders)), one.get("reference", known.references if known else ""),
                  one.get("personal", bool(known and known.personal)), one.get("meaning", known.meaning if known else f"column {column!r} of the export"))
