-- What the data are good for: one query a capability, which gives [ready (yes, partly, no), the sentence with the numbers behind it].
-- Words in braces: {mine} the id is of the source; {lead_won}, {deal_lost} ... the outcome as the schema tells it; {changed_lead} ... the ids of
-- records whose changes were recorded (the two states that an import makes of one row are no history); {records} n and n_story by entity.

-- lead scoring
with c as (select count(*) filter ({lead_won}) as n_won, count(*) filter ({lead_lost}) as n_lost,
    count(*) filter (({lead_won} or {lead_lost}) and {lead_closed} is not null and created_at is not null) as n_dated,
    count(*) filter (id in ({changed_lead})) as n_story from lead where {mine}),
t as (select *, format('{:,} leads converted and {:,} not converted', n_won, n_lost) as what, n_dated / nullif(n_won + n_lost, 0) as dated from c)
select case when least(n_won, n_lost) < 30 then ['no', format('Too little to learn from: {}; at least 30 of each are needed.', what)]
    when dated < .9 then ['partly', format('{}, but only {:.0f}% of them have dates: scored at creation, judged in grouped folds, blind to drift.', what, 100 * dated)]
    when n_story = 0 then ['partly', format('{}, dated, but without any history of changes: scored at creation only.', what)]
    else ['yes', format('{}, {:.0f}% of them dated, {:,} leads with a history of changes.', what, 100 * dated, n_story)] end from t;

-- win probability
with c as (select count(*) filter ({deal_won}) as n_won, count(*) filter ({deal_lost}) as n_lost,
    count(*) filter (({deal_won} or {deal_lost}) and {deal_closed} is not null and created_at is not null) as n_dated,
    count(*) filter (id in ({changed_deal})) as n_story from deal where {mine}),
t as (select *, format('{:,} deals won and {:,} lost', n_won, n_lost) as what, n_dated / nullif(n_won + n_lost, 0) as dated from c)
select case when least(n_won, n_lost) < 30 then ['no', format('Too little to learn from: {}; at least 30 of each are needed.', what)]
    when dated < .9 then ['partly', format('{}, but only {:.0f}% of them have dates: scored at creation, judged in grouped folds, blind to drift.', what, 100 * dated)]
    when n_story = 0 then ['partly', format('{}, dated, but without any history of changes: scored at creation only.', what)]
    else ['yes', format('{}, {:.0f}% of them dated, {:,} deals with a history of changes.', what, 100 * dated, n_story)] end from t;

-- forecast
with c as (select count(*) filter (is_won and closed_at is not null and amount > 0) as n_won,
    count(distinct date_trunc('month', closed_at)) filter (is_won and amount > 0) as n_months, count(*) filter (is_won is null) as n_open,
    count(*) filter (is_won is null and close_on is not null) as n_planned from deal where {mine}),
t as (select *, format('{:,} won deals with date and amount over {:,} months, {:,} open deals ({:,} with a planned close date)',
    n_won, n_months, n_open, n_planned) as what from c)
select case when n_won < 30 or n_months < 6 then ['no', format('Too little to forecast from: {}; at least 30 wins over 6 months are needed.', what)]
    when n_months < 24 or 2 * n_planned < n_open
        then ['partly', format('{}: 24 months (for seasons) and planned dates on half of the open deals make a full forecast.', what)]
    else ['yes', what || '.'] end from t;

-- next best action
with c as (select count(*) as n, count(distinct kind) as n_kinds,
    (select count(*) from lead where ({lead_won} or {lead_lost}) and {mine} and id in (select lead_id from activity))
    + (select count(*) from deal where ({deal_won} or {deal_lost}) and {mine} and id in (select deal_id from activity)) as n_decided
    from activity where coalesce(is_done, true) and coalesce(lead_id, deal_id, contact_id) is not null and {mine}),
t as (select *, format('{:,} activities of {:,} kinds, {:,} decided leads and deals that had any', n, n_kinds, n_decided) as what from c)
select case when n_decided < 30 then ['no', format('Nothing to compare actions by: {}; at least 30 are needed.', what)]
    when n < 1000 or n_kinds < 2 then ['partly', format('{}: timing can be advised; choosing among actions takes 1,000 activities of two kinds.', what)]
    else ['yes', format('{}; advice rests on observation, not on an experiment.', what)] end from t;

-- personalization
with p as (select count(*) as n, count(*) filter (direction = 'in') as n_in from activity where coalesce(contact_id, lead_id) is not null and {mine}
    group by coalesce(contact_id, lead_id)),
c as (select count(*) as n_people, count(*) filter (n >= 5) as n_often, coalesce(sum(n_in), 0)::bigint as n_in from p),
t as (select *, format('{:,} people with activities ({:,} with five or more), {:,} of these incoming', n_people, n_often, n_in) as what from c)
select case when n_people < 30 or n_in < 30 then ['no', format('Nobody''s preferences can be seen: {}; at least 30 people and 30 answers are needed.', what)]
    when n_often < 200 then ['partly', format('{}: habits of groups, not of single people.', what)]
    else ['yes', what || '.'] end from t;

-- data quality
with c as (select coalesce(sum(n), 0)::bigint as n, coalesce(sum(n_story), 0)::bigint as n_story from ({records}))
select case when n = 0 then ['no', 'There is no record to judge.']
    when n_story = 0 then ['partly', format('{:,} records, none with a history: fill can be told for now, not for the time of decision.', n)]
    else ['yes', format('{:,} records, {:,} of them with a history of changes.', n, n_story)] end from c;
