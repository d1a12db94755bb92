-- The quality rules: SQL that returns the ids of the offending records. Head: name :: entities :: severity :: needs (fields that a
-- source must fill somewhere; a|b = either) :: meaning :: fix. Words in braces: {e} the entity, {now} the instant; {open}, {won}, {lost} and
-- {closed} what the schema says of its outcome; {has_name} ... filled, and no placeholder; the rest in rules.py. Braces of SQL's own are doubled.

-- unreachable :: lead contact :: high :: email|phone :: Neither e-mail nor phone. :: Ask for one of them in the form.
select id from {e} where not {has_email} and not {has_phone};

-- malformed_email :: lead contact :: medium :: email :: The e-mail address cannot be one. :: Correct it, or check it in the form.
select id from {e} where {has_email} and not regexp_matches(trim(email), '^[^@\s]+@[^@\s]+\.[^@\s.]{{2,}}$');

-- duplicate_email :: lead contact :: medium :: email :: Shares its e-mail address with another record. :: Merge the two.
select id from {e} where {has_email} qualify count(*) over (partition by split_part(id, ':', 1), lower(trim(email))) > 1;

-- closed_before_created :: lead deal :: high :: created_at :: Closed before it was created. :: Correct the dates, often a time zone or day/month mix-up.
select id from {e} where {closed} < created_at;

-- outcome_without_date :: lead deal :: high ::  :: Decided, but nobody knows when. :: Export or enter the closing date; without it the order of time is lost.
select id from {e} where ({won} or {lost}) and {closed} is null;

-- overdue_close :: deal :: high :: close_on :: Still open after its planned close date. :: Move the date or close the deal.
select id from deal where {open} and close_on < {now}::date;

-- no_close_date :: deal :: medium :: close_on :: Open without a planned close date. :: Plan one; the forecast needs it.
select id from deal where {open} and close_on is null;

-- no_amount :: deal :: medium :: amount :: Open without an amount. :: Enter the expected value.
select id from deal where {open} and coalesce(amount, 0) <= 0;

-- won_without_amount :: deal :: high :: amount :: Won for nothing. :: Enter the value that was sold.
select id from deal where {won} and coalesce(amount, 0) <= 0;

-- amount_outlier :: deal :: low :: amount :: Over 100 times the median amount in its currency. :: Check for a slipped decimal point.
select id from deal where amount > 0 qualify amount > 100 * median(amount) over (partition by split_part(id, ':', 1), currency);

-- amount_without_currency :: deal :: low :: amount currency :: An amount whose currency is missing. :: Enter the currency.
select id from deal where amount is not null and currency is null;

-- no_owner :: lead deal :: medium :: owner_id :: Open, and nobody owns it. :: Assign it.
select id from {e} where {open} and owner_id is null;

-- inactive_owner :: lead deal :: high :: owner_id user.is_active :: Open, owned by somebody who has left. :: Hand it over.
select id from {e} where {open} and owner_id in (select id from "user" where not is_active);

-- no_account :: deal :: medium :: account_id :: A deal with nobody: no account. :: Link the account.
select id from deal where account_id is null;

-- broken_reference :: account contact lead deal activity deal_product membership :: high ::  :: Points to a record that does not exist in its source. :: Import the missing records, or correct the key (often a spelling).
{broken};

-- stale_deal :: deal :: medium :: activity.deal_id :: Open, and no activity for 60 days. :: Call, or close it.
select id from deal where {open} and coalesce(created_at, {now}) <= {now} - interval 60 day and id not in (select deal_id from
    activity where deal_id is not null and coalesce(happened_at, created_at) between {now} - interval 60 day and {now});

-- unknown_stage :: deal :: medium :: stage stage.name :: Its stage is not among the stages of its source. :: Correct the stage or import the list of stages.
select d.id from deal d where stage is not null and not exists (select 1 from stage s where s.name = d.stage and {same_source});

-- stage_against_outcome :: deal :: high :: stage stage.outcome :: The stage says something else than the outcome. :: Close the deal through its stage.
select d.id from deal d join stage s on s.name = d.stage and {same_source} and (s.pipeline is null or d.pipeline is null or s.pipeline = d.pipeline)
    where s.outcome <> case when is_won then 'won' when not is_won then 'lost' else 'open' end;

-- created_in_future :: account contact lead deal activity :: high :: created_at :: Created after the instant of this report. :: Check the time zone of the import.
select id from {e} where created_at > {now};

-- migrated_batch :: lead deal activity :: medium :: created_at :: One of 50 or more created at the same instant: a migration, not an event. :: Do not read its creation as a date; map the original date.
-- An export that knows days only has many records an instant: a batch must stand out from what is usual there.
select r.id from {e} r join (select *, quantile_disc(n, .5) over (partition by src) as usual from (select split_part(id, ':', 1) as src, created_at, count(*) as n
    from {e} group by all)) b on b.src = split_part(r.id, ':', 1) and b.created_at = r.created_at where n >= 50 and n >= 20 * usual;

-- done_in_future :: activity :: medium :: happened_at :: Marked as done, but lies in the future. :: Correct the date.
select id from activity where is_done and happened_at > {now};

-- overdue_task :: activity :: low :: happened_at is_done :: Planned over 30 days ago and never marked as done. :: Do it or delete it.
select id from activity where not is_done and happened_at < {now} - interval 30 day;

-- unlinked_activity :: activity :: medium :: lead_id|contact_id|deal_id|account_id :: About nobody: linked to no record. :: Link it, or it counts for nothing.
select id from activity where coalesce(lead_id, contact_id, deal_id, account_id) is null;

-- placeholder_name :: lead contact account deal :: low :: name :: A name that is none (test, n/a, unknown). :: Enter the real name or delete the record.
select id from {e} where name is not null and (not {has_name} or regexp_matches(lower(trim(name)), '^(test|asdf|xxx+|dummy)[ 0-9]*$'));

-- spelling_variants :: lead account contact :: low ::  :: A category spelled in two ways; this is the rarer one. :: Choose one spelling, or map them in the import.
{variants};
