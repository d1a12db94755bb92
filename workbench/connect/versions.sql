-- The whole histories of the records that a sync heard of, one row a version, of those that differ from what stands.
-- A history is laid out as points in time, each of which sets some columns (to structs) and leaves the others null; columns are then filled
-- forward, and a point that changes nothing is no version. Where two points coincide, the higher rank counts;
-- no two of a record have the same. versions.py fills the braces.
--   news: one row a record: its columns, deleted_at, merged_into, and of the sync: seen, born, closed (or null), latest (its last version), is_new,
--         is_partial (not pulled: its columns are those that stand), was_told, is_told (its history is told anew, since told_from), decided
--   stood: the records' versions in the lake;  told: id, moment, n, field, old, new (text)
create or replace temp view point as
    -- 0: what stands; a told field that is empty there was unknown, unless its history was told before
    select id, valid_from as moment, 0 as rank, s.origin, s.recorded_at, {stood} from stood s join (select id, was_told from news) using (id)
    -- 1: birth, with what never changes, and the outcome of what is not decided
    union all by name select id, born as moment, 1 as rank, case when is_told then 'crm_history' else 'sync_diff' end as origin, {now} as recorded_at, {birth} from news where is_new
    {first}
    -- 3: each change that was told
    union all by name select id, moment, 3 as rank, 'crm_history' as origin, {now} as recorded_at, {change} from told semi join news using (id) group by id, moment
    -- 4: the outcome, when it came; 5: the deletion
    union all by name select id, closed as moment, 4 as rank, 'sync_diff' as origin, {now} as recorded_at, {close} from news where closed is not null
    union all by name select id, greatest(deleted_at, born, latest) as moment, 5 as rank, 'sync_diff' as origin, {now} as recorded_at, {ending} from news where deleted_at is not null
    -- 9: what this sync saw
    union all by name select id, seen as moment, 9 as rank, 'sync_diff' as origin, {now} as recorded_at, {sight} from news where {seen};

create or replace temp table version as
    with filled as (
        select id, moment, rank, origin, recorded_at, {filled} from point
        window w as (partition by id order by moment, rank rows unbounded preceding)
        qualify row_number() over (partition by id, moment order by rank desc) = 1
    ), told_apart as (
        select *, struct_pack({packed}) as state, lag(state) over v as before, row_number() over v as place from filled window v as (partition by id order by moment)
    )
    select id, moment as valid_from, origin, recorded_at, {columns} from told_apart where place = 1 or state is distinct from before;

create or replace temp table differing as
    select distinct id from (
        select id, hash(valid_from, {columns}) as h, 1 as side from version union all select id, hash(valid_from, {columns}) as h, -1 as side from stood
    ) group by id, h having sum(side) <> 0;
