package risingwave_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"klgstream.dev/views/risingwave"
)

// refusals is what RisingWave (2.6 to 3.0) refuses, silently ignores, or takes to mean something else than PostgreSQL does.
var refusals = []struct{ pattern, why string }{
	{`^insert\b.*\bon conflict\b`, "INSERT has no ON CONFLICT: the table says how rows of one key are settled"},
	{`^insert\b.*\b(overriding|default values)\b`, "INSERT has neither OVERRIDING nor DEFAULT VALUES"},
	{`^insert\b.*\bvalues\b.*\bdefault\b`, "DEFAULT cannot be a value: leave the column out"},
	{`\bunnest\s*\((?:[^()]|\([^()]*\))*,`, "unnest takes one array: unnest in lock step in the SELECT list"},
	{`\bfrom\s+unnest\b.*,\s*unnest\b`, "unnest beside unnest in FROM is a cross join"},
	{`^copy\b.*\bfrom\b`, "COPY FROM does not exist"},
	{`^(begin|start transaction|commit|rollback|end|savepoint|release)\b`, "there are no read-write transactions: ROLLBACK undoes nothing"},
	{`\bpg_(try_)?advisory`, "there are no advisory locks"},
	{`^(listen|notify|unlisten)\b`, "there is no LISTEN and NOTIFY"},
	{`^truncate\b`, "TRUNCATE has no handler"},
	{`^(discard|deallocate|prepare)\b`, "prepared statements are not managed by SQL"},
	{`^delete\b.*\busing\b`, "DELETE has no USING"},
	{`^update\b.*\bset\b.*\bfrom\b`, "UPDATE has no FROM"},
	{`^create\s+(temp|temporary)\b`, "there are no temporary tables"},
	{`^create\s+unique\b|^create\b.*\bunique\b`, "there is no UNIQUE"},
	{`^create\s+or\s+replace\b`, "there is no OR REPLACE for tables and views"},
	{`^create\s+(?:materialized\s+)?view\s+\S+\s+as\b.*\$\d`, "a view cannot take parameters"},
	{`^create\s+table\b.*\b(check\s*\(|references\b|foreign\s+key|exclude\b|fillfactor|tablespace|inherits)`, "a table has a primary key and no other constraint or storage option"},
	{`^create\s+table\b.*\bwith\s+version\s+column\s+[^( ]`, "the version column stands in parentheses"},
	{`^create\s+table\b.*\bwith\s+version\s+column\b.*\bon\s+conflict\b`, "ON CONFLICT stands before WITH VERSION COLUMN"},
	{`\bon\s+conflict\s+do\s+nothing\s+with\s+version\b`, "DO NOTHING takes no version column"},
	{`\bon\s+conflict\s+(overwrite|ignore)\b`, "OVERWRITE and IGNORE are old spellings of DO UPDATE FULL and DO NOTHING"},
	{`\bcollate\b`, "there are no collations: text compares by bytes"},
	{`\b(small|big)?serial\b`, "there is no SERIAL"},
	{`\b(var)?char(acter)?(\s+varying)?\s*\(\s*\d`, "text types have no length"},
	{`(::|\bas|\s)\s*(char|bpchar|uuid|timetz|money|inet|cidr|xml|json|hstore|citext)\b\s*(\[\]|,|\)|$|not\b|primary\b)`, "the type does not exist"},
	{`::\s*(char|bpchar|uuid|timetz|money|inet|cidr|xml|json|hstore|citext|regtype|oid)\b`, "the type does not exist"},
	{`\b(numeric|decimal)\s*\(`, "numeric has no precision"},
	{`\bfor\s+(update|share|no\s+key)\b`, "rows cannot be locked"},
	{`^do\b|^call\b|\bplpgsql\b`, "there are no procedures of that kind"},
	{`\bset_config\b|^set\s+local\b`, "settings belong to a session, and set_config is not to be relied on"},
	{`^create\s+materialized\s+view\b.*\bselect\b[^;]*\bnow\s*\(\s*\)[^;]*\bfrom\b`, "now() stands only in WHERE, HAVING, ON and FROM of a materialized view"},
	{`^create\s+materialized\s+view\b.*([=<>]|coalesce\s*\()\s*\(\s*select\b`, "a scalar subquery can need a nested-loop join, which streams do not have: join on equal columns"},
	{`^create\s+materialized\s+view\b.*\b(cross\s+join|join\b[^;]*\bon\s+true)\b`, "streams have no nested-loop join"},
	{`^create\s+materialized\s+view\b.*\bgroup\s+by\s+(grouping\s+sets\s*\()?\s*\d`, "GROUP BY takes expressions here, to be sure"},
}

var compiled = func() (list []*regexp.Regexp) {
	for _, r := range refusals {
		list = append(list, regexp.MustCompile(`(?is)`+r.pattern))
	}
	return list
}()

var quoted = regexp.MustCompile(`'[^']*'|--[^\n]*`)

// guard tells what RisingWave would not do as meant. Text in quotes is nobody's SQL.
func guard(sql string, args []any) error {
	text := strings.TrimSpace(quoted.ReplaceAllString(sql, "''"))
	text = strings.ReplaceAll(text, "ENCODE JSON", "") // a format, not a type
	var faults []error
	if rest := strings.TrimSuffix(text, ";"); strings.Contains(rest, ";") {
		faults = append(faults, errors.New("one statement at a time"))
	}
	for i, pattern := range compiled {
		if pattern.MatchString(text) {
			faults = append(faults, errors.New(refusals[i].why))
		}
	}
	if len(args) > 32767 {
		faults = append(faults, fmt.Errorf("%d parameters: must be at most 32767, beyond it the message is misread", len(args)))
	}
	for i, arg := range args {
		switch arg.(type) {
		case nil, string, int64, int32, int, bool, float64, time.Time, pgx.QueryExecMode:
		default:
			faults = append(faults, fmt.Errorf("parameter %d is a %T: arrays must travel as text, and types without an OID that RisingWave knows not at all", i+1, arg))
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w\nin %s", errors.Join(faults...), sql)
	}
	return nil
}

// watchman is a pgx tracer that fails the test on everything the guard finds.
type watchman struct{ t testing.TB }

func (w watchman) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if err := guard(data.SQL, data.Args); err != nil {
		w.t.Errorf("RisingWave would refuse: %v", err)
	}
	return ctx
}

func (watchman) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func TestGuardKnowsWhatIsRefused(t *testing.T) {
	for _, sql := range []string{
		"INSERT INTO t (a) VALUES ($1) ON CONFLICT (a) DO NOTHING",
		"INSERT INTO t DEFAULT VALUES",
		"INSERT INTO t (a) VALUES (DEFAULT)",
		"SELECT * FROM unnest($1::varchar[], $2::bigint[])",
		"SELECT * FROM unnest(array[1]), unnest(array[2])",
		"COPY t (a) FROM STDIN BINARY",
		"BEGIN", "commit", "SAVEPOINT a", "SELECT pg_advisory_lock(1)", "LISTEN a", "TRUNCATE t", "DISCARD ALL",
		"DELETE FROM t USING u WHERE t.a = u.a", "UPDATE t SET a = u.a FROM u",
		"CREATE TEMP TABLE t (a int)", "CREATE UNIQUE INDEX i ON t (a)", "CREATE OR REPLACE VIEW v AS SELECT 1",
		"CREATE VIEW v AS SELECT $1::int", "CREATE TABLE t (a int CHECK (a > 0))", "CREATE TABLE t (a int REFERENCES u)",
		"CREATE TABLE t (a int PRIMARY KEY) WITH (fillfactor = 80)",
		"CREATE TABLE t (a int PRIMARY KEY, r int) ON CONFLICT DO UPDATE FULL WITH VERSION COLUMN r",
		"CREATE TABLE t (a int PRIMARY KEY, r int) WITH VERSION COLUMN (r) ON CONFLICT DO UPDATE FULL",
		"CREATE TABLE t (a int PRIMARY KEY, r int) ON CONFLICT DO NOTHING WITH VERSION COLUMN (r)",
		"CREATE TABLE t (a int PRIMARY KEY) ON CONFLICT OVERWRITE",
		`SELECT a FROM t ORDER BY a COLLATE "C"`, "CREATE TABLE t (a bigserial)", "CREATE TABLE t (a varchar(20))",
		"CREATE TABLE t (a uuid)", "SELECT a::json FROM t", "SELECT $1::uuid[]", "CREATE TABLE t (a numeric(10, 2))", "SELECT a FROM t FOR UPDATE",
		"DO $$ BEGIN END $$", "SELECT set_config('a', 'b', false)", "SET LOCAL a = 1",
		"CREATE MATERIALIZED VIEW v AS SELECT now() AS n FROM t",
		"CREATE MATERIALIZED VIEW v AS SELECT a FROM t WHERE a = (SELECT max(a) FROM t)",
		"CREATE MATERIALIZED VIEW v AS SELECT a FROM t WHERE a = coalesce((SELECT max(a) FROM t), 1)",
		"CREATE MATERIALIZED VIEW v AS SELECT t.a FROM t CROSS JOIN u",
		"CREATE MATERIALIZED VIEW v AS SELECT a, count(*) FROM t GROUP BY 1",
		"SELECT 1; SELECT 2",
	} {
		if guard(sql, nil) == nil {
			t.Errorf("the guard lets pass: %s", sql)
		}
	}
	for _, arg := range []any{[]string{"a"}, []int64{1}, [16]byte{}, &risingwave.Config{}} {
		if guard("SELECT $1", []any{arg}) == nil {
			t.Errorf("the guard lets pass a %T", arg)
		}
	}
	if guard("SELECT 1", make([]any, 32768)) == nil {
		t.Error("the guard lets pass 32768 parameters")
	}
	for _, sql := range []string{
		"SELECT version()", "FLUSH", "SELECT a FROM t WHERE b = 'begin; unnest(a, b) collate uuid' LIMIT 3",
		"INSERT INTO t (k, n) SELECT unnest($1::varchar[]), unnest($2::bigint[])",
		"CREATE TABLE IF NOT EXISTS t (a varchar, r bigint, j jsonb, PRIMARY KEY (a)) ON CONFLICT DO UPDATE FULL WITH VERSION COLUMN (r)",
	} {
		if err := guard(sql, []any{"a", int64(1), time.Time{}}); err != nil {
			t.Errorf("the guard refuses what RisingWave takes: %v", err)
		}
	}
}

// TestSchemaPassesTheGuard reads what Migrate would run, statement by statement.
func TestSchemaPassesTheGuard(t *testing.T) {
	script, err := risingwave.Schema(risingwave.RisingWave)
	if err != nil {
		t.Fatal(err)
	}
	list := risingwave.Statements(script)
	if len(list) < 8 {
		t.Fatalf("%d statements", len(list))
	}
	for _, statement := range list {
		if err := guard(statement, nil); err != nil {
			t.Error(err)
		}
	}
	script, err = risingwave.Schema(risingwave.PostgreSQL)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, statement := range risingwave.Statements(script) {
		if guard(statement, nil) != nil {
			refused++
		}
	}
	if refused < 3 {
		t.Errorf("the guard refuses %d statements of PostgreSQL's schema, want at least its three tables", refused)
	}
	if _, err := risingwave.Schema("oracle"); err == nil {
		t.Error("there is a schema for oracle")
	}
}
