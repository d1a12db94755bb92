"""The schema is complete and means what its names say; the dictionary is what it makes."""

from pathlib import Path

import pandas as pd
import pytest

from workbench import rows, schema
from workbench.errors import WorkbenchError
from workbench.lake import open_lake

FIELDS = [(e.name, f) for e in schema.ENTITIES.values() for f in e.fields.values()]


def test_the_data_dictionary_is_fresh():
    assert Path("data/dictionary.md").read_text(encoding="utf-8") == schema.dictionary(), "run `workbench dictionary`"


def test_the_dictionary_tells_every_field_and_its_flags():
    text = schema.dictionary()
    for name, field in FIELDS:
        part = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert f"| {field.name} | {field.kind} | {field.known_at} | {field.references} | {'yes' if field.personal else ''} | {field.meaning} |" in part


@pytest.mark.parametrize(("entity", "field"), FIELDS, ids=lambda x: getattr(x, "name", x))
def test_a_field_has_a_known_type_meaning_and_reference(entity, field):
    assert field.kind in schema.DUCKDB_TYPES and field.kind in rows.ARROW and field.known_at in schema.KNOWN_AT and field.meaning
    assert field.references in ("", *schema.ENTITIES)
    assert field.outcome == (field.known_at == "outcome")
    # the end of a name says the unit
    assert field.name.endswith("_at") == (field.kind == "time") and field.name.endswith(("_on", "on_date")) == (field.kind == "date")
    if field.kind == "money":
        assert "currency" in schema.entity(entity).fields


def test_an_unknown_entity_is_told_with_the_known_ones():
    with pytest.raises(WorkbenchError, match="no entity 'opportunity'.*lead, deal, activity"):
        schema.entity("opportunity")


def test_every_entity_makes_a_table_of_its_columns_and_types(tmp_path):
    lake = open_lake(tmp_path, create=True)
    with lake.writer():
        for name in schema.ENTITIES:
            lake.load_versions(name, pd.DataFrame({"id": ["s:1"], "valid_from": [pd.Timestamp("2024-01-01")]}))
    for name, entity in schema.ENTITIES.items():
        expected = {c: schema.DUCKDB_TYPES[k] for c, k, _ in schema.VERSION} | {f.name: schema.DUCKDB_TYPES[f.kind] for f in entity.fields.values()}
        assert lake.column_types(name) == expected and len(lake.read(name)) == 1


def test_an_unknown_column_becomes_a_custom_field_and_is_told(tmp_path):
    lake = open_lake(tmp_path, create=True)
    lake.upsert("lead", pd.DataFrame({"id": ["s:1"], "Lead Score": [7], "x_tag": ["a"]}), at=pd.Timestamp("2024-01-01"))
    assert lake.read("lead", columns=["x_lead_score", "x_tag"]).iloc[0].to_dict() == {"x_lead_score": 7, "x_tag": "a"}
    told = lake.fields()[["source", "entity", "field", "known_at"]].values.tolist()
    assert told == [["s", "lead", "x_lead_score", "assumed"], ["s", "lead", "x_tag", "assumed"]]


@pytest.mark.parametrize(("frame", "message"), [
    ({"name": ["A"]}, "lead: column id is missing"),
    ({"id": ["s:1"], "Tag": ["a"], "x_tag": ["b"]}, "column 'Tag' cannot be told by name from another; column 'x_tag' cannot"),
    ({"id": ["s:1"], "***": ["a"]}, r"column '\*\*\*' cannot be told"),
    ({"id": ["s:1", "s:2"], "n_visits": ["3", "many"]}, "s:2: n_visits = 'many' is no bigint"),
    ({"id": ["s:1", "s:1"]}, "s:1 stands twice"),
    ({"id": ["1"]}, "id '1' is not <source>:<native id>"),
])
def test_what_breaks_the_schema_is_refused_with_rows_and_columns(tmp_path, frame, message):
    lake = open_lake(tmp_path, create=True)
    with pytest.raises(WorkbenchError, match=message):
        lake.upsert("lead", pd.DataFrame(frame), at=pd.Timestamp("2024-01-01"))
    assert open_lake(tmp_path).version == -1


def test_versions_lists_every_publish_and_an_old_one_outlives_compact_and_vacuum(tmp_path):
    lake = open_lake(tmp_path, create=True)
    for n in range(4):
        lake.upsert("lead", pd.DataFrame({"id": [f"s:{n}"], "status": [f"S{n}"]}), at=pd.Timestamp("2024-01-01") + pd.Timedelta(days=n))
    listed = lake.versions()
    assert listed["version"].tolist() == [3, 2, 1, 0] and listed["tables"].tolist() == [1] * 4 and listed["published_at"].is_monotonic_decreasing
    lake.compact()
    published = lake.versions()["published_at"].max().to_pydatetime()
    assert lake.version == 4 and lake.vacuum(published + pd.Timedelta(days=89)) == 0  # every version is younger than 90 days
    assert open_lake(tmp_path, version=0).read("lead")["status"].tolist() == ["S0"]
    assert lake.vacuum(published + pd.Timedelta(days=91)) > 0  # now only the latest must stay
    assert open_lake(tmp_path).read("lead")["status"].tolist() == ["S0", "S1", "S2", "S3"]
    with pytest.raises(WorkbenchError, match="vacuumed"):
        open_lake(tmp_path, version=0).read("lead")
