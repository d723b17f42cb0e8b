package sendmail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// What m4 may take and say at most; sendmail.cf has some 60 kB.
const (
	m4Wait    = time.Minute
	maxCF     = 4 << 20
	maxM4Said = 16 << 10
)

// m4 makes the text of a .cf file from a .mc file, as make in /etc/mail does.
// Relative names are looked for in dir.
func m4(ctx context.Context, dir, mc string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, m4Wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, "m4", mc)
	cmd.Dir = dir
	var out, said bounded
	out.most, said.most = maxCF, maxM4Said
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("m4 is not installed, which makes sendmail.cf")
	case err == nil && out.over:
		err = fmt.Errorf("it makes more than %d octets", maxCF)
	case err == nil && !strings.Contains(out.String(), "\nDZ"): // the version, which cf.m4 brings
		err = errors.New("what it makes is no configuration of Sendmail")
	}
	if err != nil {
		return "", fmt.Errorf("make a configuration of %s by m4: %w: %s", mc, err, firstLine(said.String()))
	}
	return out.String(), nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	bytes.Buffer
	most int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := min(len(p), b.most-b.Len())
	b.over = b.over || keep < len(p)
	b.Buffer.Write(p[:keep])
	return len(p), nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// withSource adds the .mc file as a comment, as Debian's Makefile does, to what
// had it before.
func withSource(cf, before, mcPath, mc string) string {
	heading := "### " + mcPath + " ###\n"
	if !strings.Contains(before, "\n"+heading) && !strings.HasPrefix(before, heading) {
		return cf
	}
	var b strings.Builder
	b.WriteString(cf)
	b.WriteString(heading)
	for line := range strings.Lines(mc) {
		b.WriteString("# " + line)
	}
	return b.String()
}

// cfLines are the lines of a .cf file that say something.
func cfLines(cf string) []string {
	var lines []string
	for line := range strings.Lines(cf) {
		line = strings.TrimRight(line, " \t\r\n")
		if line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

// difference is the first line that one of two .cf files has and the other has
// not in its place; nil: they say the same.
func difference(was, is []string) error {
	for n := range max(len(was), len(is)) {
		switch {
		case n >= len(was):
			return fmt.Errorf("%.120q is added", is[n])
		case n >= len(is):
			return fmt.Errorf("%.120q is missing", was[n])
		case was[n] != is[n]:
			return fmt.Errorf("%.120q instead of %.120q", is[n], was[n])
		}
	}
	return nil
}
