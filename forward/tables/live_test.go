package tables_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayguard/forward"
	"relayguard/forward/dbfile"
	"relayguard/forward/tables"
	mta "relayguard/mta/postfix"
	"relayguard/mta/postfix/postfixtest"
)

// real is this machine with a Postfix configuration in a directory of its own.
type real struct {
	t   testing.TB
	dir string
}

func needPostfix(t testing.TB) *real {
	t.Helper()
	postfixtest.Need(t)
	r := &real{t, t.TempDir()}
	r.write("main.cf", "compatibility_level = 3.6\ninet_interfaces = 127.0.0.1\nmyhostname = mail.corp.test\nqueue_directory = "+r.dir+"\n")
	r.write("master.cf", "")
	return r
}

func (r *real) path(name string) string { return filepath.Join(r.dir, name) }

func (r *real) write(name, text string) string {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	return r.path(name)
}

// run runs one of Postfix's programs; what it says on stderr is in the error.
func (r *real) run(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, stderr.String())
	}
	return out, err
}

func (r *real) must(stdin string, name string, args ...string) string {
	r.t.Helper()
	out, err := r.run(r.t.Context(), []byte(stdin), name, append([]string{"-c", r.dir}, args...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(out)
}

func (r *real) reader() *tables.Reader {
	return &tables.Reader{
		Host: &forward.Host{Files: disk{}, Run: r.run}, ConfigDir: r.dir, QueueDir: r.dir,
	}
}

// disk reads this machine, as far as these tests need it.
type disk struct{}

func info(i fs.FileInfo) forward.Info {
	uid := forward.NoUID
	if sys, ok := i.Sys().(*syscall.Stat_t); ok {
		uid = int(sys.Uid)
	}
	return forward.Info{Name: i.Name(), Size: i.Size(), Mode: i.Mode(), MTime: i.ModTime(), UID: uid}
}

func (disk) Lstat(_ context.Context, name string) (forward.Info, error) {
	i, err := os.Lstat(name)
	if err != nil {
		return forward.Info{}, err
	}
	return info(i), nil
}

func (d disk) Read(ctx context.Context, name string, _ forward.ReadOptions) ([]byte, forward.Info, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, forward.Info{}, err
	}
	i, err := d.Lstat(ctx, name)
	return data, i, err
}

func (disk) ReadDir(context.Context, string, forward.ReadOptions) ([]forward.Info, error) {
	return nil, fs.ErrNotExist
}
func (disk) Readlink(_ context.Context, name string) (string, error) { return os.Readlink(name) }
func (disk) LstatAll(context.Context, []string) ([]forward.Info, error) {
	return nil, fs.ErrNotExist
}

var compiledTypes = map[string]string{"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb"}

func lines(text string) []string {
	list := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if text == "" {
		list = nil
	}
	slices.Sort(list)
	return list
}

func (r *real) compiled(kind, name string) []string {
	r.t.Helper()
	file := r.path(name) + compiledTypes[kind]
	data, err := os.ReadFile(file)
	if err != nil {
		r.t.Fatal(err)
	}
	entries, err := dbfile.Read(file, data)
	if err != nil {
		r.t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Key+"\t"+e.Value)
	}
	slices.Sort(list)
	return list
}

func equalLines(t testing.TB, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%s: got %d lines, want %d", what, len(got), len(want))
	for _, g := range got {
		if _, found := slices.BinarySearch(want, g); !found {
			t.Errorf("%s: only ours: %.300q", what, g)
			break
		}
	}
	for _, w := range want {
		if _, found := slices.BinarySearch(got, w); !found {
			t.Errorf("%s: only Postfix's: %.300q", what, w)
			break
		}
	}
}

func manyEntries(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "user%06d@corp.test\tbox%06d@example.test\n", i*7919%n, i)
	}
	fmt.Fprintf(&b, "big@corp.test\t%s\n", strings.TrimSuffix(strings.Repeat("member@list.example, ", 40_000), ", "))
	fmt.Fprintf(&b, "%s@corp.test\tlong-key@evil.test\n", strings.Repeat("k", 400))
	return b.String()
}

func TestCompiledFilesReadAsPostmapLists(t *testing.T) {
	r := needPostfix(t)
	text := manyEntries(100_000)
	for kind := range compiledTypes {
		t.Run(kind, func(t *testing.T) {
			r := &real{t, r.dir}
			name := "many-" + kind
			r.write(name, text)
			r.must("", "postmap", kind+":"+r.path(name))
			want := lines(text) // postmap -s cannot list cdb
			if kind != "cdb" {
				want = lines(r.must("", "postmap", "-s", kind+":"+r.path(name)))
			}
			equalLines(t, kind, r.compiled(kind, name), want)
			l := r.reader().List(t.Context(), mta.Table{Type: kind, Name: r.path(name)})
			for _, e := range l.Entries {
				if e.Differs != "" || e.Dormant != "" || e.Line == 0 {
					t.Fatalf("%s: %.300v", kind, e)
				}
			}
			if len(l.Entries) != 100_002 || len(l.Gaps) > 0 || l.Opaque {
				t.Errorf("%s: %d entries, gaps %v", kind, len(l.Entries), l.Gaps)
			}
		})
	}
}

func TestDeletedEntriesAreGone(t *testing.T) {
	r := needPostfix(t)
	text := manyEntries(20_000)
	var remove strings.Builder
	for i := range 20_000 {
		if i%3 > 0 {
			fmt.Fprintf(&remove, "user%06d@corp.test\n", i)
		}
	}
	remove.WriteString("big@corp.test\n")
	for _, kind := range []string{"hash", "btree", "lmdb"} { // postmap -d cannot do cdb
		name := "deleted-" + kind
		r.write(name, text)
		table := kind + ":" + r.path(name)
		r.must("", "postmap", table)
		r.must(remove.String(), "postmap", "-d", "-", table)
		r.must("planted@corp.test x@evil.test\nbig2@corp.test "+strings.Repeat("y", 30_000)+"\n", "postmap", "-i", table)
		equalLines(t, kind, r.compiled(kind, name), lines(r.must("", "postmap", "-s", table)))
		different := map[string]int{}
		for _, e := range r.reader().List(t.Context(), mta.Table{Type: kind, Name: r.path(name)}).Entries {
			different[e.Differs]++
		}
		if different["the compiled form has it, the text has not"] != 2 || different["the text has it, the compiled form has not"] != 13_334 {
			t.Errorf("%s: %v", kind, different)
		}
	}
}

// oddText has what grammars disagree about.
const oddText = "# comment\n  ignored, for it begins with white space\n  and this too\nA@b.test\tone\n# within\n   two # three\n\n" +
	"\"q k\"@b.test v\n\\\" v2\nb\\ c v3\n\"open v4\nnovalue\nnovalue2   \nkey: v5\nÄ@b.test umlaut\nSTRASSE ß\n\xff bad\n" +
	"dup first\ndup second\nform\ffeed\x0bv6\n  \t\n\tcontinued\r\nend v7\r\nnul v8\x00hidden\nlast v9"

const oddAliases = "# comment\nAlice:  \\alice , \"weird name\"@evil.test\nteam: :include:/etc/team, |\"/bin/prog arg\"\n" +
	"bob:  a@evil.test,\n# within\n  b@evil.test\n\"with space\": x\nuser@corp.test: y\npc%x: y\na, b: y\nnocolon\nempty:\n" +
	"c: \"\"\nd: # not, a comment\ne: (note) x@[192.0.2.1] (more (nested) \\) )\nf: group: a, b;\ng: <z@evil.test>, Z. <q@evil.test>\n" +
	"h: \"user\\@evil\", u\\ v@evil, \"tab\there\"\ni: a b\tc\nj : x!y, u%v@w, @r:s@t\nk(comment): x\n\"l:m\": x\nn.o: x\nÄ: umlaut\n" +
	"p: \"unclosed\nq: /file/name, \"|/bin/x 'y'\", owner-q@x\nr: x;y\ns: [unclosed\nt: trailing\\\nu: a@b.\ndup: one\nDUP: two\n\xff: bad\nv: \xff\n"

func TestTextsCompileAsHere(t *testing.T) {
	r := needPostfix(t)
	for kind, suffix := range compiledTypes {
		for tool, text := range map[string]string{"postmap": oddText, "postalias": oddAliases} {
			name := "odd-" + tool + "-" + kind
			r.write(name, text)
			if _, err := os.Stat(r.path(name)); err != nil {
				t.Fatal(err)
			}
			r.must("", tool, kind+":"+r.path(name))
			reader := r.reader()
			reader.Aliases = tool == "postalias"
			l := reader.List(t.Context(), mta.Table{Type: kind, Name: r.path(name)})
			for _, e := range l.Entries {
				if e.Differs != "" {
					t.Errorf("%s%s by %s: %+v", kind, suffix, tool, e)
				}
			}
			if len(l.Entries) < 10 || len(l.Gaps) > 0 {
				t.Errorf("%s by %s: %d entries, gaps %v", kind, tool, len(l.Entries), l.Gaps)
			}
		}
	}
}

// inForce lists what a listing says is in force, as postmap -s prints it.
func inForce(l tables.Listing) []string {
	var list []string
	for _, e := range l.Entries {
		if e.Dormant == "" {
			list = append(list, e.Key+"\t"+e.Value)
		}
	}
	slices.Sort(list)
	return list
}

func TestTexthashAndInlineAsPostmapLists(t *testing.T) {
	r := needPostfix(t)
	file := r.write("text", strings.ReplaceAll(oddText, "\xff bad\n", ""))
	for _, table := range []mta.Table{
		{Type: "texthash", Name: file},
		{Type: "inline", Name: `{ A=1, {b = x y}, A=2, {"q k" = z}, e==f, {g={h}}, i\ =j }`},
		{Type: "inline", Name: `{{ a b = c }}`},
		{Type: "inline", Name: `{a}`},
		{Type: "inline", Name: `{a=}`},
		{Type: "inline", Name: `{=a}`},
	} {
		printed, err := r.run(t.Context(), nil, "postmap", "-c", r.dir, "-s", table.String())
		want := lines(string(printed))
		if err != nil {
			want = nil
		}
		equalLines(t, table.String(), inForce(r.reader().List(t.Context(), table)), want)
	}
}

func TestAnswersAsPostmapGivesThem(t *testing.T) {
	r := needPostfix(t)
	posix := r.write("v.re", "/^alice@corp\\.test$/ x@evil.test\nif /@corp\\.test$/\n/^sales-([0-9]+)@/ desk$1@corp.test\n!/^carol@/ rest@corp.test\nendif\n"+
		"/^carol@/!/other/ c$$@corp.test\n/^(x)$/ $2\n/^(x)$/ $1abc\n!/^(y)$/ $1\n/unclosed x\n/^z$/q x\nnonsense\nendif\n"+
		"/^[a-z]+([.]|[[:digit:]])@d/ class$(1)\n/^case@/i lower-only\n/^(a|ab)(c|bcd)(d*)@l/ $1-$2-$3\n|^pipe@| p${1}\n|^(pipe)@| p${1}x\n"+
		"/^s\\.t@/\n  continued\n/x{2,3}@/ braces\n/^back[\\]slash@/ bs\n/^opt(a)?@/ [$1]\n/^m/m mflag\nif !/^n/\n/^q@/ q\nENDIF\n/^n@/ n\n")
	perl := r.write("v.pcre", "/^(?!bob)(al.*)@corp\\.test$/ $1@evil.test\n/^bob@/ b\n/^(?:c|d)@/ y\n/^UP@/i up\n/^x y@/x spaced\n/b@/A anchored\n"+
		"/^e+?(e*)@/ $1\n/^f+(f*)@/U $1\n/^(?<n>g)@/ $1\n/^(h)\\1@/ twice\n/^i(?=@)/ ahead\nif /^j/\n/k/ jk\nendif\n/^\\Ql.m\\E@/ quoted\n/^o\\d@/ digit\n")
	network := r.write("v.cidr", "192.0.2.0/24 a\nif 198.51.100.0/24\n!198.51.100.7 b\nendif\n2001:db8::/32 c\n")
	keys := strings.Fields("alice@corp.test ALICE@Corp.Test sales-7@corp.test carol@corp.test carol@other.test carol@x.test x y z nonsense " +
		"foo.@d foo7@d case@x CASE@x abcd@l pipe@x s.t@ sxt@ xx@ x{2,3}@ back\\slash@ opta@ opt@ m q@ nq@ n@ bob@corp.test alx@corp.test " +
		"c@ d@ UP@ up@ b@ ab@ eee@ fff@ g@ hh@ i@ jk l.m@ lxm@ o1@ unclosed abc@x")
	for _, table := range []mta.Table{
		{Type: "regexp", Name: posix}, {Type: "pcre", Name: perl}, {Type: "static", Name: "{ a b }"},
		{Type: "pipemap", Name: "{regexp:" + posix + ",inline:{x@evil.test=piped, rest@corp.test=pr}}"},
		{Type: "unionmap", Name: "{inline:{x=1},inline:{x=2,y=3}}"},
	} {
		said := map[string]string{}
		printed, _ := r.run(t.Context(), []byte(strings.Join(keys, "\n")+"\n"), "postmap", "-c", r.dir, "-q", "-", table.String())
		for line := range strings.Lines(string(printed)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			said[key] = value
		}
		if len(said) == 0 {
			t.Fatalf("%s: Postfix found nothing", table)
		}
		for _, live := range []bool{true, false} {
			reader := r.reader()
			reader.Known = func() []string { return keys }
			if !live {
				reader.Host.Run = nil
			}
			l := reader.List(t.Context(), table)
			ours := map[string]string{}
			undecided := len(l.Gaps) > 0 // some patterns are Postfix's only
			for _, e := range l.Entries {
				if !e.Pattern {
					ours[e.Key] = e.Value
				} else if e.Key == forward.Everybody {
					for _, key := range keys {
						ours[key] = e.Value
					}
				}
			}
			for _, key := range keys {
				if ours[key] != said[key] && !(undecided && !live) {
					t.Errorf("%s (live %v) %s: got %q, Postfix says %q", table, live, key, ours[key], said[key])
				}
			}
		}
	}
	l := r.reader().List(t.Context(), mta.Table{Type: "cidr", Name: network})
	if len(l.Entries) != 3 || r.must("", "postmap", "-q", "198.51.100.8", "cidr:"+network) != "b\n" {
		t.Errorf("cidr: %+v", l.Entries)
	}
}

func TestWhatOnlyPostfixCanList(t *testing.T) {
	r := needPostfix(t)
	file := r.write("gone", "a b\n")
	r.must("", "postmap", "hash:"+file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	l := r.reader().List(t.Context(), mta.Table{Type: "hash", Name: file})
	if len(l.Entries) != 1 || len(l.Gaps) != 1 {
		t.Errorf("without its text: %+v", l)
	}
	reader := r.reader()
	reader.Known = func() []string { return []string{"a", "b c", "x\ny"} }
	// A network server that is not there: a gap, nothing invented.
	l = reader.List(t.Context(), mta.Table{Type: "tcp", Name: "127.0.0.1:1"})
	if !l.Opaque || len(l.Gaps) == 0 || len(l.Entries) > 0 {
		t.Errorf("tcp: %+v", l)
	}
}
