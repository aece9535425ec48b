package views

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Type is the type of a column's values.
type Type uint8

// The types a column can have, and what [Result.Rows] holds for each.
const (
	Text      Type = iota // string
	Integer               // int64
	Number                // float64
	Boolean               // bool
	Timestamp             // time.Time in UTC
	JSON                  // json.RawMessage
)

var typeNames = [...]string{"text", "integer", "number", "boolean", "timestamp", "json"}

// String is the type's name in a view file.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("Type(%d)", uint8(t))
}

// MarshalText writes the type's name.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads a type's name.
func (t *Type) UnmarshalText(text []byte) error {
	i := slices.Index(typeNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("read column type %q: want one of %s", text, strings.Join(typeNames[:], ", "))
	}
	*t = Type(i)
	return nil
}

// Column describes one column of a view.
type Column struct {
	Name        string `json:"name"`
	Type        Type   `json:"type"`
	Nullable    bool   `json:"nullable"`
	Description string `json:"description"`
}

// View is a named relation that readers may ask, with what they need to know of it.
type View struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Columns     []Column `json:"columns"`
	Key         []string `json:"key"` // columns that together tell any two rows apart; never null
	Order       []Order  `json:"-"`   // order when a query names none
	// Table is set when the relation is a table of the store, so that no view needs to be created.
	Table bool `json:"-"`
	// Materialized is set when a store that can keep results up to date as rows come (RisingWave) shall do so.
	Materialized bool `json:"-"`
	// SQL is the SELECT, without its header and without a semicolon.
	SQL string `json:"-"`
}

// Column finds a column by name.
func (v View) Column(name string) (Column, bool) {
	i := slices.IndexFunc(v.Columns, func(c Column) bool { return c.Name == name })
	if i < 0 {
		return Column{}, false
	}
	return v.Columns[i], true
}

func (v View) columnNames() []string {
	names := make([]string, len(v.Columns))
	for i, c := range v.Columns {
		names[i] = c.Name
	}
	return names
}

//go:embed definitions/*.sql
var definitions embed.FS

// Shared lists the views whose SQL every dialect reads alike.
func Shared() []View {
	list, err := ReadViews(must(fs.Sub(definitions, "definitions")))
	if err != nil {
		panic(err) // the files are part of the program and its tests read them
	}
	return list
}

func must(fsys fs.FS, err error) fs.FS {
	if err != nil {
		panic(err)
	}
	return fsys
}

// ReadViews reads every .sql file of a directory as a view named after the file, ordered by name. It returns all faults of
// all files. A nil directory has none.
func ReadViews(dir fs.FS) ([]View, error) {
	if dir == nil {
		return nil, nil
	}
	files, err := fs.Glob(dir, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("list views: %w", err)
	}
	var list []View
	var bad []error
	for _, file := range files {
		text, err := fs.ReadFile(dir, file)
		if err != nil {
			bad = append(bad, fmt.Errorf("read view: %w", err))
			continue
		}
		v, err := ParseView(strings.TrimSuffix(path.Base(file), ".sql"), string(text))
		if err != nil {
			bad = append(bad, err)
			continue
		}
		list = append(list, v)
	}
	return list, errors.Join(bad...)
}

// Merge puts lists of views together, ordered by name; of two with one name the later list's stays.
func Merge(lists ...[]View) []View {
	var all []View
	for _, list := range lists {
		for _, v := range list {
			all = slices.DeleteFunc(all, func(old View) bool { return old.Name == v.Name })
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b View) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Find is the view of that name, or an error around [ErrUnknownView] that lists the names there are.
func Find(list []View, name string) (View, error) {
	names := make([]string, len(list))
	for i, v := range list {
		if v.Name == name {
			return v, nil
		}
		names[i] = v.Name
	}
	return View{}, fmt.Errorf("find view %.64q: %w; there are %s", name, ErrUnknownView, strings.Join(names, ", "))
}

// nameForm is what a view or a column may be called: what every dialect takes unquoted, and fits all their limits.
var nameForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// reserved are column names that would hide a parameter of [ParseQuery].
var reserved = []string{"order", "limit", "cursor"}

// ParseView reads a view file. Its header is the comment lines it starts with:
//
//	-- What the view is, in one or more lines.
//	-- columns:
//	--   registration_number text: what it is
//	--   aircraft_id integer?: a question mark behind the type lets it be null
//	-- key: registration_number
//	-- order: -total_events, registration_number
//	-- table                 (the relation is a table of the store; optional)
//	-- materialized          (keep it up to date as rows come, where the store can; optional)
//	SELECT …
//
// Types are text, integer, number, boolean, timestamp and json. All faults are returned at once.
func ParseView(name, text string) (View, error) {
	p := viewParser{view: View{Name: name}}
	p.read(text)
	p.check()
	if len(p.faults) > 0 {
		return View{}, fmt.Errorf("read view %q: %w", name, errors.Join(p.faults...))
	}
	return p.view, nil
}

type viewParser struct {
	view      View
	inColumns bool
	faults    []error
}

func (p *viewParser) fault(format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf(format, args...))
}

// read takes the header line by line and everything from the first line that is no comment as the SELECT.
func (p *viewParser) read(text string) {
	header := true
	var body strings.Builder
	for line := range strings.Lines(text) {
		comment, is := strings.CutPrefix(strings.TrimSpace(line), "--")
		header = header && (is || strings.TrimSpace(line) == "")
		if header {
			p.headerLine(comment)
			continue
		}
		body.WriteString(line)
	}
	p.view.SQL = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(body.String()), ";"))
}

func (p *viewParser) headerLine(comment string) {
	line := strings.TrimSpace(comment)
	word, rest, _ := strings.Cut(line, ":")
	switch {
	case line == "columns:":
		p.inColumns = true
	case word == "key":
		p.view.Key, p.inColumns = splitList(rest), false
	case word == "order":
		p.view.Order, p.inColumns = parseOrder(rest), false
	case line == "table":
		p.view.Table, p.inColumns = true, false
	case line == "materialized":
		p.view.Materialized, p.inColumns = true, false
	case p.inColumns && line != "":
		p.column(line)
	case line != "":
		p.view.Description = strings.TrimSpace(p.view.Description + " " + line)
	}
}

func (p *viewParser) column(line string) {
	head, description, ok := strings.Cut(line, ":")
	name, typeName, ok2 := strings.Cut(strings.TrimSpace(head), " ")
	if !ok || !ok2 || strings.TrimSpace(description) == "" {
		p.fault("column %q: want \"name type: description\"", line)
		return
	}
	typeName, nullable := strings.CutSuffix(strings.TrimSpace(typeName), "?")
	c := Column{Name: name, Nullable: nullable, Description: strings.TrimSpace(description)}
	if err := c.Type.UnmarshalText([]byte(typeName)); err != nil {
		p.fault("column %q: %w", name, err)
	}
	if _, twice := p.view.Column(name); twice {
		p.fault("column %q: described twice", name)
	}
	p.view.Columns = append(p.view.Columns, c)
}

func (p *viewParser) check() {
	v := &p.view
	if !nameForm.MatchString(v.Name) {
		p.fault("name %q: want a lower-case letter, then at most 62 of a-z, 0-9 and _", v.Name)
	}
	if v.Description == "" {
		p.fault("no description: say what the view is in the first comment lines")
	}
	if len(v.Columns) == 0 {
		p.fault("no columns: describe each below \"-- columns:\"")
	}
	for _, c := range v.Columns {
		if !nameForm.MatchString(c.Name) || slices.Contains(reserved, c.Name) {
			p.fault("column %q: want a lower-case letter, then at most 62 of a-z, 0-9 and _, and none of %s", c.Name, strings.Join(reserved, ", "))
		}
	}
	p.checkKey()
	p.checkBody()
}

func (p *viewParser) checkKey() {
	if len(p.view.Key) == 0 {
		p.fault("no key: name the columns that tell rows apart in \"-- key:\"")
	}
	for _, name := range p.view.Key {
		if c, ok := p.view.Column(name); !ok || c.Nullable || c.Type == JSON {
			p.fault("key column %q: must be a described column, not null and not json", name)
		}
	}
	for _, o := range p.view.Order {
		if c, ok := p.view.Column(o.Column); !ok || c.Type == JSON {
			p.fault("order column %q: must be a described column and not json", o.Column)
		}
	}
}

// aside is what of a statement may hold a semicolon without ending it: quoted text, quoted names, comments.
var aside = regexp.MustCompile(`'[^']*'|"[^"]*"|--[^\n]*`)

func (p *viewParser) checkBody() {
	body := strings.ToLower(p.view.SQL)
	if !strings.HasPrefix(body, "select") && !strings.HasPrefix(body, "with") {
		p.fault("want one SELECT below the header")
	}
	if strings.Contains(aside.ReplaceAllString(p.view.SQL, ""), ";") {
		p.fault("want one statement, but there is a semicolon inside")
	}
}

func splitList(text string) []string {
	var list []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

func parseOrder(text string) []Order {
	var order []Order
	for _, item := range splitList(text) {
		name, desc := strings.CutPrefix(item, "-")
		order = append(order, Order{Column: name, Desc: desc})
	}
	return order
}

// CompareColumns tells how a relation's columns differ from the view's description: a store calls it for every view when
// it migrates, so that a wrong view file is found at start and not by a reader.
func CompareColumns(v View, there []string) error {
	var bad []error
	for _, c := range v.Columns {
		if !slices.Contains(there, c.Name) {
			bad = append(bad, fmt.Errorf("column %q is described, but the SELECT has only %s", c.Name, strings.Join(there, ", ")))
		}
	}
	for _, name := range there {
		if _, ok := v.Column(name); !ok {
			bad = append(bad, fmt.Errorf("column %q is selected, but not described below \"-- columns:\"", name))
		}
	}
	return errors.Join(bad...)
}

// Uses tells whether the view's SELECT reads the relation of that name.
func (v View) Uses(name string) bool {
	return v.Name != name && regexp.MustCompile(`\b`+regexp.QuoteMeta(name)+`\b`).MatchString(silent.ReplaceAllString(v.SQL, ""))
}

// silent is what of a statement names no relation: quoted text and comments.
var silent = regexp.MustCompile(`'[^']*'|--[^\n]*`)

// Dependent orders views so that each stands behind those it uses.
func Dependent(list []View) []View {
	var ordered []View
	var visit func(v View, path int)
	visit = func(v View, path int) {
		if path > len(list) || slices.ContainsFunc(ordered, func(o View) bool { return o.Name == v.Name }) {
			return // a circle is refused by the database
		}
		for _, other := range list {
			if v.Uses(other.Name) {
				visit(other, path+1)
			}
		}
		if !slices.ContainsFunc(ordered, func(o View) bool { return o.Name == v.Name }) {
			ordered = append(ordered, v)
		}
	}
	for _, v := range list {
		visit(v, 0)
	}
	return ordered
}
