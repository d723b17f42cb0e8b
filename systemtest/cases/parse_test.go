package cases

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// head begins a case that is fine.
const head = "# Shows something.\n\nclient taro on submission login taro@example.jp\n"

func TestParseSaysWhatIsWrongAndWhere(t *testing.T) {
	for name, bad := range map[string]struct{ text, want string }{
		"no comment":                {"client taro on submission\n", "01-x.case:1: want a comment first"},
		"nothing happens":           {"# Shows nothing.\n", "01-x.case:1: nothing happens"},
		"no such line":              {head + "mial x\n", `01-x.case:4: "mial" begins no line`},
		"odd indent":                {head + "\n root# relayguard status\n", "01-x.case:5: indented by other than two spaces"},
		"a block where none can be": {head + "absent a@example.net\n  more\n", "01-x.case:4: absent has nothing indented below it"},
		"unexplained variant":       {head + "\n[postfix] C: NOOP\n", "01-x.case:5: for postfix alone: want a comment"},
		"unknown service":           {head + "client x on smtps\n", `01-x.case:4: service "smtps": want one of submission, relay`},
		"client nobody connected":   {head + "client x\n", "01-x.case:4: client x is not connected"},
		"field of a client twice":   {head + "client x on mx on mx\n", `01-x.case:4: client: "on mx"`},
		"talk to nobody":            {"# Shows.\n\nC: NOOP\n", "01-x.case:3: nobody is connected"},
		"mail of nobody":            {"# Shows.\n\nmail x from a@b to c@d\n", "01-x.case:3: nobody is connected"},
		"reply to nothing":          {head + "S: 250\n", "01-x.case:4: S: after no C:"},
		"reply elsewhere":           {head + "# They differ.\n[postfix] C: NOOP\n[sendmail] S: 250\n", "01-x.case:6: for sendmail below a line for postfix"},
		"no code":                   {head + "C: NOOP\nS: ok\n", `01-x.case:5: "ok": want a code`},
		"code out of range":         {head + "C: NOOP\nS: 650\n", `01-x.case:5: "650": want a code`},
		"half a mail":               {head + "mail x from a@b\n", "01-x.case:4: want mail ID from"},
		"mail with a bad reply":     {head + "mail x from a@b to c@d is refused\n", `01-x.case:4: "refused": want a code`},
		"no address":                {head + "arrives a\n", `01-x.case:4: "a" is no address`},
		"no address at all":         {head + "arrives\n", "01-x.case:4: want an address"},
		"backward range":            {head + "arrives a-{3..1}@example.net\n", "01-x.case:4: 3 to 1: want"},
		"range too long":            {head + "arrives a-{1..99999}@example.net\n", "01-x.case:4: 1 to 99999: want at most 2000"},
		"unknown program":           {head + "root# mailq\n", `01-x.case:4: command "mailq"`},
		"relayguard of another":     {head + "games$ relayguard status\n", "01-x.case:4: relayguard is root's"},
		"open quotes":               {head + "root# relayguard stop --reason \"x\n", "01-x.case:4: a quotation mark is left open"},
		"no command":                {head + "root#\n", "01-x.case:4: want a command"},
		"exit of nothing":           {head + "exit 1\n", "01-x.case:4: exit: of which command?"},
		"no status":                 {head + "root# relayguard status\nexit well\n", "01-x.case:5: exit: want a status"},
		"output of nothing":         {head + "out x\n", "01-x.case:4: out x: of which command?"},
		"no stream":                 {head + "root# relayguard status\nno such x\n", `01-x.case:5: "no such x": want out or err`},
		"bad expression":            {head + "root# relayguard status\nout (\n", `01-x.case:5: "(": want a regular expression`},
		"bad expression in a block": {head + "arrives a@example.net\n  with x\n  with [\n", `01-x.case:6: "[": want a regular expression`},
		"no word in a block":        {head + "arrives a@example.net\n  has x\n", `01-x.case:5: "has": want with or without`},
		"held by nobody":            {head + "held a@example.net\n", "01-x.case:4: want held ADDRESS..."},
		"held for nobody":           {head + "held a@example.net by rule\n", "01-x.case:4: want held ADDRESS..."},
		"odd verdict":               {head + "verdict x maybe for unknown\n", "01-x.case:4: want verdict ID"},
		"odd guard":                 {head + "guard sleeps\n", "01-x.case:4: guard sleeps: want nothing, dies"},
		"odd phase":                 {"# Shows.\n\nguard in doubt\n", "01-x.case:3: guard in doubt: want"},
		"site of nobody":            {head + "site shop.example.jp\n", "01-x.case:4: want site NAME of ACCOUNT"},
		"odd sink":                  {head + "sink drops a@example.net\n", "01-x.case:4: want sink answers"},
		"odd admin":                 {head + "admin sleeps\n", "01-x.case:4: want admin holds"},
		"try what":                  {head + "try\n", "01-x.case:4: want try again"},
		"loop without an end":       {head + "repeat N from 1 to 2\nabsent a@b\n", "01-x.case:4: the loop has no end"},
		"end without a loop":        {head + "end\n", "01-x.case:4: end of no loop"},
		"loop in a loop":            {head + "repeat N from 1 to 2\nrepeat M from 1 to 2\nend\n", "01-x.case:5: a loop within the one of line 4"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("01-x.case", bad.text)
			if err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("got %v, want %s", err, bad.want)
			}
		})
	}
	_, err := Parse("01-x.case", head+"mial x\nend\n")
	if err == nil || !strings.Contains(err.Error(), "01-x.case:4:") || !strings.Contains(err.Error(), "01-x.case:5:") {
		t.Errorf("of two faults it tells %v", err)
	}
	if _, err := Parse("x.case", head); err == nil || !strings.Contains(err.Error(), "x.case:1: the file's name") {
		t.Errorf("a file without a number: %v", err)
	}
}

func TestParse(t *testing.T) {
	c, err := Parse("dir/07-what-it-is.case", `# Shows that it works. And
# more.

guard in learning
  [address]

  envelope = "hold"

client taro on submission from 203.0.113.7 login taro@example.jp
C: MAIL FROM:<>
C: DATA
# They differ in words.
[postfix] S: 503 5.5.1 Error: need
[sendmail] S: 503
S: 354 x y
C: {z*3}
C:
mail a from <> to b-{1..3}@example.net is 550 5.7.1 Not you at RCPT
repeat N from 1 to 2
www-data$ sendmail -f "a b" {id x@example.net} s-{N}@example.net
  From: {N}

  text
exit 75
no err x
end
`)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "07-what-it-is" || c.Title != "Shows that it works" || len(c.Steps) != 7 {
		t.Fatalf("%+v", c)
	}
	if g := c.Steps[0].Do.(Guard); g.Phase != "learning" || g.Config != "[address]\n\nenvelope = \"hold\"\n" {
		t.Errorf("guard: %+v", g)
	}
	say := c.Steps[2].Do.(*Say)
	if len(say.Lines) != 2 || len(say.Wants) != 3 || say.Wants[0].Only != Postfix || say.Wants[0].Enhanced != "5.5.1" || say.Wants[0].Text != "Error: need" || say.Wants[2].Text != "x y" {
		t.Errorf("dialogue: %+v", say)
	}
	if say := c.Steps[3].Do.(*Say); say.Lines[0] != "zzz" || say.Lines[1] != "" {
		t.Errorf("dialogue: %+v", say)
	}
	m := c.Steps[4].Do.(Mail)
	if m.From != "" || strings.Join(m.To, " ") != "b-1@example.net b-2@example.net b-3@example.net" || !m.AtRCPT || m.Want.Code != 550 || m.Want.Text != "Not you" || m.Message != "\nWorld\n" {
		t.Errorf("mail: %+v", m)
	}
	run := c.Steps[6].Do.(*Command)
	if run.Account != "www-data" || strings.Join(run.Args, "|") != "sendmail|-f|a b|{id x@example.net}|s-2@example.net" || run.Stdin != "From: 2\n\ntext\n" || run.Exit[""] != 75 || !run.Err[0].Not {
		t.Errorf("command: %+v", run)
	}
}

func TestAllNeedsCases(t *testing.T) {
	dir := t.TempDir()
	if _, err := All(dir); err == nil || !strings.Contains(err.Error(), "there is no *.case") {
		t.Errorf("of an empty folder: %v", err)
	}
	for name, text := range map[string]string{"01-a.case": head + "oops\n", "02-b.case": head, "03-c.case": "x\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all, err := All(dir)
	if len(all) != 1 || all[0].Name != "02-b" || !strings.Contains(err.Error(), "01-a.case:4:") || !strings.Contains(err.Error(), "03-c.case:1:") {
		t.Errorf("read %v, %v", all, err)
	}
}
