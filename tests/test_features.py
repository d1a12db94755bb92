"""Features as of t equal the features of a lake to which only what happened up to t was ever told, whatever happened later."""

import os
import re
import tempfile
from datetime import datetime, timedelta

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.features import as_of
from workbench.features.as_of import as_of_connection, as_of_features, custom_fields, feature_sql
from workbench.lake import open_lake

LEADS, DEALS = ("s:l1", "s:l2"), ("s:d1", "s:d2", "s:d9")
KINDS = {"created_at": "datetime64[us]", "happened_at": "datetime64[us]", "converted_at": "datetime64[us]", "closed_at": "datetime64[us]", "deleted_at": "datetime64[us]",
         "is_converted": "boolean", "is_lost": "boolean", "is_won": "boolean", "is_done": "boolean", "amount": "float64"}
LINKS = ("lead_id", "contact_id", "deal_id")


def hour(n: float) -> datetime:
    return datetime(2024, 1, 1) + timedelta(hours=n)


class World:
    """What happened, told plainly: (entity, id) -> [(instant, what changed)]."""

    def __init__(self):
        self.events: dict[tuple[str, str], list[tuple[datetime, dict]]] = {}
        self.lead_of: dict[str, str] = {}  # activity -> the lead that it was entered for

    def tell(self, entity: str, record: str, at: datetime, **change) -> None:
        self.events.setdefault((entity, record), []).append((at, change))

    def state(self, entity: str, record: str, at: datetime) -> dict | None:
        """The record as it stood at an instant; None = not there yet, or gone."""
        known = [c for t, c in self.events.get((entity, record), []) if t <= at]
        state = {k: v for c in known for k, v in c.items()}
        return state if known and state.get("deleted_at") is None else None

    def lake(self, folder: str, until: datetime, silent: bool, cuts: dict) -> object:
        """A lake to which everything up to `until` was told; `silent`: its CRM moves activities without a history of the move."""
        lake, rows = open_lake(folder, create=True), {}
        for (entity, record), events in self.events.items():
            told = [(t, c) for t, c in events if t <= until]
            last = {k: v for _, c in told for k, v in c.items()}
            for t in sorted({t for t, _ in told}):
                state = {k: v for at, c in told if at <= t for k, v in c.items()}
                if silent and entity == "activity":
                    state |= {k: last.get(k) for k in LINKS}
                rows.setdefault(entity, []).append({"id": record, "valid_from": t} | state)
        with lake.writer():
            for entity, versions in rows.items():
                frame = pd.DataFrame(versions)
                frame = frame.astype({c: KINDS.get(c, object) for c in frame if c not in ("id", "valid_from")})
                lake.load_versions(entity, frame.astype({c: object for c in frame.select_dtypes("str") if c != "id"}), origin="crm_history")
            lake.set_fields([{"source": "s", "entity": e, "field": f, "known_at": "historized", "history_from": hour(n)} for (e, f), n in cuts.items()]
                            + [{"source": "s", "entity": "lead", "field": "x_tag", "known_at": "historized"}])
        return lake


def happen(world: World, steps: list[tuple]) -> list[datetime]:
    """Let the steps happen one after the other; the instants at which anything did."""
    now, n = 0.0, 0
    world.tell("account", "s:a1", hour(0), name="A", industry="Steel")
    world.tell("deal", "s:d9", hour(0), created_at=hour(0), stage="New", account_id="s:a1", amount=5.0)
    for kind, gap, i, value in steps:
        now += gap
        at, lead, deal = hour(now), LEADS[i % 2], ("s:d9", *DEALS)[i]
        there = {e: world.state(e, r, at) for e, r in (("lead", lead), ("deal", deal))}
        if kind == "lead" and ("lead", lead) not in world.events:
            world.tell("lead", lead, at, created_at=at, name="L", status="New", source=value, x_tag=value)
        elif kind == "edit" and there["lead"]:
            world.tell("lead", lead, at, status=value, x_tag=value)
        elif kind == "convert" and there["lead"] and not there["lead"].get("is_converted"):
            contact, born = lead.replace("l", "c"), lead.replace("l", "d")
            world.tell("contact", contact, at, created_at=at, name="C")
            if value == "a":
                world.tell("deal", born, at, created_at=at, stage="New", account_id="s:a1", source_lead_id=lead)
            world.tell("lead", lead, at, is_converted=True, converted_at=at, closed_at=at, converted_contact_id=contact,
                       converted_deal_id=born if value == "a" else None)
            for task in [t for t, of in world.lead_of.items() if of == lead and world.state("activity", t, at)]:
                world.tell("activity", task, at, lead_id=None, contact_id=contact, deal_id=born if value == "a" else None)
        elif kind in ("delete", "merge") and there["lead"]:
            world.tell("lead", lead, at, deleted_at=at, merged_into=LEADS[(i + 1) % 2] if kind == "merge" else None)
        elif kind == "revive" and ("lead", lead) in world.events and not there["lead"]:
            world.tell("lead", lead, at, deleted_at=None, merged_into=None)
        elif kind == "deal" and there["deal"]:
            world.tell("deal", deal, at, stage=value, amount=float(now), is_won={"a": True, "b": None}.get(value), closed_at=at if value == "a" else None)
        elif kind == "account":
            world.tell("account", "s:a1", at, industry=value)
        elif kind in ("log", "plan"):
            n += 1
            for_lead = value != "c" and there["lead"] and not there["lead"].get("is_converted")
            if for_lead or there["deal"]:
                late = {"a": -30, "b": 0, "c": 10}[value] if kind == "log" else 20
                world.tell("activity", f"s:t{n}", at, created_at=at, happened_at=at + timedelta(hours=late), kind="call", direction="in", subject="s",
                           is_done=None if kind == "log" and i == 2 else kind == "log", **({"lead_id": lead} if for_lead else {"deal_id": deal}))
                world.lead_of |= {f"s:t{n}": lead} if for_lead else {}
        elif kind in ("do", "text", "drop") and n and world.state("activity", task := f"s:t{1 + i % n}", at):
            world.tell("activity", task, at, **{"do": {"is_done": True}, "text": {"subject": value, "kind": "meeting"}, "drop": {"deleted_at": at}}[kind])
    return sorted({t for events in world.events.values() for t, _ in events})


def expected(world: World, entity: str, record: str, t: datetime) -> dict | None:
    """Some features of a record at t, counted by hand."""
    state = world.state(entity, record, t)
    n_done = n_planned = 0
    for kind, task in [key for key in world.events if key[0] == "activity"]:
        a = world.state(kind, task, t)
        if a is None or state is None or (world.lead_of.get(task) if entity == "lead" else a.get("deal_id")) != record:
            continue
        told_later = max(at for at, _ in world.events[kind, task] if at <= t) > a["created_at"]
        n_done += a["is_done"] is not False and (a["happened_at"] <= t or told_later)
        n_planned += a["is_done"] is False and a["happened_at"] > t
    account = world.state("account", "s:a1", t) if entity == "deal" and state and state.get("account_id") else None
    return {"n_activities": n_done, "n_planned": n_planned, "stage" if entity == "deal" else "status": state and state.get("stage" if entity == "deal" else "status")} | (
        {"account_industry": account and account["industry"]} if entity == "deal" else {})


def check(steps: list[tuple], silent: bool, cuts: dict, offsets: list[tuple[int, float]]) -> None:
    world = World()
    happened = happen(world, steps)
    instants = sorted({happened[i % len(happened)] + timedelta(hours=h) for i, h in offsets})
    with tempfile.TemporaryDirectory() as folder:
        full = world.lake(f"{folder}/full", happened[-1], silent, cuts)
        for entity, records in (("lead", LEADS), ("deal", DEALS)):
            spine = pd.DataFrame([(r, t) for t in instants for r in records], columns=["id", "as_of"])
            features = as_of_features(full, entity, spine)
            for k, t in enumerate(instants):
                then = world.lake(f"{folder}/{k}", t, silent, cuts) if entity == "lead" else open_lake(f"{folder}/{k}")
                mine = features.iloc[len(records) * k:len(records) * (k + 1)].reset_index(drop=True)
                stood = as_of_features(then, entity, spine[spine["as_of"] == t])
                assert mine[[c for c in mine if c not in stood]].isna().all(axis=None)  # a field of which nobody knew at t
                pd.testing.assert_frame_equal(mine[list(stood)], stood)
                for row, record in zip(mine.to_dict("records"), records, strict=True):
                    told = {f: v for f, v in expected(world, entity, record, t).items() if (entity, f) not in cuts or t >= hour(cuts[entity, f])}
                    assert {f: None if pd.isna(row[f]) else row[f] for f in told} == told


kinds = st.sampled_from(["lead", "lead", "edit", "convert", "delete", "merge", "revive", "deal", "account", "log", "log", "log", "plan", "plan", "do", "text", "drop"])
step = st.tuples(kinds, st.sampled_from([0, 1, 7, 50]), st.integers(0, 3), st.sampled_from("abc"))
start = st.permutations([("lead", 1, 0, "a"), ("lead", 2, 1, "b"), ("log", 3, 0, "a"), ("plan", 1, 1, "b"), ("log", 1, 0, "b")])
cuts = st.dictionaries(st.sampled_from([("lead", "status"), ("lead", "x_tag"), ("deal", "stage"), ("deal", "amount")]), st.integers(0, 150), max_size=2)
offsets = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([-200, -.5, 0, .5, 12, 1000])), min_size=1, max_size=3)
quick = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.explicit, Phase.reuse, Phase.generate))


# one story with everything in it: logged before it happens, planned and done early, done or not unsaid, a silent move, a deal that is yet to come
STORY = [("lead", 1, 0, "a"), ("lead", 1, 1, "b"), ("log", 1, 0, "b"), ("log", 1, 0, "c"), ("plan", 1, 0, "c"), ("do", 5, 2, "a"), ("log", 7, 2, "a"), ("log", 1, 2, "c"), ("convert", 9, 0, "a")]


@quick
@example([], STORY, True, {}, [(2, .5), (5, .5), (6, .5), (7, .5), (8, .5), (9, 20)])
@given(start, st.lists(step, max_size=8), st.booleans(), cuts, offsets)
def test_features_equal_those_of_the_lake_as_it_stood(before, steps, silent, cut, when):
    check(before + steps, silent, cut, when)


@pytest.mark.soak
@settings(quick, max_examples=int(os.environ.get("SOAK_EXAMPLES", 400)))
@given(start, st.lists(step, max_size=30), st.booleans(), cuts, offsets)
def test_features_equal_those_of_the_lake_as_it_stood_over_long_histories(before, steps, silent, cut, when):
    check(before + steps, silent, cut, when)


def load(lake, entity: str, rows: list[dict], **more) -> None:
    frame = pd.DataFrame(rows)
    lake.load_versions(entity, frame.astype({c: k for c, k in KINDS.items() if c in frame}), origin="crm_history", **more)


def features_of(lake, entity: str, *rows: tuple[str, datetime], allow=None) -> list[dict]:
    return as_of_features(lake, entity, pd.DataFrame(rows, columns=["id", "as_of"]), allow).to_dict("records")


@pytest.fixture
def lake(tmp_path):
    return open_lake(tmp_path, create=True)


def migrated(n: int) -> list[dict]:
    """n activities of deal s:d1, one a day from day 0 on, all of them entered at day 100."""
    return [{"id": f"s:t{k}", "valid_from": hour(2400), "created_at": hour(2400), "happened_at": hour(24 * k), "kind": "call", "is_done": True, "deal_id": "s:d1"} for k in range(n)]


def test_a_migrated_batch_counts_from_when_it_happened_and_is_flagged(lake):
    load(lake, "deal", [{"id": "s:d1", "valid_from": hour(0), "created_at": hour(0)}])
    load(lake, "activity", migrated(50) + [{"id": "s:own", "valid_from": hour(2400), "created_at": hour(2400), "happened_at": hour(2400), "is_done": True, "deal_id": "s:d1"}])
    day_20, day_99, day_100 = features_of(lake, "deal", ("s:d1", hour(480)), ("s:d1", hour(2399)), ("s:d1", hour(2400)))
    # days 0 to 20 are 21 activities; the one that really happened at day 100 counts from then
    assert [r["n_activities"] for r in (day_20, day_99, day_100)] == [21, 50, 51]
    assert day_20["has_migrated_activities"] and day_20["days_since_activity"] == 0


def test_fewer_than_a_batch_entered_at_one_instant_count_from_their_entry(lake):
    load(lake, "deal", [{"id": "s:d1", "valid_from": hour(0), "created_at": hour(0)}])
    load(lake, "activity", migrated(49))
    before, then = features_of(lake, "deal", ("s:d1", hour(2399)), ("s:d1", hour(2400)))
    assert (before["n_activities"], then["n_activities"]) == (0, 49) and not then["has_migrated_activities"]


def test_a_lead_does_not_inherit_what_an_older_contact_did_before(lake):
    lead = {"id": "s:l1", "created_at": hour(10)}
    load(lake, "contact", [{"id": "s:c1", "valid_from": hour(0), "created_at": hour(0)}])
    load(lake, "lead", [lead | {"valid_from": hour(10)}, lead | {"valid_from": hour(40), "is_converted": True, "converted_at": hour(40), "converted_contact_id": "s:c1"}])
    load(lake, "activity", [{"id": "s:t1", "valid_from": hour(20), "created_at": hour(20), "happened_at": hour(20), "contact_id": "s:c1", "is_done": True}])
    assert features_of(lake, "lead", ("s:l1", hour(30)))[0]["n_activities"] == 0  # else only leads that convert would have it


def test_the_first_of_two_leads_that_became_one_contact_keeps_the_activities(lake):
    load(lake, "contact", [{"id": "s:c1", "valid_from": hour(40), "created_at": hour(40)}])
    for k, at in ((1, 40), (2, 50)):
        lead = {"id": f"s:l{k}", "created_at": hour(10)}
        load(lake, "lead", [lead | {"valid_from": hour(10)}, lead | {"valid_from": hour(at), "is_converted": True, "converted_at": hour(at), "converted_contact_id": "s:c1"}])
    load(lake, "activity", [{"id": "s:t1", "valid_from": hour(20), "created_at": hour(20), "happened_at": hour(20), "contact_id": "s:c1", "is_done": True}])
    first, second = features_of(lake, "lead", ("s:l1", hour(30)), ("s:l2", hour(30)))
    assert (first["n_activities"], second["n_activities"]) == (1, 0)


def test_fields_known_only_now_or_only_at_the_end_read_as_null_unless_named(lake):
    load(lake, "lead", [{"id": "s:l1", "valid_from": hour(0), "created_at": hour(0), "rating": "hot", "x_grade": "A", "x_end": 1},
                        {"id": "r:l1", "valid_from": hour(0), "created_at": hour(0), "rating": "cold", "x_grade": "B", "x_end": 2}])
    lake.set_fields([{"source": "s", "entity": "lead", "field": "rating", "known_at": "current_only"}, {"source": "s", "entity": "lead", "field": "x_grade", "known_at": "current_only"},
                     {"source": "s", "entity": "lead", "field": "x_end", "known_at": "outcome"}, {"source": "r", "entity": "lead", "field": "x_end", "known_at": "outcome"}])
    own, other = features_of(lake, "lead", ("s:l1", hour(1)), ("r:l1", hour(1)))
    assert pd.isna(own["rating"]) and pd.isna(own["x_grade"]) and "x_end" not in own  # x_end: no source may use it
    assert (other["rating"], other["x_grade"]) == ("cold", "B")
    named = features_of(lake, "lead", ("s:l1", hour(1)), allow=["rating", "x_end"])[0]
    assert (named["rating"], named["x_end"]) == ("hot", 1) and pd.isna(named["x_grade"])


def test_time_since_the_last_change_is_unknown_where_changes_were_not_recorded(lake):
    load(lake, "deal", [{"id": "s:d1", "valid_from": hour(0), "stage": "New"}, {"id": "s:d1", "valid_from": hour(48), "stage": "Won"}])
    lake.set_fields([{"source": "s", "entity": "deal", "field": "stage", "known_at": "historized", "history_from": hour(24)}])
    early, late = features_of(lake, "deal", ("s:d1", hour(36)), ("s:d1", hour(72)))
    assert early["stage"] == "New" and pd.isna(early["days_since_change"]) and late["days_since_change"] == 1


def test_a_custom_text_of_many_values_is_no_feature_and_a_date_becomes_days(lake):
    n = as_of.TEXT_LEVELS + 1
    load(lake, "lead", [{"id": f"s:l{k}", "valid_from": hour(0), "x_note": f"n{k}", "x_band": "ab"[k % 2], "x_renewal": hour(-48)} for k in range(n)])
    assert custom_fields(lake, "lead", []) == ["x_band", "x_renewal"]
    assert features_of(lake, "lead", ("s:l1", hour(0)))[0]["x_renewal"] == 2


def test_rows_come_in_the_order_of_the_spine_and_an_unknown_record_is_a_row_of_nulls(lake):
    load(lake, "deal", [{"id": f"s:d{k}", "valid_from": hour(0), "stage": f"S{k}"} for k in (1, 2)])
    rows = features_of(lake, "deal", ("s:d2", hour(1)), ("s:nobody", hour(1)), ("s:d1", hour(1)), ("s:d2", hour(1)), ("s:d1", hour(-1)))
    assert [None if pd.isna(r["stage"]) else r["stage"] for r in rows] == ["S2", None, "S1", "S2", None]
    assert as_of_features(lake, "deal", pd.DataFrame({"id": [], "as_of": []})).empty


def test_there_are_features_of_leads_and_deals_only(lake):
    with pytest.raises(WorkbenchError, match="no features of 'contact'"):
        as_of_features(lake, "contact", pd.DataFrame({"id": [], "as_of": []}))


@pytest.mark.parametrize("entity", ["lead", "deal"])
def test_feature_sql_sees_the_spine_and_as_of_views_and_nothing_else(lake, entity):
    load(lake, "deal", [{"id": "s:d1", "valid_from": hour(0), "stage": "Won"}])
    sql = feature_sql(lake, entity, [])
    connection = as_of_connection(lake, entity, pd.DataFrame({"id": ["s:d1"], "as_of": [hour(1)]}), [], sql)
    there = {r[0] for r in connection.sql("select table_name from information_schema.tables").fetchall()}
    assert there == {"spine", f"{entity}_at", "activity_at"} | ({"account_at", "product_at"} if entity == "deal" else set())
    for name in there:  # not even a view tells when a version ends, is deleted, or was learned of
        assert not {"valid_to", "deleted_at", "merged_into", "recorded_at"} & set(connection.sql(f"select * from {name} limit 0").columns)
    for hidden in ("deal_versions", "deal", "activity", "field", "given", "spine_rows"):
        with pytest.raises(duckdb.CatalogException, match="does not exist"):
            connection.sql(f"select * from {hidden}")
    told = connection.execute("select json_serialize_sql($1)::varchar", [sql]).fetchall()[0][0]
    assert set(re.findall(r'"table_name":"(\w+)"', told)) <= there | {"activity"}  # activity: the file's own first step
    assert '"BASE_TABLE"' in told and '"TABLE_FUNCTION"' not in told  # such as read_parquet('...')
