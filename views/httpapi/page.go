package httpapi

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"time"
)

//go:embed page
var pageFiles embed.FS

// routePage serves the embedded files: index.html at /, docs.html at /docs, everything else under /page/.
func (a *API) routePage() error {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		return fmt.Errorf("open page: %w", err)
	}
	about, err := a.about()
	if err != nil {
		return err
	}
	a.mux.HandleFunc("GET /page/about.json", servePage("about.json", about))
	return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return fmt.Errorf("read page file %q: %w", name, err)
		}
		route := "GET /page/" + name
		switch name {
		case "index.html":
			route = "GET /{$}"
		case "docs.html":
			route = "GET /docs"
		}
		a.mux.HandleFunc(route, servePage(name, body))
		return nil
	})
}

// about is what the page needs to know before it may ask the API: no data, so no key.
func (a *API) about() ([]byte, error) {
	body, err := json.Marshal(map[string]any{
		"version": a.cfg.Version, "store": a.cfg.Store.Name(), "keys": len(a.secrets) > 0,
		"pipeline": a.cfg.Pipeline != nil, "registry": a.cfg.Registry != nil, "live": a.cfg.Live != nil,
	})
	if err != nil {
		return nil, fmt.Errorf("encode what the page needs to know: %w", err)
	}
	return body, nil
}

// servePage answers with one file. Browsers ask each time whether it changed, so an upgrade is seen at once.
func servePage(name string, body []byte) http.HandlerFunc {
	kind := mime.TypeByExtension(path.Ext(name))
	sum := sha256.Sum256(body)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
}
