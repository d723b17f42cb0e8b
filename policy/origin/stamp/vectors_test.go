package stamp_test

import (
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"relayguard/policy/origin/stamp"
)

// vector is one stamp with all that it is made of. The same file is for what makes
// stamps in other languages; it was not made with this package.
type vector struct {
	Name       string   `json:"name"`
	KeyHex     string   `json:"key_hex"`
	KeyID      string   `json:"key_id"`
	Time       int64    `json:"time"`
	Nonce      string   `json:"nonce"`
	Blog       int      `json:"blog"`
	Plugin     string   `json:"plugin"`
	Entry      string   `json:"entry"`
	Script     string   `json:"script"`
	Client     string   `json:"client"`
	Recipients []string `json:"recipients"`
	Subject    string   `json:"subject"`
	Value      string   `json:"value"`
}

func vectors(t testing.TB) []vector {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(raw, &all); err != nil || len(all) == 0 {
		t.Fatalf("%d vectors, %v", len(all), err)
	}
	return all
}

func (v *vector) site() stamp.Site {
	key, _ := hex.DecodeString(v.KeyHex)
	return stamp.Site{Name: "shop.example.jp", UID: 6001, KeyID: v.KeyID, Key: key}
}

func (v *vector) stamp() stamp.Stamp {
	client, _ := netip.ParseAddr(v.Client)
	return stamp.Stamp{Site: "shop.example.jp", Plugin: v.Plugin, Blog: v.Blog, Entry: v.Entry, Script: v.Script, WebClient: client, Time: time.Unix(v.Time, 0).UTC()}
}

func TestStampsAreMadeAsTheVectorsSay(t *testing.T) {
	for _, v := range vectors(t) {
		site, s := v.site(), v.stamp()
		if got := stamp.Make(time.Unix(v.Time, 0), &site, &s, v.Recipients, v.Subject, v.Nonce); got != v.Value {
			t.Errorf("%s:\n%s, want\n%s", v.Name, got, v.Value)
		}
	}
}

func TestStampsOfTheVectorsAreBelieved(t *testing.T) {
	for _, v := range vectors(t) {
		for form, field := range map[string]string{
			"as made":          v.Value,
			"folded":           " " + strings.ReplaceAll(v.Value, " ", "\r\n\t"),
			"by PHPMailer":     phpMailer(v.Value, "us-ascii", "\n"),
			"by PHPMailer, MS": phpMailer(v.Value, "UTF-8", "\r\n"),
			"of an older blog": phpMailer(v.Value, "ISO-2022-JP", "\n"),
		} {
			book, err := stamp.NewBook([]stamp.Site{v.site()}, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := book.Verify(time.Unix(v.Time, 0).Add(time.Second), []string{field}, &stamp.Mail{UID: 6001, RcptTo: v.Recipients, Subject: v.Subject})
			if err != nil || got != v.stamp() {
				t.Errorf("%s, %s: %+v, %v", v.Name, form, got, err)
			}
		}
	}
}

// phpMailer is a field's value as PHPMailer 6 writes a long one with mail():
// encodeHeader, Q-encoded words of at most 65 octets, each on a line.
func phpMailer(value, charset, newline string) string {
	var q []string
	for i := range len(value) {
		switch c := value[i]; {
		case c == ' ':
			q = append(q, "_")
		case c == '=' || c == '_' || c == '?':
			q = append(q, "="+strings.ToUpper(hex.EncodeToString([]byte{c})))
		default:
			q = append(q, string(c))
		}
	}
	most := 65 - len("=??Q??=") - len(charset)
	var lines []string
	line := ""
	for _, c := range q {
		if len(line)+len(c) > most {
			lines, line = append(lines, " =?"+charset+"?Q?"+line+"?="), ""
		}
		line += c
	}
	lines = append(lines, " =?"+charset+"?Q?"+line+"?=")
	return strings.Join(lines, newline)
}
