"""The explorer draws what is chosen, at once and once, and shows values in an order that tells something."""

from datetime import datetime, timedelta

import pandas as pd
import pytest

from workbench.lake import open_lake
from workbench.plots import explore

T = datetime(2024, 6, 1)


@pytest.fixture
def lake(tmp_path):
    return open_lake(tmp_path, create=True)


@pytest.fixture
def titles(monkeypatch):
    """The titles of the figures that were drawn, in order."""
    drawn = []
    monkeypatch.setattr(explore, "display", lambda figure: drawn.append(figure.layout.title.text))
    return drawn


def counted(lake, entity, field, **values):
    n = len(next(iter(values.values())))
    lake.upsert(entity, pd.DataFrame({"id": [f"a:{i}" for i in range(n)], **values}), at=T)
    return list(map(tuple, explore.value_counts(lake, entity, field, as_of=T).values))


def test_a_figure_stands_there_at_once_and_each_choice_draws_one_more(lake, titles):
    lake.upsert("account", pd.DataFrame({"id": ["a:1"], "name": ["Acme"], "city": ["Perth"]}), at=T)
    lake.upsert("product", pd.DataFrame({"id": ["a:1", "a:2"], "name": ["Saw", "Axe"]}), at=T)
    entity, field = explore.explorer(lake, as_of=T).children[0].children
    assert titles == ["account: name, 1 record"]
    field.value = "city"
    entity.value = "product"  # its first field has the name of the account's first
    entity.value = "account"
    assert titles[1:] == ["account: city, 1 record", "product: name, 2 records", "account: name, 1 record"]


def test_a_lead_s_status_is_what_is_shown_first(lake, titles):
    lake.upsert("account", pd.DataFrame({"id": ["a:1"], "name": ["Acme"]}), at=T)
    lake.upsert("lead", pd.DataFrame({"id": ["a:1"], "company": ["Acme"], "status": ["New"]}), at=T)
    explore.explorer(lake, as_of=T)
    assert titles == ["lead: status, 1 record"]


def test_an_empty_lake_and_a_source_without_records_are_told_in_a_sentence(lake, titles):
    assert "nothing to look at" in explore.explorer(lake, as_of=T).children[0].value
    lake.upsert("lead", pd.DataFrame({"id": ["a:1"], "status": ["New"]}), at=T)
    assert "nothing to look at" in explore.explorer(lake, as_of=T, source="b").children[0].value and not titles


def test_only_entities_with_records_of_the_source_are_offered(lake, titles):
    lake.upsert("lead", pd.DataFrame({"id": ["a:1"], "status": ["New"]}), at=T)
    lake.upsert("deal", pd.DataFrame({"id": ["b:1"], "stage": ["Won"]}), at=T)
    assert explore.explorer(lake, as_of=T, source="b").children[0].children[0].options == ("deal",) and titles == ["deal: stage, 1 record"]


def test_numbers_stand_in_their_order_and_the_empty_last(lake):
    assert counted(lake, "lead", "n_visits", n_visits=[10, 9, 9, None]) == [("9", 2), ("10", 1), ("(empty)", 1)]


def test_one_huge_amount_does_not_hide_how_the_others_spread(lake):
    amounts = [1000.0 * i for i in range(1, 200)] + [4e9]  # percentiles 1 and 99: 2,990 and 198,010; a tenth of the way between them rounds to 20,000
    rows = counted(lake, "deal", "amount", amount=amounts)
    assert rows[:2] == [("below 20,000", 19), ("20,000 to 40,000", 20)] and rows[-1] == ("180,000 and more", 21)  # 180,000 to 199,000, and 4e9


def test_times_are_told_by_the_finest_calendar_step_that_fits(lake):
    days = [datetime(2023, 1, 1) + timedelta(days=i) for i in range(21)] + [datetime(2023, 3, 1)]  # 22 days in two months
    assert counted(lake, "lead", "created_at", created_at=days) == [("2023-01", 21), ("2023-03", 1)]


def test_what_does_not_fit_is_counted_together_without_the_empty(lake):
    cities = [f"c{i:02}" for i in range(22)] + ["c00", None]
    rows = counted(lake, "lead", "city", city=cities)
    assert rows[0] == ("c00", 2) and rows[20:] == [("(2 other values)", 2), ("(empty)", 1)]  # 22 cities less the 20 shown


def test_a_key_is_told_by_a_name_unless_the_name_is_a_customer_s(lake):
    lake.upsert("campaign", pd.DataFrame({"id": ["a:k"], "name": ["Spring"]}), at=T)
    lake.upsert("contact", pd.DataFrame({"id": ["a:c"], "name": ["Ann"]}), at=T)
    assert counted(lake, "deal", "campaign_id", campaign_id=["a:k", "a:lost", "a:lost"], contact_id=["a:c"] * 3) == [("a:lost", 2), ("Spring", 1)]
    assert explore.value_counts(lake, "deal", "contact_id", as_of=T)["value"].tolist() == ["a:c"]


def test_text_of_the_crm_is_no_markup_in_a_figure_and_equal_beginnings_stay_apart(lake):
    figure = explore.plot_value_counts(pd.DataFrame({"value": ["<a href='x'>y</a>", "q" * 50 + "1", "q" * 50 + "2"], "n": [3, 2, 1]}), "t")
    assert figure.layout.yaxis.ticktext[0] == "&lt;a href='x'&gt;y&lt;/a&gt;" and "<a" not in figure.data[0].customdata[0]
    assert len(set(figure.data[0].y)) == 3
