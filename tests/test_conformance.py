"""The same claims over the lake filled from each CRM."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pandas as pd
import pytest

from tests.servers import crms
from tests.servers.organisation import NOW, edits, organisation
from workbench import schema
from workbench.connect.status import sync_status
from workbench.connect.sync import sync
from workbench.features.as_of import as_of_features
from workbench.lake import open_lake

pytestmark = pytest.mark.conformance
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture(scope="module", params=crms.of())
def filled(request, tmp_path_factory):
    """crm, server (four days after NOW), lake (synced each day), first (its version after the first load), late (another lake, synced once, at the end)."""
    crm = request.param
    with crms.stand_in(crm, organisation()) as server, pytest.MonkeyPatch.context() as patch:
        lake = open_lake(tmp_path_factory.mktemp(crm) / "lake", create=True)
        late = open_lake(tmp_path_factory.mktemp(crm) / "late", create=True)
        reports, first = [sync(lake, "crm", crms.connector(crm, server, patch), now=server.org.now)], lake.version
        for day in range(1, 5):
            edits(server.org, day)
            reports.append(sync(lake, "crm", crms.connector(crm, server, patch), now=server.org.now))
        sync(late, "crm", crms.connector(crm, server, patch), now=server.org.now)
        yield SimpleNamespace(crm=crm, server=server, lake=lake, first=first, late=late, reports=reports, patch=patch, entities=crms.LIVE[crm])


def test_no_stream_fails(filled):
    assert [e for r in filled.reports for e in r["error"] if e] == []


def test_the_lake_equals_the_crm_row_for_row(filled):
    assert crms.differences(filled.lake, filled.server) == []


def test_a_lake_that_is_filled_later_shows_the_same_present(filled):
    assert crms.differences(filled.late, filled.server) == []


def test_every_table_that_the_crm_can_tell_has_rows(filled):
    assert [e for e in filled.entities if filled.lake.read(e).empty] == []


def test_histories_have_no_gap_no_overlap_and_no_version_without_a_change(filled):
    assert crms.broken_histories(filled.lake, filled.entities) == [] and crms.broken_histories(filled.late, filled.entities) == []


def test_nothing_is_known_before_its_record_was_created(filled):
    for entity in filled.entities:
        if "created_at" in schema.entity(entity).fields:
            early = filled.lake.sql(f"select id from {entity}_versions where valid_from < created_at").fetchall()
            assert early == []


def test_ids_name_their_source_and_keys_point_to_records(filled):
    """Nothing is known of records that were deleted before the first sync, if the CRM does not tell of them."""
    before = {f"crm:{filled.server.native_id(e, k)}" for e in filled.entities for k, r in filled.server.org.records.get(e, {}).items() if r["deleted_at"] and r["deleted_at"] < NOW}
    for entity in filled.entities:
        rows = filled.lake.sql(f"select * from {entity}_versions")
        assert rows.filter("not starts_with(id, 'crm:')").fetchall() == []
        for field in schema.entity(entity).fields.values():
            if field.references in filled.entities:
                lost = filled.lake.sql(f"select distinct {field.name} from {entity} where {field.name} is not null and {field.name} not in (select id from {field.references}_versions)").fetchall()
                assert {i for i, in lost} <= before, (entity, field.name)


def test_what_no_history_tells_is_empty_before_the_first_sync_and_said_to_be_unknown(filled):
    unknown = filled.lake.fields().query("history_from == @NOW")
    assert len(unknown) > 5
    for row in unknown.itertuples():
        assert filled.lake.sql(f"select count(*) from {row.entity}_versions where {row.field} is not null and valid_to <= TIMESTAMP '{NOW}'").fetchall() == [(0,)], (row.entity, row.field)


def test_nothing_new_makes_no_version(filled):
    before = {e: filled.lake.sql(f"select count(*) from {e}_versions").fetchall() for e in filled.entities}
    for full in (False, True):
        report = sync(filled.lake, "crm", crms.connector(filled.crm, filled.server, filled.patch), now=filled.server.org.now + (DAY if full else HOUR), full=full)
        assert report[["new", "changed", "deleted"]].sum().tolist() == [0, 0, 0] and (report["error"] == "").all(), report
        assert {e: filled.lake.sql(f"select count(*) from {e}_versions").fetchall() for e in filled.entities} == before


def test_a_pinned_version_shows_what_was_known_then(filled):
    then, org = open_lake(filled.lake.path, version=filled.first), organisation()
    with crms.stand_in(filled.crm, org) as server:
        assert crms.differences(then, server) == []


def test_a_deleted_record_stands_until_it_was_deleted(filled):
    entity = "contact"
    gone = filled.lake.sql(f"select id, deleted_at from {entity}_versions where valid_to is null and deleted_at > TIMESTAMP '{NOW}'").fetchall()
    assert gone
    for i, at in gone:
        assert i not in set(filled.lake.read(entity)["id"]) and i in set(filled.lake.read(entity, as_of=at - timedelta(seconds=1))["id"])


@pytest.mark.parametrize("filled", crms.of("salesforce", "pipedrive"), indirect=True)
def test_a_leads_features_are_the_same_whether_it_was_synced_before_or_after_its_conversion(filled):
    """Of the day before each conversion: what activities tell, and what never changes. `late` saw the lead only converted, its activities moved."""
    converted = filled.lake.sql(f"select id, converted_at from lead where is_converted and converted_at > TIMESTAMP '{NOW}' order by id").df()
    assert len(converted) >= 2
    spine = pd.DataFrame({"id": converted["id"], "as_of": pd.Timestamp(NOW)})
    early, late = (as_of_features(lake, "lead", spine) for lake in (filled.lake, filled.late))
    same = [c for c in early if c.startswith("n_") and c not in ("n_visits",) or c in ("days_since_activity", "source", "campaign_id", "age_days")]
    assert len(same) > 8 and early["n_activities"].sum() > 0
    pd.testing.assert_frame_equal(early[same], late[same])


def test_custom_fields_keep_labels_keys_and_options(filled):
    told = filled.lake.sql("select entity, field, native, label, kind, options from custom_field").df()
    assert not told.duplicated(["entity", "field"]).any() and told["field"].str.fullmatch("x_[a-z0-9_]+").all()
    if filled.crm == "agentbox":  # its custom fields are not told; what it tells beyond our fields is kept
        assert len(told) > 5
        return
    by_label = told[told["entity"] == "deal"].set_index("label")
    assert {'Fit "score" (0-100 %)', "Is tender", "Models", "Renews on"} <= set(by_label.index)
    assert "M, wide" in by_label.loc["Models", "options"]
    shown = filled.lake.read("deal")[by_label.loc["Models", "field"]].dropna()
    assert set(shown) <= {"S; M, wide", "L", "S;M, wide"} and len(shown) > 10


def test_status_tells_of_every_stream(filled):
    status = sync_status(filled.lake, filled.server.org.now + DAY)
    assert (status["error"] == "").all() and status["last_success"].notna().all() and status["calls"].sum() > 0
    assert status["lag_hours"].between(0, 49).all()


def test_a_report_tells_how_fresh_each_stream_was(filled, tmp_path):
    from workbench.connect.status import freshness
    from workbench.report.export import render
    told = freshness(filled.lake, filled.server.org.now + DAY)
    told[0]["error"] = "<script>alert(1)</script> refused"
    record = {"name": "x", "status": "ok", "freshness": told}
    page = render("page.html.j2", page={"title": "T", "lead": "", "parts": []}, record=record, standalone=True)
    assert all(f"crm: {r['stream']}" in page for r in told) and "not all could be read" in page and "<script>alert" not in page
