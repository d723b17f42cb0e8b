package template

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/emersion/go-message/textproto"
	"golang.org/x/text/encoding/japanese"
)

// The quick ways of reading are to give what the slow ones of other people do.

func FuzzSplitter(f *testing.F) {
	for _, seed := range []string{
		"--b\r\n\r\none\r\n--b\r\nContent-Type: text/html;\r\n charset=utf-8\r\n\r\ntwo\r\n--b--\r\nend",
		"old programs\n--b \nContent-Type: a/b\n\none\n--bc\n--b\n\n--b\nX\n",
		"--b--\r\n--b\r\n\r\n--b\r\n\r\n\r\n--b--",
		"--b\r\nA: 1\r\nContent-Type : x\r\n\t y\r\ncontent-type: z\r\n\r\n--b-\r\n\r\n--b-",
		"--b\n\r\na\r\n--b\r\n\r\n--b--\n--b\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 4000 { // of longer lines the reader makes an error
			return
		}
		quick := splitter{rest: body, delimiter: "--b"}
		slow := textproto.NewMultipartReader(bytes.NewReader(body), "b")
		for {
			got, ok := quick.next()
			want, err := slow.NextPart()
			if ok != (err == nil) {
				t.Fatalf("a part: %v, want %v: %v", ok, err == nil, err)
			}
			if !ok {
				return
			}
			content, _ := io.ReadAll(want)
			left, _ := bytes.CutPrefix(got.content, content) // that cannot be told from a delimiter that was cut off
			if !bytes.HasPrefix(got.content, content) || !strings.HasPrefix(quick.lineEnd+quick.delimiter, string(left)) && !strings.HasPrefix(quick.delimiter, string(left)) {
				t.Fatalf("content %q, want %q", got.content, content)
			}
			for name, value := range map[string]string{"Content-Type": got.contentType, "Content-Transfer-Encoding": got.encoding, "Content-Disposition": got.disposition} {
				if want.Header.Get(name) != value && len(want.Header.Values(name)) < 2 {
					t.Fatalf("%s: %q, want %q", name, value, want.Header.Get(name))
				}
			}
		}
	})
}

func FuzzConvertJIS(f *testing.F) {
	for _, seed := range []string{"plain", "\x1b$B$3$s\x1b(B a \x1b$@$s\n$s", "\x1b$B$3$\x7f$", "\x1b(I1", "\x1b(J\\~\x1b"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, ok := convertJIS(nil, text)
		if !ok {
			return
		}
		if want, err := japanese.ISO2022JP.NewDecoder().Bytes(text); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q is %q, want %q, %v", text, got, want, err)
		}
	})
}

func FuzzFold(f *testing.F) {
	for _, seed := range []string{"Hello, WORLD [] {} @Z`a", "ＡＢＣ１２３ ベランダ", "か\u3099 ｶﾞ é e\u0301 Ⅷ ㍿ ﷺ", "한국어 \u1100\u1161", "ẞ İ Å ﬁ \xff", "ÀÉÎ Дом ΣΑΣ"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		got, want := fold(nil, line), foldWide(nil, line)
		if !bytes.Equal(got, want) {
			t.Fatalf("%q is %q, want %q", line, got, want)
		}
	})
}
