package engine

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"regexp"
	"strings"

	"github.com/IBM/sarama"
)

// position is where a partition's run goes on: what is committed for its input and its loop, with everything the same
// prefix of the log decided about time (E5).
type position struct {
	input, loop int64 // next offset to read; -1 = nothing committed
	table       int64 // end of the group table as committed; -1 = nothing committed
	out         int64 // up to where the output's last words are known to be the newest; 0 = not known
	writer      int64 // producer id of the run that committed, + 1; 0 = not known
	clock       clock
}

// clock is what a partition knows of event time, as packed into its commits' metadata.
type clock struct {
	watermark int64 // the partition's, ms; math.MinInt64 = none
	rekeys    bool  // it has sent events to other partitions
	spoken    bool  // it has told the others of its watermark
	table     int64 // offset after its last record in the group table; in the table's own commit position.out, in the loop's, if there is one, position.writer
	sources   []sourceClock
}

// sourceClock is one source's part in the watermark.
type sourceClock struct {
	partition int32
	status    byte  // as window.Watermarks keeps it
	watermark int64 // ms; math.MinInt64 = none
	fence     int64 // largest offset of the source that came through the loop; -1 = none
}

// Commit metadata is at most 4,096 bytes on a broker's defaults (offset.metadata.max.bytes).
const maxMetadata = 4096

// metadataPrefix is klg, the version of the format, and a colon.
const metadataPrefix = "klg1:"

const (
	flagRekeys = 1 << iota
	flagSpoken
)

// identity is what a group's commits say of who wrote them.
type identity struct {
	definition uint32 // CRC-32 of Job.Definition
	partitions int32
}

func newIdentity(definition string, partitions int32) identity {
	return identity{crc32.ChecksumIEEE([]byte(definition)), partitions}
}

// pack makes the metadata of one commit: identity, then the clock. base64, because Kafka's metadata is a string.
func (c *clock) pack(id identity) (string, error) {
	b := binary.BigEndian.AppendUint32(nil, id.definition)
	b = binary.AppendUvarint(b, uint64(id.partitions))
	flags := byte(0)
	if c.rekeys {
		flags |= flagRekeys
	}
	if c.spoken {
		flags |= flagSpoken
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(c.table))
	b = appendTime(b, c.watermark, 0)
	for _, s := range c.sources {
		b = binary.AppendUvarint(b, uint64(s.partition))
		b = append(b, s.status)
		b = appendTime(b, s.watermark, c.watermark)
		b = binary.AppendUvarint(b, uint64(s.fence+1))
	}
	out := metadataPrefix + base64.RawStdEncoding.EncodeToString(b)
	if len(out) > maxMetadata {
		return "", fmt.Errorf("pack commit metadata: %d bytes for %d sources, limit %d: use fewer partitions or --no-rekey",
			len(out), len(c.sources), maxMetadata)
	}
	return out, nil
}

// appendTime writes t relative to base: 0 for math.MinInt64, else 1 + zigzag of the difference.
func appendTime(b []byte, t, base int64) []byte {
	if t == math.MinInt64 {
		return binary.AppendUvarint(b, 0)
	}
	if base == math.MinInt64 {
		base = 0
	}
	d := t - base
	return binary.AppendUvarint(append(b, 1), uint64(d)<<1^uint64(d>>63))
}

var (
	errMetadata      = errors.New("not written by this version of klgstream")
	errNewerMetadata = errors.New("written by another version of klgstream")
	ourMetadata      = regexp.MustCompile(`^klg[0-9]+:`)
)

// unpack reads what pack wrote.
func unpack(metadata string) (identity, clock, error) {
	body, ok := strings.CutPrefix(metadata, metadataPrefix)
	if !ok && ourMetadata.MatchString(metadata) {
		return identity{}, clock{}, errNewerMetadata
	}
	if !ok {
		return identity{}, clock{}, errMetadata
	}
	b, err := base64.RawStdEncoding.DecodeString(body)
	if err != nil {
		return identity{}, clock{}, fmt.Errorf("%w: %w", errMetadata, err)
	}
	r := reader{b: b}
	id := identity{r.uint32(), int32(r.uvarint())}
	flags := r.byte()
	c := clock{rekeys: flags&flagRekeys != 0, spoken: flags&flagSpoken != 0, table: int64(r.uvarint())}
	c.watermark = r.time(0)
	for len(r.b) > 0 && r.err == nil {
		s := sourceClock{partition: int32(r.uvarint()), status: r.byte()}
		s.watermark = r.time(c.watermark)
		s.fence = int64(r.uvarint()) - 1
		c.sources = append(c.sources, s)
	}
	return id, c, r.err
}

// reader reads the metadata's fields and remembers the first fault.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() { r.b, r.err = nil, fmt.Errorf("%w: truncated", errMetadata) }

func (r *reader) byte() byte {
	if len(r.b) < 1 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint32() uint32 {
	if len(r.b) < 4 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) time(base int64) int64 {
	if r.byte() == 0 {
		return math.MinInt64
	}
	if base == math.MinInt64 {
		base = 0
	}
	z := r.uvarint()
	return base + (int64(z>>1) ^ -int64(z&1))
}

// WatermarkOf is the watermark, in ms, that a commit of a processor carries in its metadata; false if it carries none.
func WatermarkOf(metadata string) (int64, bool) {
	_, c, err := unpack(metadata)
	return c.watermark, err == nil && c.watermark != math.MinInt64
}

// ledger reads and commits a group's positions. Commits are synchronous and carry the session's generation, so their
// answer proves that the member still owns its partitions; sarama's own offset manager tells neither.
type ledger struct {
	client sarama.Client
	group  string
	input  string
	loop   string // "" without re-keying
	table  string
	id     identity
}

// member is who commits.
type member struct {
	generation int32
	id         string
	instance   *string
}

// load reads the committed positions of partitions and refuses what another job or another shape of this one committed (E6).
func (l *ledger) load(partitions []int32) (map[int32]position, error) {
	topics := map[string][]int32{l.input: partitions, l.table: partitions}
	if l.loop != "" {
		topics[l.loop] = partitions
	}
	resp, err := l.fetch(topics)
	for attempt := 1; err != nil && repeatable(err) && attempt < readAttempts; attempt++ { // sarama's group has found a coordinator that moved, this client has not
		_ = l.client.RefreshCoordinator(l.group)
		resp, err = l.fetch(topics)
	}
	if err != nil {
		return nil, err
	}
	out := make(map[int32]position, len(partitions))
	for _, p := range partitions {
		if out[p], err = l.read(resp, p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (l *ledger) fetch(topics map[string][]int32) (*sarama.OffsetFetchResponse, error) {
	coordinator, err := l.coordinator()
	if err != nil {
		return nil, err
	}
	resp, err := coordinator.FetchOffset(sarama.NewOffsetFetchRequest(l.client.Config().Version, l.group, topics))
	if err != nil {
		_ = coordinator.Close()
		return nil, fmt.Errorf("fetch offsets of group %s: %w", l.group, err)
	}
	if resp.Err != sarama.ErrNoError {
		return nil, fmt.Errorf("fetch offsets of group %s: %w", l.group, resp.Err)
	}
	return resp, nil
}

func (l *ledger) read(resp *sarama.OffsetFetchResponse, p int32) (position, error) {
	pos := position{input: -1, loop: -1, table: -1, clock: clock{watermark: math.MinInt64}}
	var table, loop clock
	if err := l.readTopic(resp, l.table, p, &pos.table, &table); err != nil {
		return pos, err
	}
	if err := l.readTopic(resp, l.input, p, &pos.input, &pos.clock); err != nil {
		return pos, err
	}
	pos.out = table.table
	if pos.table >= 0 && pos.input < 0 {
		return pos, &RefusalError{
			fmt.Sprintf("group %s has state in %s/%d but no position in %s/%d: the input topic was deleted and created anew, or its offsets were deleted",
				l.group, l.table, p, l.input, p),
			"count the new topic under another --group, or delete the group and its topics, then klgstream topics",
		}
	}
	if l.loop == "" {
		pos.writer = max(table.watermark, 0)
		return pos, nil
	}
	if err := l.readTopic(resp, l.loop, p, &pos.loop, &loop); err != nil {
		return pos, err
	}
	pos.writer = loop.table
	pos.clock.sources = append(append(pos.clock.sources, loop.sources...), table.sources...)
	return pos, nil
}

func (l *ledger) readTopic(resp *sarama.OffsetFetchResponse, topic string, p int32, offset *int64, c *clock) error {
	b := resp.GetBlock(topic, p)
	if b == nil {
		return fmt.Errorf("fetch offsets of group %s: no answer for %s/%d", l.group, topic, p)
	}
	if b.Err != sarama.ErrNoError {
		return fmt.Errorf("fetch offsets of group %s: %s/%d: %w", l.group, topic, p, b.Err)
	}
	if b.Offset < 0 {
		return nil
	}
	id, read, err := unpack(b.Metadata)
	if errors.Is(err, errNewerMetadata) {
		prefix, _, _ := strings.Cut(b.Metadata, ":")
		return &RefusalError{
			fmt.Sprintf("group %s has committed %s/%d@%d in the format %s, this program knows %s only", l.group, topic, p, b.Offset,
				prefix, strings.TrimSuffix(metadataPrefix, ":")),
			"run the klgstream that committed it, or a later one, here too; nothing was changed",
		}
	}
	if err != nil {
		return &RefusalError{
			fmt.Sprintf("group %s has committed %s/%d@%d with metadata %.40q, which is %v", l.group, topic, p, b.Offset, b.Metadata, err),
			fmt.Sprintf("choose another --group, or delete the group: rpk group delete %s", l.group),
		}
	}
	if err := l.id.check(id, l.group); err != nil {
		return err
	}
	*offset, *c = b.Offset, read
	return nil
}

// check compares what is committed with what runs.
func (id identity) check(committed identity, group string) error {
	if committed.partitions != id.partitions {
		return &RefusalError{
			fmt.Sprintf("group %s was committed with %d partitions, the input topic has %d now: its state is spread for %d",
				group, committed.partitions, id.partitions, committed.partitions),
			"move the state: klgstream state export, new topics and group, klgstream state import",
		}
	}
	if committed.definition != id.definition {
		return &RefusalError{
			fmt.Sprintf("group %s was committed under other definitions (fingerprint %08x, now %08x)", group, committed.definition, id.definition),
			"run with the former --window flags, or choose another --group to count from the start of the log",
		}
	}
	return nil
}

// RefusalError is a start that would contradict the log: nothing was changed, and somebody has to decide.
type RefusalError struct {
	Fault string // what contradicts what, with both values
	Mend  string // the command or setting that mends it
}

// Error names the contradiction and its mend.
func (e *RefusalError) Error() string { return e.Fault + "; to mend it: " + e.Mend }

// heartbeat asks the group whether the member still belongs to its generation.
func (l *ledger) heartbeat(m member) error {
	coordinator, err := l.coordinator()
	if err != nil {
		return err
	}
	resp, err := coordinator.Heartbeat(&sarama.HeartbeatRequest{
		Version: 3, GroupId: l.group, GenerationId: m.generation, MemberId: m.id, GroupInstanceId: m.instance,
	})
	if err != nil {
		_ = coordinator.Close()
		return &unreachableError{coordinator.Addr(), err}
	}
	if moved(resp.Err) {
		_ = l.client.RefreshCoordinator(l.group) // the next try finds out whether it helped
	}
	if resp.Err != sarama.ErrNoError {
		return resp.Err
	}
	return nil
}

// commit writes the positions of one cut in one request: all of them or none.
func (l *ledger) commit(m member, positions map[int32]position) error {
	req := &sarama.OffsetCommitRequest{
		Version: 7, ConsumerGroup: l.group, ConsumerGroupGeneration: m.generation, ConsumerID: m.id, GroupInstanceId: m.instance,
	}
	for p, pos := range positions {
		if err := l.add(req, p, pos); err != nil {
			return err
		}
	}
	coordinator, err := l.coordinator()
	if err != nil {
		return err
	}
	resp, err := coordinator.CommitOffset(req)
	if err != nil {
		_ = coordinator.Close()
		return &unreachableError{coordinator.Addr(), err}
	}
	for topic, partitions := range resp.Errors {
		for p, kerr := range partitions {
			if kerr != sarama.ErrNoError {
				return fmt.Errorf("commit %s/%d of group %s: %w", topic, p, l.group, kerr)
			}
		}
	}
	return nil
}

// add puts a partition's own clock to its input's offset and the other sources' to its loop's; those of many partitions, which do not fit
// there, to the table's too.
func (l *ledger) add(req *sarama.OffsetCommitRequest, p int32, pos position) error {
	own, others, rest := pos.clock, clock{watermark: pos.clock.watermark, table: pos.writer}, clock{watermark: math.MinInt64}
	own.sources = nil
	for _, s := range pos.clock.sources {
		if s.partition == p {
			own.sources = append(own.sources, s)
		} else if l.loop != "" {
			others.sources = append(others.sources, s)
		}
	}
	loop, err := others.pack(l.id)
	if half := len(others.sources) / 2; err != nil {
		rest = clock{watermark: pos.clock.watermark, sources: others.sources[half:]}
		others.sources = others.sources[:half]
		loop, err = others.pack(l.id)
	}
	if rest.table = pos.out; l.loop == "" { // there is no loop's commit to tell, and no other source
		rest.watermark = pos.writer
	}
	table, err1 := rest.pack(l.id)
	input, err2 := own.pack(l.id)
	if err := errors.Join(err, err1, err2); err != nil {
		return err
	}
	// The table's end is committed beside the positions: where a broker forgets the positions of a deleted input, it remains.
	req.AddBlockWithLeaderEpoch(l.table, p, pos.clock.table, -1, 0, table)
	if pos.input >= 0 {
		req.AddBlockWithLeaderEpoch(l.input, p, pos.input, -1, 0, input)
	}
	if l.loop != "" && pos.loop >= 0 {
		req.AddBlockWithLeaderEpoch(l.loop, p, pos.loop, -1, 0, loop)
	}
	return nil
}

func (l *ledger) coordinator() (*sarama.Broker, error) {
	b, err := l.client.Coordinator(l.group)
	if err == nil {
		err = open(b, l.client.Config())
	}
	if err != nil {
		_ = l.client.RefreshCoordinator(l.group)
		return nil, &unreachableError{"coordinator of group " + l.group, err}
	}
	return b, nil
}

// moved reports whether a commit failed because another broker coordinates the group, or none does yet.
func moved(err error) bool {
	return errors.Is(err, sarama.ErrNotCoordinatorForConsumer) || errors.Is(err, sarama.ErrConsumerCoordinatorNotAvailable) ||
		errors.Is(err, sarama.ErrOffsetsLoadInProgress)
}
