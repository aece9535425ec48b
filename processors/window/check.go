package window

import "fmt"

// Check returns what is wrong with a state that was read back: nil for every state that this operator has made, also with other options.
// A state that fails is damaged, or of another definition.
func (o *Operator[E, A]) Check(s *State[A]) error {
	for i := range s.Slices {
		sl := &s.Slices[i]
		if fault := o.checkSlice(sl); fault != "" {
			return fmt.Errorf("check state of %q: slice [%d, %d): %s", o.definition, sl.Start, sl.End, fault)
		}
		if i > 0 && !s.Slices[i-1].before(sl.Span) {
			return fmt.Errorf("check state of %q: slice [%d, %d) is out of order", o.definition, sl.Start, sl.End)
		}
	}
	for _, w := range s.Withdrawn {
		if o.definition.Kind != Session || !o.isSession(w.Span) || w.Revision < 3 || w.Revision%2 == 0 {
			return fmt.Errorf("check state of %q: no session was [%d, %d) with revision %d", o.definition, w.Start, w.End, w.Revision)
		}
	}
	return nil
}

// checkSlice says what is wrong with a slice.
func (o *Operator[E, A]) checkSlice(sl *Slice[A]) string {
	switch {
	case sl.Count < 1:
		return fmt.Sprintf("count %d must be at least 1", sl.Count)
	case sl.Start < earliest-dayMillis-o.grid.size-o.grid.step || sl.Start > latest+dayMillis:
		return "start is beyond time"
	case o.definition.Kind == Session && !o.isSession(sl.Span):
		return fmt.Sprintf("a session is at least %v long", o.definition.Gap)
	case o.definition.Kind != Session && !o.grid.holds(sl.Span):
		return "its borders are not those of windows"
	}
	return ""
}

func (o *Operator[E, A]) isSession(s Span) bool {
	return s.Start >= earliest && s.Start <= latest && s.End > s.Start && s.End <= latest+o.gap && s.End-s.Start >= o.gap
}
