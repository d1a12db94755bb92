"""What words mean: every entity and field of the lake, with type, unit, meaning, key, personal or not, known-at.

They are declared in schema.txt, one line a field: `name | type | known_at | flags | meaning`. Types: text, int, float, money,
bool, date, time.
known_at (the default; table `field` overrides it per source): fixed = set once, at creation; historized = every change
is a version; current_only = the CRM tells only today's value; assumed = a mapping's word.
Flags: K key of another entity (K:entity), P personal data, O outcome (known only when the story has ended).
"""

from dataclasses import dataclass
from importlib import resources

from workbench.errors import WorkbenchError

DUCKDB_TYPES = {"text": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "money": "DECIMAL(18,2)", "bool": "BOOLEAN", "date": "DATE",
                "time": "TIMESTAMP"}
KNOWN_AT = ("fixed", "historized", "current_only", "assumed", "outcome")
NEVER_LEARNED = ("current_only", "outcome")  # no training before the caller names the field
ORIGINS = ("crm_history", "sync_diff", "import", "demo")
# The outcome of a lead and a deal as SQL: won, lost (neither = open), and when it was decided.
WON = {"lead": "is_converted", "deal": "is_won"}
LOST = {"lead": "coalesce(is_lost, not is_converted)", "deal": "not is_won"}
CLOSED = {"lead": "coalesce(converted_at, closed_at)", "deal": "closed_at"}


@dataclass(frozen=True)
class Field:
    """One column of an entity."""

    name: str
    kind: str
    known_at: str
    meaning: str
    references: str = ""
    personal: bool = False
    outcome: bool = False


@dataclass(frozen=True)
class Entity:
    """One table of the lake: one row a version of a record."""

    name: str
    meaning: str
    fields: dict[str, Field]


# Every entity has these beside its own; deleted_at and merged_into are set by the version that ends the record.
COMMON = (Field("deleted_at", "time", "historized", "time of deletion"),
          Field("merged_into", "text", "historized", "record that this one was merged into"))
VERSION = (("id", "text", "`<source>:<native id>`"), ("valid_from", "time", "when this version became true"),
           ("valid_to", "time", "when it ceased to be true; empty = current"),
           ("recorded_at", "time", "when the workbench learned of it"), ("origin", "text", "how: " + ", ".join(ORIGINS)))


def _parse() -> dict[str, Entity]:
    entities: dict[str, Entity] = {}
    for line in resources.files("workbench").joinpath("schema.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            name, meaning = line.split(": ", 1)
            entities[name] = Entity(name, meaning, {})
            continue
        column, kind, known_at, told, meaning = (part.strip() for part in line.split("|"))
        flags = told.split()
        reference = next((f[2:] for f in flags if f.startswith("K:")), "")
        entities[name].fields[column] = Field(column, kind, known_at, meaning, reference, personal="P" in flags, outcome="O" in flags)
    for entity in entities.values():
        entity.fields.update({f.name: f for f in COMMON})
    return entities


ENTITIES = _parse()


def entity(name: str) -> Entity:
    """The entity called `name`.

    >>> entity("lead").fields["email"].personal
    True
    """
    if name not in ENTITIES:
        raise WorkbenchError(f"There is no entity {name!r}.", fix=f"Entities: {', '.join(ENTITIES)}.")
    return ENTITIES[name]


def dictionary() -> str:
    """The data dictionary as Markdown (data/dictionary.md), made from the schema alone."""
    out = ["# Data dictionary", "", "Made by `workbench dictionary`; do not edit. Each table holds one row a version of a record.",
           "A field that a mapping or CRM adds is called `x_...` and described in table `field`.", "",
           "Every table begins with:", "", "| column | type | meaning |", "|---|---|---|"]
    out += [f"| {name} | {kind} | {meaning} |" for name, kind, meaning in VERSION]
    for item in ENTITIES.values():
        out += ["", f"## {item.name}", "", item.meaning[0].upper() + item.meaning[1:] + ".", "",
                "| column | type | known at | references | personal | meaning |", "|---|---|---|---|---|---|"]
        out += [f"| {f.name} | {f.kind} | {f.known_at} | {f.references} | {'yes' * f.personal} | {f.meaning} |" for f in item.fields.values()]
    return "\n".join(out) + "\n"
