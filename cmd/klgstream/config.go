package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

const description = `Counts aircraft events in windows, exactly once, whatever crashes.

"klgstream dev" shows the whole flow in this process, with nothing else installed. In production the processor, the sink and the API run as processes of their own, any number of each.

A setting is looked for among the flags, then in the environment (the name in parentheses), then in the file of --config. "klgstream config" shows what came of it.`

// commands is the command line: one field per subcommand.
type commands struct {
	Global `group:"global"`

	Dev        devCmd              `cmd:"" set:"idle=hold" help:"Run everything in this process, fed by a replay of real flights."`
	Processor  processorCmd        `cmd:"" help:"Count events in windows. Run as many as the input has partitions, or fewer."`
	Sink       sinkCmd             `cmd:"" help:"Load window results into the store. Run as many as the output has partitions, or fewer."`
	API        apiCmd              `cmd:"" name:"api" help:"Serve the HTTP API and the page."`
	Topics     topicsCmd           `cmd:"" help:"Create the topics that are missing and check those that exist."`
	Replay     replayCmd           `cmd:"" help:"Publish a file of events."`
	DLQ        lettersCmd[deadBox] `cmd:"" name:"dlq" help:"Look after the events that could not be decoded: list, show, replay, purge."`
	Late       lettersCmd[lateBox] `cmd:"" name:"late" help:"Look after the events that came too late: list, show, replay, purge."`
	State      stateCmd            `cmd:"" help:"Look at the state of the processor, and move it to another number of partitions: inspect, export, import."`
	Doctor     doctorCmd           `cmd:"" help:"Look at everything the flow depends on, and say what mends what is wrong."`
	Bench      benchCmd            `cmd:"" help:"Measure this program on this machine, beside what its parts can do at most."`
	Config     configCmd           `cmd:"" help:"Show the settings in effect and where each came from; with a command line behind it (config processor --bound=1h) those of that command, which does not run."`
	Version    versionCmd          `cmd:"" help:"Show the version and what it was built from; so does klgstream --version."`
	Completion completionCmd       `cmd:"" help:"Print a script that completes this command line in a shell."`
	Man        manCmd              `cmd:"" help:"Print the manual page."`
	Complete   completeCmd         `cmd:"" name:"__complete" hidden:"" passthrough:"" help:"Tell a shell how a command line may go on."`
}

var groups = []kong.Group{
	{Key: "command", Title: "This command:"},
	{Key: "kafka", Title: "Broker:"},
	{Key: "names", Title: "Topics and groups:"},
	{Key: "meaning", Title: "What is counted:"},
	{Key: "engine", Title: "How it works, without effect on results:"},
	{Key: "store", Title: "Store:"},
	{Key: "http", Title: "HTTP:"},
	{Key: "ops", Title: "Operations:"},
	{Key: "plan", Title: "How topics are made:"},
	{Key: "replay", Title: "Replay:"},
	{Key: "doctor", Title: "Examination:"},
	{Key: "letters", Title: "Which events, and how:"},
	{Key: "events", Title: "Events:"},
	{Key: "global", Title: "Every command:"},
}

// command is one subcommand with its settings.
type command interface {
	// check returns every fault of the settings.
	check() error
	// Run does the work until it is done or ctx ends.
	Run(ctx context.Context, a *app) error
}

// checkAll joins the faults of several groups of settings.
func checkAll(groups ...interface{ check() error }) error {
	faults := make([]error, 0, len(groups))
	for _, g := range groups {
		faults = append(faults, g.check())
	}
	return errors.Join(faults...)
}

// loaded is a command line that is right.
type loaded struct {
	command  command
	global   Global
	settings []setting
}

// setting is one value with the place it came from.
type setting struct {
	name   string
	value  any
	source string // "flag", "default", "environment NAME" or "file:line"
	group  string
}

// load makes the subcommand's settings of flags, environment and file, in this order of precedence. It returns all
// faults at once; nil and no error after help was printed.
func load(args []string, env environment) (*loaded, error) {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	if len(args) == 1 && args[0] == "--version" {
		args[0] = "version"
	}
	args, only := onlyShow(args)
	var line commands
	l := &loader{env: env, names: map[string][]string{}, sources: map[string]string{}}
	helped := false
	parser, err := l.parser(&line, &helped)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(args)
	if helped {
		return nil, nil
	}
	if err != nil {
		return nil, &usageError{fmt.Errorf("%w\nrun \"%s --help\" for what there is", err, understood(parser, args))}
	}
	cmd, ok := reflect.TypeAssert[command](parsed.Selected().Target.Addr())
	if !ok {
		return nil, &usageError{fmt.Errorf("%q needs a subcommand", parsed.Command())}
	}
	if err := l.faulty(line.check(), cmd.check()); err != nil {
		return nil, err
	}
	if only {
		cmd = &configCmd{}
	}
	return &loaded{command: cmd, global: line.Global, settings: l.settings(parsed)}, nil
}

// understood is the part of a command line that names commands.
func understood(parser *kong.Kong, args []string) string {
	node, names := parser.Model.Node, []string{parser.Model.Name}
	for _, arg := range args {
		next := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == arg })
		if next < 0 {
			break
		}
		node, names = node.Children[next], append(names, arg)
	}
	return strings.Join(names, " ")
}

// parser is kong with everything this program wants of it.
func (l *loader) parser(line *commands, helped *bool) (*kong.Kong, error) {
	return kong.New(line, append(l.mappers(),
		kong.Name("klgstream"), kong.Description(description),
		kong.Writers(l.env.stdout, l.env.stderr), kong.Exit(func(int) { *helped = true }),
		kong.ExplicitGroups(groups), kong.PostBuild(l.takeEnvironment), kong.Resolvers(l),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 110}),
		kong.ValueFormatter(l.describe),
		kong.Vars{"bound": "5m", "idle": "clock"},
	)...)
}

// model is the whole command line, for who writes about it.
func (a *app) model() (*kong.Application, *loader, error) {
	l := &loader{env: a.environment, names: map[string][]string{}, sources: map[string]string{}}
	k, err := l.parser(&commands{}, new(bool))
	if err != nil {
		return nil, nil, err
	}
	return k.Model, l, nil
}

// onlyShow takes "config" off a whole command line behind it: its settings are checked and shown, and it does not run.
func onlyShow(args []string) (line []string, only bool) {
	if len(args) > 1 && args[0] == "config" && !strings.HasPrefix(args[1], "-") {
		return args[1:], true
	}
	return args, false
}

// loader resolves what the command line leaves open and collects faults instead of stopping at the first.
type loader struct {
	env     environment
	names   map[string][]string // environment variables by flag
	sources map[string]string   // where a flag's value came from, unless from the command line or its default
	file    *configFile
	faults  []error
}

// takeEnvironment takes the environment away from kong, which would let the file win over it and stop at the first
// fault. A flag without a variable of its own gets KLGSTREAM_ and its name.
func (l *loader) takeEnvironment(k *kong.Kong) error {
	return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok && flag.Name != "help" {
			names := flag.Tag.Envs
			if len(names) == 0 {
				names = []string{"KLGSTREAM_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))}
			}
			l.names[flag.Name] = names
			flag.Envs, flag.Tag.Envs = nil, nil
		}
		return next(nil)
	})
}

// describe is a flag's help with its environment variable.
func (l *loader) describe(v *kong.Value) string {
	if names := l.names[v.Name]; v.Flag != nil && len(names) > 0 {
		return v.Help + " ($" + strings.Join(names, ", $") + ")"
	}
	return v.Help
}

// Validate implements kong.Resolver.
func (l *loader) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver: the environment wins over the file.
func (l *loader) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range l.names[flag.Name] {
		if value, ok := l.env.lookup(name); ok && value != "" {
			l.sources[flag.Name] = "environment " + name
			return value, nil
		}
	}
	if flag.Name == "config" {
		return nil, nil
	}
	if l.file == nil {
		l.file = l.open(ctx)
	}
	entry, ok := l.file.entries[flag.Name]
	if !ok {
		return nil, nil
	}
	l.sources[flag.Name] = entry.where
	return entry.value, nil
}

// open reads the file that the flag or the environment names.
func (l *loader) open(ctx *kong.Context) *configFile {
	known, path := map[string]bool{}, ""
	_ = kong.Visit(ctx.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			known[flag.Name] = true
		}
		return next(nil)
	})
	for _, name := range l.names["config"] {
		path, _ = l.env.lookup(name)
	}
	for _, flag := range ctx.Flags() {
		if set, ok := ctx.FlagValue(flag).(string); flag.Name == "config" && ok && set != "" {
			path = set
		}
	}
	file, faults := readConfig(path, known)
	l.faults = append(l.faults, faults...)
	return file
}

// settings are the values of a parsed command line with their sources.
func (l *loader) settings(ctx *kong.Context) []setting {
	for _, p := range ctx.Path {
		if p.Flag != nil && !p.Resolved {
			l.sources[p.Flag.Name] = "flag"
		}
	}
	var all []setting
	for _, flag := range ctx.Flags() {
		if flag.Name == "help" || flag.Hidden {
			continue
		}
		s := setting{name: flag.Name, value: mask(flag.Target.Interface(), flag.Tag.Get("secret")), source: "default"}
		if source, ok := l.sources[flag.Name]; ok {
			s.source = source
		}
		if flag.Group != nil {
			s.group = flag.Group.Key
		}
		all = append(all, s)
	}
	return all
}

// faulty joins the faults of parsing with those of the settings, one per line and each with the place to mend.
func (l *loader) faulty(more ...error) error {
	all, told := slices.Clone(l.faults), map[string]bool{}
	for _, err := range all {
		told[about(err)] = true
	}
	for _, err := range more {
		// A value that could not even be read is zero now, and what is wrong with zero is no news.
		all = append(all, slices.DeleteFunc(flatten(err), func(err error) bool { return about(err) != "" && told[about(err)] })...)
	}
	if len(all) == 0 {
		return nil
	}
	lines := []string{fmt.Sprintf("%d faults in the configuration", len(all))}
	if len(all) == 1 {
		lines[0] = "a fault in the configuration"
	}
	for _, err := range all {
		lines = append(lines, "  "+l.place(err))
	}
	return errors.New(strings.Join(lines, "\n"))
}

// place adds where the value came from to a fault that names a flag.
func (l *loader) place(fault error) string {
	if source := l.sources[about(fault)]; source != "" {
		return fault.Error() + " (from " + source + ")"
	}
	return fault.Error()
}

// about is the flag a fault is about, "" if none.
func about(fault error) string {
	text, ok := strings.CutPrefix(fault.Error(), "--")
	flag, _, named := strings.Cut(text, ":")
	if !ok || !named {
		return ""
	}
	return flag
}

func flatten(err error) []error {
	var joined interface{ Unwrap() []error }
	if err == nil {
		return nil
	}
	if errors.As(err, &joined) {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}

// mappers parse values, and keep a fault for later instead of ending the parse.
func (l *loader) mappers() []kong.Option {
	return []kong.Option{
		kong.TypeMapper(reflect.TypeFor[time.Duration](), collector[time.Duration]{l, time.ParseDuration, "a duration, for example 100ms, 5m or 24h"}),
		kong.KindMapper(reflect.Int, collector[int]{l, strconv.Atoi, "a whole number"}),
		kong.KindMapper(reflect.Int16, collector[int16]{l, parseInt[int16](16), "a whole number of at most 32767"}),
		kong.KindMapper(reflect.Int32, collector[int32]{l, parseInt[int32](32), "a whole number of at most 2147483647"}),
		kong.KindMapper(reflect.Float64, collector[float64]{l, parseFinite, "a number"}),
		kong.KindMapper(reflect.Bool, boolCollector{collector[bool]{l, strconv.ParseBool, "true or false"}}),
	}
}

func parseInt[T int16 | int32](bits int) func(string) (T, error) {
	return func(s string) (T, error) {
		n, err := strconv.ParseInt(s, 10, bits)
		return T(n), err
	}
}

// parseFinite reads a number that can be compared with a limit.
func parseFinite(s string) (float64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err == nil && (math.IsNaN(n) || math.IsInf(n, 0)) {
		err = strconv.ErrRange
	}
	return n, err
}

// collector parses one type of value.
type collector[T any] struct {
	loader *loader
	parse  func(string) (T, error)
	want   string
}

// Decode implements kong.Mapper.
func (c collector[T]) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	token, err := ctx.Scan.PopValue(ctx.Value.Name)
	if err != nil {
		return err
	}
	text := fmt.Sprint(token.Value)
	value, err := c.parse(text)
	if err != nil {
		c.loader.faults = append(c.loader.faults, fmt.Errorf("--%s: %q is not %s", ctx.Value.Name, text, c.want))
		return nil //nolint:nilerr // it is told of with all other faults
	}
	target.Set(reflect.ValueOf(value).Convert(target.Type()))
	return nil
}

// boolCollector is for flags that may stand without a value.
type boolCollector struct{ collector[bool] }

// IsBool implements kong.BoolMapper.
func (boolCollector) IsBool() bool { return true }

// Decode implements kong.Mapper.
func (c boolCollector) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		target.SetBool(true)
		return nil
	}
	return c.collector.Decode(ctx, target)
}

// configFile is a file of settings.
type configFile struct{ entries map[string]entry }

type entry struct {
	value string // as it would stand on the command line
	where string
}

// readConfig reads a YAML file of settings; no path is an empty file.
func readConfig(path string, known map[string]bool) (*configFile, []error) {
	file := &configFile{entries: map[string]entry{}}
	if path == "" {
		return file, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return file, []error{fmt.Errorf("--config: %w", err)}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return file, []error{fmt.Errorf("--config: %s: %w", path, err)}
	}
	if len(doc.Content) == 0 {
		return file, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return file, []error{fmt.Errorf("--config: %s must hold settings, each as \"name: value\"", path)}
	}
	var faults []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		if err := file.add(path, root.Content[i], root.Content[i+1], known); err != nil {
			faults = append(faults, err)
		}
	}
	return file, faults
}

func (f *configFile) add(path string, key, value *yaml.Node, known map[string]bool) error {
	where := fmt.Sprintf("%s:%d", path, key.Line)
	name := strings.ReplaceAll(key.Value, "_", "-")
	if !known[name] || name == "config" || name == "help" {
		return fmt.Errorf("%s: %q is not a setting; \"klgstream config\" lists them", where, key.Value)
	}
	if old, ok := f.entries[name]; ok {
		return fmt.Errorf("%s: %q is set already, in %s", where, key.Value, old.where)
	}
	text, ok := plain(value)
	if !ok {
		return fmt.Errorf("%s: %q must be a value or a list of values", where, key.Value)
	}
	if value.Tag != "!!null" {
		f.entries[name] = entry{text, where}
	}
	return nil
}

// plain is a value or list of values as it would stand on the command line.
func plain(n *yaml.Node) (string, bool) {
	if n.Kind == yaml.ScalarNode {
		return n.Value, true
	}
	values := make([]string, 0, len(n.Content))
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode {
			return "", false
		}
		values = append(values, item.Value)
	}
	return kong.JoinEscaped(values, ','), n.Kind == yaml.SequenceNode
}

// masked stands for a secret.
const masked = "********"

// mask hides what a secret setting must not show.
func mask(value any, secret string) any {
	text, ok := value.(string)
	switch {
	case !ok || secret == "" || text == "":
		return value
	case secret == "url":
		return maskURL(text)
	}
	return masked
}

// maskURL hides the password of a URL, in the user part and among the parameters.
func maskURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return masked
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), masked)
	}
	if query := u.Query(); query.Has("password") || query.Has("sslpassword") {
		u.RawQuery = masked
	}
	return strings.ReplaceAll(u.String(), url.QueryEscape(masked), masked)
}

// configCmd shows the settings of all subcommands but dev, whose defaults differ.
type configCmd struct {
	Kafka        `group:"kafka"`
	Names        `group:"names"`
	Meaning      `group:"meaning"`
	Engine       `group:"engine"`
	Store        `group:"store"`
	HTTP         `group:"http"`
	ProcessorOps `group:"ops"`
	SinkOps      `group:"ops"`
	APIOps       `group:"ops"`
	TopicPlan    `group:"plan"`
	Replay       `group:"replay"`
}

func (c *configCmd) check() error {
	return checkAll(&c.Kafka, &c.Names, &c.Meaning, &c.Engine, &c.Store, &c.HTTP, &c.ProcessorOps, &c.SinkOps, &c.APIOps, &c.TopicPlan, &c.Replay)
}

// Run prints a YAML file that --config takes.
func (c *configCmd) Run(_ context.Context, a *app) error {
	return writeConfig(a.stdout, a.settings)
}

// shortDuration is the duration without the zero parts Go writes: 24h instead of 24h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func writeConfig(w io.Writer, settings []setting) error {
	doc := yaml.Node{Kind: yaml.MappingNode}
	titles := map[string]string{}
	for _, g := range groups {
		titles[g.Key] = strings.TrimSuffix(g.Title, ":")
	}
	last := ""
	for _, s := range settings {
		if s.name == "config" {
			continue
		}
		key, value := yaml.Node{Kind: yaml.ScalarNode, Value: s.name}, yaml.Node{}
		if d, ok := s.value.(time.Duration); ok {
			s.value = shortDuration(d)
		}
		if err := value.Encode(s.value); err != nil {
			return fmt.Errorf("encode setting %q: %w", s.name, err)
		}
		if value.Kind == yaml.SequenceNode {
			value.Style = yaml.FlowStyle
		}
		value.LineComment = s.source
		if s.group != last {
			key.HeadComment, last = titles[s.group], s.group
		}
		doc.Content = append(doc.Content, &key, &value)
	}
	out := yaml.NewEncoder(w)
	defer out.Close()
	if err := out.Encode(&doc); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}
