package wordpress_test

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/wordpress"
)

// What is signed must be what arrives: the real PHPMailer encodes, folds and
// drops as it likes.
func TestTheRealPHPMailerWritesWhatWasSigned(t *testing.T) {
	const tree = "/usr/share/wordpress"
	if _, err := os.Stat(tree + "/wp-includes/PHPMailer/PHPMailer.php"); err != nil {
		missing(t, "WordPress is not installed (Debian package wordpress)")
	}
	withExtension(t, "mbstring", "php-mbstring")
	type mailCase struct {
		Mailer  string `json:"mailer"`
		Charset string `json:"charset"`
		Subject string `json:"subject"`
	}
	var cases []mailCase
	for _, mailer := range []string{"mail", "smtp"} {
		for _, subject := range []string{
			"", "hello", "  two  blanks\tand\r\nlines ", strings.Repeat("a long one ", 30), strings.Repeat("x", 900),
			"[サイト名] パスワードのリセット", strings.Repeat("とても長い件名 ", 12), "mixed 商品 and ASCII = ? _ characters, a lot of them, with 日本語 at its end",
			"=?UTF-8?B?5ZWG5ZOB?= =?UTF-8?Q?_=E3=81=AE?= x", "=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?= shop", "🎉 Événement", "ctrl \x01 char", "=?no?encoded word",
		} {
			cases = append(cases, mailCase{mailer, "UTF-8", subject})
		}
	}
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	root, key := t.TempDir(), wordpress.NewKey()
	put(t, filepath.Join(root, "wp-content", wordpress.MustUsePath), wordpress.MustUse(), 0o444)
	put(t, filepath.Join(root, "wp-content", wordpress.KeyPath), wordpress.KeyFile("shop.example.jp", key), 0o400)
	cmd := exec.CommandContext(t.Context(), php(t), "-d", "display_errors=1", "testdata/real-mailer.php", tree, root)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	var mails []string
	if jsonErr := json.Unmarshal(out, &mails); err != nil || jsonErr != nil || len(mails) != len(cases) {
		t.Fatalf("%v, %v: %.2000s", err, jsonErr, out)
	}
	for i, text := range mails {
		m, err := mail.ReadMessage(strings.NewReader(text))
		if err != nil {
			t.Errorf("%+v: %v", cases[i], err)
			continue
		}
		stamps := m.Header["X-Relayguard-Origin"]
		if len(stamps) != 1 || m.Header.Get("X-Kept") != "yes" {
			t.Errorf("%+v: header %q", cases[i], m.Header)
			continue
		}
		c := readClaim(t, key, decoded(t, stamps[0]))
		if c.SubjectDigest != digest(strings.Join(strings.Fields(decoded(t, m.Header.Get("Subject"))), " ")) {
			t.Errorf("%+v: another subject was signed than %q", cases[i], m.Header.Get("Subject"))
		}
		if c.RecipientsDigest != digestOf("taro@example.jp", "b@example.jp") {
			t.Errorf("%+v: other recipients were signed", cases[i])
		}
	}
}

// decoded is a field as the guard reads it.
func decoded(t *testing.T, field string) string {
	t.Helper()
	d := mime.WordDecoder{CharsetReader: func(charset string, in io.Reader) (io.Reader, error) {
		raw, err := io.ReadAll(in)
		if strings.EqualFold(charset, "ISO-2022-JP") && string(raw) == "\x1b$BF|K\\\x1b(B" {
			return strings.NewReader("日本"), nil
		}
		return bytes.NewReader(raw), err
	}}
	text, err := d.DecodeHeader(field)
	if err != nil {
		t.Error(err)
	}
	return text
}
