"""Worlds of the demo: read from files, the same for a seed, true chances that come true, and three ways to hide a conversion that features see through."""

import json
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from workbench import cli
from workbench.connect import demo, demo_leaks
from workbench.connect import demo_world as w
from workbench.connect.demo_worlds import SECTIONS, World, read_world
from workbench.errors import WorkbenchError
from workbench.features.as_of import as_of_features
from workbench.features.snapshots import snapshots
from workbench.lake import open_lake

SHIPPED = sorted((Path(__file__).parent.parent / "data" / "worlds").glob("*.toml"))
NAMES = {p.stem: p for p in SHIPPED}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(demo.SIZES, "tiny", (700, 280, 8, .55, True))
        yield


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """A lake of a world, made once for each."""
    lakes = {}

    def made(name, size="tiny", **changes):
        key = (name, size, *changes.items())
        if key not in lakes:
            folder = tmp_path_factory.mktemp(name)
            lake = open_lake(folder / "lake", create=True)
            demo.make_demo(lake, size=size, world=replace(read_world(NAMES[name]), **changes), truth=folder / "truth")
            lakes[key] = lake
        return lakes[key]
    return made


def truth(lake):
    return pd.read_parquet(lake.path.parent / "truth" / "lead.parquet")


def told(lake):
    return json.loads((lake.path.parent / "truth" / "world.json").read_text())


def life_of(n=4000, seed=1, **changes):
    """A company of one world with leads that lived in it: no lake, only the hidden causes and what came of them."""
    rng = np.random.default_rng(seed)
    company = w.make_company(rng, 40, .5, World(**changes))
    return w.make_leads(company, rng, n)


def spine_of(lake):
    """Four instants in the life of each lead, from its first to its last second as an open one."""
    rows = lake.sql("select id, min(valid_from) as born, coalesce(min(valid_from) filter (where is_converted or is_lost or deleted_at is not null), TIMESTAMP '2026-06-30 23:59:59') as ended from lead_versions group by id order by id").df()
    rows = pd.concat([rows.assign(as_of=(rows["born"] + (rows["ended"] - rows["born"]) * share).dt.floor("s")) for share in (0, .3, .7, .999)])
    return rows.loc[rows["as_of"] < rows["ended"], ["id", "as_of"]].reset_index(drop=True)


# reading

def test_the_shipped_worlds_can_be_read_and_explain_each_parameter():
    assert {"baseline", "null", "weak", "rare", "seasonal_drift", "break", "truncated_history", "sync_only", "leaky", "salesforce", "pipedrive", "dirty"} <= set(NAMES)
    for path in SHIPPED:
        assert read_world(path).name == path.stem
        for line in path.read_text().splitlines():
            assert "=" not in line or "#" in line or line.startswith(("on =", "rate =", "source =")), f"{path.name}: {line}"


def test_the_baseline_is_the_default_world_and_names_every_parameter():
    assert replace(read_world(NAMES["baseline"]), name="default") == World()
    assert {name for section in tomllib.loads(NAMES["baseline"].read_text()).values() for name in section} == {f.name for f in fields(World)} - {"name"}


def test_every_parameter_has_its_section_and_every_kind_of_leak_can_be_asked_for():
    assert {name for names in SECTIONS.values() for name in names} == {f.name for f in fields(World)} - {"name"}
    assert tuple(SECTIONS["record"]["leaks"]) == demo_leaks.LEAKS
    assert set(read_world(NAMES["leaky"]).leaks) == set(demo_leaks.LEAKS)


@pytest.mark.parametrize("text, what", [
    ("[outcome]\nsignall = 1", "signall"), ("signal = 1", "signal"), ("[outcom]\nsignal = 1", "outcom"), ("outcome = 3", "outcome"), ("[outcome]\nsignal = -1", "signal cannot be -1"), ("[outcome]\nsignal = true", "cannot be True"),
    ("[outcome]\nbase_rate = 0.9", "base_rate cannot be 0.9"), ("[outcome]\nbase_rate = nan", "base_rate cannot be nan"), ("[outcome]\nhalf_life_days = \"20\"", "half_life_days"), ("[record]\nclean_fields = 1.5", "clean_fields"),
    ("[record]\nleaks = [\"sieve\"]", "outcome_copy"), ("[record]\nleaks = \"late_fill\"", "leaks"), ("[time]\nbreaks = [{on = 2025-01-01}]", "breaks"), ("[time]\nbreaks = [{on = 2025-01-01, rate = 0.5, source = \"Moon\"}]", "Web form"),
    ("[time]\nbreaks = [{on = 2025-01-01T10:00:00, rate = 0.5}]", "breaks"), ("[history]\nconversion = \"hubspot\"", "keep, salesforce, pipedrive"), ("[history]\nconversion = [\"keep\"]", "conversion"), ("[history\n", "not valid TOML")])
def test_what_no_world_has_is_refused_with_what_there_is(tmp_path, text, what):
    (tmp_path / "w.toml").write_text(text)
    with pytest.raises(WorkbenchError) as error:
        read_world(tmp_path / "w.toml")
    assert what in str(error.value)
    if "signall" in text:
        assert "half_life_days" in str(error.value) and "conversion" in str(error.value)


def test_a_world_that_is_not_there_is_told_in_a_sentence(tmp_path):
    with pytest.raises(WorkbenchError, match="There is no world"):
        read_world(tmp_path / "none.toml")


# the hidden process

def test_the_base_rate_is_met_about_in_every_kind_of_world():
    for changes in ({}, {"base_rate": .03}, {"signal": 0., "skill": 0.}, {"signal": 2., "overdispersion": 1.}, {"base_rate": .3, "half_life_days": 60.}):
        rates = [life_of(6000, seed, **changes).won.mean() for seed in (1, 2)]
        wanted = World(**changes).base_rate  # of which a tenth comes after the end
        assert .75 * wanted < np.mean(rates) < 1.12 * wanted, (changes, rates)


def test_interest_halves_in_the_half_life():
    life = life_of(500, half_life_days=12.).life
    life.rate[:] = 0  # no touch ever
    interest = np.ones(500)
    for _ in range(12):
        interest, _, _ = life.touched(np.random.default_rng(1), np.arange(500), interest)
    assert interest == pytest.approx(.5)


def test_a_quick_answer_leaves_nearly_one_and_a_slow_one_half():
    for hours, low, high in ((.1, .98, 1), (500., .5, .56)):  # 1/2 + exp(-hours/24)/2
        life = life_of(500, reply_hours=hours).life
        life.rate[:] = 1
        interest, came, _ = life.touched(np.random.default_rng(1), np.arange(500), np.zeros(500))
        assert len(came) == 500 and low < np.median(interest) <= high


def test_the_true_chances_come_true():
    leads = life_of(20_000, 3)
    row, day, interest = leads.states
    row, day = row.astype(int), day.astype(int)
    p = leads.life.foretold(np.random.default_rng(5), row, day, interest, 8)
    ended = np.floor((leads.close - w.START) / w.DAY)
    for j, horizon in enumerate((30, 90, 180)):
        seen = day + horizon < 1461
        came = leads.won[row] & (ended[row] <= day + horizon)
        for part in (seen, seen & (p[:, 1] > .15), seen & (p[:, 1] < .03)):
            error = np.sqrt((p[part, j] * (1 - p[part, j])).sum()) / part.sum()
            assert abs(came[part].mean() - p[part, j].mean()) < 3.5 * 1.6 * error  # leads stand there more than once: errors are up to 1.6 times as large
    assert (np.diff(p, axis=1) > -1e-12).all()  # 30 <= 90 <= 180 <= ever


def test_a_hundred_leads_chances_are_exact_to_two_thousandths():
    leads = life_of(3000, 4)
    row, day, interest = (v[:1000] for v in leads.states)
    a, b = (leads.life.foretold(np.random.default_rng(s), row.astype(int), day.astype(int), interest, 32) for s in (1, 2))
    errors = (a - b).reshape(10, 100, 4).mean(axis=1) / np.sqrt(2)
    assert errors.std() < .001  # so that two standard errors are .002


def test_in_the_null_world_every_lead_has_the_same_chance(make):
    p = truth(make("null"))
    live = p[p["p_ever"] > 0]
    assert len(live) == len(p) and p["p_90"].std() < 1e-6 and told(make("null"))["oracle"]["auc"] == pytest.approx(.5, abs=.05)


def test_a_break_halves_what_comes_after_it_and_of_one_source_only_its_own():
    leads = life_of(500)
    changed = life_of(500, breaks=({"on": pd.Timestamp("2025-03-01").date(), "rate": .5, "source": "Referral"},)).life
    row, referral = np.arange(500), leads.source == 3
    before, after = (changed.chances(row, np.full(500, day), np.ones(500))[0] / changed.ease for day in (973, 974))  # 2025-02-28 and 2025-03-01 are 973 and 974 days after 2022-07-01
    weekday = changed.pace[974] == 0  # a Saturday
    assert weekday and (before > 0).all()
    monday = changed.chances(row, np.full(500, 976), np.ones(500))[0] / changed.ease
    assert monday[~referral] / changed.pace[976] == pytest.approx(before[~referral] / changed.pace[973])
    assert monday[referral] / changed.pace[976] == pytest.approx(.5 * before[referral] / changed.pace[973])
    assert (after == 0).all()


def test_drift_turns_weight_from_fit_to_intent():
    leads = life_of(4000, drift=1., season=0.)
    day = lambda d: np.log(leads.life.chances(np.arange(4000), np.full(4000, d), np.ones(4000))[0])  # noqa: E731
    first, last = (np.polyfit(leads.fit[~leads.copy], day(d)[~leads.copy], 1)[0] for d in (0, 1455))
    assert first == pytest.approx(2 * .8, abs=.1) and last == pytest.approx(0, abs=.1)  # .8 (1 - drift u), u = -1 and 1


# what is known of it

def test_a_conversion_style_changes_no_feature_of_any_open_lead(make):
    lakes = [make(name) for name in ("baseline", "salesforce", "pipedrive")]
    spine = spine_of(lakes[0])
    kept, *others = (as_of_features(lake, "lead", spine) for lake in lakes)
    assert len(spine) > 2_000 and kept["n_activities"].sum() > 5_000
    for other in others:
        pd.testing.assert_frame_equal(kept, other, check_exact=False, rtol=1e-9)


def test_activities_of_converted_leads_hang_where_the_style_says(make):
    ask = "select count(*) filter (where lead_id is not null), count(*) filter (where contact_id is not null), count(*) filter (where deal_id is not null) from activity where id in ({})"
    mine = ", ".join(f"'{r[0]}'" for r in make("baseline").sql("select a.id from activity a join lead l on l.id = a.lead_id where l.is_converted").fetchall())
    kept, sales, pipe = (make(name).sql(ask.format(mine)).fetchall()[0] for name in ("baseline", "salesforce", "pipedrive"))
    assert kept[0] > 500 and kept[1:] == (0, 0)
    assert sales[0] == 0 and sales[1] == kept[0] and 0 < sales[2] < kept[0]  # three in four have a deal
    assert pipe[0] == 0 and pipe[2] == sales[2] and pipe[1] + pipe[2] == kept[0]


def test_a_converted_pipedrive_lead_vanishes_from_the_list_but_counts_as_won(make):
    lake = make("pipedrive")
    assert lake.sql("select count(*) from lead where is_converted").fetchall()[0][0] == 0
    labels = [snapshots(make(name), "lead", as_of=demo.END, source="demo").frame[["id", "as_of", "event"]] for name in ("baseline", "pipedrive")]
    assert labels[0]["event"].sum() > 50
    pd.testing.assert_frame_equal(*labels)


def test_before_tracking_began_changes_are_unknown_and_outcomes_are_not(make):
    lake, whole = make("truncated_history"), make("baseline")
    cut = pd.Timestamp("2024-09-01")  # month 26 after 2022-07
    rows = lake.sql(f"select * from lead_versions where valid_from < TIMESTAMP '{cut}'").df()
    assert len(rows) > 300 and rows[["status", "owner_id", "name", "rating", "n_visits"]].isna().all().all() and rows["source"].notna().any() and rows["created_at"].notna().all()
    end = "select id, is_converted, is_lost, closed_at, deleted_at, status, owner_id from lead_versions where valid_to is null order by id"
    pd.testing.assert_frame_equal(lake.sql(end).df(), whole.sql(end).df())
    told = lake.fields().set_index(["entity", "field"])
    assert told.loc[("lead", "status"), "history_from"] == cut and pd.isna(told.loc[("lead", "source"), "history_from"])
    labels = [snapshots(x, "lead", as_of=demo.END, source="demo").frame.set_index(["id", "as_of"]) for x in (lake, whole)]
    pd.testing.assert_series_equal(labels[0]["event"], labels[1]["event"])
    after, before = (labels[0][labels[0].index.get_level_values("as_of") >= cut], labels[0][labels[0].index.get_level_values("as_of") < cut])
    assert before["status"].isna().all() and after["status"].notna().all()
    same = labels[1].loc[after.index]
    pd.testing.assert_frame_equal(after[["status", "n_visits", "n_activities"]], same[["status", "n_visits", "n_activities"]])


def test_syncs_see_late_never_early_and_lose_what_changed_in_between(make):
    lake, whole = make("sync_only"), make("baseline")
    step, first = pd.Timedelta(days=7), pd.Timestamp("2022-11-01")
    for entity in ("lead", "deal", "activity"):
        rows = lake.sql(f"select id, valid_from from {entity}_versions").df()
        late = rows["valid_from"][rows["valid_from"] > first]
        assert ((demo.END - late) % step == pd.Timedelta(0)).all() and rows["valid_from"].min() == first
        assert len(rows) < len(whole.sql(f"select id from {entity}_versions").df())
    states = "select id, status, owner_id, n_visits from lead"
    for at in (pd.Timestamp(demo.END) - 10 * step, pd.Timestamp(demo.END)):  # at a sync both know the same
        pd.testing.assert_frame_equal(lake.sql(states + " order by id", at).df(), whole.sql(states + " order by id", at).df())
    between = pd.Timestamp(demo.END) - 10 * step + pd.Timedelta(days=5)
    pd.testing.assert_frame_equal(lake.sql(states + " order by id", between).df(), whole.sql(states + " order by id", between - pd.Timedelta(days=5)).df())


def test_gaps_and_doubles_come_in_the_share_that_the_world_says(make):
    clean, dirty = make("baseline"), make("dirty")
    gaps = [lake.sql("select avg((industry is null)::int + (title is null)::int + (city is null)::int) / 3 from lead_versions").fetchall()[0][0] for lake in (clean, dirty)]
    assert gaps[0] == pytest.approx(.02, abs=.012) and gaps[1] == pytest.approx(.25, abs=.04)
    assert life_of(6000, duplicates=.12).copy.mean() == pytest.approx(.12, abs=.02)


def test_close_dates_slip_the_more_the_higher_the_slip(make):
    dates = "select avg(n) from (select id, count(distinct close_on) as n from deal_versions where is_won is null group by id)"
    steady, usual, loose = (make("baseline", **changes).sql(dates).fetchall()[0][0] for changes in ({"slip": 0.}, {}, {"slip": 3.}))
    assert steady < 1.05 < usual < loose


def test_planted_fields_are_in_the_lake_and_named_in_the_truth(make):
    lake = make("leaky")
    names = {r["field"] for r in told(lake)["leaks"]} | set(told(lake)["clean"])
    assert len(told(lake)["leaks"]) == 8 and len(told(lake)["clean"]) == 20 and names <= set(lake.columns("lead"))
    assert names <= set(lake.fields().query("entity == 'lead'")["field"])
    for at in (None, pd.Timestamp("2025-06-30")):  # nothing else changed
        pd.testing.assert_frame_equal(*(x.sql("select id, status, owner_id, closed_at, city from lead order by id", at).df() for x in (lake, make("baseline"))))


# truth

def test_truth_has_every_open_lead_at_nine_quarter_ends_and_no_outcome(make):
    p = truth(make("baseline"))
    assert list(p.columns) == ["id", "as_of", "p_30", "p_90", "p_180", "p_ever"]
    instants = [pd.Timestamp(demo.END) - pd.Timedelta(days=91 * k) for k in range(9)]
    assert sorted(p["as_of"].unique()) == sorted(instants)
    for at in (instants[0], instants[4]):
        open_ = make("baseline").sql("select id from lead where not is_converted and not is_lost", at).df()["id"]
        assert set(p.loc[p["as_of"] == at, "id"]) == set(open_)
    assert p[["p_30", "p_90", "p_180", "p_ever"]].to_numpy().min() >= 0 and (p["p_ever"] <= 1).all() and not p.duplicated(["id", "as_of"]).any()


def test_the_oracle_is_what_the_true_chances_say_of_what_then_came(make):
    lake = make("baseline")
    p, oracle = truth(lake), told(lake)["oracle"]
    ends = lake.sql("select id, converted_at from lead_versions where is_converted and valid_to is null").df()
    ends["converted_at"] = lake.sql("select id, min(valid_from) as t from lead_versions where is_converted group by id").df().set_index("id")["t"].reindex(ends["id"]).to_numpy()
    rows = p[p["as_of"] < pd.Timestamp(demo.END) - pd.Timedelta(days=90)].merge(ends, on="id", how="left")
    y = (rows["converted_at"] <= rows["as_of"] + pd.Timedelta(days=90)).to_numpy()
    q = rows["p_90"].clip(1e-6, 1 - 1e-6)
    assert (oracle["n"], oracle["n_events"]) == (len(rows), y.sum())
    assert oracle["log_loss"] == pytest.approx(-np.where(y, np.log(q), np.log(1 - q)).mean(), abs=1e-5)


def test_the_same_world_and_seed_give_the_same_rows_and_truth(make, tmp_path):
    again = open_lake(tmp_path / "lake", create=True)
    demo.make_demo(again, size="tiny", world=read_world(NAMES["weak"]), truth=tmp_path / "truth")
    for entity in ("lead", "deal", "activity"):
        rows = [lake.sql(f"select * from {entity}_versions order by id, valid_from").df() for lake in (make("weak"), again)]
        pd.testing.assert_frame_equal(*rows, check_exact=True)
    pd.testing.assert_frame_equal(truth(make("weak")), truth(again), check_exact=True)


def test_the_command_writes_the_truth_beside_the_lake_and_prints_the_oracle(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_LAKE", str(tmp_path / "lake"))
    made = CliRunner().invoke(cli.app, ["demo", "--world", str(NAMES["rare"]), "--size", "tiny", "--seed", "4"])
    assert made.exit_code == 0, made.output
    assert (tmp_path / "truth" / "rare-tiny-4" / "lead.parquet").is_file() and "Oracle" in made.output and "AUC" in made.output


def test_without_a_world_no_truth_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_LAKE", str(tmp_path / "lake"))
    made = CliRunner().invoke(cli.app, ["demo", "--size", "tiny"])
    assert made.exit_code == 0 and not (tmp_path / "truth").exists() and "Oracle" not in made.output


def test_nothing_but_the_generator_knows_where_the_truth_lies():
    package = Path(demo.__file__).parent.parent
    assert [p.name for p in package.rglob("*.*") if p.suffix in (".py", ".sql") and ("lead.parquet" in p.read_text() or "world.json" in p.read_text())] == ["demo_worlds.py"]
