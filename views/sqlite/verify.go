package sqlite

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// filling is a statement that fills a table of totals from the rows there are: what the table must hold at any time.
var filling = regexp.MustCompile(`(?s)INSERT INTO (\w+)\s+(SELECT [^;]+);\n`)

// kept says which rows of a table of totals count: others are left behind by windows that were withdrawn.
var kept = map[string]string{"aircraft_totals": " WHERE windows > 0", "day_totals": " WHERE windows > 0", "fleet_totals": " WHERE aircraft > 0"}

// Verify compares what is kept added up with the rows, and names the tables that differ, with the number of rows that do. The sink
// changes both in one transaction, so that they differ only after another program has written to the file. It reads every window.
func (s *Store) Verify(ctx context.Context) (differ []string, err error) {
	text, err := files.ReadFile("schema/002_totals.sql")
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	head, _, _ := strings.Cut(string(text), "CREATE TRIGGER")
	sums, tables := map[string][]string{}, []string{}
	for _, match := range filling.FindAllStringSubmatch(head, -1) {
		if sums[match[1]] == nil {
			tables = append(tables, match[1])
		}
		sums[match[1]] = append(sums[match[1]], "SELECT * FROM ("+match[2]+")")
	}
	for _, table := range tables {
		is, must := "SELECT * FROM "+table+kept[table], "SELECT * FROM ("+strings.Join(sums[table], " UNION ALL ")+")"
		var n int64
		err := s.read.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM ("+is+" EXCEPT "+must+")) + (SELECT count(*) FROM ("+must+" EXCEPT "+is+"))").Scan(&n)
		if err != nil {
			return differ, s.fault("verify", fmt.Errorf("table %s: %w", table, err))
		}
		if n > 0 {
			differ = append(differ, fmt.Sprintf("%s in %d rows", table, n))
		}
	}
	return differ, nil
}
