"""The demo organisation through the stand-ins: the same records, with the same past, moved to the stand-in's day."""

from datetime import datetime, timedelta

import pytest

from tests.servers.demo_org import as_agency, demo_organisation
from workbench.connect.demo import make_demo
from workbench.lake import open_lake

NOW = datetime(2026, 11, 24, 12)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    lake = open_lake(tmp_path_factory.mktemp("demo") / "lake", create=True)
    make_demo(lake)
    return lake, demo_organisation(lake, NOW)


def test_what_stands_in_the_demo_stands_in_the_stand_in(demo):
    lake, org = demo
    for entity in ("user", "account", "contact", "lead", "deal"):
        assert len(org.standing(entity)) == len(lake.read(entity))
    assert len(org.standing("activity")) == lake.sql("select count(*) from activity where kind <> 'web'").fetchall()[0][0]
    assert timedelta(0) <= NOW - max(c["at"] for c in org.changes) < timedelta(days=2)


def test_a_leads_past_is_the_demos(demo):
    lake, org = demo
    told = lake.history("lead", ["status"])
    moved = timedelta(days=(NOW - lake.latest_event("demo")).days)
    first = told.loc[told["old"].notna(), "id"].iloc[0]
    name = lake.sql(f"select name from lead_versions where id = '{first}' and valid_to is null").fetchall()[0][0]
    wanted = [(at.to_pydatetime() + moved, new) for at, new in told.loc[(told["id"] == first) & told["old"].notna(), ["at", "new"]].itertuples(index=False)]
    assert wanted in [[(c["at"], c["new"]) for c in org.of("lead", k, ["status"])] for k, r in org.all("lead").items() if r["name"] == (name or "Unknown")]


def test_an_agency_has_a_listing_a_deal_and_an_enquiry_a_lead(demo):
    org = as_agency(demo[1])
    assert len(org.records["listing"]) == len(org.records["deal"]) and len(org.records["enquiry"]) == len(org.records["lead"])
    sold = [r for r in org.records["listing"].values() if r["sold_at"]]
    assert len(sold) == sum(r["is_won"] is True for r in org.records["deal"].values()) and {r["status"] for r in sold} == {"Settled"}
