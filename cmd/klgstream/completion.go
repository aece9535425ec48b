package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCmd prints what a shell needs. All scripts ask the program itself, so they never grow old.
type completionCmd struct {
	Shell string `arg:"" help:"bash, zsh or fish."`
}

func (c *completionCmd) check() error {
	return oneOf("shell", c.Shell, "bash", "zsh", "fish")
}

// Run prints the script.
func (c *completionCmd) Run(_ context.Context, a *app) error {
	_, err := fmt.Fprint(a.stdout, completions[c.Shell])
	return err
}

// completions are the scripts. Each hands over the words up to the cursor and shows what comes back: per line a word, and
// behind a tab what it is. The word "//files" stands for the shell's own completion of file names.
var completions = map[string]string{
	"bash": `# bash completion of klgstream: source <(klgstream completion bash)
_klgstream() {
  local cur=${COMP_WORDS[COMP_CWORD]} word rest line=${COMP_LINE:0:COMP_POINT} words
  COMPREPLY=()
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  while IFS=$'\t' read -r word rest; do
    if [[ $word == //files ]]; then
      compopt -o filenames 2> /dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "${cur#=}")
      return
    fi
    [[ $cur == = || ${COMP_WORDS[COMP_CWORD-1]} == = ]] && word=${word#*=}
    COMPREPLY+=("$word")
  done < <("${words[0]}" __complete -- "${words[@]:1}" 2> /dev/null)
  [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2> /dev/null
  return 0
}
complete -F _klgstream klgstream
`,
	"zsh": `#compdef klgstream
# zsh completion of klgstream: klgstream completion zsh > "${fpath[1]}/_klgstream"
_klgstream() {
  local -a plain valued
  local word rest
  while IFS=$'\t' read -r word rest; do
    if [[ $word == //files ]]; then
      compset -P '*='
      _files
      return
    elif [[ $word == *= ]]; then
      valued+=("${word//:/\\:}:$rest")
    else
      plain+=("${word//:/\\:}:$rest")
    fi
  done < <("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2> /dev/null)
  (( $#plain )) && _describe -V klgstream plain
  (( $#valued )) && _describe -V klgstream valued -S ''
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _klgstream "$@"; else compdef _klgstream klgstream; fi
`,
	"fish": `# fish completion of klgstream: klgstream completion fish > ~/.config/fish/completions/klgstream.fish
function __klgstream_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] __complete -- $words[2..-1] "$current" 2> /dev/null)
        if test "$line" = //files
            __fish_complete_path (string replace -r '^--[^=]*=' '' -- "$current")
        else
            echo $line
        end
    end
end
complete -c klgstream -f -a '(__klgstream_complete)'
`,
}

// completeCmd answers the scripts.
type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

func (*completeCmd) check() error { return nil }

// Run prints how the words may go on.
func (c *completeCmd) Run(_ context.Context, a *app) error {
	model, l, err := a.model()
	if err != nil {
		return err
	}
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	for _, s := range suggestions(model.Node, l, words) {
		line := s.word
		if s.about != "" {
			line += "\t" + s.about
		}
		if _, err := fmt.Fprintln(a.stdout, line); err != nil {
			return err
		}
	}
	return nil
}

// suggestion is a word that may come next.
type suggestion struct{ word, about string }

var fileNames = suggestion{word: "//files"}

// suggestions are how the last of words may go on, which may be empty; the others are complete.
func suggestions(root *kong.Node, l *loader, words []string) (all []suggestion) {
	if len(words) == 0 {
		words = []string{""}
	}
	node, at := root, words[len(words)-1]
	positions := 0
	var open *kong.Flag // takes the next word
	for _, word := range words[:len(words)-1] {
		switch child := childOf(node, word); {
		case open != nil:
			open = nil
		case strings.HasPrefix(word, "-"):
			if f := flagOf(node, word); f != nil && !f.IsBool() && !strings.Contains(word, "=") {
				open = f
			}
		case child != nil:
			node, positions = child, 0
		default:
			positions++
		}
		if node.Name == "config" && node.Parent == root { // a whole command line follows
			node = root
		}
	}
	if name, value, ok := strings.Cut(at, "="); ok && strings.HasPrefix(name, "--") {
		return matching(valuesOf(flagOf(node, name), name+"="), name+"="+value)
	}
	switch {
	case open != nil:
		all = valuesOf(open, "")
	case strings.HasPrefix(at, "-"):
		all = flagsOf(node, l)
	default:
		all = wordsOf(node, positions)
	}
	return matching(all, at)
}

func matching(all []suggestion, prefix string) []suggestion {
	return slices.DeleteFunc(all, func(s suggestion) bool { return s != fileNames && !strings.HasPrefix(s.word, prefix) })
}

func childOf(n *kong.Node, word string) *kong.Node {
	for _, c := range n.Children {
		if c.Name == word {
			return c
		}
	}
	return nil
}

// flagOf is the flag that a word names.
func flagOf(n *kong.Node, word string) *kong.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for _, group := range n.AllFlags(false) {
		for _, f := range group {
			if f.Name == name || f.Tag.Negatable != "" && "no-"+f.Name == name {
				return f
			}
		}
	}
	return nil
}

// flagsOf are all flags of a command; one with a value ends in an equals sign.
func flagsOf(n *kong.Node, l *loader) (all []suggestion) {
	for _, group := range n.AllFlags(true) {
		for _, f := range group {
			word := "--" + f.Name
			if !f.IsBool() {
				word += "="
			}
			all = append(all, suggestion{word, brief(l.describe(f.Value))})
			if f.Tag.Negatable != "" {
				all = append(all, suggestion{"--no-" + f.Name, "Not: " + brief(f.Help)})
			}
		}
	}
	slices.SortFunc(all, func(a, b suggestion) int {
		return strings.Compare(strings.TrimSuffix(a.word, "="), strings.TrimSuffix(b.word, "="))
	})
	return all
}

// brief is the first sentence.
func brief(text string) string {
	first, _, _ := strings.Cut(text, ". ")
	return strings.TrimSuffix(first, ".")
}

// wordsOf are a command's subcommands, or what its next argument may be.
func wordsOf(n *kong.Node, positions int) (all []suggestion) {
	for _, c := range n.Children {
		if !c.Hidden {
			all = append(all, suggestion{c.Name, brief(c.Help)})
		}
	}
	if last := len(n.Positional) - 1; last >= 0 && (positions <= last || n.Positional[last].IsCumulative()) {
		all = append(all, valuesOf(&kong.Flag{Value: n.Positional[min(positions, last)]}, "")...)
	}
	return all
}

// choices are what flags and arguments take that take one of few words.
var choices = map[string][]string{
	"log-level": {"debug", "info", "warn", "error"}, "log-format": {"auto", "text", "json"}, "emit": {"update", "close"},
	"idle": {"clock", "hold"}, "shell": {"bash", "zsh", "fish"},
}

// valuesOf are what may follow prefix as the value of a flag or argument.
func valuesOf(f *kong.Flag, prefix string) (all []suggestion) {
	if f == nil {
		return nil
	}
	for _, word := range choices[f.Name] {
		all = append(all, suggestion{prefix + word, ""})
	}
	if f.PlaceHolder == "FILE" || f.PlaceHolder == "DIR" || f.Name == "file" {
		all = append(all, fileNames)
	}
	return all
}
