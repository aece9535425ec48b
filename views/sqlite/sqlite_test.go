package sqlite_test

import (
	"path/filepath"
	"testing"

	"klgstream.dev/views"
	"klgstream.dev/views/sqlite"
	"klgstream.dev/views/viewtest"
)

func TestStore(t *testing.T) {
	viewtest.Run(t, func(t *testing.T) views.Store { return open(t, filepath.Join(t.TempDir(), "views.db")) })
}

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
