-- What an application does in a session: rows in both directions, an error, a notice, a transaction, notifications.
create table numbers (id int primary key, half numeric, word text);
insert into numbers select id, id / 2.0, repeat(chr(97 + id % 26), id % 50) from generate_series(1, 2000) id;
select count(*), sum(id), sum(half), md5(string_agg(word, ',' order by id)) from numbers;
select * from numbers where id % 200 = 0 order by id;
-- A conversation: a query for each of these rows.
select format('select half, word from numbers where id = %s', id) from numbers where id <= 400 order by id \gexec
select 1 / 0;
select 'and it goes on';
do $$ begin raise notice 'a notice of %', repeat('many words ', 200); end $$;
begin;
update numbers set half = 0 where id <= 1000;
savepoint half;
delete from numbers;
rollback to half;
select count(*) from numbers where half = 0;
rollback;
select count(*) from numbers where half = 0;
prepare sum_to (int) as select sum(id) from numbers where id <= $1;
execute sum_to (100);
execute sum_to (1000);

-- 20 MB to the client and back.
create table wide (id int, filling text);
insert into wide select id, repeat(md5(id::text), 100) from generate_series(1, 6250) id;
\copy wide to wide.copy
create table again (like wide);
\copy again from wide.copy
select count(*), sum(length(filling)), md5(string_agg(md5(filling), ',' order by id)) from again;
select count(*) from (table wide except table again) missing;

-- A value of several megabytes in one row.
select length(word), md5(word) from (select string_agg(filling, '') word from wide where id <= 1000) large;

listen news;
notify news, 'from this session';
\! "$PSQL" -X -q -c "notify news, 'from another session'"
select 'the next query brings it';
unlisten news;
drop table numbers, wide, again;
