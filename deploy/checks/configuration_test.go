package checks

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// aSetting is a flag as a command's help describes it.
type aSetting struct {
	flag, placeholder, env, meaning, group string
	negatable                              bool
}

// commandNames are the names of the commands that do something, in the order of the help.
func commandNames(t *testing.T) (names []string) {
	t.Helper()
	for _, name := range listed(t) {
		if below := listed(t, name); len(below) > 0 {
			names = append(names, below...)
		} else {
			names = append(names, name)
		}
	}
	return names
}

var helpCommand = regexp.MustCompile(`(?m)^  ([a-z]+(?: [a-z]+)*)(?:\s{2,}.*| <.*)?$`)

// helps are the answers to --help, by command: they are asked for a thousand times, and are the same each time.
var helps sync.Map

func helpOf(t *testing.T, command ...string) string {
	t.Helper()
	name := strings.Join(command, " ")
	if help, ok := helps.Load(name); ok {
		return help.(string)
	}
	help, err := klgstream(t, nil, append(slices.Clone(command), "--help")...)
	if err != nil {
		t.Fatal(err)
	}
	helps.Store(name, help)
	return help
}

// listed are the commands that a command's help lists.
func listed(t *testing.T, command ...string) (names []string) {
	t.Helper()
	help := helpOf(t, command...)
	_, list, _ := strings.Cut(help, "\nCommands:\n")
	for _, m := range helpCommand.FindAllStringSubmatch(list, -1) {
		names = append(names, m[1])
	}
	return names
}

var (
	helpFlag  = regexp.MustCompile(`^  (?:-[a-z], |    )?--(\[no-\])?([a-z0-9-]+)(?:=(\S+))?(?:\s{2,}(.*))?$`)
	helpGroup = regexp.MustCompile(`^(\S.*):$`)
	helpEnv   = regexp.MustCompile(`\s*\(\$([A-Z_]+)\)$`)
)

// settingsOf are the settings of a command by its help.
func settingsOf(t *testing.T, command string) (all []aSetting) {
	t.Helper()
	help := helpOf(t, strings.Fields(command)...)
	help, _, _ = strings.Cut(help, "\nCommands:\n")
	group := ""
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, "\n")
		if m := helpGroup.FindStringSubmatch(line); m != nil {
			group = m[1]
		} else if m := helpFlag.FindStringSubmatch(line); m != nil {
			all = append(all, aSetting{flag: m[2], negatable: m[1] != "", placeholder: m[3], meaning: m[4], group: group})
		} else if line == "" {
			continue
		} else if n := len(all); n > 0 && strings.HasPrefix(line, "     ") {
			all[n-1].meaning = strings.TrimSpace(all[n-1].meaning + " " + strings.TrimSpace(line))
		}
	}
	all = slices.DeleteFunc(all, func(s aSetting) bool { return s.flag == "help" })
	for i := range all {
		if m := helpEnv.FindStringSubmatch(all[i].meaning); m != nil {
			all[i].env, all[i].meaning = m[1], helpEnv.ReplaceAllString(all[i].meaning, "")
		}
	}
	return all
}

// allSettings are those of all commands, once for each wording.
func allSettings(t *testing.T) (all []aSetting) {
	t.Helper()
	for _, command := range commandNames(t) {
		for _, s := range settingsOf(t, command) {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

// The configuration reference is what the commands say of themselves.
func TestConfigurationReference(t *testing.T) {
	takers := map[aSetting][]string{}
	for _, command := range commandNames(t) {
		for _, s := range settingsOf(t, command) {
			if command != "config" { // it takes those of all others
				takers[s] = append(takers[s], command)
			}
		}
	}
	groups := map[string][]aSetting{}
	for s := range takers {
		groups[s.group] = append(groups[s.group], s)
	}
	text := ""
	all := len(commandNames(t)) - 1
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		text += "\n## " + group + "\n\n| setting | environment | meaning | commands |\n|---|---|---|---|\n"
		slices.SortFunc(groups[group], func(a, b aSetting) int { return strings.Compare(a.flag+a.meaning, b.flag+b.meaning) })
		for _, s := range groups[group] {
			who := shorter(t, takers[s])
			if len(takers[s]) == all {
				who = "all"
			}
			text += s.row(who)
		}
	}
	sameSection(t, deployed("docs", "configuration.md"), "settings", text+"\n")
}

// shorter names a group of commands for all that are below it.
func shorter(t *testing.T, commands []string) string {
	t.Helper()
	for _, group := range listed(t) {
		below := listed(t, group)
		if len(below) == 0 {
			continue
		}
		at := slices.Index(commands, below[0])
		if at >= 0 && at+len(below) <= len(commands) && slices.Equal(commands[at:at+len(below)], below) {
			commands = slices.Replace(slices.Clone(commands), at, at+len(below), group)
		}
	}
	return strings.Join(commands, ", ")
}

func (s aSetting) row(commands string) string {
	flag := "--" + s.flag
	if s.placeholder != "" {
		flag += "=" + s.placeholder
	}
	env := "–"
	if s.env != "" {
		env = "`" + s.env + "`"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", flag, env, strings.ReplaceAll(s.meaning, "|", "\\|"), commands)
}

// The help is read as it is meant: no setting without a meaning, and the known ones are found.
func TestConfigurationIsRead(t *testing.T) {
	found := map[string]aSetting{}
	for _, s := range settingsOf(t, "processor") {
		if s.meaning == "" || s.env == "" || s.group == "" {
			t.Errorf("%+v is not described", s)
		}
		found[s.flag] = s
	}
	if s := found["brokers"]; s.env != "REDPANDA_BROKERS" || s.placeholder != "HOST:PORT,..." || s.group != "Broker" {
		t.Errorf("brokers: %+v", s)
	}
	if !found["rekey"].negatable || len(found) < 20 {
		t.Errorf("%d settings, rekey %+v", len(found), found["rekey"])
	}
	if names := commandNames(t); !slices.Contains(names, "processor") || !slices.Contains(names, "bench throughput") || slices.Contains(names, "bench") {
		t.Errorf("commands %q", names)
	}
}
