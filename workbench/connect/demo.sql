-- How the demo organisation's records look: names, texts and the dirt of daily use. All invented; addresses lie under .test and example.com.
-- One statement a section, over `told`: one row a version with its record's number n, `t` in seconds since 1970, and the state as numbers.
-- chance(n, 'what') in [0, 1) is fixed for an entity's record and a purpose; a person keeps the name as lead and as contact.

-- section macros
create macro chance(n, what) as (hash(n::bigint, what, getvariable('entity'), {seed}) >> 11) / 9007199254740992.0;
create macro pick(list, n, what) as list[1 + floor(chance(n, what) * len(list))::int];
create macro own(list, p, what) as list[1 + (hash(p::bigint, what, {seed}) % len(list)::ubigint)::int];
create macro nth(list, i) as list[i::int + 1];
create macro key(prefix, n) as 'demo:' || prefix || n::bigint;
create macro ref(prefix, target, n, share) as key(prefix, target) || case when chance(n, 'broken ' || prefix) < share then '-old' else '' end;
create macro instant(s) as make_timestamp((s * 1000000)::bigint);
create macro typed(word, n, what, share) as case when chance(n, what) >= share then word when contains(word, ' ') then lower(replace(word, ' ', '-')) else upper(word) end;
create macro named(word, n, share) as case when chance(n, 'placeholder') < share then pick(['test', 'n/a', 'Unknown', 'asdf', 'TEST 2', 'xxx'], n, 'which') else word end;
create macro typed_in(word, n, what) as case when chance(n, 'missing ' || what) >= {missing} then word end;
create macro currency(i) as nth(['EUR', 'USD', 'GBP', 'CHF'], i);
create macro first_name(p) as own(['Avo', 'Bexi', 'Corvin', 'Dalia', 'Edlin', 'Fenja', 'Goro', 'Hesper', 'Ivo', 'Jalma', 'Kerrin', 'Lusko', 'Mirel', 'Nadu', 'Orla', 'Pavo', 'Quenby', 'Rilla', 'Soren',
    'Tamsin', 'Ulva', 'Vesna', 'Wim', 'Xanthe', 'Yorick', 'Zelda', 'Ansel', 'Brisa', 'Cosmo', 'Dorrit', 'Eskil', 'Fiora', 'Gwill', 'Hanno', 'Ilse', 'Juno'], p, 'first');
create macro last_name(p) as own(['Quibble', 'Snor', 'Tumble', 'Wobber', 'Fizzle', 'Grumble', 'Marzi', 'Nettle', 'Pockle', 'Rumple', 'Sprocket', 'Twiddle', 'Bramble', 'Crumpet', 'Dawdle', 'Gizzle'], p, 'last')
    || own(['ton', 'by', 'worth', 'feld', 'mann', 'ström', 'vik', 'quist', 'berry', 'wick', 'son', 'stone'], p, 'end');
create macro person(p) as first_name(p) || ' ' || last_name(p);
create macro company(f) as nth(['Wibble', 'Snorvel', 'Quibber', 'Zorple', 'Glimble', 'Plonkett', 'Frobish', 'Dingle', 'Mumbly', 'Vexel', 'Twonk', 'Gribble', 'Blarney', 'Squidge', 'Ponderoo', 'Noodly', 'Bumblet',
    'Crinkum', 'Flummox', 'Hobnob', 'Jabberly', 'Kerfuffle', 'Lollop'], f * 1013 % 23)
    || ' ' || nth(['Kettle', 'Lantern', 'Anchor', 'Pebble', 'Teapot', 'Ladder', 'Compass', 'Button', 'Bellows', 'Acorn', 'Trolley', 'Sundial', 'Marble', 'Thimble', 'Biscuit', 'Walrus', 'Umbrella'], f * 1013 // 23 % 17)
    || ' ' || nth(['Works', 'Labs', 'Group', 'Supplies', 'Partners', 'Trading', 'Systems'], f * 1013 // 391 % 7) || case when f >= 2737 then ' ' || (f // 2737 + 1) else '' end;
create macro mailbox(p, f, private) as lower(strip_accents(first_name(p) || '.' || last_name(p)) || case when private then p || '@' || nth(['example.com', 'example.org', 'example.net'], p % 3)
    else '@' || replace(company(f), ' ', '-') || '.test' end);
create macro mail(address, n, missing) as case when chance(n, 'mail') < missing then null when chance(n, 'mail') > .993 then replace(address, '@', ' at ')
    when chance(n, 'mail') > .986 then regexp_replace(address, '\.[a-z]+$', '') else address end;
create macro phone(p) as '+99 555 01' || p;
create macro places() as [{'city': 'Hamburg', 'country': 'Germany'}, {'city': 'Leipzig', 'country': 'Germany'}, {'city': 'Köln', 'country': 'Germany'}, {'city': 'Lyon', 'country': 'France'},
    {'city': 'Nantes', 'country': 'France'}, {'city': 'Utrecht', 'country': 'Netherlands'}, {'city': 'Leeds', 'country': 'United Kingdom'}, {'city': 'Bristol', 'country': 'United Kingdom'},
    {'city': 'Zürich', 'country': 'Switzerland'}, {'city': 'Graz', 'country': 'Austria'}, {'city': 'Gdańsk', 'country': 'Poland'}, {'city': 'Aarhus', 'country': 'Denmark'}, {'city': 'Austin', 'country': 'United States'}];
create macro family(i) as nth(['Gadgetron', 'Flowmatic', 'Docklet', 'Sorterix'], i // 3);
create macro price(i) as nth([{prices}], i - 1);
create macro stage(i) as nth(['Discovery', 'Qualification', 'Proposal', 'Negotiation', 'Won', 'Lost', 'Closed (old)'], i);
create macro lapse(n, what, mean_days) as 86400 * mean_days * -ln(1 - chance(n, what));  -- seconds, exponential

-- section fields: those that the schema lacks, or that are known otherwise than it says
select * from (values ('lead', 'x_budget_band', 'text', 'fixed', 'yearly budget as chosen in the form', false), ('lead', 'x_newsletter', 'bool', 'fixed', 'asked for the newsletter in the form', false),
    ('lead', 'x_messenger', 'text', 'fixed', 'name in a messenger', true), ('account', 'x_segment', 'text', 'fixed', 'size class when the account was entered', false),
    ('lead', 'x_call_grade', 'text', 'current_only', 'grade A to D after the latest call; written again when the lead is closed, earlier grades are not kept', false),
    ('deal', 'x_security_review', 'bool', 'historized', 'the customer asked for a security review', false), ('deal', 'x_discount_share', 'float', 'historized', 'discount offered, 0..1', false),
    ('deal', 'x_exit_score', 'float', 'current_only', '1 to 10, written at the hand-over after the close; no history is kept', false),
    ('stage', 'probability', 'float', 'historized', 'the win probability in the CRM, 0..1', false))

-- section user
select key('u', n) as id, instant(t) as valid_from, person(n) as name, lower(strip_accents(replace(person(n), ' ', '.'))) || n || '@demo-organisation.test' as email,
    case when n <> team + 1 then person(team + 1) end as manager, nth(['North', 'West', 'South', 'Overseas'], team) as team,
    nth(['Germany, Poland, Denmark', 'France, Netherlands, United Kingdom', 'Austria, Switzerland', 'United States'], team) as territory, active > 0 as is_active from told

-- section stage
select key('s', n) as id, instant(t) as valid_from, 'Sales' as pipeline, stage(n - 1) as name, n as position, probability, nth(['open', 'won', 'lost'], greatest(n - 4, 0)) as outcome from told

-- section campaign
select key('k', n) as id, instant(greatest(starts - 14 * 86400, begins)) as valid_from, nth(['Webinar', 'Event', 'E-mail campaign'], n % 3) as kind, kind || ' ' || family(n % 12) || ' ' || strftime(instant(starts), '%Y-%m') as name,
    instant(starts)::date as starts_on, (instant(starts) + to_days(nth([0, 2, 20], n % 3)))::date as ends_on, round(nth([1500, 9000, 600], n % 3) * (.6 + chance(n, 'cost')), -2) as cost, 'EUR' as currency from told

-- section product
select key('p', n) as id, instant(begins) as valid_from, family(n - 1) || ' ' || nth(['Basic', 'Plus', 'Complete'], (n - 1) % 3) as name, family(n - 1) as family, price(n) as list_price, 'EUR' as currency from told

-- section fx_rate
-- month-end rates against the euro, a random walk each; the last is the last event of all
select 'demo:fx-' || currency(money) || '-' || t::date as id, t as valid_from, currency(money) as currency, t::date as on_date,
    round(worth * exp(case when money > 0 then sum(.05 * (chance(strftime(t, '%Y%m')::int, 'rate ' || money::int) - .5)) over (partition by money order by t) else 0 end), 4) as rate
from (select money, worth, unnest(generate_series(TIMESTAMP '2022-07-01', TIMESTAMP '2026-07-01', interval 1 month)) - interval 1 second as t from told)

-- section quota
-- a target a user and quarter, agreed ten days before: what a seller brings in and a tenth more, growing; less in the first half-year
select 'demo:q' || n || '-' || strftime(q, '%Y-%m') as id, greatest(q - interval 10 day, TIMESTAMP '2022-07-01') as valid_from, key('u', n) as user_id, q::date as starts_on, (q + interval 3 month - interval 1 day)::date as ends_on,
    round(1.1 * sold / count(*) over () * exp(.054 * (date_diff('quarter', TIMESTAMP '2022-07-01', q) - 7.5)) * case when q < instant(hired) + interval 180 day then .6 else 1 end * (.85 + .3 * chance(n, 'quota ' || q::varchar)), -3) as amount, 'EUR' as currency
from (select *, unnest(generate_series(TIMESTAMP '2022-07-01', TIMESTAMP '2026-04-01', interval 3 month)) as q from told) where q >= instant(hired) and (gone is null or q < instant(gone))

-- section lead
select key('l', n) as id, instant(t) as valid_from, named(person(p), n, .005) as name, case when copied and chance(n, 'loud') < .5 then upper(mail(mailbox(p, f, private), n, .04)) else mail(mailbox(p, f, private), n, .04) end as email,
    case when phone > 0 then phone(p) end as phone, company(f) as company, typed_in(title, n, 'title') as title, typed_in(typed(industry, n, 'industry', .02), n, 'industry') as industry,
    typed_in(case when size > 0 then staff end, n, 'staff') as employees, typed_in(pick(places(), p, 'place').country, n, 'country') as country, typed_in(typed(pick(places(), p, 'place').city, n, 'city', .01), n, 'city') as city, typed(source, n, 'source', .015) as source,
    ref('k', campaign, n, .004) as campaign_id, key('u', owner) as owner_id, nth(['New', 'Working', 'Nurturing', 'Qualified', 'Converted', 'Dead'], status) as status, nth(['cold', 'warm', 'hot'], rating) as rating,
    mute > 0 as do_not_email, visits as n_visits, case when visits > 0 then round(visits * dwell) end as web_seconds, case when visits > 0 then round(pages, 1) end as pages_per_visit, instant(created) as created_at,
    outcome = 1 as is_converted, outcome = 2 as is_lost, case when outcome = 1 then instant(closed) end as converted_at, instant(closed) as closed_at,
    case when outcome = 1 then key('c', contact) end as converted_contact_id, case when outcome = 1 then key('d', deal) end as converted_deal_id, instant(gone) as deleted_at, case when gone is not null then key('l', merged) end as merged_into,
    case when chance(n, 'band') < .7 * (1 - {missing}) then nth(['below 5k', '5k to 20k', 'above 20k'], band) end as x_budget_band, chance(n, 'newsletter') < .4 as x_newsletter,
    case when chance(p, 'messenger') < .3 then '@' || lower(strip_accents(replace(person(p), ' ', '_'))) end as x_messenger, nth(['D', 'C', 'B', 'A'], grade) as x_call_grade{planted} from told

-- section account
select key('a', n) as id, instant(t) as valid_from, named(company(f), n, .006) as name, typed(industry, n, 'industry', .02) as industry, staff as employees, round(revenue, -3) as annual_revenue, 'EUR' as currency,
    typed(pick(places(), n, 'place').country, n, 'country', .015) as country, pick(places(), n, 'place').city as city, ref('a', parent, n, .1) as parent_id, key('u', owner) as owner_id,
    1960 + floor(60 * chance(n, 'founded'))::int as founded_year, instant(created) as created_at, instant(gone) as deleted_at, case when gone is not null and chance(n, 'merged') < .5 then key('a', n - 1) end as merged_into,
    case when first_staff < 40 then 'Small' when first_staff < 250 then 'Middle' else 'Large' end as x_segment from told

-- section contact
select key('c', n) as id, instant(t) as valid_from, named(person(p), n, .005) as name, mail(mailbox(p, f, private), n, .07) as email, case when phone > 0 then phone(p) end as phone,
    typed(title, n, 'title', .008) as title, ref('a', account, n, .002) as account_id, key('u', owner) as owner_id, pick(places(), account, 'place').country as country, pick(places(), account, 'place').city as city,
    mute > 0 as do_not_email, silent > 0 as do_not_call, instant(created) as created_at, instant(gone) as deleted_at, case when gone is not null and chance(n, 'merged') < .5 then key('c', n - 1) end as merged_into from told

-- section deal
select key('d', n) as id, instant(t) as valid_from, named(company(f) || ' – ' || family(product - 1), n, .004) as name, case when chance(n, 'no account') >= .015 then ref('a', account, n, .003) end as account_id,
    case when chance(n, 'contact') < .9 then key('c', contact) end as contact_id, key('u', owner) as owner_id, key('k', campaign) as campaign_id, key('l', lead) as source_lead_id, key('p', product) as product_id, 'Sales' as pipeline,
    stage(stage) as stage, nth(['new business', 'expansion', 'renewal'], kind) as kind, source, round(amount / worth, 2) as amount, case when chance(n, 'no currency') >= .008 then currency(money) end as currency,
    instant(plan)::date as close_on, nth(['Send proposal', 'Call back', 'Book a demo', 'Wait for the budget', 'Clarify contract', 'Meet the decision maker'], step) as next_step,
    nth(['Rivalco Demo', 'Otherly Systems', 'Cheapware Test'], rival) as competitor, instant(created) as created_at, outcome > 0 as is_won, instant(closed) as closed_at,
    nth(['Price', 'No decision', 'Lost to competitor', 'Bad timing', 'No budget', 'Missing feature'], reason) as lost_reason, instant(gone) as deleted_at,
    review > 0 as x_security_review, discount as x_discount_share, score as x_exit_score from told

-- section deal_product
-- line items from the proposal on: the main product, and up to two others
select key('i', 10 * (n - 1) + item) as id, instant(proposed) as valid_from, key('d', n) as deal_id, ref('p', thing, 10 * n + item, .004) as product_id,
    case when item = 1 then greatest(round(.8 * offer / price(thing)), 1) else 1 + floor(3 * chance(10 * n + item, 'quantity')) end as quantity, round(price(thing) * quantity / worth, 2) as amount, currency(money) as currency
from (select *, case when item = 1 then product else 1 + floor(12 * chance(10 * n + item, 'product'))::bigint end as thing from (select *, unnest(range(1, 2 + floor(3 * chance(n, 'items') ** 2)::bigint)) as item from told)) where proposed is not null

-- section deal_contact
-- the people of a deal: its main contact, and the latest of its account where there are more
select key('r', 10 * (n - 1) + part) as id, instant(t) as valid_from, key('d', n) as deal_id, key('c', person) as contact_id,
    case when chance(10 * n + part, 'champion') < case when champion then .6 else .12 end then 'Champion' else pick(['Decision maker', 'User', 'Purchasing'], 10 * n + part, 'role') end as role
from (select n, t, champion, contact as person, 1 as part from told union all select n, t, champion, other, 2 from told where other is not null) order by n, part

-- section membership
-- members of campaigns: leads that came through one, and others that were written to later (campaigns begin every 30.4 days)
select key('m', n) as id, instant(floor(t)) as valid_from, ref('k', number, n, .003) as campaign_id, key('l', n) as lead_id, nth(['sent', 'opened', 'responded'], status) as status, instant(floor(sent)) as created_at
from (select *, case when came then campaign else 1 + floor((sent - begins) / 86400 / 30.4) end as number,
        unnest(case when came then [{'status': 2, 't': sent}] else [{'status': 0, 't': sent}, {'status': 1, 't': case when chance(n, 'opens') < .35 then sent + 1 + lapse(n, 'open', 1) end},
            {'status': 2, 't': case when chance(n, 'answers') < .08 * exp(.5 * intent) then sent + 86400 * 9 + lapse(n, 'answer', 2) end}] end, recursive := true)
    from (select *, campaign is not null as came, born + case when campaign is null then 1 + lapse(n, 'sent', 60) else 0 end as sent from told) where came or chance(n, 'member') < .3)
where sent < least(until, ends) and t < least(until, ends) order by n, t

-- section activity
select key('t', n) as id, instant(t) as valid_from, nth(['call', 'email', 'meeting', 'task', 'note', 'web'], kind) as kind, nth(['out', 'in'], way) as direction,
    case when {written} then pick(nth([['Call about ', 'Short call: ', 'Tried to reach them, '], ['Your question on ', 'Re: ', 'Fwd: ', 'Next steps: '], ['Demo: ', 'Workshop ', 'Review of '],
        ['Follow up on ', 'Prepare ', 'Send papers for '], ['Note on '], ['Visited page: ']], kind), n, 'subject')
        || pick(['pricing', 'the pilot', 'Gadgetron', 'Flowmatic', 'Docklet', 'Sorterix', 'the contract', 'delivery', 'integration', 'security', 'the renewal', 'training'], n, 'topic') end as subject,
    case when {written} and kind < 5 then case
        when tone > 1 then pick(['They liked what they saw.', 'Wants to bring in the head of department.', 'Asked for a proposal by Friday.', 'Says the budget is approved.', 'Keen to start a pilot.'], n, 'good')
        when tone < -1.1 then pick(['Budget is on hold this quarter.', 'Finds us expensive.', 'Also talks to Rivalco Demo.', 'Our contact may leave.', 'Not a priority now.', 'Only wanted to look around.'], n, 'bad')
        else pick(['No decision yet.', 'Will come back to us.', 'Left a message.', 'Sent the brochure.', 'Talked about the weather, mostly.', 'Needs to ask a colleague.', 'Moved to next week.'], n, 'flat') end end as body,
    case when linked then key('l', lead) || torn end as lead_id, case when linked then key('c', contact) || torn end as contact_id, case when linked then key('d', deal) || torn end as deal_id,
    case when linked then key('a', account) end as account_id, case when kind < 5 then key('u', owner) end as user_id, instant(created) as created_at, instant(due) as happened_at, done > 0 as is_done,
    case when done > 0 then case kind when 2 then pick([30, 45, 60, 90], n, 'minutes') when 0 then 1 + floor(25 * chance(n, 'minutes') * chance(n, 'again')) end end as duration_minutes, instant(gone) as deleted_at
from (select *, mood + 4.5 * (chance(n, 'tone') - .5) as tone, chance(n, 'unlinked') >= .012 as linked, case when chance(n, 'torn') < .002 then '-old' else '' end as torn from told)

-- section synced
-- only the differences between syncs so many days apart, of which the last is the end, are known, and nothing from before the first: late, never early
select * exclude (seen) replace (seen as valid_from) from (select *, greatest(instant({end}) - to_seconds({step} * floor(({end} - epoch(valid_from)) / {step})::bigint), {cut}) as seen from made)
qualify row_number() over (partition by id, seen order by valid_from desc) = 1

-- section tracked
-- changes are known from {cut} on; before it only creation, outcome and deletion, which carry dates of their own, and no other field that changes
with v as (select *, valid_from < {cut} as early, lead(valid_from) over w as after, row_number() over w = 1 or ({ended}) is distinct from lag(({ended})) over w as dated from made window w as (partition by id order by valid_from))
select * exclude (early, after, dated) from v where not early
union all by name select * exclude (early, after, dated) replace ({cut} as valid_from) from v where early and coalesce(after > {cut}, true)
union all by name select * exclude (early, after, dated) replace ({nulls}) from v where early and dated
