-- The questions of behaviour.py and progression.py; {words} are filled in there.

-- section touch
-- activity_at (features/as_of.py): what was visible at each spine row's as_of; told: the stories, a row a spine row. Grain: one row a touch.
create table touch as
select spine_row, kind,
    date_diff('microsecond', told.created_at, least(happened_at, visible_at)) / 86400e6 as day,
    coalesce(direction, case when kind = 'meeting' then 'both' end) as way
from activity_at join told using (spine_row)
where is_done and kind not in ('web', 'task', 'note') and way is not null and day >= 0

-- section first
-- Grain: one row a spine row. day, f = the first touch; ours, theirs = days until each side's first; answer = days from their first until ours after it.
select s.spine_row, any_value(f) as f, any_value(first_day) as day, min(t.day) filter (where way <> 'in') as ours, any_value(first_in) as theirs,
    min(t.day) filter (where way <> 'in' and t.day > first_in) - any_value(first_in) as answer
from told s left join touch t using (spine_row)
left join (select spine_row, arg_min(kind || case way when 'in' then ' from them' when 'out' then ' by us' when 'both' then ' with them' else '' end, (day, kind, way)) as f, min(day) as first_day, min(day) filter (where way <> 'out') as first_in
    from touch group by spine_row) using (spine_row)
group by s.spine_row order by s.spine_row

-- section first_rates
-- Grain: one row a kind, then a delay, of the first touch among told (event = converted after it) and created since the month of the first touch of all: before it none was recorded.
with labelled as (
    select event, created_at, day * 24 as hours, coalesce(f, 'none by then') as kind, case when day is null then 'none by then' when hours <= 1 then 'within an hour' when hours <= 24 then 'within a day'
        when hours <= 72 then 'within 3 days' when hours <= 168 then 'within a week' else 'later' end as delay
    from ({first}) join told using (spine_row)
)
select case when grouping(kind) = 0 then 'kind' else 'delay' end as "by", coalesce(kind, delay) as first_touch, count(*) as n, count(*) filter (where event) as n_converted, median(hours) as hours
from labelled where created_at >= (select date_trunc('month', min(created_at + to_microseconds((day * 86400e6)::bigint))) from touch join told using (spine_row)) group by grouping sets ((kind), (delay)) order by "by" desc, hours nulls last, first_touch

-- section silences
-- Grain: one row a direction and length of silence. Only messages whose window has passed; old = the earlier part of them by the cut.
with exchange as ({exchange}), waiting as (
    select who, silence_days, spine_row, started <= {cut} as old, cause = 1 and wait <= silence_days + {window} as came
    from exchange join (select unnest({silences}) as silence_days) on wait > silence_days where who <> 'next' and started + silence_days + {window} <= {until}
)
select who, silence_days, count(*) filter (where old) as n, count(distinct spine_row) filter (where old) as ids, count(*) filter (where old and came) as n_came,
    count(*) filter (where not old) as n_later, count(distinct spine_row) filter (where not old) as later_ids, count(*) filter (where not old and came) as n_later_came
from waiting group by all having ids >= 10 and later_ids >= 10 order by who desc, silence_days

-- section exchange
-- Grain: one row a touch and what it waits for: who in, out (the answer; asked when the touch before went the other way), next (our next touch).
with ahead as (
    select *, lag(way) over w as before,
        min(day) filter (where way <> 'in') over later as ours, min(day) filter (where way <> 'out') over later as theirs
    from touch
    window w as (partition by spine_row order by day, way), later as (partition by spine_row order by day, way rows between 1 following and unbounded following)
), waiting as (
    select spine_row, day, way as who, if(way = 'in', ours, theirs) as came from ahead where way <> 'both' and before is distinct from way
    union all select spine_row, day, 'next', ours from ahead where way <> 'in'
)
select spine_row, who, epoch(created_at) / 86400.0 + day as started, coalesce(came, days) - day as wait,
    case when came is not null then 1 when cause = 2 then 2 else 0 end as cause
from waiting join told using (spine_row) where coalesce(came, days) >= day

-- section cadence
-- Grain: one row a week since creation, of those created since the month of the first touch of all. touches = ours a record and open week; untouched_share = records that we did not touch in it.
with open_week as (select spine_row, days, unnest(range({weeks})) as w from told
    where created_at >= (select date_trunc('month', min(created_at + to_microseconds((day * 86400e6)::bigint))) from touch join told using (spine_row))),
counted as (
    select any_value(days) as days, w, count(day) as n
    from open_week left join (select spine_row, day, floor(day / 7)::bigint as w from touch where way <> 'in') using (spine_row, w)
    where days > 7 * w group by spine_row, w
)
select w + 1 as week, count(*) as n_open, sum(n) / sum(least(days - 7 * w, 7) / 7) as touches, count(*) filter (where n = 0) as n_untouched
from counted group by w order by w

-- section versions
-- Every version up to as_of with its stage; a version from before the history of the stage began is known from then on only (cut).
select id, created_at, state, origin, {since} as from_at, decided, {since} > from_at as cut,
    case state when 'open' then coalesce(stage, 'none given') when 'won' then '{event}' when 'gone' then 'deleted' else state end as stage
from ({states}) where ({inside}) and to_at > {since}

-- section spell
-- Grain: one row a stay of a record in a stage. A closing is dated by its own word, unless that lies before the stay began.
create table spell as
with spells as (
    select *, row_number() over w as k, lead(stage) over w as next, coalesce(lead(state) over w <> 'open', false) as ended,
        case when ended and lead(decided) over w > from_at then lead(decided) over w else lead(from_at) over w end as left_at
    from (select *, (stage, state = 'open') is distinct from lag((stage, state = 'open')) over (partition by id order by from_at) as begins from versions)
    where begins window w as (partition by id order by from_at)
)
select id, k, stage, from_at as entered_at, left_at, next, ended, ended and next in ('lost', 'deleted') as leaked, year(from_at) || '-Q' || quarter(from_at) as cohort,
    date_diff('microsecond', from_at, coalesce(left_at, {now})) / 86400e6 as days,
    coalesce(k > 1 or not cut and from_at <= created_at + interval 1 day, false) as seen
from spells where state = 'open'

-- section transitions
-- Grain: one row a way out of a stage (and quarter of entry).
select {cohort} stage as "from", coalesce(next, '{still}') as "to", count(*) as n, any_value(entered) as n_entered, any_value(ids) as ids
from (select *, count(*) over w as entered, count(distinct id) over w as ids, avg(k) over (partition by stage) as place from spell window w as (partition by {cohort} stage))
group by all order by {cohort} any_value(place), stage, n desc, "to"

-- section stays
-- Grain: one row a stage (and quarter of entry).
select {cohort} stage, count(*) as n_entered, count(*) filter (where not ended and next is not null) as n_moved, count(*) filter (where ended and not leaked) as n_ended,
    count(*) filter (where leaked) as n_lost, count(*) filter (where next is null) as n_still, count(distinct id) as ids,
    list(days) as days, list(case when next is null then 0 when leaked then 2 else 1 end) as cause
from spell group by all order by {cohort} avg(k), stage

-- section velocity
-- Grain: one row a whole month from the start on. The interval of the median: order statistics, binomial with the normal approximation, for six or more.
with month as (select unnest(range(date_trunc('month', start) + interval 1 month, date_trunc('month', {now} + interval 1 second), interval 1 month)) as month_on
    from (select min(created_at) + to_microseconds((86400e6 * quantile_cont(days, .9) filter (where cause = 1))::bigint) as start from stories)),
won as (select date_trunc('month', end_at) as month_on, list(days order by days) as d from stories where cause = 1 group by all),
created as (select date_trunc('month', created_at) as month_on, count(*) as n_created from stories group by all)
select month_on, coalesce(n_created, 0) as n_created, coalesce(len(d), 0) as n_converted, list_median(d) as median_days,
    case when len(d) >= 6 then d[greatest(1 + floor(len(d) / 2 - .98 * sqrt(len(d)))::int, 1)] end as low,
    case when len(d) >= 6 then d[least(1 + ceil(len(d) / 2 + .98 * sqrt(len(d)))::int, len(d))] end as high
from month left join won using (month_on) left join created using (month_on) order by month_on
