"""Agentbox: the stand-in answers in the recorded shapes, and the connector reads them without losing a row."""

from datetime import datetime, timedelta

import pytest
import requests

from tests.servers import agentbox_org as estate
from tests.servers.agentbox import Agentbox
from tests.servers.organisation import NOW, edits, moved, organisation
from workbench.connect import agentbox
from workbench.connect.http import Refused
from workbench.connect.sync import sync
from workbench.lake import open_lake

ARCHIVED = sum(estate.contact_status(k) != "Active" for k in organisation().standing("contact"))


@pytest.fixture
def server():
    with Agentbox(organisation()) as running:
        yield running


@pytest.fixture
def connector(server, monkeypatch):
    monkeypatch.setenv("WORKBENCH_HOME_CLIENT_ID", server.client)
    monkeypatch.setenv("WORKBENCH_HOME_API_KEY", server.key)
    monkeypatch.setattr(agentbox, "PAGE", 20)
    return agentbox.Connector("home", {"crm": "agentbox", "url": server.url, "pace": 0})


def asked(server, path, **params):
    return requests.get(f"{server.url}/{path}", params={"version": 2, **params}, headers={"X-API-Key": server.key, "X-Client-ID": server.client}, timeout=10)


def told(server, path, **params):
    answer = asked(server, path, **params)
    assert answer.status_code == 200, answer.text
    return answer.json()["response"]


def stream(name):
    return next(s for s in agentbox.STREAMS if s.name == name)


def pulled(connector, name, since=None):
    return [row for rows in connector.pull(stream(name), since) for row in rows]


def ids(rows):
    return sorted({r["id"] for r in rows})


# ---- the stand-in
def scalars(value):
    return [s for v in (value.values() if isinstance(value, dict) else value) for s in scalars(v)] if isinstance(value, (dict, list)) else [value]


@pytest.mark.parametrize("path", ["contacts", "listings", "staff", "offices", "search-requirements", "enquiries", "inspections", "notes", "contact-classes", "enquiry-types"])
def test_every_scalar_is_a_string_or_a_real_boolean(server, path):
    found = scalars(told(server, path, limit=0, include="all"))
    assert len(found) >= 5 and {type(v) for v in found} <= {str, bool}


def test_a_page_tells_items_current_and_last_as_strings(server):
    found = told(server, "listings", limit=20, page=3)  # 50 listings = 20 + 20 + 10
    assert (found["items"], found["current"], found["last"], len(found["listings"])) == ("50", "3", "3", 10)


def test_limit_0_gives_everything_with_last_INF_and_nothing_with_NAN(server):
    assert told(server, "listings", limit=0)["last"] == "INF" and len(told(server, "listings", limit=0)["listings"]) == 50
    assert told(server, "listings", **{"limit": 0, "filter[status]": "Leased"}) == {"items": "0", "current": "1", "last": "NAN", "listings": []}


def test_contacts_are_active_unless_all_are_asked_for(server):
    n = int(told(server, "contacts")["items"])
    assert ARCHIVED > 0 and int(told(server, "contacts", **{"filter[status]": "All"})["items"]) == n + ARCHIVED


def test_the_price_as_a_number_is_only_in_the_listings_own_answer(server):
    item = told(server, "listings")["listings"][0]
    assert "searchPrice" not in item and "$" in item["displayPrice"] and told(server, f"listings/{item['id']}")["listing"]["searchPrice"].isdigit()


def test_both_ends_of_modifiedAfter_and_modifiedBefore_are_inclusive(server):
    stamp = told(server, "listings", orderBy="lastModified", order="DESC")["listings"][0]["lastModified"]
    assert int(told(server, "listings", **{"filter[modifiedAfter]": stamp, "filter[modifiedBefore]": stamp})["items"]) == 1


def test_blocks_come_when_they_are_included(server):
    assert "contactClasses" not in told(server, "contacts")["contacts"][0] and told(server, "contacts", include="contactClasses")["contacts"][0]["contactClasses"]


@pytest.mark.parametrize("path, params, headers, status, words", [
    ("contacts", {"version": 2}, {"X-API-Key": None}, 401, '{"error": "Authorization field missing"}'),
    ("contacts", {"version": 2}, {"X-API-Key": "wrong"}, 404, "URL not found"),
    ("nowhere", {"version": 2}, {}, 404, "URL not found"),
    ("contacts", {"version": 2}, {"X-Client-ID": "wrong"}, 401, "Invalid Client ID"),
    ("contacts", {}, {}, 400, '"code": "300"'),
    ("contacts", {"version": 3}, {}, 400, '"code": "300"'),
    ("contacts/99999", {"version": 2}, {}, 404, '"errors"'),
    ("suburbs", {"version": 2}, {}, 422, "filter[postcode]"),
    ("contacts", {"version": 2, "filter[modifiedAfter]": "2026-01-01T00:00:00 10:00"}, {}, 422, "date"),  # a plus sign that was not encoded
    ("notes", {"version": 2, "filter[modifiedAfter]": "2026-01-01T00:00:00+10:00"}, {}, 422, "Invalid filter: modifiedAfter"),
], ids=str)
def test_refusals_have_the_recorded_form(server, path, params, headers, status, words):
    answer = requests.get(f"{server.url}/{path}", params=params, headers={"X-API-Key": server.key, "X-Client-ID": server.client} | headers, timeout=10)
    assert answer.status_code == status and words in answer.text


def test_a_put_replaces_the_list_of_classes_unless_it_is_appendable(server):
    head = {"X-API-Key": server.key, "X-Client-ID": server.client}

    def put(**contact):
        answer = requests.put(f"{server.url}/contacts/7", params={"version": 2}, json={"contact": contact}, headers=head, timeout=10)
        assert answer.json()["response"]["status"] == "success"
        return [c["id"] for c in told(server, "contacts/7")["contact"]["contactClasses"]]

    assert put(contactClasses=[{"id": "1"}]) == ["1"]
    assert put(contactClasses=[{"id": "2"}], contactClassesAppendable=True) == ["1", "2"]
    assert put(contactClasses=[{"id": "3"}]) == ["3"]


# ---- the connector
@pytest.mark.parametrize("name, path", [(s.name, s.more["path"]) for s in agentbox.STREAMS])
def test_a_first_pull_brings_every_record_whatever_its_status(server, connector, name, path):
    assert ids(pulled(connector, name)) == sorted(server.table(path))
    assert connector.ids(stream(name)) is None or sorted(i for page in connector.ids(stream(name)) for i in page) == sorted(server.table(path))


@pytest.mark.parametrize("form", ["new", "old", "capital"])
@pytest.mark.parametrize("inside", [0, 1])
def test_each_form_of_error_is_told_in_the_vendors_words_also_inside_a_200(server, connector, form, inside):
    server.error_form, server.errors_in_200, server.denied = form, inside, {"contacts"}
    with pytest.raises(Refused, match="No permission for contacts") as refused:
        pulled(connector, "contacts")
    assert refused.value.status == 403 and "Ask the vendor" in refused.value.fix


def test_check_names_what_a_denied_stream_costs(server, connector):
    server.denied = {"enquiries"}
    rows = {r["stream"]: r for r in connector.check()}
    assert rows["contacts"]["readable"] and rows["contacts"]["rows"] == len(server.org.standing("contact")) and not rows["contacts"]["history"]
    assert not rows["enquiries"]["readable"] and rows["enquiries"]["costs"].startswith("no leads")


def test_a_wrong_key_is_told_apart_from_a_wrong_path(server, connector, monkeypatch):
    monkeypatch.setenv("WORKBENCH_HOME_API_KEY", "another-key")
    with pytest.raises(Refused, match="404.*URL not found.*keys that it does not accept") as refused:
        pulled(connector, "staff")
    assert "another-key" not in str(refused.value)


def test_a_row_that_changes_while_pages_are_read_is_seen_again_and_none_is_skipped(server, connector):
    n, first = len(server.org.standing("contact")), sorted(server.org.standing("contact").items(), key=lambda kr: kr[1]["modified_at"])

    def touch(s):  # the rows of the first page get a stamp of now: by page numbers, as many others would slip to the page before and be skipped
        for key, _ in first[:10]:
            s.org.records["contact"][key]["modified_at"] = s.org.now

    server.faults.add("do", at=2, path="contacts", action=touch)
    rows = pulled(connector, "contacts")
    assert len(ids(rows)) == n and len(rows) >= n + 10
    assert {r["id"]: r["lastModified"] for r in rows}[str(first[0][0])] == estate.stamp(NOW)


def test_more_rows_of_one_second_than_a_page_holds_are_all_read(server, connector):
    keys = moved(server.org, "contact", 55, NOW - timedelta(days=3))  # pages of 20
    assert len(ids(pulled(connector, "contacts"))) == len(server.org.standing("contact"))
    assert {str(k) for k in keys} <= set(ids(pulled(connector, "contacts", NOW - timedelta(days=3))))


def test_a_server_that_takes_no_order_is_read_by_page_numbers(server, connector, monkeypatch):
    monkeypatch.setattr(Agentbox, "resource", lambda self, name: agentbox_resource(name, orders=()))
    server.strict = False
    server.org.change("contact", 2, NOW, title="Late")
    assert len(ids(pulled(connector, "contacts"))) == len(server.org.standing("contact"))


def agentbox_resource(name, **other):
    from dataclasses import replace

    from tests.servers.agentbox import RESOURCES
    return replace(RESOURCES[name], **other)


def test_a_note_that_is_deleted_while_pages_are_read_hides_no_other_note(server, connector):
    first = [int(i) for i in sorted(server.table("notes"), key=int)][:3]

    def drop(s):
        for key in first:
            s.org.delete("activity", key, hard=True)

    server.faults.add("do", at=3, path="notes", action=drop)
    assert set(ids(pulled(connector, "notes"))) >= set(server.table("notes")) and str(first[0]) not in server.table("notes")


def test_pages_that_repeat_the_one_before_hide_nothing(server, connector):
    server.faults.add("duplicated", times=0, path="notes|enquiries")
    assert set(ids(pulled(connector, "notes"))) == set(server.table("notes")) and set(ids(pulled(connector, "enquiries"))) == set(server.table("enquiries"))


def test_an_increment_asks_only_for_what_changed_and_for_one_detail_a_listing(server, connector):
    server.org.now += timedelta(days=1)
    server.org.change("listing", 5, status="Withdrawn")
    before = len(server.requests)
    rows = pulled(connector, "listings", NOW)
    assert ids(rows) == ["1P0005"] and rows[0]["status"] == "Withdrawn" and len(server.requests) - before == 2  # the list, the listing's own answer


def test_notes_are_asked_again_without_what_the_server_does_not_take(server, connector):
    server.note_contacts = False  # neither the filter by change nor the block attachedContacts
    assert set(ids(pulled(connector, "notes", NOW))) == set(server.table("notes"))  # 422, 422, 422, then whole
    server.strict = False
    assert set(ids(pulled(connector, "notes", NOW))) == set(server.table("notes"))


def test_a_listing_that_is_deleted_between_list_and_detail_is_left_out(server, connector):
    server.faults.add("do", path="listings/1P0007", action=lambda s: s.org.delete("listing", 7, hard=True))
    assert "1P0007" not in ids(pulled(connector, "listings"))


@pytest.mark.parametrize("sold, instant", [("2026-02-03 14:30:00", datetime(2026, 2, 3, 3, 30)), ("2026-02-03", datetime(2026, 2, 3, 12, 59, 59)), ("2026-07-03 14:30:00", datetime(2026, 7, 3, 4, 30)),
                                           ("2026-02-03T14:30:00+08:00", datetime(2026, 2, 3, 6, 30))])
def test_a_bare_local_time_is_read_in_the_listings_time_zone(server, connector, sold, instant):
    # Sydney: 11 hours ahead of UTC in February, 10 in July; a day alone counts from its last second
    server.drift["listings"] = lambda row: row.update(soldDate=sold)
    assert agentbox._instant(pulled(connector, "listings")[0]["_sold_at"]) == instant


def test_where_a_row_tells_no_zone_the_first_offices_counts(server, connector):
    server.drift["offices"] = lambda row: row.update(timezone="Australia/Perth")
    server.drift["contacts"] = lambda row: row.update(lastContacted="2026-02-03 14:30:00")
    assert pulled(connector, "contacts")[0]["lastContacted"] == "2026-02-03T14:30:00+11:00"  # Sydney's until offices were read
    pulled(connector, "offices")
    assert pulled(connector, "contacts")[0]["lastContacted"] == "2026-02-03T14:30:00+08:00"


def test_unknown_keys_are_found_and_known_private_ones_are_not(server, connector):
    server.drift["contacts"] = lambda row: row.update(custom_tier="Gold", customTags=["a", "b"], customFlag=True)
    found = {f.native: f for f in connector.discover(stream("contacts"))}
    assert {"custom_tier", "customTags", "customFlag", "contactClasses", "source", "status"} <= set(found) and not {"comments", "permissions", "salutation"} & set(found)
    assert found["customFlag"].kind == "bool" and found["custom_tier"].kind == "text"


@pytest.mark.parametrize("unit, size", [("sqm", 200.0), ("m2", 200.0), ("Square metres", 200.0), ("Hectares", 2_000_000.0), ("acres", 809_371.2), ("squares", None), ("", None)])
def test_land_is_told_in_square_metres_or_not_at_all(unit, size):
    # 1 hectare = 10,000 square metres, 1 acre = 4,046.856
    assert stream("listings").fields["land_square_metres"]({"property": {"landArea": {"value": "200", "unit": unit}}}) == pytest.approx(size)


# ---- through the sync, into a lake
@pytest.fixture(scope="module")
def synced(tmp_path_factory):
    """(server, lake) after a first sync at NOW and one a day later, before which listing 5 was withdrawn and note 5, of which no trace is left, deleted."""
    with Agentbox(organisation()) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME_CLIENT_ID", running.client)
        patch.setenv("WORKBENCH_HOME_API_KEY", running.key)
        lake = open_lake(tmp_path_factory.mktemp("home") / "lake", create=True)
        for day in range(2):
            connector = agentbox.Connector("home", {"crm": "agentbox", "url": running.url, "pace": 0})
            assert (sync(lake, "home", connector, now=running.org.now)["error"] == "").all()
            if not day:
                edits(running.org, 1)
                running.org.change("listing", 5, running.org.now, status="Withdrawn")
                running.org.delete("activity", 5, running.org.now, hard=True)
        yield running, lake


def test_texts_become_numbers_and_empty_ones_become_missing(synced):
    _, lake = synced
    # Listing 1 (n = 0 there): 1 bedroom, no car space, 200 square metres, a guide up to 550,000, not sold; listing 2 has no land
    assert lake.sql("select bedrooms, car_spaces, land_square_metres, price_high::double, sold_at from listing where id = 'home:1P0001'").fetchall() == [(1, 0, 200.0, 550_000.0, None)]
    assert lake.sql("select land_square_metres from listing where id = 'home:1P0002'").fetchall() == [(None,)]


def test_history_arises_from_our_own_syncs_and_the_lake_says_since_when(synced):
    server, lake = synced
    was = server.org.of("listing", 5, ["status"])[-1]["old"]
    told = lake.sql("select valid_from, status from listing_versions where id = 'home:1P0005' order by valid_from").fetchall()
    created = server.org.records["listing"][5]["created_at"]
    assert told == [(created, None), (NOW, was), (NOW + timedelta(days=1), "Withdrawn")]  # the stages before the first sync are unknown, not today's
    since = lake.fields().set_index(["entity", "field"]).loc[("listing", "status")]
    assert (since["known_at"], since["history_from"].to_pydatetime()) == ("historized", NOW)


def test_what_vanished_is_deleted_as_of_the_sync_that_missed_it(synced):
    _, lake = synced
    assert lake.sql("select deleted_at from activity_versions where id = 'home:note-5' and valid_to is null").fetchall() == [(NOW + timedelta(days=1),)]


def test_contacts_keep_their_classes_source_and_status(synced):
    server, lake = synced
    # contact 7: classes 1 + 7 % 4 = 4 and, as 7 % 7 = 0, 1 + 8 % 4 = 1; source number 7 % 5 = 2
    assert lake.sql("select x_classes, x_source, x_status from contact where id = 'home:7'").fetchall() == [("Buyer; Past client", "Partner Referral", "Active")]
    n = len({s for s, in lake.sql("select distinct x_status from contact").fetchall()})
    assert n == 3  # Active, Archived, Do Not Contact


def test_an_enquiry_is_a_lead_with_its_words_and_its_links(synced):
    server, lake = synced
    enquiry = server.org.records["enquiry"][3]
    assert lake.sql("select kind, direction, lead_id, contact_id from activity where id = 'home:enquiry-3'").fetchall() == [("email", "in", "home:3", f"home:{enquiry['contact_id']}")]
    links = lake.sql("select other_entity, other_id from link where entity = 'lead' and record_id = 'home:3' order by 1").fetchall()
    assert links == [("contact", f"home:{enquiry['contact_id']}"), ("listing", f"home:{estate.listing_id(enquiry['listing_id'])}")]


def test_long_personal_texts_are_kept_as_a_hash_and_private_keys_not_at_all(synced):
    server, lake = synced
    bodies = [b for b, in lake.sql("select body from activity where body is not null").fetchall()]
    assert len(bodies) > 100 and all(b.startswith("blake2b:") for b in bodies)
    tables = [*lake.entities(), "field", "custom_field", "sync_state"]
    stored = "".join(lake.sql(f"select * from {lake.relation_sql(table)}").df().to_csv() for table in tables)
    assert "George Street" in stored  # the search finds what is there
    assert not [word for word in (server.key, server.client, "private words", "1980-01-01", "still for sale") if word in stored]


def test_a_record_seen_twice_in_an_overlap_makes_no_version(synced):
    _, lake = synced
    for entity in ("contact", "listing", "requirement", "lead", "activity", "link"):
        columns = ", ".join(c for c in lake.columns(entity) if c not in ("valid_from", "valid_to", "recorded_at", "origin"))
        assert lake.sql(f"select {columns} from {entity}_versions group by all having count(*) > 1").fetchall() == []
