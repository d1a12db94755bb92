-- Texts of an export as values, null where a text is none: macros in the database of every import and draft.
create macro text_of(x) as nullif(trim(x, concat(' ', chr(9), chr(13), chr(10), chr(160), chr(65279))), '');
-- A value of a Parquet file as the text that a CSV export of it would hold: 3 for 3.0.
create macro cell_text(x) as nullif(if(typeof(x) in ('DOUBLE', 'FLOAT'), regexp_replace(x::varchar, '\.0$', ''), x::varchar), '');

-- 1,234.50 · (1,234.50) · 1 234,50 € · USD 1'234: what is no digit, sign or separator goes; the rest must be a number.
create macro number_text(x, sign) as regexp_replace(regexp_replace(if(sign = ',', translate(x, ',.', '.,'), x),
    '[\s\x{00A0}\x{202F}''\x{2019}]|^[A-Z]{3}|[A-Z]{3}$|[A-Z]{0,2}[$€£¥₹]', '', 'g'), '^\((.*)\)$', '-\1');
create macro bare_number(x) as if(
    regexp_matches(x, '^[+-]?([0-9]{1,3}(,[0-9]{2,3})*,[0-9]{3}|[0-9]+)?(\.[0-9]*)?([eE][+-]?[0-9]+)?$'), replace(x, ',', ''), null);
create macro as_text(x, sign) as x;
create macro as_int(x, sign) as try_cast(
    regexp_extract(bare_number(regexp_replace(number_text(x, sign), '%$', '')), '^([+-]?[0-9]+)(\.0*)?$', 1) as bigint);
create macro as_money(x, sign) as try_cast(bare_number(regexp_replace(number_text(x, sign), '%$', '')) as decimal(18,2));
create macro as_float(x, sign) as try_cast(bare_number(regexp_replace(number_text(x, sign), '%$', '')) as double)
    / if(ends_with(number_text(x, sign), '%'), 100, 1);

-- 2024-01-05T10:00:00+01:00 is an instant, whatever the mapping's time zone; 1/5/24 read as year 24 is no date.
create macro instant_of(x) as if(regexp_matches(x, '[0-9]:[0-9.]+\s*(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)$'),
    try_cast(replace(x, ' UTC', 'Z') as timestamptz), null)::timestamp;
create macro in_utc(x, zone) as timezone('UTC', timezone(zone, x));
create macro sane(x) as if(year(x) between 1900 and 2200, x, null);
