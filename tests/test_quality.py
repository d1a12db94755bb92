"""Every quality rule fires on a planted row and on no clean one; fill is told as of the decision; verdicts give numbers."""

from datetime import datetime, timedelta

import pandas as pd
import pytest

from workbench.lake import open_lake
from workbench.plots.quality import plot_fill, plot_findings
from workbench.quality.fill import capability_verdicts, fill_rates
from workbench.quality.rules import COLUMNS, RULES, _finder, import_findings, quality_findings

NOW, EARLY = datetime(2024, 6, 30), datetime(2024, 1, 10)
CLEAN = {
    "user": [{"id": "u1", "name": "Ann", "is_active": True}, {"id": "u2", "name": "Bob", "is_active": False}],
    "stage": [{"id": "s1", "name": "New", "outcome": "open"}, {"id": "s2", "name": "Won", "outcome": "won"}],
    "account": [{"id": "a1", "name": "Acme", "industry": "Retail", "created_at": EARLY}],
    "contact": [{"id": "c1", "name": "Cy", "email": "cy@acme.com", "phone": "1", "account_id": "a1", "created_at": EARLY}],
    "lead": [{"id": "l1", "name": "Lee", "email": "lee@b.com", "phone": "2", "source": "Google", "owner_id": "u1", "is_converted": None,
              "created_at": EARLY, "closed_at": None}],
    "deal": [{"id": f"d{i}", "name": f"Deal {i}", "account_id": "a1", "owner_id": "u1", "stage": "New", "amount": 100.0, "currency": "USD",
              "close_on": datetime(2024, 9, 1), "created_at": EARLY + timedelta(hours=i), "is_won": None, "closed_at": None} for i in (1, 2)],
    "activity": [{"id": f"t{i}", "kind": "call", "deal_id": f"d{i}", "is_done": True, "created_at": EARLY + timedelta(minutes=i),
                  "happened_at": datetime(2024, 6, 20)} for i in (1, 2)],
    "product": [{"id": "p1", "name": "Box"}],
    "deal_product": [{"id": "dp1", "deal_id": "d1", "product_id": "p1"}],
    "campaign": [{"id": "k1", "name": "Fair"}],
    "membership": [{"id": "m1", "campaign_id": "k1", "lead_id": "l1"}],
}
FUTURE, WON = NOW + timedelta(days=9), {"is_won": True, "stage": "Won", "closed_at": datetime(2024, 5, 1)}
# rule -> entity -> what differs from a clean record (a list: several records)
PLANTED = {
    "unreachable": dict.fromkeys(("lead", "contact"), {"email": "n/a", "phone": None}),
    "malformed_email": dict.fromkeys(("lead", "contact"), {"email": "lee at b.com"}),
    "duplicate_email": dict.fromkeys(("lead", "contact"), [{"email": "same@b.com"}, {"email": " SAME@b.com"}]),
    "closed_before_created": {"lead": {"is_converted": True, "closed_at": EARLY - timedelta(days=1)}, "deal": WON | {"closed_at": EARLY - timedelta(days=1)}},
    "outcome_without_date": {"lead": {"is_converted": True}, "deal": WON | {"closed_at": None}},
    "overdue_close": {"deal": {"close_on": datetime(2024, 6, 29)}},
    "no_close_date": {"deal": {"close_on": None}},
    "no_amount": {"deal": {"amount": 0.0}},
    "won_without_amount": {"deal": WON | {"amount": None}},
    "amount_outlier": {"deal": {"amount": 10_001.0}},  # over 100 x the median of 100, 100, 10001 = 100
    "amount_without_currency": {"deal": {"currency": None}},
    "no_owner": dict.fromkeys(("lead", "deal"), {"owner_id": None}),
    "inactive_owner": dict.fromkeys(("lead", "deal"), {"owner_id": "u2"}),
    "no_account": {"deal": {"account_id": None}},
    "broken_reference": {"account": {"parent_id": "gone"}, "contact": {"account_id": "gone"}, "lead": {"owner_id": "gone"}, "deal": {"account_id": "gone"},
                         "activity": {"deal_id": "gone"}, "deal_product": {"product_id": "gone"}, "membership": {"campaign_id": "gone"}},
    "stale_deal": {"deal": {}},  # a clean deal that no activity belongs to
    "unknown_stage": {"deal": {"stage": "Nwe"}},
    "stage_against_outcome": {"deal": {"stage": "Won"}},
    "created_in_future": dict.fromkeys(("account", "contact", "lead", "deal", "activity"), {"created_at": FUTURE}),
    "migrated_batch": dict.fromkeys(("lead", "deal", "activity"), [{"created_at": datetime(2024, 2, 2), "email": f"e{i}@b.com"} for i in range(50)]),
    "done_in_future": {"activity": {"happened_at": FUTURE}},
    "overdue_task": {"activity": {"is_done": False, "happened_at": datetime(2024, 5, 30)}},
    "unlinked_activity": {"activity": {"deal_id": None}},
    "placeholder_name": dict.fromkeys(("lead", "contact", "account", "deal"), {"name": "Test 1"}),
    "spelling_variants": {"lead": {"source": "google "}, "account": {"industry": "retail"}, "contact": [{"city": "Köln"}, {"city": "Koln"}, {"city": "Köln"}]},
}
OFFENDING = {("spelling_variants", "contact"): {"planted1"}}  # of Köln, Koln, Köln only the rarer one


def with_source(source: str, rows: dict) -> dict:
    """The rows with `<source>:` before every id and reference."""
    def key(column, value):
        return f"{source}:{value}" if value is not None and (column == "id" or column.endswith("_id")) else value
    return {e: [{c: key(c, v) for c, v in r.items()} for r in rs] for e, rs in rows.items()}


def planted_rows(rule: str, entity: str) -> dict:
    changes = PLANTED[rule][entity] if isinstance(PLANTED[rule][entity], list) else [PLANTED[rule][entity]]
    fresh = {"created_at": EARLY + timedelta(seconds=30)} if "created_at" in CLEAN[entity][0] else {}
    new = [CLEAN[entity][0] | fresh | ({"email": f"new{i}@b.com"} if entity in ("lead", "contact") else {})
           | {c: v for c, v in change.items() if c != "email" or entity in ("lead", "contact")} | {"id": f"planted{i}"} for i, change in enumerate(changes)]
    rows = {e: list(r) for e, r in CLEAN.items()}
    rows[entity] = rows[entity] + new
    if entity == "deal" and rule != "stale_deal":
        rows["activity"] = rows["activity"] + [CLEAN["activity"][0] | {"id": f"for{i}", "deal_id": f"planted{i}", "created_at": EARLY + timedelta(hours=i)} for i in range(len(new))]
    return rows


CASES = [(rule.name, rule.entity) for rule in RULES]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """One lake in which every case has a source of its own, beside the source `clean`."""
    everything = [with_source("clean", CLEAN)] + [with_source(f"{rule}_{entity}", planted_rows(rule, entity)) for rule, entity in CASES]
    lake = open_lake(tmp_path_factory.mktemp("lake"), create=True)
    with lake.writer():
        for entity in CLEAN:
            lake.upsert(entity, pd.DataFrame([r for rows in everything for r in rows[entity]]), at=datetime(2024, 6, 1), origin="import")
    return lake


def test_every_rule_has_a_planted_case():
    assert {(r, e) for r, entities in PLANTED.items() for e in entities} == set(CASES)


def test_no_rule_fires_on_clean_rows(lake):
    findings = quality_findings(lake, as_of=NOW, source="clean")
    assert list(findings.columns) == COLUMNS and len(findings) == len(RULES)
    assert findings[findings["n"].fillna(0) > 0].empty
    unchecked = findings[findings["n"].isna()]
    assert unchecked.empty, unchecked[["rule", "entity", "example"]].to_string()


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.name}-{r.entity}")
def test_each_rule_fires_on_its_planted_row_alone(lake, rule):
    source = f"{rule.name}_{rule.entity}"
    rows = planted_rows(rule.name, rule.entity)[rule.entity]
    expected = OFFENDING.get((rule.name, rule.entity)) or {r["id"] for r in rows if r["id"].startswith("planted")}
    _, _, _, n, n_records, share, example, _, _ = _finder(lake, NOW, source)(rule)
    assert (n, n_records, share) == (len(expected), len(rows), len(expected) / len(rows))
    assert set(example.split(", ")) <= {f"{source}:{i}" for i in expected}


def test_findings_of_a_lake_without_rows_say_that_nothing_was_checked(tmp_path):
    lake = open_lake(tmp_path, create=True)
    findings = quality_findings(lake)
    assert findings["n"].isna().all() and findings["example"].str.startswith("not checked").all()
    assert (fill_rates(lake, "deal")["verdict"] == "empty").all()
    assert (capability_verdicts(lake)["ready"] == "no").all()
    assert import_findings(lake).empty
    assert plot_findings(findings).layout.annotations and plot_fill(fill_rates(lake, "deal")).layout.annotations


def test_an_export_of_few_columns_is_not_blamed_for_columns_that_it_never_had(tmp_path):
    lake = open_lake(tmp_path, create=True)
    lake.upsert("lead", pd.DataFrame({"id": ["s:1", "s:2"], "is_converted": [True, False]}), at=EARLY, origin="import")
    findings = quality_findings(lake, source="s")
    found = findings[findings["n"].fillna(0) > 0]
    assert found["rule"].tolist() == ["outcome_without_date"]  # the one thing that its columns show to be wrong
    told = findings.set_index(["rule", "entity"])["example"]
    assert told["unreachable", "lead"] == "not checked: lead without email or phone"


def test_findings_as_of_a_day_before_any_data_are_unchecked(lake):
    assert quality_findings(lake, as_of=datetime(2020, 1, 1))["n"].isna().all()


def test_findings_show_the_gravest_first(lake):
    severities = quality_findings(lake, as_of=NOW).query("n > 0")["severity"].map({"high": 0, "medium": 1, "low": 2})
    assert severities.is_monotonic_increasing and len(severities) == len(RULES)
    plot_findings(quality_findings(lake, as_of=NOW)).to_json()


@pytest.fixture
def story(tmp_path):
    """Four deals: created 1 January; competitor known early for d1, next_step filled only when won; d4 stays open."""
    t0, t1, t2 = datetime(2024, 1, 1), datetime(2024, 2, 1), datetime(2024, 3, 1)
    rows = []
    for i, won in ((1, True), (2, True), (3, False), (4, None)):
        early = {"id": f"s:d{i}", "created_at": t0, "competitor": "Z" if i == 1 else None, "kind": "Select" if i == 3 else "new"}
        rows += [early | {"valid_from": t0}, early | {"valid_from": t1, "amount": 5.0}]
        if won is not None:
            rows.append(early | {"valid_from": t2, "amount": 5.0, "is_won": won, "closed_at": t2, "next_step": "ship" if won else None})
    lake = open_lake(tmp_path, create=True)
    lake.load_versions("deal", pd.DataFrame(rows).astype({"is_won": "boolean"}), origin="crm_history")
    return lake


def test_fill_is_told_as_of_the_decision(story):
    fill = fill_rates(story, "deal").set_index("field")
    # next_step: 2 of 4 now; of the 3 decided deals none had it just before closing; both won ones have it, the lost one not
    row = fill.loc["next_step"]
    assert (row["n"], row["filled"], row["fill_share"], row["fill_at_decision"]) == (4, 2, .5, 0)
    assert (row["fill_won"], row["fill_lost"], row["gap"], row["verdict"]) == (1, 0, 1, "filled late")
    # amount was entered in February, a month before the decision
    assert (fill.loc["amount", "fill_at_decision"], fill.loc["amount", "verdict"]) == (1, "good")
    # competitor: 1 of 3 decided, before as after
    assert fill.loc["competitor", "fill_at_decision"] == pytest.approx(1 / 3)
    assert fill.loc["is_won", "verdict"] == "outcome"
    plot_fill(fill_rates(story, "deal")).to_json()


def test_a_placeholder_counts_as_missing(story):
    row = fill_rates(story, "deal").set_index("field").loc["kind"]
    assert (row["filled"], row["fill_lost"]) == (3, 0)  # d3 says Select


def test_fill_at_decision_is_unknown_for_a_field_without_history(story):
    story.set_fields([{"source": "s", "entity": "deal", "field": "next_step", "known_at": "assumed"},
                      {"source": "s", "entity": "deal", "field": "competitor", "known_at": "current_only"},
                      {"source": "s", "entity": "deal", "field": "amount", "known_at": "historized", "history_from": datetime(2024, 4, 1)}])
    fill = fill_rates(story, "deal").set_index("field")
    assert fill.loc[["next_step", "competitor", "amount"], "fill_at_decision"].isna().all()
    assert fill.loc["next_step", "verdict"] == "suspect"  # filled for all won and no lost deal, and nobody can say when
    assert fill.loc["competitor", "verdict"] == "current only"
    assert fill.loc["amount", "known_at"] == "historized"  # but every decision lies before its history


def test_fill_of_an_earlier_day_is_that_of_the_records_then(story):
    fill = fill_rates(story, "deal", as_of=datetime(2024, 1, 15)).set_index("field")
    assert (fill.loc["amount", "filled"], fill.loc["competitor", "filled"], fill.loc["amount", "n"]) == (0, 1, 4)


def outcomes(n_won: int, n_lost: int, dated: bool) -> pd.DataFrame:
    won = [True] * n_won + [False] * n_lost
    days = [datetime(2024, 1, 1) + timedelta(days=i) for i in range(len(won))]
    frame = pd.DataFrame({"id": [f"s:{i}" for i in range(len(won))], "is_converted": won})
    return frame.assign(created_at=days, closed_at=[d + timedelta(days=3) for d in days]) if dated else frame


@pytest.mark.parametrize("n_lost, dated, ready, words", [(29, True, "no", "30 leads converted and 29 not converted"), (30, False, "partly", "only 0% of them have dates"),
                                                         (30, True, "partly", "without any history")])
def test_lead_scoring_needs_thirty_of_each_and_dates_and_history(tmp_path, n_lost, dated, ready, words):
    lake = open_lake(tmp_path, create=True)
    lake.upsert("lead", outcomes(30, n_lost, dated), at=NOW, origin="import")
    row = capability_verdicts(lake, source="s").set_index("capability").loc["lead scoring"]
    assert row["ready"] == ready and words in row["sentence"]


def test_lead_scoring_is_ready_with_outcomes_dates_and_history(tmp_path):
    lake = open_lake(tmp_path, create=True)
    frame = outcomes(30, 30, dated=True)
    lake.upsert("lead", frame[["id", "created_at"]], at=datetime(2023, 12, 1))
    lake.upsert("lead", frame, at=NOW)
    verdicts = capability_verdicts(lake).set_index("capability")
    assert verdicts.loc["lead scoring", "ready"] == verdicts.loc["data quality", "ready"] == "yes"
    assert verdicts.loc["win probability", "ready"] == verdicts.loc["forecast", "ready"] == "no"


def test_activities_with_answers_make_personalization_and_advice_possible(tmp_path):
    lake = open_lake(tmp_path, create=True)
    lake.upsert("lead", outcomes(30, 30, dated=True), at=NOW)
    lake.upsert("activity", pd.DataFrame({"id": [f"s:t{i}" for i in range(1200)], "lead_id": [f"s:{i % 60}" for i in range(1200)], "is_done": True,
                                          "kind": ["call", "email"] * 600, "direction": ["in", "out"] * 600, "created_at": EARLY}), at=NOW)
    verdicts = capability_verdicts(lake).set_index("capability")
    assert verdicts.loc["next best action", "ready"] == "yes"  # 1,200 activities of 2 kinds, 60 decided leads that had any
    assert verdicts.loc["personalization", "ready"] == "partly"  # 60 people with 20 activities each; 200 are needed
    assert "60 people with activities (60 with five or more), 600 of these incoming" in verdicts.loc["personalization", "sentence"]


def test_import_findings_are_counted_by_rule(tmp_path):
    lake = open_lake(tmp_path, create=True)
    rows = [("s", "a.csv", line, "bad date", "lead", None, f"31/02 in line {line}", 1) for line in (9, 4)] + [("z", "b.csv", 1, "ragged", "deal", None, "x", 3)]
    lake.add_findings(pd.DataFrame(rows, columns=["source", "file", "line", "rule", "entity", "record_id", "detail", "n"]))
    found = import_findings(lake, source="s")
    assert found[["rule", "n", "first_line", "example"]].values.tolist() == [["bad date", 2, 4, "31/02 in line 4"]]
    assert import_findings(lake)["rule"].tolist() == ["ragged", "bad date"]
