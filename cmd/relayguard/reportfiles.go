package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/report"
	"relayguard/cmd/internal/wholefile"
)

// reportDay names a report's files, by the day on which it was made.
const reportDay = "2006-01-02"

// maxReports bounds the octets of all reports that are kept: some years of them.
const maxReports = 200 << 20

func reportFile(c *config.Config, day time.Time, form string) string {
	return filepath.Join(c.ReportDirectory(), "report-"+day.Format(reportDay)+"."+form)
}

// keepReport writes a report's files; the one by which it counts as made is the last.
func keepReport(c *config.Config, day time.Time, r *report.Report) error {
	if err := os.MkdirAll(c.ReportDirectory(), 0o750); err != nil {
		return err
	}
	for _, form := range []string{"txt", "html", "json"} {
		err := wholefile.Write(reportFile(c, day, form), func(w io.Writer) error { return writeReport(w, r, form, c.Report.Language) })
		if err != nil {
			return err
		}
	}
	return nil
}

// writeReport writes one in a form: "txt", "html" or "json".
func writeReport(w io.Writer, r *report.Report, form, lang string) error {
	switch form {
	case "html":
		return report.HTML(w, r, lang)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return report.Text(w, r, lang)
}

// keptDay is what is kept of one day.
type keptDay struct {
	day   string
	files []string // names
	size  int64
}

// keptDays are those that are kept, the newest first.
func keptDays(c *config.Config) ([]keptDay, error) {
	files, err := os.ReadDir(c.ReportDirectory())
	if err != nil {
		return nil, err
	}
	by := map[string]*keptDay{}
	var all []*keptDay
	for _, f := range files {
		day := reportDayOf(f.Name())
		info, err := f.Info()
		if day == "" || err != nil || !info.Mode().IsRegular() { // it went meanwhile, or is somebody else's
			continue
		}
		if by[day] == nil {
			by[day] = &keptDay{day: day}
			all = append(all, by[day])
		}
		by[day].files = append(by[day].files, f.Name())
		by[day].size += info.Size()
	}
	slices.SortFunc(all, func(a, b *keptDay) int { return cmp.Compare(b.day, a.day) })
	out := make([]keptDay, len(all))
	for i, d := range all {
		out[i] = *d
	}
	return out, nil
}

func (d *keptDay) remove(c *config.Config) error {
	var errs []error
	for _, name := range d.files {
		if err := os.Remove(filepath.Join(c.ReportDirectory(), name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sweepReports removes those beyond report.keep, and the oldest beyond maxReports. The
// newest stays in any case.
func sweepReports(c *config.Config, now time.Time) error {
	all, err := keptDays(c)
	if err != nil {
		return err
	}
	var errs []error
	size := int64(0)
	for i := range all {
		size += all[i].size
		day, err := time.ParseInLocation(reportDay, all[i].day, now.Location())
		if err == nil && now.Sub(day) > c.Report.Keep || i > 0 && size > maxReports {
			errs = append(errs, all[i].remove(c))
		}
	}
	return errors.Join(errs...)
}

// reportDayOf is the day in the name of a report's file; "" of any other.
func reportDayOf(name string) string {
	day, is := strings.CutPrefix(name, "report-")
	day, form, dot := strings.Cut(day, ".")
	if _, err := time.Parse(reportDay, day); err != nil || !is || !dot || !slices.Contains([]string{"txt", "html", "json"}, form) {
		return ""
	}
	return day
}

// keptReport reads the report of a day. fs.ErrNotExist: none is kept.
func keptReport(c *config.Config, day time.Time) (*report.Report, error) {
	text, err := os.ReadFile(reportFile(c, day, "json"))
	if err != nil {
		return nil, err
	}
	r := &report.Report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", reportFile(c, day, "json"), err)
	}
	return r, nil
}

// reportOfDay reads what is kept of a day.
func reportOfDay(c *config.Config, day string) (*report.Report, error) {
	t, err := time.ParseInLocation(reportDay, day, time.Local)
	if err != nil {
		return nil, fmt.Errorf("got the day %q, want YYYY-MM-DD", day)
	}
	r, err := keptReport(c, t)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no report of %s is kept in %s: %w", day, c.ReportDirectory(), fs.ErrNotExist)
	}
	return r, err
}

// reportsNaming are the days, newest first, of kept reports that name an account. One
// that cannot be read counts as naming it.
func reportsNaming(c *config.Config, account string) ([]keptDay, error) {
	all, err := keptDays(c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(d keptDay) bool { return !d.names(c, account) }), nil
}

func (d *keptDay) names(c *config.Config, account string) bool {
	whole := true
	for _, name := range d.files {
		text, err := os.ReadFile(filepath.Join(c.ReportDirectory(), name))
		if err != nil {
			return true
		}
		var any any
		if strings.HasSuffix(name, ".json") && json.Unmarshal(text, &any) == nil {
			if namesAccount(any, account) {
				return true
			}
			whole = false // the others say no more than this one
		}
	}
	return whole
}

// namesAccount reports whether any text in what was read of JSON names an account: the
// account itself, and of a login that is an address the mailbox, too.
func namesAccount(v any, account string) bool {
	switch v := v.(type) {
	case string:
		kind, name, ok := strings.Cut(account, ":")
		return !ok && v == account || ok && (hasName(v, account) || kind == "login" && strings.Contains(name, "@") && hasName(v, name))
	case []any:
		return slices.ContainsFunc(v, func(one any) bool { return namesAccount(one, account) })
	case map[string]any:
		for _, one := range v {
			if namesAccount(one, account) {
				return true
			}
		}
	}
	return false
}

// hasName reports whether a text has a name that is no part of a longer one.
func hasName(text, name string) bool {
	text, name = strings.ToLower(text), strings.ToLower(name)
	goesOn := func(r rune) bool {
		return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_@+", r))
	}
	for at := 0; ; {
		i := strings.Index(text[at:], name)
		if i < 0 {
			return false
		}
		i += at
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		rest := text[i+len(name):]
		after, n := utf8.DecodeRuneInString(rest)
		if after == '.' { // of a sentence, or of a longer name
			after, _ = utf8.DecodeRuneInString(rest[n:])
		}
		if !goesOn(before) && before != '.' && !goesOn(after) {
			return true
		}
		at = i + 1
	}
}
