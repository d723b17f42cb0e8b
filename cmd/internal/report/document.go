package report

import (
	"unicode"
	"unicode/utf8"
)

// document is the report as it reads, in one language: what all formats show. It
// is cut to what a reader has time for.
type document struct {
	Lang     string
	Title    string // also the letter's subject
	Host     string
	Period   line
	Tone     Tone
	Verdict  line
	Notes    []item // of the verdict
	Tiles    []tile
	Sections []section
	Foot     []line
}

// tile is a figure of the head.
type tile struct {
	Label string
	Value line
	Under line
	Tone  Tone
}

// section is a part under a heading.
type section struct {
	Title  line
	Tone   Tone
	Chips  []span
	Blocks []block
	Parts  []section
}

// block is one of its fields.
type block struct {
	Line    line
	Items   []item
	Ordered bool
	Table   *table
	Chart   *chart
}

// item is a thing of a list.
type item struct {
	Tone    Tone
	Label   string // says the tone, or more; "": none
	Line    line
	Under   []line
	Command string
	URL     string // fit for a link
	Page    string // the address of a page that is none
	Chart   *chart
}

// table is rows; the first cell of each is what it is about.
type table struct {
	Caption string
	Columns []string
	Rows    []row
}

type row struct {
	Cells []line
	Under []line // of the first cell
	Tone  Tone
}

// cuts is how much of a report is shown.
type cuts struct {
	Rows    int // of a list
	Name    int // characters of a name
	Quote   int // of what somebody said
	Charts  bool
	Strips  int // addresses with a chart of their days
	Reasons int // of a listing
}

// page is what a reader of a file or terminal has time for.
var page = cuts{Rows: 10, Name: 120, Quote: 300, Charts: true, Strips: 5, Reasons: 2}

// smaller are the cuts of letters that would be too large, in order.
func smaller() []cuts {
	return []cuts{
		page,
		{Rows: 6, Name: 120, Quote: 200, Charts: true, Strips: 3, Reasons: 1},
		{Rows: 4, Name: 80, Quote: 150, Charts: true, Strips: 1, Reasons: 1},
		{Rows: 2, Name: 60, Quote: 100, Charts: true, Reasons: 1},
		{Rows: 1, Name: 40, Quote: 60},
	}
}

func paragraph(l line) block { return block{Line: l} }

func list(items []item) block { return block{Items: items} }

// composer makes a document of a report.
type composer struct {
	r    *Report
	w    *words
	cuts cuts

	charts int // made so far
}

// compose makes the document. The order is that of a reader with a minute.
func compose(r *Report, lang string, most cuts) (*document, error) {
	w, err := wordsOf(lang)
	if err != nil {
		return nil, err
	}
	c := &composer{r: r, w: w, cuts: most}
	v := c.verdict()
	d := &document{
		Lang: lang, Title: c.title(v), Host: clean(r.Host, maxHost), Period: c.period(),
		Tone: v.tone, Verdict: capital(v.line), Notes: c.notes(v), Tiles: c.tiles(v),
	}
	for _, s := range []*section{
		c.changes(), c.steps(), c.missing(), c.blocklists(), c.mail(), c.held(), c.incidents(), c.suspended(), c.forwards(), c.guard(),
	} {
		if s != nil {
			d.Sections = append(d.Sections, *s)
		}
	}
	d.Foot = c.foot()
	return d, nil
}

// capital is a line that begins as a sentence does. A name stays as it is.
func capital(l line) line {
	if len(l) == 0 || l[0].Kind != plain {
		return l
	}
	first, n := utf8.DecodeRuneInString(l[0].Text)
	out := append(line{}, l...)
	out[0].Text = string(unicode.ToUpper(first)) + l[0].Text[n:]
	return out
}

// name is somebody else's word.
func (c *composer) name(s string) span {
	if s == "" {
		return span{Kind: quiet, Text: c.w.text("nameless", nil)}
	}
	return span{Kind: named, Text: clean(s, c.cuts.Name)}
}

// saying is a sentence that others made, in English.
func (c *composer) saying(s string) span {
	return span{Kind: said, Text: clean(s, c.cuts.Quote)}
}

// lacks reports whether something of a section is not known.
func (c *composer) lacks(name string) bool { return c.r.lacks(name) }

// unknown is a paragraph that says that something is not known.
func (c *composer) unknown(key string) block {
	return list([]item{{Tone: ToneUnknown, Label: c.w.text("label_unknown", nil), Line: c.w.say(key, nil)}})
}

// more says that n others are not shown, and the command that shows them. Nothing
// for n < 1.
func (c *composer) more(n int, command string) []block {
	if n < 1 {
		return nil
	}
	return []block{paragraph(c.w.say("more", values{"n": n, "command": span{Kind: code, Text: command}}))}
}

// some is the head of a list as the cuts have it, and how many are left out.
func some[T any](c *composer, all []T) (shown []T, left int) {
	n := min(len(all), c.cuts.Rows)
	return all[:n], len(all) - n
}

// translated is a word of a closed set; one that is not in it is shown as it came.
func (c *composer) translated(set, value string) span {
	if c.w.has(set + "_" + value) {
		return span{Text: c.w.text(set+"_"+value, nil)}
	}
	return c.name(value)
}
