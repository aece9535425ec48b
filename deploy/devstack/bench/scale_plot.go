//go:build !noplot

package bench

import (
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// plot draws one figure of klgstream and of bare consumers.
func (r ScaleResult) plot(axis, label string, of func(Measurement) float64, file string) error {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = axis, label
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, r.ticks(axis)
	p.Y.Min, p.Legend.Top = 0, true
	p.Add(plotter.NewGrid())
	var lines []any
	top := 0.0
	for _, mode := range []string{"raw", "klgstream"} {
		var xys plotter.XYs
		for _, point := range r.on(axis) {
			if m, ok := point.Run.Median(mode); ok {
				xys = append(xys, plotter.XY{X: point.At, Y: of(m)})
				top = math.Max(top, of(m))
			}
		}
		lines = append(lines, mode, xys)
	}
	if err := plotutil.AddLinePoints(p, lines...); err != nil {
		return err
	}
	p.Y.Max = top * 1.15
	return p.Save(14*vg.Centimeter, 9*vg.Centimeter, file)
}

// ticks are at the measured points.
func (r ScaleResult) ticks(axis string) plot.ConstantTicks {
	var out plot.ConstantTicks
	for _, p := range r.on(axis) {
		out = append(out, plot.Tick{Value: p.At, Label: p.Label})
	}
	return out
}
