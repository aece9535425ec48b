//go:build noplot

package bench

import "errors"

// plot is not in this build: the plotting library and its fonts are 7 MB, which an image does without.
func (r ScaleResult) plot(string, string, func(Measurement) float64, string) error {
	return errors.New("this program was built without plots (-tags noplot): build it without the tag")
}
