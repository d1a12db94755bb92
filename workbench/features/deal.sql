-- Features of a deal as of each spine row. Input views only: spine (id, as_of), deal_at, account_at, product_at, activity_at.
-- Grain: one row a spine row. Every value was true, and known, at as_of.
with activity as (
    select spine_row,
        count(*) filter (where is_done) as n_activities,
        count(*) filter (where is_done and visible_at > as_of - interval 7 day) as n_activities_7_days,
        count(*) filter (where is_done and visible_at > as_of - interval 28 day) as n_activities_28_days,
        count(*) filter (where is_done and direction = 'in') as n_inbound,
        count(*) filter (where is_done and direction = 'in' and visible_at > as_of - interval 28 day) as n_inbound_28_days,
        count(*) filter (where is_done and kind = 'meeting') as n_meetings,
        count(*) filter (where is_done and kind = 'call') as n_calls,
        count(*) filter (where is_done and kind = 'email') as n_emails,
        count(*) filter (where not is_done and happened_at > as_of) as n_planned,
        max(visible_at) filter (where is_done) as last_activity_at,
        /* engagement */ as engagement,
        arg_min(concat_ws(' ', subject, body), visible_at) filter (where is_done and direction = 'in' and kind <> 'web') as enquiry_text,
        bool_or(migrated) as has_migrated
    from activity_at group by spine_row
)
select
    s.spine_row,
    r.source, r.kind, r.pipeline, r.stage, r.owner_id, r.product_id, r.campaign_id, r.competitor, r.currency,
    r.amount::double as amount,
    r.contact_id is not null as has_contact, r.next_step is not null as has_next_step,
    c.industry as account_industry, c.country as account_country, c.employees::double as account_employees,
    c.annual_revenue::double as account_annual_revenue, c.founded_year::double as account_founded_year,
    p.family as product_family, p.list_price::double as product_list_price,
    date_diff('second', r.created_at, s.as_of) / 86400.0 as age_days,
    date_diff('second', r.valid_from, s.as_of) / 86400.0 as days_since_change,
    date_diff('day', s.as_of, r.close_on::timestamp)::double as days_to_close,
    coalesce(a.n_activities, 0)::double as n_activities,
    coalesce(a.n_activities_7_days, 0)::double as n_activities_7_days,
    coalesce(a.n_activities_28_days, 0)::double as n_activities_28_days,
    coalesce(a.n_inbound, 0)::double as n_inbound,
    coalesce(a.n_inbound_28_days, 0)::double as n_inbound_28_days,
    coalesce(a.n_meetings, 0)::double as n_meetings,
    coalesce(a.n_calls, 0)::double as n_calls,
    coalesce(a.n_emails, 0)::double as n_emails,
    coalesce(a.n_planned, 0)::double as n_planned,
    date_diff('second', a.last_activity_at, s.as_of) / 86400.0 as days_since_activity,
    coalesce(a.engagement, 0)::double as engagement, a.enquiry_text,
    coalesce(a.has_migrated, false) as has_migrated_activities
    /* custom */
from spine s
left join deal_at r using (spine_row)
left join account_at c using (spine_row)
left join product_at p using (spine_row)
left join activity a using (spine_row)
order by s.spine_row
