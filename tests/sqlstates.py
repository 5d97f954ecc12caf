"""Statements that fail, one for each SQLSTATE that a server can be made to raise.

The name of a statement begins with its SQLSTATE; with several where servers differ.
"""

SCHEMA = """
    CREATE TABLE parent (id int PRIMARY KEY, name text NOT NULL, n int CHECK (n > 0));
    CREATE TABLE child (parent int REFERENCES parent);
    CREATE TABLE slot (during int4range, EXCLUDE USING gist (during WITH &&));
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    INSERT INTO parent VALUES (1, 'one', 1);
    INSERT INTO child VALUES (1);
    INSERT INTO slot VALUES ('[1,5)');
    CREATE TABLE always (i int GENERATED ALWAYS AS IDENTITY);
    CREATE VIEW small AS SELECT * FROM parent WHERE n < 10 WITH CHECK OPTION;
    CREATE SEQUENCE short MAXVALUE 2;
    SELECT nextval('short'), nextval('short');
    CREATE TABLE touchy (i int);
    INSERT INTO touchy VALUES (1);
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN UPDATE touchy SET i = i + 1; RETURN new; END $$;
    CREATE TRIGGER touch BEFORE UPDATE ON touchy FOR EACH ROW
        WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION touch();
    CREATE TABLE strange (i int);
    CREATE FUNCTION wrong() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;
    CREATE FUNCTION fail() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'custom' USING ERRCODE = 'AB123', DETAIL = 'a detail',
            HINT = 'a hint', COLUMN = 'a column', CONSTRAINT = 'a constraint',
            DATATYPE = 'a type', TABLE = 'a table', SCHEMA = 'a schema'; END $$;
    CREATE FUNCTION nested() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN RETURN fail(); END $$;
    CREATE FUNCTION no_return() RETURNS int LANGUAGE plpgsql AS $$ BEGIN END $$;
    CREATE FUNCTION endless(i int) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN RETURN endless(i + 1); END $$;
    CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN INSERT INTO touchy VALUES (1); RETURN 1; END $$;
    CREATE FUNCTION commits() RETURNS void LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
"""

STATEMENTS = {
    "02000": "DO $$ BEGIN RAISE SQLSTATE '02000'; END $$",
    "08P01": "DO $$ BEGIN RAISE SQLSTATE '08P01'; END $$",
    "0A000": "SELECT 1 FROM parent p FULL JOIN child c ON p.id < c.parent",
    "0A000 trigger": "CREATE FUNCTION pg_temp.w() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RETURN NULL; END $$; SELECT pg_temp.w()",
    "0LP01": "GRANT EXECUTE ON TABLE parent TO public",
    "0Z002": "DO $$ DECLARE x text; BEGIN GET STACKED DIAGNOSTICS x = MESSAGE_TEXT; END $$",
    "20000": "DO $$ BEGIN CASE 1 WHEN 2 THEN NULL; END CASE; END $$",
    "21000": "SELECT (SELECT generate_series(1, 2))",
    "22001": "SELECT set_config('x.y', 'z', true); CREATE TEMP TABLE short (a varchar(2)); "
    "INSERT INTO short VALUES ('long')",
    "22003": "SELECT 2147483647 + 1",
    "22004": "DO $$ BEGIN EXECUTE NULL::text; END $$",
    "22007": "SELECT 'yesterday-ish'::date",
    "22008": "SELECT '2020-13-45'::date",
    "22009": "SELECT '2020-01-01 00:00+99'::timestamptz",
    "2200H": "SELECT nextval('short')",
    "2200M|0A000": "SELECT xmlparse(document 'a')",
    "2200N|0A000": "SELECT '<a'::xml",
    "2200S|0A000": "SELECT xmlcomment('--')",
    "2200T|42601|0A000": "SELECT xmlpi(name xml)",
    "22011": "SELECT substring('a' from 1 for -1)",
    "22012": "SELECT 1/0",
    "22013": "SELECT sum(1) OVER (ROWS -1 PRECEDING)",
    "22014": "SELECT ntile(0) OVER ()",
    "22016": "SELECT nth_value(1, 0) OVER ()",
    "2201B": "SELECT 'a' ~ '['",
    "2201E": "SELECT ln(0)",
    "2201F": "SELECT 0 ^ -1",
    "2201G": "SELECT width_bucket(1, 1, 2, 0)",
    "2201W": "SELECT 1 LIMIT -1",
    "2201X": "SELECT 1 OFFSET -1",
    "22021": "SELECT convert_from('\\xff', 'UTF8')",
    "22023": "SELECT generate_series(1, 10, 0)",
    "22025": "SELECT 'a' LIKE 'b' ESCAPE 'xx'",
    "22026": "CREATE TEMP TABLE b (a bit(2)); INSERT INTO b VALUES (B'1')",
    "2202E": "SELECT array_fill(1, ARRAY[[1]], ARRAY[1, 2])",
    "2202G": "SELECT * FROM parent TABLESAMPLE bernoulli (1) REPEATABLE (NULL)",
    "2202H": "SELECT * FROM parent TABLESAMPLE bernoulli (-1)",
    "22031": "SELECT jsonb_path_query('\"x\"', '$.datetime()')",
    "22033": "SELECT jsonb_path_query('[1]', 'strict $[2]')",
    "22036": "SELECT jsonb_path_query('\"x\"', '$.double()')",
    "22038": "SELECT jsonb_path_query('[]', 'strict $ + 1')",
    "22039": "SELECT jsonb_path_query('1', 'strict $[0]')",
    "2203A": "SELECT jsonb_path_query('{}', 'strict $.a')",
    "2203C": "SELECT jsonb_path_query('1', 'strict $.keyvalue()')",
    "22P02": "SELECT 'x'::int",
    "22P02 enum": "SELECT 'angry'::mood",
    "22P04": "COPY parent FROM '/dev/null' (FORMAT binary)",
    "22P05": "SELECT convert_to('日', 'LATIN1')",
    "23502": "INSERT INTO parent VALUES (2, NULL, 1)",
    "23503": "INSERT INTO child VALUES (99)",
    "23505": "INSERT INTO parent VALUES (1, 'again', 1)",
    "23514": "INSERT INTO parent VALUES (3, 'three', -1)",
    "23514 domain": "SELECT 0::positive",
    "23P01": "INSERT INTO slot VALUES ('[2,3)')",
    "24000": "DECLARE c CURSOR FOR SELECT * FROM parent;"
    " UPDATE parent SET n = 1 WHERE CURRENT OF c",
    "25001": "BEGIN; VACUUM; ROLLBACK",
    "25001 snapshot": "BEGIN; SELECT 1; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "25006": "BEGIN READ ONLY; CREATE TABLE never ()",
    "25P01": "SAVEPOINT nowhere",
    "26000": "EXECUTE no_such_statement",
    "27000": "UPDATE touchy SET i = 5",
    "2BP01": "DROP TABLE parent",
    "2D000": "BEGIN; SELECT commits()",
    "2F005": "SELECT no_return()",
    "34000": "CLOSE no_such_cursor",
    "3B001": "BEGIN; ROLLBACK TO no_such_savepoint",
    "3D000": "DROP DATABASE no_such_database",
    "3F000": "CREATE TABLE no_such_schema.t ()",
    "40001": "DO $$ BEGIN RAISE serialization_failure; END $$",
    "40P01": "DO $$ BEGIN RAISE deadlock_detected; END $$",
    "42501": "SET ROLE pg_monitor; SELECT * FROM parent",
    "42601": "SELEC 1",
    "42602": "SELECT 'a..b'::regclass",
    "42602 long": f"CREATE TYPE never AS ENUM ('{'x' * 64}')",
    "42701": "CREATE TABLE twice (a int, a int)",
    "42702": "SELECT id FROM parent a, parent b",
    "42703": "SELECT no_such_column FROM parent",
    "42704": "SELECT 1::no_such_type",
    "42710": "CREATE TYPE mood AS ENUM ()",
    "42712": "SELECT 1 FROM parent p, child p",
    "42723": "CREATE FUNCTION fail() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "42725": "SELECT date_part(NULL, NULL)",
    "42803": "SELECT id, count(*) FROM parent",
    "42804": "SELECT CASE WHEN true THEN 1 ELSE 'x'::text END",
    "42809": "DROP VIEW parent",
    "42830": "CREATE TABLE never (a int REFERENCES parent (n))",
    "42846": "SELECT 1::date",
    "42883": "SELECT no_such_function(1)",
    "428C9": "INSERT INTO always VALUES (1)",
    "42939": "CREATE ROLE pg_mine",
    "42939 role": "ALTER ROLE session_user RENAME TO x",
    "42P01": "SELECT\n  *\nFROM nowhere\nWHERE true",
    "42P02": "SELECT $1",
    "42P03": "DECLARE c CURSOR FOR SELECT 1; DECLARE c CURSOR FOR SELECT 1",
    "42P04": "CREATE DATABASE template1",
    "42P05": "PREPARE twice AS SELECT 1; PREPARE twice AS SELECT 1",
    "42P06": "CREATE SCHEMA public",
    "42P07": "CREATE TABLE parent ()",
    "42P10": "SELECT 1 ORDER BY 2",
    "42P11": "DECLARE c INSENSITIVE CURSOR FOR SELECT * FROM parent FOR UPDATE",
    "42P13": "CREATE FUNCTION never() RETURNS int LANGUAGE sql AS 'SELECT true'",
    "42P15": "CREATE SCHEMA s CREATE TABLE other.t ()",
    "42P16": "CREATE TABLE never (a int PRIMARY KEY, b int PRIMARY KEY)",
    "42P17": "CREATE TABLE never (a int) PARTITION BY RANGE (random())",
    "42P18": "PREPARE p AS SELECT $1 IS NULL",
    "42P19": "WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT r.* FROM r, r AS s) SELECT * FROM r",
    "42P20": "SELECT 1 WHERE row_number() OVER () = 1",
    "42P21": "SELECT 'a' COLLATE \"C\" < 'b' COLLATE \"POSIX\"",
    "42P22": """SELECT a < b FROM
        (SELECT 'a'::text COLLATE "C" AS a, 'b'::text COLLATE "POSIX" AS b) x""",
    "44000": "INSERT INTO small VALUES (5, 'five', 50)",
    "53100": "DO $$ BEGIN RAISE disk_full; END $$",
    "53400": "SET temp_file_limit = 1; SET work_mem = 64; SELECT count(*) FROM"
    " (SELECT repeat('x', 100) FROM generate_series(1, 20000) ORDER BY 1) x",
    "54000": "SELECT repeat('x', 2000000000)",
    "54001": "SELECT endless(1)",
    "54001 raised": "DO $$ BEGIN RAISE statement_too_complex; END $$",
    "54011": "DO $$ BEGIN EXECUTE (SELECT 'CREATE TABLE never ('"
    " || string_agg('c' || n || ' int', ',') || ')' FROM generate_series(1, 1601) n); END $$",
    "54023": "DO $$ BEGIN EXECUTE 'SELECT abs(1' || repeat(', 1', 101) || ')'; END $$",
    "55000": "CREATE TEMP SEQUENCE fresh; SELECT currval('fresh')",
    "55006": "DECLARE c CURSOR FOR SELECT * FROM child; FETCH c; ALTER TABLE child ADD x int",
    "55P02": "SET shared_buffers = 1",
    "55P03": "DO $$ BEGIN RAISE lock_not_available; END $$",
    "55P04": "BEGIN; ALTER TYPE mood ADD VALUE 'new'; SELECT 'new'::mood",
    "58P01": "SELECT pg_read_file('/no/such/file')",
    "AB123": "SELECT nested()",
    "P0001": "DO $$ BEGIN RAISE EXCEPTION 'percent %% and unicode: %', 'grüße'; END $$",
    "P0002": "DO $$ DECLARE x int; BEGIN SELECT 1 INTO STRICT x WHERE false; END $$",
    "P0003": "DO $$ DECLARE x int; BEGIN SELECT 1 INTO STRICT x FROM generate_series(1, 2); END $$",
    "P0004": "DO $$ BEGIN ASSERT false, 'not so'; END $$",
    "XX000": "SELECT satisfies_hash_partition(0, 4, 1, 1)",
    "ZZ999": "DO $$ BEGIN RAISE EXCEPTION 'no class of its own' USING ERRCODE = 'ZZ999'; END $$",
}
