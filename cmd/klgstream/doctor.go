package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/IBM/sarama"

	"klgstream.dev/processors/engine"
	"klgstream.dev/views"
)

// doctorCmd looks at everything the flow depends on.
type doctorCmd struct {
	JSON     bool   `name:"json" help:"One JSON object per finding instead of lines." group:"doctor"`
	ReadOnly bool   `help:"Write nothing: the broker's clock is not compared, which needs a topic klgstream-doctor for a moment." group:"doctor"`
	MaxLag   int64  `default:"100000" placeholder:"N" help:"Warn when a group is this many records behind. Default ${default}." group:"doctor"`
	DataDir  string `default:"." placeholder:"DIR" help:"Where free space is looked for; with a store in a file, its directory too. Default: the current directory." group:"doctor"`
	Kafka    `group:"kafka"`
	Names    `group:"names"`
	Store    `group:"store"`
}

func (c *doctorCmd) check() error {
	var lag error
	if c.MaxLag < 1 {
		lag = fmt.Errorf("--max-lag: %d must be at least 1", c.MaxLag)
	}
	return errors.Join(lag, checkAll(&c.Kafka, &c.Names, &c.Store))
}

// verdict is how bad a finding is.
type verdict string

const (
	well verdict = "OK"
	warn verdict = "WARN"
	fail verdict = "FAIL"
)

// finding is the outcome of one check.
type finding struct {
	Check   string  `json:"check"`
	Verdict verdict `json:"verdict"`
	Detail  string  `json:"detail"`
	Mend    string  `json:"mend,omitempty"`
}

func (f finding) String() string {
	line := fmt.Sprintf("%-4s  %-10s  %s", f.Verdict, f.Check, oneLine(f.Detail))
	if f.Mend != "" {
		line += "\n                  mend: " + oneLine(f.Mend)
	}
	return line
}

// machine is what the doctor asks of the computer it runs on.
type machine struct {
	disk   func(dir string) (free, size uint64, err error)
	nofile func() (uint64, error)
}

// thisMachine is the real one.
func thisMachine() machine {
	return machine{
		disk: func(dir string) (free, size uint64, err error) {
			var s syscall.Statfs_t
			err = syscall.Statfs(dir, &s)
			return uint64(s.Bavail) * uint64(s.Bsize), uint64(s.Blocks) * uint64(s.Bsize), err //nolint:unconvert // types differ by system
		},
		nofile: func() (uint64, error) {
			var l syscall.Rlimit
			err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
			return uint64(l.Cur), err //nolint:unconvert // types differ by system
		},
	}
}

// Run prints the findings as they are made. One that fails is an error.
func (c *doctorCmd) Run(ctx context.Context, a *app) error {
	return c.examine(ctx, a, thisMachine())
}

func (c *doctorCmd) examine(ctx context.Context, a *app, m machine) error {
	out, failed, warned := json.NewEncoder(a.stdout), 0, 0
	d := &doctor{cmd: c, now: a.now, machine: m, tell: func(f finding) {
		switch f.Verdict {
		case fail:
			failed++
		case warn:
			warned++
		case well:
		}
		if c.JSON {
			_ = out.Encode(f) // a reader that is gone needs no findings
			return
		}
		fmt.Fprintln(a.stdout, f)
	}}
	d.kafka(ctx)
	d.store(ctx)
	d.computer()
	if failed > 0 {
		return fmt.Errorf("doctor: %d findings must be mended, %d more are to be looked at", failed, warned)
	}
	return ctx.Err()
}

// doctor is one examination.
type doctor struct {
	cmd     *doctorCmd
	now     func() time.Time
	machine machine
	tell    func(finding)
	brokers int
}

func (d *doctor) say(check string, v verdict, mend, format string, args ...any) {
	d.tell(finding{check, v, fmt.Sprintf(format, args...), mend})
}

// wrong tells an error with the mend that it names itself, or that of missing rights, or the given one.
func (d *doctor) wrong(check, mend string, err error) {
	var refusal *engine.RefusalError
	switch {
	case errors.As(err, &refusal):
		d.say(check, fail, refusal.Mend, "%s", refusal.Fault)
	case errors.Is(err, sarama.ErrTopicAuthorizationFailed), errors.Is(err, sarama.ErrGroupAuthorizationFailed), errors.Is(err, sarama.ErrClusterAuthorizationFailed):
		d.say(check, fail, "grant this client the right, for example: kafka-acls.sh --add --allow-principal User:… --operation All --topic … --group …", "%v", err)
	case errors.Is(err, sarama.ErrSASLAuthenticationFailed):
		d.say(check, fail, "set --sasl-mechanism, --sasl-user and --sasl-password to what the broker knows, or make the user, for example: rpk security user create …", "%v", err)
	case errors.Is(err, io.EOF): // some brokers hang up without a word
		d.say(check, fail, "the broker hung up: set --tls if it wants TLS, and --sasl-mechanism, --sasl-user and --sasl-password if it wants to know who is there", "%v", err)
	case isUntrusted(err):
		d.say(check, fail, "set --tls-ca to the file of the authority that has signed the broker's certificate, and --brokers to the names in it", "%v", err)
	default:
		d.say(check, fail, mend, "%v", err)
	}
}

// isUntrusted is whether the broker's certificate was not accepted.
func isUntrusted(err error) bool {
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &certificate)
}

// kafka looks at the brokers and, if one is there, at what they keep.
func (d *doctor) kafka(ctx context.Context) {
	if !d.reachable(ctx) {
		return
	}
	admin, err := newTopicAdmin(d.cmd.Kafka)
	if err != nil {
		d.wrong("brokers", "look at the broker's log, and at what it advertises", err)
		return
	}
	defer admin.Close()
	if d.cmd.inClear() {
		d.say("security", warn, "add --tls, or use --sasl-mechanism scram-sha-256", "the broker's password is sent for anybody on the way to read")
	}
	d.cluster(admin)
	topics := d.topics(admin)
	if d.cmd.ReadOnly {
		d.say("clock", well, "", "not compared, as asked by --read-only")
	} else {
		d.clock(ctx, admin)
	}
	if topics[d.cmd.table()].partitions == 0 || topics[d.cmd.Input].partitions == 0 {
		return // that is told
	}
	d.group()
	d.sink(admin)
}

// reachable dials every address.
func (d *doctor) reachable(ctx context.Context) bool {
	var away []string
	var last error
	dialer := net.Dialer{Timeout: 5 * time.Second}
	for _, address := range d.cmd.Brokers {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			away, last = append(away, address), err
			continue
		}
		_ = conn.Close()
	}
	const mend = "start the broker, or set --brokers or REDPANDA_BROKERS to where it is"
	switch {
	case len(away) == len(d.cmd.Brokers):
		d.say("brokers", fail, mend, "none of %s can be reached: %v", strings.Join(d.cmd.Brokers, ", "), last)
		return false
	case len(away) > 0:
		d.say("brokers", warn, mend, "%s cannot be reached: %v", strings.Join(away, ", "), last)
	default:
		d.say("brokers", well, "", "%s", strings.Join(d.cmd.Brokers, ", "))
	}
	return true
}

// needed are the requests this program depends on, with the version it sends at least.
var needed = []struct {
	name         string
	key, version int16
}{{"Produce", 0, 7}, {"Fetch", 1, 7}, {"OffsetCommit", 8, 7}, {"JoinGroup", 11, 5}, {"Heartbeat", 12, 3}, {"InitProducerId", 22, 0}}

// cluster looks at what every broker speaks.
func (d *doctor) cluster(admin topicAdmin) {
	brokers, _, err := admin.DescribeCluster()
	if err != nil {
		d.wrong("versions", "look at the broker's log", err)
		return
	}
	d.brokers = len(brokers)
	for _, b := range brokers {
		if err := b.Open(clientConfig(d.cmd.Kafka)); err != nil && !errors.Is(err, sarama.ErrAlreadyConnected) {
			d.wrong("versions", "make the address that the broker advertises reachable from here", fmt.Errorf("broker %d at %s: %w", b.ID(), b.Addr(), err))
			continue
		}
		answer, err := b.ApiVersions(&sarama.ApiVersionsRequest{})
		if err != nil {
			d.wrong("versions", "make the address that the broker advertises reachable from here", fmt.Errorf("broker %d at %s: %w", b.ID(), b.Addr(), err))
			continue
		}
		if lacks := missing(answer.ApiKeys); lacks != "" {
			d.say("versions", fail, "use Kafka 2.8 or later, or a current Redpanda", "broker %d at %s does not speak %s", b.ID(), b.Addr(), lacks)
			continue
		}
		d.say("versions", well, "", "broker %d at %s speaks all that is needed", b.ID(), b.Addr())
	}
}

func missing(keys []sarama.ApiVersionsResponseKey) string {
	spoken := map[int16][2]int16{}
	for _, k := range keys {
		spoken[k.ApiKey] = [2]int16{k.MinVersion, k.MaxVersion}
	}
	var lacks []string
	for _, n := range needed {
		if s, ok := spoken[n.key]; !ok || s[1] < n.version {
			lacks = append(lacks, fmt.Sprintf("%s version %d", n.name, n.version))
		}
	}
	return strings.Join(lacks, ", ")
}

// topics compares them with the plan, and their limits with what is published.
func (d *doctor) topics(admin topicAdmin) map[string]found {
	wanted := plan(d.cmd.Names, TopicPlan{})
	actual, err := admin.describe(wanted)
	if err != nil {
		d.wrong("topics", "look at the broker's log", err)
		return nil
	}
	faults := compare(wanted, actual, d.cmd.Brokers)
	for _, f := range faults {
		d.say("topics", fail, strings.Join(f.mend, " or "), "%s: %s (%s)", f.topic, f.what, f.why)
	}
	for _, t := range wanted {
		f, ok := actual[t.name]
		least := int64(1 << 20) // Kafka's default
		if t.name == d.cmd.Input {
			least = maxRecord
		}
		if n, err := strconv.ParseInt(f.config["max.message.bytes"], 10, 64); ok && err == nil && n < least {
			d.say("limits", warn, fmt.Sprintf("rpk topic alter-config %s --set max.message.bytes=%d", t.name, maxRecord+2*recordOverhead),
				"%s takes records of at most %d bytes, this program publishes up to %d", t.name, n, least)
		}
		if ok && f.replication < 2 && d.brokers >= 3 {
			d.say("topics", warn, fmt.Sprintf("rpk topic alter-config %s --set replication.factor=3", t.name),
				"%s has %d replica on %d brokers: a lost broker loses what is in it", t.name, f.replication, d.brokers)
		}
	}
	if len(faults) == 0 {
		d.say("topics", well, "", "%d topics are as they must be, %d partitions", len(wanted), actual[d.cmd.Input].partitions)
	}
	return actual
}

// Differences of the clocks that are told.
const (
	skewWarn   = time.Second
	skewFail   = time.Minute
	probeTopic = "klgstream-doctor"
)

// clock compares this clock with the broker's, by the time it gives a record.
func (d *doctor) clock(ctx context.Context, admin topicAdmin) {
	probe := topic{name: probeTopic, partitions: 1, replication: 1, config: map[string]string{"message.timestamp.type": "LogAppendTime"}}
	if err := admin.create(ctx, probe); err != nil {
		d.say("clock", warn, "grant this client the right to create topics, or use --read-only", "not compared: %v", err)
		return
	}
	defer admin.DeleteTopic(probeTopic) //nolint:errcheck // it is empty soon
	before := d.now()
	theirs, err := d.brokerTime()
	after := d.now()
	if err != nil {
		d.wrong("clock", "look at the broker's log", fmt.Errorf("write to %s: %w", probeTopic, err))
		return
	}
	skew := time.Duration(0) // at least
	switch {
	case theirs.Before(before):
		skew = before.Sub(theirs)
	case theirs.After(after):
		skew = theirs.Sub(after)
	}
	v, mend := well, ""
	if skew > skewWarn {
		v, mend = warn, "let NTP set the clocks of this machine and of the brokers: timedatectl set-ntp true"
	}
	if skew > skewFail {
		v = fail
	}
	d.say("clock", v, mend, "differs from the broker's by %v or a little more", skew.Round(time.Millisecond))
}

// brokerTime writes a record and reads the time the broker gave it.
func (d *doctor) brokerTime() (time.Time, error) {
	c := publishConfig(d.cmd.Kafka)
	p, err := sarama.NewSyncProducer(d.cmd.Brokers, c)
	if err != nil {
		return time.Time{}, err
	}
	_, offset, err := p.SendMessage(&sarama.ProducerMessage{Topic: probeTopic, Value: sarama.StringEncoder("clock")})
	if err = errors.Join(err, p.Close()); err != nil {
		return time.Time{}, err
	}
	client, err := sarama.NewClient(d.cmd.Brokers, c)
	if err != nil {
		return time.Time{}, err
	}
	defer client.Close()
	var at time.Time
	err = engine.ReadPartition(context.Background(), client, probeTopic, 0, offset, offset+1, func(m *sarama.ConsumerMessage) error {
		at = m.Timestamp
		return nil
	})
	if err == nil && at.IsZero() {
		err = errors.New("the record is not there")
	}
	return at, err
}

// group looks at the processor's group and at its positions.
func (d *doctor) group() {
	state, err := openState(d.cmd.Kafka, d.cmd.Names)
	if err != nil {
		d.wrong("group", "look at the broker's log", err)
		return
	}
	defer state.Client.Close()
	members, status, err := state.Members()
	switch {
	case err != nil:
		d.wrong("group", "look at the broker's log", err)
	case members == 0:
		d.say("group", warn, "klgstream processor", "%s has no members: nothing is counted", d.cmd.Group)
	case status != "Stable":
		d.say("group", warn, "look again in a minute; if it stays so, look at the processors' logs", "%s has %d members and is %s", d.cmd.Group, members, status)
	default:
		d.say("group", well, "", "%s has %d members", d.cmd.Group, members)
	}
	checkpoint, err := state.Checkpoint()
	if errors.Is(err, engine.ErrNothingCommitted) {
		d.say("positions", well, "", "%s has not begun", d.cmd.Group)
		return
	}
	if err == nil {
		err = d.consistent(state, checkpoint)
	}
	if err != nil {
		d.wrong("positions", "choose another --group, or delete the group: rpk group delete "+d.cmd.Group, err)
		return
	}
	d.say("positions", well, "", "%s has positions of this program in %d partitions", d.cmd.Group, checkpoint.Partitions)
	d.lag(state, checkpoint)
}

// consistent compares positions with the log as a processor does when it starts.
func (d *doctor) consistent(state *engine.StateLog, c engine.Checkpoint) error {
	partitions, err := state.Client.Partitions(state.Input)
	if err != nil {
		return fmt.Errorf("describe topic %q: %w", state.Input, err)
	}
	if n := int32(len(partitions)); n != c.Partitions {
		return &engine.RefusalError{
			Fault: fmt.Sprintf("group %s was committed with %d partitions, the input topic has %d now", d.cmd.Group, c.Partitions, n),
			Mend:  "move the state: klgstream state export, new topics and group, klgstream state import",
		}
	}
	for _, at := range c.Positions {
		end, err := state.Client.GetOffset(d.cmd.table(), at.Partition, sarama.OffsetNewest)
		if err != nil {
			return fmt.Errorf("find end of %s/%d: %w", d.cmd.table(), at.Partition, err)
		}
		if end < at.Table {
			return &engine.RefusalError{
				Fault: fmt.Sprintf("%s/%d ends at %d, but %d was written to it: it was deleted or truncated", d.cmd.table(), at.Partition, end, at.Table),
				Mend:  "restore the topic, or count anew under another --group",
			}
		}
	}
	return state.Bounds(c)
}

func (d *doctor) lag(state *engine.StateLog, c engine.Checkpoint) {
	var sum, least int64 = 0, math.MaxInt64
	for _, at := range c.Positions {
		end, err := state.Client.GetOffset(state.Input, at.Partition, sarama.OffsetNewest)
		if err != nil {
			d.wrong("lag", "look at the broker's log", err)
			return
		}
		sum += end - max(at.Input, 0)
		least = min(least, at.Watermark)
	}
	d.behind("lag", d.cmd.Group, sum, "start more processors, at most one per partition", "watermark "+cmp.Or(timeText(least), "none yet"))
}

func (d *doctor) behind(check, group string, lag int64, mend, more string) {
	v := well
	if lag >= d.cmd.MaxLag {
		v = warn
	} else {
		mend = ""
	}
	d.say(check, v, mend, "%s is %d records behind, %s", group, lag, more)
}

// sink looks at the sink's group.
func (d *doctor) sink(admin topicAdmin) {
	p := &pipeline{names: d.cmd.Names}
	status, err := p.ask(admin)
	if err != nil {
		d.wrong("sink", "look at the broker's log", err)
		return
	}
	groups, err := admin.DescribeConsumerGroups([]string{d.cmd.SinkGroup})
	if err == nil && len(groups) == 1 && groups[0].Err != sarama.ErrNoError && groups[0].Err != sarama.ErrGroupIDNotFound {
		err = groups[0].Err
	}
	if err != nil {
		d.wrong("sink", "look at the broker's log", err)
		return
	}
	members, lag := 0, int64(0)
	for _, g := range groups {
		members += len(g.Members)
	}
	for _, t := range status.Topics {
		if t.Reader != d.cmd.SinkGroup {
			continue
		}
		for _, part := range t.Partitions {
			lag += part.Lag
		}
	}
	if members == 0 {
		d.say("sink", warn, "klgstream sink", "%s has no members: results are not stored", d.cmd.SinkGroup)
	}
	d.behind("sink", d.cmd.SinkGroup, lag, "start more sinks, at most one per partition; look at the store", fmt.Sprintf("%d members", members))
}

// storePatience is how long the store may take to answer.
const storePatience = 10 * time.Second

// totalsPatience is how long adding up all rows of the store may take.
const totalsPatience = time.Minute

// store looks whether the store answers and has what is asked of it.
func (d *doctor) store(ctx context.Context) {
	if file := d.cmd.file(); file != "" {
		if _, err := os.Stat(file); err != nil {
			d.say("store", fail, "klgstream sink --store-url "+d.cmd.StoreURL+" makes it, or name the right file", "%v", err)
			return
		}
	}
	asked, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	store, err := d.cmd.open(asked)
	if err == nil {
		defer store.Close()
		err = store.Ping(asked)
	}
	if err != nil {
		d.say("store", fail, "start the database, or set --store-url or RISINGWAVE_URL to where it is", "%s: %v", maskURL(d.cmd.StoreURL), err)
		return
	}
	shown, err := store.Views(asked)
	if err == nil && len(shown) == 0 {
		err = errors.New("it has no views")
	}
	for i := 0; err == nil && i < len(shown); i++ {
		if _, err = store.Query(asked, views.Query{View: shown[i].Name, Limit: 1}); err != nil {
			err = fmt.Errorf("ask view %q: %w", shown[i].Name, err)
		}
	}
	if err != nil {
		d.say("store", fail, "klgstream sink, which makes tables and views when it starts, with the rights to do so", "%s answers, but is not migrated: %v", store.Name(), err)
		return
	}
	d.say("store", well, "", "%s has %d views", store.Name(), len(shown))
	if v, ok := store.(verifier); ok {
		d.totals(ctx, v)
	}
}

// verifier is a store that keeps sums of its rows beside them, which only its own sink may change.
type verifier interface {
	Verify(ctx context.Context) (differ []string, err error)
}

// totals looks whether sums are those of the rows. It reads all of them.
func (d *doctor) totals(ctx context.Context, v verifier) {
	asked, cancel := context.WithTimeout(ctx, totalsPatience)
	defer cancel()
	differ, err := v.Verify(asked)
	switch {
	case asked.Err() != nil:
		d.say("totals", warn, "", "not compared with the rows: that took more than %v", totalsPatience)
	case err != nil:
		d.say("totals", fail, "look at the file: sqlite3 "+d.cmd.file()+" 'PRAGMA integrity_check'", "%v", err)
	case len(differ) > 0:
		d.say("totals", fail, "load a new file: klgstream sink --from-beginning --store-url sqlite:…; and let nobody but the sink write to it",
			"sums are not those of the rows, which another program must have changed: %s", strings.Join(differ, ", "))
	default:
		d.say("totals", well, "", "sums are those of the rows")
	}
}

// Bounds of the computer.
const (
	diskFail   = 100 << 20
	diskWarn   = 1 << 30
	nofileFail = 256
	nofileWarn = 4096
)

// computer looks at disk and limits.
func (d *doctor) computer() {
	dirs := []string{d.cmd.DataDir}
	if file := d.cmd.file(); file != "" {
		dirs = append(dirs, filepath.Dir(file))
	}
	for _, dir := range dirs {
		free, size, err := d.machine.disk(dir)
		if err != nil {
			d.say("disk", fail, "make the directory, or name another with --data-dir", "%s: %v", dir, err)
			continue
		}
		d.scarce("disk", free, diskFail, diskWarn, "make room, or use another disk", fmt.Sprintf("%s has %d of %d MiB free", dir, free>>20, size>>20))
	}
	n, err := d.machine.nofile()
	if err != nil {
		d.say("limits", warn, "", "open files: %v", err)
		return
	}
	d.scarce("limits", n, nofileFail, nofileWarn, "ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit", fmt.Sprintf("%d files may be open", n))
}

func (d *doctor) scarce(check string, have, failBelow, warnBelow uint64, mend, detail string) {
	switch {
	case have < failBelow:
		d.say(check, fail, mend, "%s", detail)
	case have < warnBelow:
		d.say(check, warn, mend, "%s", detail)
	default:
		d.say(check, well, "", "%s", detail)
	}
}
