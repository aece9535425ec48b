package risingwave_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// standIn speaks the wire protocol as RisingWave does and keeps rows in a real PostgreSQL behind it. Its manners:
//
//   - version() says RisingWave; errors are XX000 with RisingWave's wording, but for a few of the catalog.
//   - Tables settle rows of one key by their own clause, as INSERT cannot.
//   - BEGIN, COMMIT and ROLLBACK are answered with a notice and do nothing.
//   - What was inserted is durable at FLUSH only: a crash before it loses acknowledged rows. A connection that merely ends
//     leaves its rows to the next checkpoint.
//   - Arrays in binary form, types with unknown OIDs, a live statement's name, too many parameters: refused.
//
// Whatever the guard finds in a statement fails the test.
type standIn struct {
	t        *testing.T
	database string // URL of the PostgreSQL database behind it
	listener net.Listener

	mu       sync.Mutex
	keyed    map[string]settlement // by table
	sessions map[*session]struct{}
	heard    []string               // every statement
	script   func(sql string) error // what to answer instead
	group    sync.WaitGroup
	ddl      sync.Mutex // RisingWave's catalog takes one change at a time
}

// settlement is how a table settles rows of one key.
type settlement struct{ key, version, otherwise string }

// errCrash in a script is the crash of the whole RisingWave: every connection breaks, rows before their FLUSH are gone.
var errCrash = errors.New("crash")

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	server := postgres(t)
	conn, err := pgx.Connect(t.Context(), server.url("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	name := fmt.Sprintf("risingwave%d", server.databases.Add(1))
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"); err != nil {
		t.Fatal(err)
	}
	s := &standIn{t: t, database: server.url(name), keyed: map[string]settlement{}, sessions: map[*session]struct{}{}}
	if s.listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.group.Go(s.accept)
	t.Cleanup(s.close)
	return s
}

func (s *standIn) url() string { return fmt.Sprintf("postgresql://root@%s/dev", s.listener.Addr()) }

func (s *standIn) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.group.Go(func() { s.serve(conn) })
	}
}

func (s *standIn) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	for session := range s.sessions {
		_ = session.conn.Close()
	}
	s.mu.Unlock()
	s.group.Wait()
}

// crash breaks every connection; each session's rows before its FLUSH are lost.
func (s *standIn) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for session := range s.sessions {
		session.crashed = true
		_ = session.conn.Close()
	}
}

func (s *standIn) setScript(script func(sql string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = script
}

// statementsHeard is every statement since the last call.
func (s *standIn) statementsHeard() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	heard := s.heard
	s.heard = nil
	return heard
}

// hear notes a statement and tells what the script wants answered.
func (s *standIn) hear(sql string) error {
	if err := guard(sql, nil); err != nil {
		s.t.Errorf("RisingWave would refuse: %v", err)
	}
	s.mu.Lock()
	s.heard = append(s.heard, sql)
	script := s.script
	s.mu.Unlock()
	if script == nil {
		return nil
	}
	err := script(sql)
	if errors.Is(err, errCrash) {
		s.crash()
	}
	return err
}

// session is one connection.
type session struct {
	*standIn
	conn    net.Conn
	wire    *pgproto3.Backend
	behind  *pgconn.PgConn
	open    bool // rows wait for their FLUSH
	crashed bool // guarded by standIn.mu
	failed  bool // until Sync, messages are skipped
	names   map[string]*prepared
	portal  *portal
}

type prepared struct {
	sql    string
	fields []pgconn.FieldDescription
	params []uint32
}

type portal struct {
	*prepared
	values  [][]byte
	formats []int16
	results []int16
}

func (s *standIn) serve(conn net.Conn) {
	c := &session{standIn: s, conn: conn, wire: pgproto3.NewBackend(conn, conn), names: map[string]*prepared{}}
	defer conn.Close()
	behind, err := pgconn.Connect(context.Background(), s.database)
	if err != nil {
		return
	}
	c.behind = behind
	defer behind.Close(context.Background())
	if _, err := behind.Exec(context.Background(), "SET lock_timeout = '15s'").ReadAll(); err != nil { // rows that nobody flushes fail a test, they do not hang it
		return
	}
	s.mu.Lock()
	s.sessions[c] = struct{}{}
	s.mu.Unlock()
	if c.welcome() {
		c.talk()
	}
	s.mu.Lock()
	delete(s.sessions, c)
	crashed := c.crashed
	s.mu.Unlock()
	if c.open && !crashed {
		_, _ = behind.Exec(context.Background(), "COMMIT").ReadAll() // the next checkpoint would come
	}
}

// welcome greets as RisingWave does; false ends the connection.
func (c *session) welcome() bool {
	for {
		message, err := c.wire.ReceiveStartupMessage()
		if err != nil {
			return false
		}
		switch message.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := c.conn.Write([]byte("N")); err != nil {
				return false
			}
		case *pgproto3.StartupMessage:
			c.wire.Send(&pgproto3.AuthenticationOk{})
			for name, value := range map[string]string{
				"TimeZone": "UTC", "client_encoding": "UTF8", "standard_conforming_strings": "on", "server_version": "13.14.0",
			} {
				c.wire.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
			}
			c.wire.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
			return c.ready()
		default:
			return false
		}
	}
}

// ready ends an answer. The transaction status is always idle.
func (c *session) ready() bool {
	c.wire.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return c.wire.Flush() == nil
}

func (c *session) talk() {
	for {
		message, err := c.wire.Receive()
		if err != nil {
			return
		}
		if _, ok := message.(*pgproto3.Terminate); ok {
			return
		}
		if !c.answer(message) {
			return
		}
	}
}

func (c *session) answer(message pgproto3.FrontendMessage) bool {
	switch m := message.(type) {
	case *pgproto3.Query:
		c.complain(c.simple(m.String))
		return c.ready()
	case *pgproto3.Sync:
		c.failed = false
		return c.ready()
	case *pgproto3.Flush:
		return c.wire.Flush() == nil
	}
	if c.failed {
		return true
	}
	var err error
	switch m := message.(type) {
	case *pgproto3.Parse:
		err = c.parse(m)
	case *pgproto3.Bind:
		err = c.bind(m)
	case *pgproto3.Describe:
		c.describe(m)
	case *pgproto3.Execute:
		err = c.execute()
	case *pgproto3.Close:
		delete(c.names, m.Name)
		c.wire.Send(&pgproto3.CloseComplete{})
	default:
		err = fmt.Errorf("Unsupported tag of regular message: %T", m)
	}
	if err != nil {
		c.failed = true
		c.complain(err)
	}
	return true
}

// complain answers with an error as RisingWave words it.
func (c *session) complain(err error) {
	if err == nil {
		return
	}
	code, text := "XX000", err.Error()
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		text = e.Message
		switch e.Code {
		case "42P01":
			code = "42704"
		case "42P07", "42710":
			code = "42710"
		}
	}
	c.wire.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: code, Message: "Failed to run the query\n\nCaused by:\n  " + text})
}

// knownOIDs are the parameter types that RisingWave's Parse takes.
var knownOIDs = []uint32{
	0, 16, 17, 20, 21, 23, 25, 700, 701, 1043, 1082, 1083, 1114, 1184, 1186, 1700, 3802,
	1000, 1001, 1016, 1005, 1007, 1009, 1021, 1022, 1015, 1182, 1183, 1115, 1185, 1187, 1231, 3807,
}

func (c *session) parse(m *pgproto3.Parse) error {
	if _, live := c.names[m.Name]; live && m.Name != "" {
		return fmt.Errorf("Duplicated statement name: %s", m.Name)
	}
	for _, oid := range m.ParameterOIDs {
		if !slices.Contains(knownOIDs, oid) {
			return fmt.Errorf("Unsupported oid %d", oid)
		}
	}
	p := &prepared{sql: m.Query}
	if err := c.recover(func() error {
		sd, err := c.behind.Prepare(context.Background(), "", c.translate(m.Query), m.ParameterOIDs)
		if err == nil {
			p.fields, p.params = sd.Fields, sd.ParamOIDs
		}
		return err
	}); err != nil {
		return err
	}
	for i := range p.fields {
		if p.fields[i].DataTypeOID == 25 {
			p.fields[i].DataTypeOID = 1043 // RisingWave knows no text
		}
	}
	c.names[m.Name] = p
	c.wire.Send(&pgproto3.ParseComplete{})
	return nil
}

var arrayParameter = regexp.MustCompile(`\$(\d+)::\w+\[\]`)

func (c *session) bind(m *pgproto3.Bind) error {
	p, ok := c.names[m.PreparedStatement]
	if !ok {
		return fmt.Errorf("prepared statement %q does not exist", m.PreparedStatement)
	}
	if len(m.Parameters) > 32767 {
		c.t.Errorf("%d parameters would be misread", len(m.Parameters))
	}
	formats := m.ParameterFormatCodes
	if len(formats) == 1 {
		formats = slices.Repeat(formats, len(m.Parameters))
	}
	for _, match := range arrayParameter.FindAllStringSubmatch(p.sql, -1) {
		var n int
		if _, err := fmt.Sscan(match[1], &n); err == nil && n <= len(formats) && formats[n-1] == 1 {
			return errors.New("unsupported data type")
		}
	}
	values := make([][]byte, len(m.Parameters))
	for i, value := range m.Parameters {
		values[i] = slices.Clone(value) // the wire's buffer is used again
	}
	c.portal = &portal{prepared: p, values: values, formats: slices.Clone(formats), results: slices.Clone(m.ResultFormatCodes)}
	c.wire.Send(&pgproto3.BindComplete{})
	return nil
}

func (c *session) describe(m *pgproto3.Describe) {
	p, results := c.names[m.Name], []int16(nil)
	if m.ObjectType == 'P' {
		p, results = c.portal.prepared, c.portal.results
	} else {
		c.wire.Send(&pgproto3.ParameterDescription{ParameterOIDs: p.params})
	}
	if len(p.fields) == 0 {
		c.wire.Send(&pgproto3.NoData{})
		return
	}
	c.wire.Send(rowDescription(p.fields, results))
}

func rowDescription(fields []pgconn.FieldDescription, formats []int16) *pgproto3.RowDescription {
	d := &pgproto3.RowDescription{}
	for i, f := range fields {
		format := int16(0)
		if len(formats) == 1 {
			format = formats[0]
		} else if i < len(formats) {
			format = formats[i]
		}
		d.Fields = append(d.Fields, pgproto3.FieldDescription{
			Name: []byte(f.Name), DataTypeOID: f.DataTypeOID, DataTypeSize: f.DataTypeSize, TypeModifier: f.TypeModifier, Format: format,
		})
	}
	return d
}

func (c *session) execute() error {
	p := c.portal
	if err := c.hear(p.sql); err != nil {
		return err
	}
	return c.run(p.sql, func() error {
		r := c.behind.ExecParams(context.Background(), c.translate(p.sql), p.values, nil, p.formats, p.results)
		for r.NextRow() {
			c.wire.Send(&pgproto3.DataRow{Values: slices.Clone(r.Values())})
			if err := c.wire.Flush(); err != nil { // the row's memory is used again
				return err
			}
		}
		tag, err := r.Close()
		if err == nil {
			c.wire.Send(&pgproto3.CommandComplete{CommandTag: []byte(tag.String())})
		}
		return err
	})
}

// simple answers a statement without parameters.
func (c *session) simple(sql string) error {
	if strings.TrimSpace(sql) == "" || strings.HasPrefix(sql, "--") {
		c.wire.Send(&pgproto3.EmptyQueryResponse{})
		return nil
	}
	if err := c.hear(sql); err != nil {
		return err
	}
	switch word, _, _ := strings.Cut(strings.ToUpper(sql), " "); word {
	case "FLUSH":
		c.wire.Send(&pgproto3.CommandComplete{CommandTag: []byte("FLUSH")})
		return c.checkpoint()
	case "BEGIN", "COMMIT", "ROLLBACK":
		c.wire.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "Read-write transaction is not supported yet"})
		c.wire.Send(&pgproto3.CommandComplete{CommandTag: []byte(word)})
		return nil
	case "CREATE", "DROP":
		c.ddl.Lock()
		defer c.ddl.Unlock()
		if err := c.checkpoint(); err != nil {
			return err
		}
		if c.exists(sql) {
			c.wire.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "relation already exists, skipping"})
			c.wire.Send(&pgproto3.CommandComplete{CommandTag: []byte(word)})
			return nil
		}
	}
	return c.run(sql, func() error {
		results, err := c.behind.Exec(context.Background(), c.translate(sql)).ReadAll()
		if err != nil {
			return err
		}
		for _, r := range results {
			if len(r.FieldDescriptions) > 0 {
				c.wire.Send(rowDescription(r.FieldDescriptions, nil))
			}
			for _, row := range r.Rows {
				c.wire.Send(&pgproto3.DataRow{Values: row})
			}
			c.wire.Send(&pgproto3.CommandComplete{CommandTag: []byte(r.CommandTag.String())})
		}
		return nil
	})
}

// checkpoint makes durable and visible what this session inserted.
func (c *session) checkpoint() error {
	if !c.open {
		return nil
	}
	c.open = false
	_, err := c.behind.Exec(context.Background(), "COMMIT").ReadAll()
	return err
}

// run runs a statement behind; rows that it inserts wait for a FLUSH.
func (c *session) run(sql string, do func() error) error {
	if strings.HasPrefix(strings.ToUpper(sql), "INSERT") && !c.open {
		if _, err := c.behind.Exec(context.Background(), "BEGIN").ReadAll(); err != nil {
			return err
		}
		c.open = true
	}
	return c.recover(do)
}

// recover does something so that its failure leaves what waits for a FLUSH alone: in RisingWave no statement depends on
// another.
func (c *session) recover(do func() error) error {
	if !c.open {
		return do()
	}
	if _, err := c.behind.Exec(context.Background(), "SAVEPOINT before").ReadAll(); err != nil {
		return err
	}
	if err := do(); err != nil {
		_, err2 := c.behind.Exec(context.Background(), "ROLLBACK TO before").ReadAll()
		return errors.Join(err, err2)
	}
	return nil
}

var (
	createTable = regexp.MustCompile(`(?is)^create table if not exists (\w+) \((.*?)\)(?: on conflict (do nothing|do update full with version column \((\w+)\)))?$`)
	primaryKey  = regexp.MustCompile(`(?is)primary key \(([^)]*)\)|(\w+) varchar primary key`)
	createView  = regexp.MustCompile(`(?is)^create (?:materialized )?view if not exists "(\w+)" as`)
	dropView    = regexp.MustCompile(`(?i)^drop (?:materialized )?view`)
	insertInto  = regexp.MustCompile(`(?is)^insert into (\w+) \(([^)]*)\)`)
)

// exists tells whether the relation that sql would create if it did not exist does.
func (c *session) exists(sql string) bool {
	match := createView.FindStringSubmatch(sql)
	if match == nil {
		return false
	}
	r := c.behind.ExecParams(context.Background(), "SELECT 1 FROM pg_class WHERE relname = $1", [][]byte{[]byte(match[1])}, nil, nil, nil).Read()
	return len(r.Rows) > 0
}

// translate says in PostgreSQL what the statement says in RisingWave.
func (c *session) translate(sql string) string {
	sql = strings.ReplaceAll(sql, "version()", "'PostgreSQL 13.14.0-RisingWave-3.0.3 (unknown)'::varchar")
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case createTable.MatchString(sql):
		match := createTable.FindStringSubmatch(sql)
		key := primaryKey.FindStringSubmatch(match[2])
		settled := settlement{key: key[1] + key[2], version: match[4]}
		if strings.EqualFold(match[3], "do nothing") {
			settled.otherwise = "DO NOTHING"
		}
		c.keyed[match[1]] = settled
		return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (%s)", match[1], match[2])
	case createView.MatchString(sql):
		return createView.ReplaceAllString(sql, `CREATE VIEW "$1" AS`)
	case dropView.MatchString(sql):
		return dropView.ReplaceAllString(sql, "DROP VIEW")
	case insertInto.MatchString(sql):
		match := insertInto.FindStringSubmatch(sql)
		return sql + " " + c.keyed[match[1]].clause(match[1], match[2])
	}
	return sql
}

// clause is how PostgreSQL settles rows as the table says: the new row if its version is not less.
func (s settlement) clause(table, columns string) string {
	if s.otherwise != "" {
		return fmt.Sprintf("ON CONFLICT (%s) %s", s.key, s.otherwise)
	}
	var sets []string
	for column := range strings.SplitSeq(columns, ",") {
		column = strings.TrimSpace(column)
		sets = append(sets, fmt.Sprintf("%s = excluded.%s", column, column))
	}
	clause := fmt.Sprintf("ON CONFLICT (%s) DO UPDATE SET %s", s.key, strings.Join(sets, ", "))
	if s.version != "" {
		clause += fmt.Sprintf(" WHERE excluded.%s >= %s.%s", s.version, table, s.version)
	}
	return clause
}
