package chaos

import (
	"context"
	"fmt"
	"io"

	"klgstream.dev/codecs"
)

// dump writes the group table and the output of a round that failed, record by record, for whoever looks for the cause.
func (p *play) dump(ctx context.Context, out io.Writer) error {
	w := &p.round.Workload
	fmt.Fprintf(out, "=== seed %d\n%s\n%s\n", w.Seed, w, p.round.Schedule)
	for _, v := range p.report.Violations {
		fmt.Fprintln(out, v)
	}
	t, err := newTail(connecting(p.stage.Addrs()), w.table())
	if err != nil {
		return err
	}
	defer t.close()
	ends, err := p.reader.ends(ctx, w.table())
	if err == nil {
		err = t.to(ctx, ends)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "--- table")
	for _, r := range t.records {
		var env codecs.Envelope
		err := env.Parse(r.value)
		fmt.Fprintf(out, "%d@%d producer %d %s: sources %v purged %d undecided %v, %d bytes %v\n", r.partition, r.offset, r.producer, r.key,
			env.Sources, env.Purged, env.Undecided, len(r.value), err)
	}
	fmt.Fprintln(out, "--- output")
	for _, r := range p.tails[w.output()].records {
		fmt.Fprintf(out, "%d@%d producer %d %s\n", r.partition, r.offset, r.producer, r.value)
	}
	return nil
}
