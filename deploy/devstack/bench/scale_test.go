package bench

import (
	"strings"
	"testing"
	"time"
)

func TestScaleRefuses(t *testing.T) {
	for want, s := range map[string]Scale{
		"window definitions 5 must be 1 to 4": {Windows: []int{5}},
		"open windows per key 500":            {Open: []int{500}},
		"partitions 99999":                    {Partitions: []int{99999}},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one about %q", err, want)
		}
	}
	if err := (Scale{}).Validate(); err != nil {
		t.Error(err)
	}
}

// Along an axis nothing else changes, but what the axis is about does.
func TestScalePoints(t *testing.T) {
	s := Scale{Hopping: true}.withDefaults()
	points, runs := s.points()
	if len(points) != 4+5+3+3+2 {
		t.Fatalf("%d points", len(points))
	}
	for i, p := range points {
		r := runs[i]
		varied := map[string]bool{
			axisPartitions: r.Partitions != 4, axisKeys: r.Keys != 5000, axisWindows: len(r.Product.Windows) != 1, axisOpen: r.Span != 10_000*time.Second,
			axisKind: r.Product.Windows[0] != tumblingHour,
		}
		for axis, v := range varied {
			if v && axis != p.Axis && (axis != axisOpen || p.Axis != axisKind) {
				t.Errorf("%s %s changes %s, too", p.Axis, p.Label, axis)
			}
		}
	}
}

// Sixteen windows open means that the watermark is fifteen hours behind.
func TestScaleOpenWindows(t *testing.T) {
	points, runs := Scale{Open: []int{1, 16}, Partitions: []int{}, Keys: []int{}, Windows: []int{}}.withDefaults().points()
	if len(points) != 2 || runs[0].Bound != runs[0].Disorder || runs[1].Bound != 15*time.Hour || runs[1].Span < 16*time.Hour {
		t.Errorf("%+v", runs)
	}
}
