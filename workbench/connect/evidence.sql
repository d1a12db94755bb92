-- What one column of an export tells of the outcome, and whether it seems to be written after creation: filled_open, known_at, why.
-- value = its text, number = that text as a number (null where it is none), won = true, false, or null while open.
--   auc: each value's rate of winning (numbers in 20 bins), learned on the odd rows and judged on the even ones and the other way round
--   pure: share of rows whose value has one outcome in 98 % of 30 rows or more
--   filled_*: share of the open and of the decided rows that are filled; won_*: share won of those that are filled and empty
with told as (select {value} as t, {won} as w, _line % 2 as half from {table} where hash(_line) % {every} = 0),
typed as (select t, w::int as y, half, {number} as number from told where w is not null),
coded as (
    select y, half, case when number is not null then 'bin ' || ntile(20) over (partition by number is null order by number)
        else coalesce(t, '(none)') end as level
    from typed),
base as (select avg(y) as b from coded),
rates as (select level, half, sum(y) as s, count(*) as n from coded group by all),
scored as (
    select c.y, (coalesce(r.s, 0) + 5 * b) / (coalesce(r.n, 0) + 5) as p
    from coded c cross join base left join rates r on r.level = c.level and r.half = 1 - c.half),
ranked as (select y, rank() over (order by p) + (count(*) over (partition by p) - 1) / 2.0 as r from scored),
levels as (select level, avg(y) as m, count(*) as n from coded group by level),
found as (
    select (select (sum(r) filter (where y = 1) - sum(y) * (sum(y) + 1) / 2.0) / nullif(sum(y) * (count(*) - sum(y)), 0) from ranked) as auc,
        (select coalesce(sum(n) filter (where n >= 30 and (m >= 0.98 and b <= 0.9 or m <= 0.02 and b >= 0.1)), 0) / sum(n)
            from levels cross join base) as pure,
        count(w) as n, count(*) filter (where t is null and w is not null) as n_empty,
        avg(w::int) filter (where t is not null) as won_filled, avg(w::int) filter (where t is null) as won_empty,
        avg((t is not null)::int) filter (where w is null) as filled_open, avg((t is not null)::int) filter (where w is not null) as filled_decided
    from told),
judged as (
    select *, case when n < 60 then 0
        when auc > 0.95 or pure >= 0.2 then 1
        when filled_decided - filled_open > 0.5 then 2
        when auc > 0.85 or pure >= 0.05 then 3
        when n_empty between 0.05 * n and 0.95 * n and greatest(won_filled, won_empty) > 2.5 * greatest(least(won_filled, won_empty), 0.001) then 4
        else 0 end as verdict
    from found)
select coalesce(filled_open, 0), ['', 'outcome', 'outcome', 'current_only', 'current_only'][verdict + 1], case verdict
    when 1 then printf('LEAK: alone it tells the outcome (AUC %.2f, %.0f%% of the rows in values of one outcome)', auc, 100 * pure)
    when 2 then printf('LEAK: filled in %.0f%% of the decided, in %.0f%% of the open', 100 * filled_decided, 100 * filled_open)
    when 3 then printf('suspect: AUC %.2f alone, %.0f%% of the rows in values of one outcome', auc, 100 * pure)
    when 4 then printf('suspect: %.0f%% won where filled, %.0f%% where empty, so it seems to be filled in along the way', 100 * won_filled, 100 * won_empty)
    else '' end
from judged
