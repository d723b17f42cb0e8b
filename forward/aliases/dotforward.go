package aliases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"relayguard/forward"
)

// readFor reads the file that counts for one recipient, and those that would
// count if it were not there: they are dormant.
func (m *home) readFor(ctx context.Context, reading *forward.Reading, r recipient) {
	candidates := m.candidates(r)
	paths := make([]string, len(candidates))
	for n, c := range candidates {
		paths[n] = c.path
	}
	infos, err := m.host.Files.LstatAll(ctx, paths)
	if err != nil || len(infos) != len(paths) {
		reading.Gaps = append(reading.Gaps, forward.Gap{Source: m.account.Home, Why: fmt.Sprintf("look for .forward: %v", err)})
		return
	}
	first := ""
	done := map[string]bool{}
	for n, c := range candidates {
		if infos[n].Name == "" || done[c.path] {
			continue
		}
		if r.extended && !c.extended && first == "" {
			return // the file for him without extension: told under that name
		}
		done[c.path] = true
		seen := m.look(ctx, c.path, infos[n])
		dormant := seen.hidden
		switch {
		case dormant != "":
		case first != "":
			dormant = fmt.Sprintf("local(8) takes %s, which comes before it in forward_path", first)
		default:
			dormant = m.ignored(infos[n], r)
			if !seen.doubtful {
				first = c.path
			}
		}
		if r.extended && !c.extended {
			return
		}
		m.tell(ctx, reading, c.path, seen, r, dormant)
	}
}

// sight is what local(8) has before it when it comes to a path.
type sight struct {
	info forward.Info
	data []byte
	err  error // of reading it as the account
	// hidden says why the account cannot see it: local(8) goes on to the next.
	hidden string
	// doubtful: the account may not read it although its mode lets him: whether
	// he sees it is not known.
	doubtful bool
}

func (m *home) look(ctx context.Context, file string, info forward.Info) sight {
	s := sight{info: info}
	if info.Mode&fs.ModeSymlink != 0 && !m.options.Sendmail {
		s.hidden = m.unreachable(ctx, file)
		return s
	}
	options := forward.ReadOptions{Max: MaxIncludeFile, NoFollow: !m.options.Sendmail, As: rights(&m.account)}
	var opened forward.Info
	s.data, opened, s.err = m.host.Files.Read(ctx, file, options)
	switch {
	case s.err == nil:
		s.info = opened
	case errors.Is(s.err, fs.ErrPermission):
		s.hidden = m.unreachable(ctx, file)
		s.doubtful = s.hidden == "" && permitted(info, m.account, 4)
	}
	return s
}

// ignored says why local(8) does not open a .forward that it found, in its
// order (dotforward.c).
func (m *home) ignored(info forward.Info, r recipient) string {
	switch {
	case m.options.Sendmail:
		return ""
	case info.Mode&fs.ModeSymlink != 0:
		return "it is a symbolic link: local(8) ignores it"
	case !info.Mode.IsRegular():
		return "it is not a regular file: local(8) ignores it"
	case info.UID != 0 && info.UID != m.account.UID:
		return fmt.Sprintf("uid %d owns it, not %s or root: local(8) ignores it", info.UID, m.account.Name)
	case info.Mode.Perm()&0o002 != 0:
		return "everybody may write it: local(8) ignores it"
	case m.account.Name != strings.ToLower(m.account.Name):
		return "local(8) knows names in lower case only: no mail reaches " + m.account.Name
	case r.extension != strings.ToLower(r.extension):
		return "local(8) knows extensions in lower case only: no mail reaches it"
	case m.options.Delimiters != "" && strings.ContainsAny(m.account.Name[1:], m.options.Delimiters) && !undivided(m.account.Name):
		return "recipient_delimiter divides the name: no mail reaches " + m.account.Name
	}
	return ""
}

// undivided names are never divided by a delimiter (split_addr of Postfix).
func undivided(name string) bool {
	return name == "mailer-daemon" || name == "double-bounce" || strings.HasPrefix(name, "owner-") || strings.HasSuffix(name, "-request")
}

// unreachable says why the account cannot see the path: local(8) then goes on
// to the next. A symbolic link on the way is taken for open.
func (m *home) unreachable(ctx context.Context, file string) string {
	if m.account.UID == 0 {
		return ""
	}
	var dirs []string
	for dir := path.Dir(file); ; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
		if dir == "/" {
			break
		}
	}
	infos, err := m.host.Files.LstatAll(ctx, dirs)
	if err != nil || len(infos) != len(dirs) {
		return ""
	}
	for n, info := range infos {
		if info.Name != "" && info.Mode.IsDir() && !permitted(info, m.account, 1) {
			return fmt.Sprintf("%s may not enter %s: local(8) does not see it", m.account.Name, dirs[n])
		}
	}
	return ""
}

// permitted is the kernel's question by mode bits, without further groups; bits
// is 4 to read, 1 to enter.
func permitted(info forward.Info, as forward.Account, bits fs.FileMode) bool {
	mode := info.Mode.Perm()
	switch {
	case as.UID == 0:
		return true
	case info.UID == as.UID:
		mode >>= 6
	case info.GID == as.GID:
		mode >>= 3
	}
	return mode&bits == bits
}

// tell makes rules of one file; dormant says why it does not count.
func (m *home) tell(ctx context.Context, reading *forward.Reading, file string, seen sight, r recipient, dormant string) {
	base := forward.Rule{Owner: m.owner(r), Mechanism: forward.DotForward, Source: file, Mode: forward.Redirect,
		UID: seen.info.UID, Dormant: dormant}
	reading.Uses = append(reading.Uses, file)
	e := newExpansion(m.host, base, m.options.Settings)
	switch {
	case seen.info.Mode&fs.ModeSymlink != 0:
		base.Kind, base.Target = forward.File, file
		if to, err := m.host.Files.Readlink(ctx, file); err == nil {
			base.Target = to
		}
		e.add(base)
	case seen.err == nil:
		at := place{as: rights(&m.account), stage: inForward}
		for _, record := range ParseForward(seen.data, m.options.LineLimit) {
			base.Line = record.Line
			e.targets(ctx, base, m.options.parse(record.Text), at)
		}
	case errors.Is(seen.err, fs.ErrNotExist):
		return // it went between two looks: the watch tells
	case dormant != "" || errors.Is(seen.err, fs.ErrPermission) || errors.Is(seen.err, forward.ErrNotRegular):
		base.Kind, base.Target = forward.File, file
		if dormant == "" {
			base.Dormant = fmt.Sprintf("%s cannot open it, so local(8) ignores it: %v", m.account.Name, seen.err)
		}
		e.add(base)
	default:
		e.unread(base, file, seen.err.Error())
	}
	told := e.finish()
	reading.Rules = append(reading.Rules, told.Rules...)
	reading.Gaps = append(reading.Gaps, told.Gaps...)
	reading.Uses = append(reading.Uses, told.Uses...)
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
