package wordpress_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relayguard/wordpress"
)

// pool is a document root whose PHP has the prepend, and a sendmail that keeps
// what it gets.
type pool struct {
	t       *testing.T
	dir     string // above the document root
	root    string
	outbox  string // the last mail and its arguments
	key     wordpress.Key
	sites   string // the map
	prepend string
	web     *webServer
}

const fakeSendmail = `#!/bin/sh
printf '%s\n' "$@" >OUTBOX/args
if test -e OUTBOX/deaf; then exit 75; fi
cat >OUTBOX/mail
exit $(cat OUTBOX/exit)
`

// newPool makes one. Pages are paths below the root and their PHP.
func newPool(t *testing.T, chain string, pages map[string]string, settings ...string) *pool {
	t.Helper()
	php(t)
	p := &pool{t: t, dir: openDir(t), key: wordpress.NewKey()}
	p.root, p.outbox = filepath.Join(p.dir, "shop"), filepath.Join(p.dir, "outbox")
	p.sites, p.prepend = filepath.Join(p.dir, "php-sites.php"), filepath.Join(p.dir, "prepend.php")
	keyFile, sendmail := filepath.Join(p.dir, "keys", "shop.php"), filepath.Join(p.dir, "sendmail")
	put(t, keyFile, wordpress.KeyFile("shop.example.jp", p.key), 0o400)
	put(t, p.sites, wordpress.SiteMap(map[string]string{p.root: keyFile, "/srv/other": "/nowhere/key.php"}), 0o644)
	put(t, p.prepend, wordpress.PrependWith(chain, p.sites), 0o644)
	put(t, sendmail, []byte(strings.ReplaceAll(fakeSendmail, "OUTBOX", p.outbox)), 0o755)
	put(t, filepath.Join(p.outbox, "exit"), []byte("0"), 0o644)
	for path, text := range pages {
		put(t, filepath.Join(p.root, path), []byte("<?php\n"+text), 0o644)
	}
	given(t, p.dir)
	return p.again(settings...)
}

// again is the same with other settings.
func (p *pool) again(settings ...string) *pool {
	p.t.Helper()
	q := *p
	q.web = serve(p.t, p.root, append([]string{"auto_prepend_file=" + p.prepend, "disable_functions=mail,mb_send_mail", "sendmail_path=" + filepath.Join(p.dir, "sendmail") + " -t -i", "mail.add_x_header=0"}, settings...)...)
	return &q
}

// exits says how the next calls of sendmail end.
func (p *pool) exits(code int) {
	p.t.Helper()
	put(p.t, filepath.Join(p.outbox, "exit"), []byte(strconv.Itoa(code)), 0o644)
}

// sent is the mail that sendmail got since it was last asked, and its arguments.
func (p *pool) sent() (mail string, args []string) {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.outbox, "mail"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.t.Fatal(err)
	}
	argText, _ := os.ReadFile(filepath.Join(p.outbox, "args"))
	os.Remove(filepath.Join(p.outbox, "mail"))
	os.Remove(filepath.Join(p.outbox, "args"))
	return string(text), strings.Split(strings.TrimSuffix(string(argText), "\n"), "\n")
}

// split takes the stamps off a mail.
func split(mail string) (stamps []string, rest string) {
	for line := range strings.SplitAfterSeq(mail, "\n") {
		if value, ok := strings.CutPrefix(line, "X-Relayguard-Origin: "); ok {
			stamps = append(stamps, strings.TrimSpace(value))
		} else {
			rest += line
		}
	}
	return stamps, rest
}

func TestPrependSignsAndSendsAsPHPDoes(t *testing.T) {
	cases := map[string]struct {
		page       string
		mail       string // without the stamp
		args       string
		recipients []string
		subject    string
	}{
		"plain": {
			page: `mail('taro@example.jp', 'hello', "one\ntwo");`,
			mail: "To: taro@example.jp\r\nSubject: hello\r\n\r\none\ntwo\r\n", recipients: []string{"taro@example.jp"}, subject: "hello",
		},
		"headers and parameters": {
			page: `mail('Taro Yamada <Taro@Example.jp>, "a, b" <b@example.jp>', 'hello', 'x', "From: shop@example.jp\r\nCc: Hanako (her <x@y>) <h@example.jp>\r\nBcc: c@example.jp,\r\n d@example.jp\r\n", '-fshop@example.jp; id >/tmp/x');`,
			mail: "To: Taro Yamada <Taro@Example.jp>, \"a, b\" <b@example.jp>\r\nSubject: hello\r\nFrom: shop@example.jp\r\nCc: Hanako (her <x@y>) <h@example.jp>\r\nBcc: c@example.jp,\r\n d@example.jp\r\n\r\nx\r\n",
			args: "-fshop@example.jp; id >/tmp/x", recipients: []string{"taro@example.jp", "b@example.jp", "h@example.jp", "c@example.jp", "d@example.jp"}, subject: "hello",
		},
		"array of headers": {
			page: `mail('a@b.jp', 'hello', 'x', array('From' => 'shop@example.jp', 'X-Many' => array('1', '2')));`,
			mail: "To: a@b.jp\r\nSubject: hello\r\nFrom: shop@example.jp\r\nX-Many: 1\r\nX-Many: 2\r\n\r\nx\r\n", recipients: []string{"a@b.jp"}, subject: "hello",
		},
		"null as old programs have it": {
			page: `mail('a@b.jp', null, 'x', null);`,
			mail: "To: a@b.jp\r\nSubject: \r\n\r\nx\r\n", recipients: []string{"a@b.jp"}, subject: "",
		},
		"named arguments": {
			page: `mail(message: 'x', to: 'a@b.jp', subject: 's', additional_params: '-v');`,
			mail: "To: a@b.jp\r\nSubject: s\r\n\r\nx\r\n", args: "-v", recipients: []string{"a@b.jp"}, subject: "s",
		},
		"newlines in to and subject": {
			page: `mail("a@b.jp\nBcc: evil@example.com", "hello\r\nBcc: evil@example.com\x07 ", 'x');`,
			mail: "To: a@b.jp Bcc: evil@example.com\r\nSubject: hello  Bcc: evil@example.com \r\n\r\nx\r\n", subject: "hello  Bcc: evil@example.com",
		},
		"an encoded, folded subject": {
			page: `mail('a@b.jp', "=?UTF-8?B?5ZWG?=\r\n =?UTF-8?B?5ZOB?= !", 'x');`,
			mail: "To: a@b.jp\r\nSubject: =?UTF-8?B?5ZWG?=\r\n =?UTF-8?B?5ZOB?= !\r\n\r\nx\r\n", recipients: []string{"a@b.jp"}, subject: "商品 !",
		},
		"evaluated code": {
			page: `eval('mail("a@b.jp", "s", "x");');`,
			mail: "To: a@b.jp\r\nSubject: s\r\n\r\nx\r\n", recipients: []string{"a@b.jp"}, subject: "s",
		},
	}
	pages := map[string]string{}
	for name, c := range cases {
		pages[name+"/form.php"] = "$sent = null;\n" + strings.Replace(c.page, "mail(", "$sent = mail(", 1) + "\necho json_encode($sent);"
	}
	p := newPool(t, "", pages)
	own := p.again("disable_functions=", "auto_prepend_file=", "error_reporting=0")
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			page := "/" + url.PathEscape(name) + "/form.php"
			if said := p.web.do("POST", page); said != "true" {
				t.Fatalf("the page says %q", said)
			}
			mail, args := p.sent()
			stamps, rest := split(mail)
			if rest != c.mail {
				t.Errorf("mail\n%q, want\n%q", rest, c.mail)
			}
			if got := strings.Join(args[2:], " "); got != c.args {
				t.Errorf("sendmail has the arguments %q, want %q", got, c.args)
			}
			own.web.do("POST", page)
			if ownMail, ownArgs := own.sent(); ownMail != rest || !slices.Equal(ownArgs, args) {
				t.Errorf("PHP's own mail() sends\n%q %q, ours\n%q %q", ownMail, ownArgs, rest, args)
			}
			if len(stamps) != 1 {
				t.Fatalf("stamps %q, want one", stamps)
			}
			got := readClaim(t, p.key, stamps[0])
			want := claim{Key: p.key.ID, Time: got.Time, Blog: "0", Plugin: "script:" + name + "/form.php", Entry: "post", Script: name + "/form.php:3", Client: "127.0.0.1",
				RecipientsDigest: digestOf(c.recipients...), SubjectDigest: digest(strings.Join(strings.Fields(c.subject), " "))}
			if c.recipients == nil {
				want.RecipientsDigest = got.RecipientsDigest // whatever the MTA makes of it
			}
			if got != want {
				t.Errorf("stamp\n%+v, want\n%+v", got, want)
			}
		})
	}
}

func TestPrependRefusesWhatPHPRefuses(t *testing.T) {
	cases := map[string]struct{ call, says string }{
		"NUL in to":                 {`mail("a@b.jp\0", 's', 'x')`, `ValueError: mail(): Argument #1 ($to) must not contain any null bytes`},
		"NUL in the message":        {`mail("a@b.jp", 's', "x\0")`, `ValueError: mail(): Argument #3 ($message) must not contain any null bytes`},
		"NUL in headers":            {`mail("a@b.jp", 's', "x", "A: \0b")`, `ValueError: mail(): Argument #4 ($additional_headers) must not contain any null bytes`},
		"an empty line in headers":  {`@mail("a@b.jp", 's', "x", "A: b\n\nevil body")`, "false"},
		"CRLF CRLF in headers":      {`@mail("a@b.jp", 's', "x", "A: b\r\n\r\nevil body")`, "false"},
		"headers begin with blanks": {`@mail("a@b.jp", 's', "x", " A: b")`, "false"},
		"an array as to":            {`mail(array("a@b.jp"), 's', "x")`, `TypeError: mail(): Argument #1 ($to) must be of type string, array given`},
		"a header name with a line": {`mail("a@b.jp", 's', "x", array("A\r\nBcc" => "b"))`, "ValueError: Header name \"A\r\nBcc\" contains invalid characters"},
		"a header with a line":      {`mail("a@b.jp", 's', "x", array("A" => "b\r\nBcc: evil@example.com"))`, `ValueError: Header "A" contains CRLF characters that are used as a line separator and are not allowed in the header`},
		"a header with a bare CR":   {`mail("a@b.jp", 's', "x", array("A" => "b\rBcc: evil@example.com"))`, `ValueError: Header "A" contains CR character that is not allowed in the header`},
		"a header with a bare LF":   {`mail("a@b.jp", 's', "x", array("A" => "b\nBcc: evil@example.com"))`, `ValueError: Header "A" contains LF character that is not allowed in the header`},
		"a header with NUL":         {`mail("a@b.jp", 's', "x", array("A" => "b\0"))`, `ValueError: Header "A" contains NULL character that is not allowed in the header`},
		"numeric header names":      {`mail("a@b.jp", 's', "x", array("A: b"))`, `TypeError: Header name cannot be numeric, 0 given`},
		"a number as header":        {`mail("a@b.jp", 's', "x", array("A" => 1))`, `TypeError: Header "A" must be of type array|string, int given`},
		"two From":                  {`mail("a@b.jp", 's', "x", array("From" => array("a", "b")))`, `TypeError: Header "from" must be of type string, array given`},
		"a number in a list":        {`mail("a@b.jp", 's', "x", array("A" => array(1)))`, `TypeError: Header "A" must only contain values of type string, int found`},
		"another To":                {`mail("a@b.jp", 's', "x", array("tO" => "evil@example.com"))`, `ValueError: The additional headers cannot contain the "To" header`},
		"another Subject":           {`mail("a@b.jp", 's', "x", array("X" => "1", "subject" => array("b\r\n")))`, `ValueError: The additional headers cannot contain the "Subject" header`},
		"a fault before another To": {`mail("a@b.jp", 's', "x", array("X" => 1, "To" => "b"))`, `TypeError: Header "X" must be of type array|string, int given`},
		"another To before a fault": {`mail("a@b.jp", 's', "x", array("To" => 1, "X" => 1))`, `ValueError: The additional headers cannot contain the "To" header`},
		"To to mb_send_mail":        {`mb_send_mail("a@b.jp", 's', "x", array("To" => "b"))`, `ValueError: The additional headers cannot contain the "To" header`},
		"a name in a list":          {`mail("a@b.jp", 's', "x", array("A" => array("b" => "c")))`, `TypeError: Header "A" must only contain numeric keys, "b" found`},
	}
	pages := map[string]string{}
	for name, c := range cases {
		pages[name+".php"] = "try { $r = " + c.call + "; echo json_encode($r); } catch (Throwable $e) { echo get_class($e), ': ', $e->getMessage(); }"
	}
	p := newPool(t, "", pages)
	own := p.again("disable_functions=", "auto_prepend_file=")
	for name, c := range cases {
		page := "/" + url.PathEscape(name) + ".php"
		if got := p.web.do("GET", page); got != c.says {
			t.Errorf("%s: the page says %q, want %q", name, got, c.says)
		}
		if mail, _ := p.sent(); mail != "" {
			t.Errorf("%s: sent %q", name, mail)
		}
		if got := own.web.do("GET", page); got != c.says { // word for word
			t.Errorf("%s: PHP's own mail() says %q, want %q", name, got, c.says)
		}
	}
}

func TestPrependTellsWhatSendmailSays(t *testing.T) {
	p := newPool(t, "", map[string]string{"index.php": "echo json_encode(mail('a@b.jp', 's', str_repeat('0123456789', 100000)));"})
	for code, want := range map[int]string{0: "true", 1: "false", 69: "false", 75: "false"} {
		p.exits(code)
		if got := p.web.do("GET", "/"); got != want {
			t.Errorf("sendmail exits with %d, and mail() says %q, want %q", code, got, want)
		}
		if mail, _ := p.sent(); len(mail) < 1_000_000 {
			t.Errorf("sendmail got %d octets of a large mail", len(mail))
		}
	}
	put(t, filepath.Join(p.outbox, "deaf"), nil, 0o644)
	if got := p.web.do("GET", "/"); got != "false" {
		t.Errorf("a sendmail that reads nothing: mail() says %q", got)
	}
}

func TestPrependSendsWithoutAStampWhatItCannotSign(t *testing.T) {
	pages := map[string]string{"index.php": "error_reporting(-1); echo json_encode(mail('a@b.jp', 's', 'x'));"}
	for name, spoil := range map[string]func(p *pool){
		"no map":          func(p *pool) { os.Remove(p.sites) },
		"a damaged map":   func(p *pool) { put(t, p.sites, []byte("<?php return array('x' => "), 0o644) },
		"a map of no use": func(p *pool) { put(t, p.sites, []byte("<?php return 7;"), 0o644) },
		"no key":          func(p *pool) { os.Remove(filepath.Join(p.dir, "keys", "shop.php")) },
		"another's key":   func(p *pool) { os.Chmod(filepath.Join(p.dir, "keys", "shop.php"), 0) },
		"a damaged key":   func(p *pool) { put(t, filepath.Join(p.dir, "keys", "shop.php"), []byte("<?php"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, "", pages)
			spoil(p)
			if got := p.web.do("GET", "/"); got != "true" {
				t.Errorf("mail() says %q", got)
			}
			if mail, _ := p.sent(); mail != "To: a@b.jp\r\nSubject: s\r\n\r\nx\r\n" {
				t.Errorf("sent %q", mail)
			}
		})
	}
}

func TestPrependNamesPluginsByPath(t *testing.T) {
	const send = "echo json_encode(mail('a@b.jp', 's', 'x'));"
	pages := map[string]string{
		"wp-content/plugins/WP-Email/ajax.php":     "require __DIR__ . '/../../../lib/mailer.php';",
		"wp-content/themes/old/send.php":           send,
		"wp-content/mu-plugins/tell.php":           send,
		"lib/mailer.php":                           "function deliver() { " + send + " }\ndeliver();",
		"shop/index.php":                           "require '../lib/mailer.php';",
		"wp-content/plugins/../../news/x.php":      send,
		"calls-behind-a-shutdown.php":              "register_shutdown_function(function () { " + send + " });",
		"wp-content/plugins/hello.php":             send,
		"wp-content/plugins/with space/a b/c.php":  send,
		"wp-content/plugins/deep/wp-content/x.php": send,
	}
	p := newPool(t, "", pages)
	for page, want := range map[string][2]string{
		"/wp-content/plugins/WP-Email/ajax.php":        {"wp-email", "wp-content/plugins/WP-Email/ajax.php:2"},
		"/wp-content/themes/old/send.php":              {"theme:old", "wp-content/themes/old/send.php:2"},
		"/wp-content/mu-plugins/tell.php":              {"mu:tell", "wp-content/mu-plugins/tell.php:2"},
		"/wp-content/plugins/hello.php":                {"hello", "wp-content/plugins/hello.php:2"},
		"/wp-content/plugins/with%20space/a%20b/c.php": {"with space", "wp-content/plugins/with space/a b/c.php:2"},
		"/wp-content/plugins/deep/wp-content/x.php":    {"deep", "wp-content/plugins/deep/wp-content/x.php:2"},
		"/shop/index.php":                              {"script:shop/index.php", "lib/mailer.php:2"},
		"/news/x.php":                                  {"script:news/x.php", "news/x.php:2"},
		"/calls-behind-a-shutdown.php":                 {"script:calls-behind-a-shutdown.php", "calls-behind-a-shutdown.php:2"},
	} {
		if got := p.web.do("GET", page); got != "true" {
			t.Errorf("%s says %q", page, got)
			continue
		}
		mail, _ := p.sent()
		stamps, _ := split(mail)
		if len(stamps) != 1 {
			t.Errorf("%s: stamps %q", page, stamps)
			continue
		}
		if c := readClaim(t, p.key, stamps[0]); c.Plugin != want[0] || c.Script != want[1] || c.Entry != "page" {
			t.Errorf("%s: %+v, want %q", page, c, want)
		}
	}
}

// What the must-use plugin signed, wp_mail's PHPMailer gives to mail().
func TestPrependLeavesAStampThatIsGood(t *testing.T) {
	p := newPool(t, "", map[string]string{"index.php": "echo json_encode(mail('a@b.jp', 's', 'x', file_get_contents(__DIR__ . '/headers')));"})
	put(t, filepath.Join(p.root, "headers"), nil, 0o644)
	p.web.do("GET", "/")
	mail, _ := p.sent()
	good, _ := split(mail)
	if len(good) != 1 {
		t.Fatalf("stamps %q", good)
	}
	quoted := strings.NewReplacer("=", "=3D", "_", "=5F", " ", "_").Replace(good[0])
	for name, c := range map[string]struct {
		header string
		stamps int
	}{
		"as it is":        {"X-Relayguard-Origin: " + good[0], 1},
		"other case":      {"x-relayguard-ORIGIN: " + good[0], 0},
		"encoded":         {"X-Relayguard-Origin: =?us-ascii?Q?" + quoted + "?=\r\nFrom: a@b.jp", 1},
		"of nobody's key": {"X-Relayguard-Origin: " + strings.Replace(good[0], " m=", " m=x", 1), 2},
	} {
		put(t, filepath.Join(p.root, "headers"), []byte(c.header), 0o644)
		if got := p.web.do("GET", "/"); got != "true" {
			t.Errorf("%s: mail() says %q", name, got)
		}
		mail, _ := p.sent()
		if stamps, _ := split(mail); len(stamps) != c.stamps || !strings.Contains(mail, c.header) {
			t.Errorf("%s: %q", name, mail)
		}
	}
}

func TestPrependKeepsTheSitesKeyInAWordPressRoot(t *testing.T) {
	p := newPool(t, "", map[string]string{"blog/tools/x.php": "echo json_encode(mail('a@b.jp', 's', 'x'));"})
	os.Remove(p.sites)
	key := wordpress.NewKey()
	put(t, filepath.Join(p.root, "blog/wp-content", wordpress.KeyPath), wordpress.KeyFile("blog", key), 0o400)
	given(t, p.root)
	p.web.do("GET", "/blog/tools/x.php")
	mail, _ := p.sent()
	stamps, _ := split(mail)
	if len(stamps) != 1 {
		t.Fatalf("mail %q", mail)
	}
	if c := readClaim(t, key, stamps[0]); c.Plugin != "script:tools/x.php" {
		t.Errorf("%+v", c)
	}
}

func TestPrependChainsTheOneBefore(t *testing.T) {
	dir := openDir(t)
	chain := filepath.Join(dir, "waf it's.php")
	put(t, chain, []byte("<?php $waf = 'global'; function waf() { return 'on'; }"), 0o644)
	pages := map[string]string{"index.php": "echo json_encode(array(isset($waf) ? $waf : null, function_exists('waf'), function_exists('mail')));"}
	if got := newPool(t, chain, pages).web.do("GET", "/"); got != `["global",true,true]` {
		t.Errorf("with a chain: %s", got)
	}
	if got := newPool(t, filepath.Join(dir, "gone.php"), pages).web.do("GET", "/"); got != `[null,false,true]` {
		t.Errorf("with a chain that is gone: %s", got)
	}
}

func TestPrependLeavesPHPsOwnMailAndTheVariablesOfThePage(t *testing.T) {
	page := `$r = new ReflectionFunction('mail'); echo json_encode(array($r->isInternal(), array_diff(array_keys($GLOBALS), array('_GET', '_POST', '_COOKIE', '_FILES', '_SERVER', '_ENV', '_REQUEST', 'argv', 'argc', 'r'))));`
	p := newPool(t, "", map[string]string{"index.php": page}, "disable_functions=")
	if got := p.web.do("GET", "/"); got != "[true,[]]" {
		t.Errorf("mail is not disabled: %s", got)
	}
	p = newPool(t, "", map[string]string{"index.php": page})
	if got := p.web.do("GET", "/"); got != "[false,[]]" {
		t.Errorf("mail is disabled: %s", got)
	}
}

// As PHP 7.4 sees it: the version is played, for the prepend asks for it once.
func TestPrependDoesNothingButChainBelowPHP8(t *testing.T) {
	dir := openDir(t)
	chain, old := filepath.Join(dir, "chain.php"), filepath.Join(dir, "old.php")
	put(t, chain, []byte("<?php echo 'chained ';"), 0o644)
	put(t, old, []byte(strings.Replace(string(wordpress.PrependWith(chain, "")), "PHP_VERSION_ID >= 80000", "70400 >= 80000", 1)), 0o644)
	out, err := exec.CommandContext(t.Context(), php(t), "-n", "-d", "disable_functions=mail", "-r", "require '"+old+"'; echo json_encode(array(function_exists('mail'), class_exists('Relayguard_Prepend')));").CombinedOutput()
	if err != nil || string(out) != "chained [false,false]" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestPrependNeedsOneWayToStartPrograms(t *testing.T) {
	pages := map[string]string{"index.php": "echo json_encode(@mail('a@b.jp', 's', 'x', '', '-fa@b.jp'));"}
	for disabled, want := range map[string]string{"popen": "true", "proc_open": "true", "popen,proc_open": "false", "escapeshellcmd": "true"} {
		p := newPool(t, "", pages, "disable_functions=mail,"+disabled)
		if got := p.web.do("GET", "/"); got != want {
			t.Errorf("without %s mail() says %s, want %s", disabled, got, want)
		}
		if mail, _ := p.sent(); (mail != "") != (want == "true") {
			t.Errorf("without %s sent %q", disabled, mail)
		}
	}
}

func TestPrependKeepsPHPsSettingsOfMail(t *testing.T) {
	dir := openDir(t)
	log := filepath.Join(dir, "mail.log")
	put(t, log, nil, 0o666)
	p := newPool(t, "", map[string]string{"a/form.php": "echo json_encode(mail('a@b.jp', 's', 'x', \"A: b\\r\\nC: d\", '-fx'));"},
		"mail.add_x_header=1", "mail.log="+log, "mail.force_extra_parameters=-fforced@example.jp")
	if got := p.web.do("GET", "/a/form.php"); got != "true" {
		t.Fatalf("mail() says %q", got)
	}
	mail, args := p.sent()
	_, rest := split(mail)
	uid := os.Geteuid()
	if uid == 0 {
		uid = nobody
	}
	if want := "To: a@b.jp\r\nSubject: s\r\nX-PHP-Originating-Script: " + strconv.Itoa(uid) + ":form.php\r\nA: b\r\nC: d\r\n\r\nx\r\n"; rest != want {
		t.Errorf("mail %q, want %q", rest, want)
	}
	if args[len(args)-1] != "-fforced@example.jp" {
		t.Errorf("arguments %q", args)
	}
	text, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(text), "] mail() on ["+p.root+"/a/form.php:2]: To: a@b.jp -- Headers: A: b C: d -- Subject: s\n") {
		t.Errorf("log %q, %v", text, err)
	}
}

// mb_send_mail is what Japanese sites call; it goes round a mail() of ours.
func TestPrependHasMbSendMail(t *testing.T) {
	withExtension(t, "mbstring", "php-mbstring")
	call := `mb_language('%LANG%'); mb_internal_encoding('UTF-8'); echo json_encode(mb_send_mail('a@b.jp', '日本語の件名です', "本文\n", 'From: s@example.jp'));`
	for language, subject := range map[string]string{"Japanese": "日本語の件名です", "uni": "日本語の件名です"} {
		page := strings.Replace(call, "%LANG%", language, 1)
		p := newPool(t, "", map[string]string{"index.php": page})
		if got := p.web.do("GET", "/"); got != "true" {
			t.Fatalf("mb_send_mail() says %q", got)
		}
		mail, _ := p.sent()
		stamps, rest := split(mail)
		if len(stamps) != 1 || readClaim(t, p.key, stamps[0]).SubjectDigest != digest(subject) {
			t.Errorf("%s: %q", language, mail)
		}
		own := newPool(t, "", map[string]string{"index.php": page}, "disable_functions=")
		own.web.do("GET", "/")
		want, _ := own.sent()
		if got, want := fieldsOf(rest), fieldsOf(want); !maps.Equal(got, want) {
			t.Errorf("%s:\n%q, PHP's own sends\n%q", language, got, want)
		}
	}
}

// fieldsOf is a mail's header fields and body, whatever their order.
func fieldsOf(mail string) map[string]string {
	head, body, _ := strings.Cut(strings.ReplaceAll(mail, "\r\n", "\n"), "\n\n")
	all := map[string]string{"": strings.TrimSpace(body)}
	for line := range strings.SplitSeq(strings.ReplaceAll(head, "\n ", " "), "\n") {
		name, value, _ := strings.Cut(line, ": ")
		all[strings.ToLower(name)] = value
	}
	return all
}

func TestSiteMapIsReadAsItWasWritten(t *testing.T) {
	want := map[string]string{"/srv/it's": `/srv/key\'.php`, "/srv/b": "/k"}
	file := filepath.Join(t.TempDir(), "map.php")
	put(t, file, wordpress.SiteMap(want), 0o644)
	out, err := exec.CommandContext(t.Context(), php(t), "-r", "echo json_encode(require $argv[1]);", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := json.Unmarshal(out, &got); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v %v; keys %q", got, err, slices.Sorted(maps.Keys(want)))
	}
}
