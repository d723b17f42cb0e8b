package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
)

//go:embed page.html
var pageHTML string

// pages is the template of the page. html/template escapes by where a value stands.
var pages = template.Must(template.New("page").Parse(pageHTML))

// HTML writes the report as one page: without scripts, and it loads nothing. The only
// links are to https pages of blocklists. lang is one of Languages.
func HTML(w io.Writer, r *Report, lang string) error {
	d, err := compose(r, lang, page)
	if err != nil {
		return fmt.Errorf("write the report as HTML: %w", err)
	}
	text, err := d.html()
	if err != nil {
		return fmt.Errorf("write the report as HTML: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("write the report as HTML: %w", err)
	}
	return nil
}

func (d *document) html() ([]byte, error) {
	var b bytes.Buffer
	if err := pages.Execute(&b, d); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
