-- What came of what was said. Inputs: said (row, id, entity, as_of, horizon_days), states (entity, id, state, decided, is_last: one row a version), $now.
-- Grain: one row a row of said. state and decided_at as of now, null where the lake knows no such record.
-- event: first won after as_of and no later than the horizon, null until the horizon has passed; without a horizon (ever), null until decided.
select s.row, n.state, n.decided as decided_at, s.as_of + to_days(s.horizon_days::int) as until,
    case when n.id is null then null
        when s.horizon_days is null and n.state = 'open' then null
        when s.horizon_days is null then count(w.decided) > 0
        when until <= $now then coalesce(min(w.decided) <= until, false) end as event
from said s
left join states n on n.id = s.id and n.entity = s.entity and n.is_last
left join states w on w.id = s.id and w.entity = s.entity and w.state = 'won' and w.decided > s.as_of
group by s.row, n.id, n.state, n.decided, s.horizon_days, s.as_of
order by s.row
