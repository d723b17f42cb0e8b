package journal

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"relayguard/policy"
)

// Bounds of one record. What is longer is cut on entry, lists after their
// first members.
const (
	maxText     = 512     // octets of an address or name
	maxProse    = 2048    // octets of a reason or note
	MaxDomains  = 50      // recipient domains of a message, beside "others"
	maxFindings = 50      //
	maxCounters = 100     //
	maxValue    = 1 << 16 // octets of a Value
	MaxWaits    = 1 << 16 // octets of Decision.Waits; a longer one is left out
	maxLine     = 1 << 20 // octets of a record in the log
)

const (
	sumLength = 8             // hex digits of the checksum
	lineHead  = sumLength + 1 // and a space
	minLine   = lineHead + 2  // "{}"
)

// otherDomains stands for the domains that have no name of their own.
const otherDomains = ""

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errLine     = errors.New("damaged line")
	errTooLarge = fmt.Errorf("record over %d octets", maxLine)
)

// appendLine adds the record's line, newline included, to b.
func appendLine(b []byte, r Record) ([]byte, error) {
	start := len(b)
	l := line{b: append(b, "00000000 "...)}
	r.encode(&l)
	if l.err != nil {
		return b[:start], l.err
	}
	text := l.b[start+lineHead:]
	if len(text) > maxLine {
		return b[:start], errTooLarge
	}
	var sum [4]byte
	c := crc32.Checksum(text, castagnoli)
	sum[0], sum[1], sum[2], sum[3] = byte(c>>24), byte(c>>16), byte(c>>8), byte(c)
	hex.Encode(l.b[start:], sum[:])
	return append(l.b, '\n'), nil
}

// parseLine reads one line, without its newline. A record of a type that is not
// known, as a later version may write, is nil without an error.
func parseLine(text []byte) (Record, error) {
	if len(text) < minLine || text[sumLength] != ' ' {
		return nil, errLine
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], text[:sumLength]); err != nil {
		return nil, errLine
	}
	want := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	text = text[lineHead:]
	if crc32.Checksum(text, castagnoli) != want {
		return nil, errLine
	}
	if bytes.HasPrefix(text, pastBucket) {
		return nil, nil
	}
	var w wire
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", errLine, err)
	}
	return w.record(), nil
}

// pastBucket begins the counters that the log of earlier versions has, most of
// its lines: nobody reads them any more.
var pastBucket = []byte(`{"t":"bucket"`)

// isPast reports whether a line is of a kind that is no longer kept.
func isPast(line []byte) bool {
	return len(line) > lineHead && bytes.HasPrefix(line[lineHead:], pastBucket)
}

// line builds a JSON object. Members with a zero value are left out.
type line struct {
	b   []byte
	err error
}

// open begins the object of a record of type t.
func (l *line) open(t string) {
	l.b = append(l.b, `{"t":"`...)
	l.b = append(l.b, t...)
	l.b = append(l.b, '"')
}

func (l *line) close() { l.b = append(l.b, '}') }

func (l *line) name(name string) {
	if last := l.b[len(l.b)-1]; last != '{' && last != '[' {
		l.b = append(l.b, ',')
	}
	l.b = append(l.b, '"')
	l.b = append(l.b, name...)
	l.b = append(l.b, '"', ':')
}

func (l *line) text(name, v string)  { l.limited(name, v, maxText) }
func (l *line) prose(name, v string) { l.limited(name, v, maxProse) }

func (l *line) limited(name, v string, most int) {
	if v != "" {
		l.name(name)
		l.b = appendJSONString(l.b, clean(v, most))
	}
}

func (l *line) number(name string, v int64) {
	if v != 0 {
		l.name(name)
		l.b = strconv.AppendInt(l.b, v, 10)
	}
}

func (l *line) yes(name string, v bool) {
	if v {
		l.name(name)
		l.b = append(l.b, "true"...)
	}
}

func (l *line) time(name string, v time.Time) { l.number(name, micros(v)) }

func (l *line) domains(name string, v map[string]int) {
	if len(v) > 0 {
		l.name(name)
		l.b = appendDomains(l.b, v)
	}
}

// clean makes v valid UTF-8 of at most most octets.
func clean(v string, most int) string {
	if len(v) > most {
		v = v[:most]
		for i := 1; i < utf8.UTFMax && i <= len(v); i++ { // not in the middle of a character
			if c := v[len(v)-i]; utf8.RuneStart(c) {
				if !utf8.FullRuneInString(v[len(v)-i:]) {
					v = v[:len(v)-i]
				}
				break
			}
		}
	}
	if !utf8.ValidString(v) {
		v = strings.ToValidUTF8(v, "\uFFFD")
		for len(v) > most { // a replacement is longer than what it replaces
			_, size := utf8.DecodeLastRuneInString(v)
			v = v[:len(v)-size]
		}
	}
	return v
}

const hexDigits = "0123456789abcdef"

// appendJSONString quotes v, which must be valid UTF-8.
func appendJSONString(b []byte, v string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			continue
		}
		b = append(b, v[start:i]...)
		if c == '"' || c == '\\' {
			b = append(b, '\\', c)
		} else {
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		start = i + 1
	}
	b = append(b, v[start:]...)
	return append(b, '"')
}

// appendDomains writes the most used domains, those beyond MaxDomains as one.
func appendDomains(b []byte, v map[string]int) []byte {
	for name := range v {
		if name != plainDomain(name) {
			v = plainDomains(v)
			break
		}
	}
	others := v[otherDomains]
	var few [8]string
	names := few[:0]
	for name := range v {
		if name != otherDomains {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if c := cmp.Compare(v[b], v[a]); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	for _, name := range names[min(len(names), MaxDomains):] {
		others += v[name]
	}
	l := line{b: append(b, '{')}
	for _, name := range names[:min(len(names), MaxDomains)] {
		if l.b[len(l.b)-1] != '{' {
			l.b = append(l.b, ',')
		}
		l.b = appendJSONString(l.b, name)
		l.b = append(l.b, ':')
		l.b = strconv.AppendInt(l.b, int64(v[name]), 10)
	}
	l.number(otherDomains, int64(others))
	l.close()
	return l.b
}

// plainDomain is a name fit to be kept: an address has no business here.
func plainDomain(name string) string {
	return clean(name[strings.LastIndexByte(name, '@')+1:], maxText)
}

func plainDomains(v map[string]int) map[string]int {
	plain := make(map[string]int, len(v))
	for name, n := range v {
		plain[plainDomain(name)] += n
	}
	return plain
}

func appendFindings(b []byte, v []policy.Finding) []byte {
	l := line{b: append(b, '[')}
	for i, f := range v[:min(len(v), maxFindings)] {
		if i > 0 {
			l.b = append(l.b, ',')
		}
		l.b = append(l.b, '{')
		l.text("rule", f.Rule)
		l.text("verdict", verdictName(f.Verdict))
		l.prose("reason", f.Reason)
		l.close()
	}
	return append(l.b, ']')
}

func appendCounters(b []byte, v []policy.Counter) []byte {
	l := line{b: append(b, '[')}
	for i, c := range v[:min(len(v), maxCounters)] {
		if i > 0 {
			l.b = append(l.b, ',')
		}
		l.b = append(l.b, '{')
		l.text("limit", c.Limit)
		l.text("key", c.Key)
		l.text("unit", c.Unit)
		l.text("kind", c.Kind)
		l.number("window", int64(c.Window/time.Microsecond))
		l.number("count", c.Count)
		l.number("used", c.Used)
		l.number("amount", c.Amount)
		l.yes("over", c.Over)
		l.yes("soft", c.Soft)
		l.yes("latched", c.Latched)
		l.time("free_at", c.FreeAt)
		l.close()
	}
	return append(l.b, ']')
}

func (d Decision) encode(l *line) {
	l.open("decision")
	l.text("id", d.ID)
	l.time("time", d.Time)
	l.text("stage", d.Stage)
	l.text("verdict", verdictName(d.Verdict))
	l.text("rule", d.Rule)
	l.prose("reason", d.Reason)
	l.prose("reply", d.Reply)
	l.text("phase", phaseName(d.Phase))
	l.text("listener", d.Listener)
	l.text("role", roleName(d.Role))
	l.text("account", d.Account)
	l.text("confidence", d.Confidence)
	l.text("login", d.Login)
	l.text("login_by", d.LoginBy)
	l.text("local_user", d.LocalUser)
	l.text("network", d.Network)
	l.text("client_ip", d.ClientIP)
	l.text("client_name", d.ClientName)
	l.text("helo", d.Helo)
	l.name("uid") // 0 is root
	l.b = strconv.AppendInt(l.b, int64(d.UID), 10)
	l.text("mail_from", d.MailFrom)
	l.text("from", d.HeaderFrom)
	l.text("message_id", d.MessageID)
	l.text("queue_id", d.QueueID)
	l.text("site", d.Site)
	l.text("site_by", d.SiteBy)
	l.text("plugin", d.Plugin)
	l.text("plugin_by", d.PluginBy)
	l.text("node", d.Node)
	l.text("template", d.Template)
	l.text("entry", d.Entry)
	l.text("script", d.Script)
	l.text("web_client", d.WebClient)
	l.text("pool", d.Pool)
	l.text("software", d.Software)
	l.number("size", d.Size)
	l.number("recipients", int64(d.Recipients))
	l.domains("domains", d.Domains)
	if len(d.Findings) > 0 {
		l.name("findings")
		l.b = appendFindings(l.b, d.Findings)
	}
	if len(d.Counters) > 0 {
		l.name("counters")
		l.b = appendCounters(l.b, d.Counters)
	}
	l.number("repeats", d.Repeats)
	l.yes("late", d.Late)
	l.time("last", d.LastRepeat)
	if d.opensHold() {
		l.waits(d.Waits)
	}
	l.close()
}

func (r Repeat) encode(l *line) {
	l.open("repeat")
	l.text("id", r.ID)
	l.number("n", r.N)
	l.time("last", r.Last)
	l.close()
}

func (h Held) encode(l *line) {
	l.open("held")
	l.text("queue_id", h.QueueID)
	l.text("id", h.DecisionID)
	l.text("account", h.Account)
	l.text("rule", h.Rule)
	l.prose("reason", h.Reason)
	l.text("mail_from", h.MailFrom)
	l.time("arrival", h.Arrival)
	l.time("time", h.HeldAt)
	l.number("size", h.Size)
	l.number("recipients", int64(h.Recipients))
	l.domains("domains", h.Domains)
	l.text("site", h.Site)
	l.text("plugin", h.Plugin)
	l.text("template", h.Template)
	l.close()
}

func (h HoldChange) encode(l *line) {
	l.open("hold-change")
	l.text("queue_id", h.QueueID)
	l.text("id", h.DecisionID)
	l.time("time", h.Time)
	l.text("state", string(h.State))
	l.text("by", h.By)
	l.prose("reason", h.Reason)
	l.text("new_queue_id", h.NewQueueID)
	l.time("arrival", h.Arrival)
	l.text("charge_id", h.ChargeID)
	l.close()
}

func (a AdminAction) encode(l *line) {
	l.open("admin")
	l.time("time", a.Time)
	l.text("by", a.By)
	l.name("uid")
	l.b = strconv.AppendInt(l.b, int64(a.UID), 10)
	l.name("login_uid")
	l.b = strconv.AppendInt(l.b, int64(a.LoginUID), 10)
	l.text("verb", a.Verb)
	l.prose("target", a.Target)
	l.prose("reason", a.Reason)
	l.prose("outcome", a.Outcome)
	l.close()
}

func (i Incident) encode(l *line) {
	l.open("incident")
	l.text("id", i.ID)
	l.text("origin", i.Origin)
	l.text("account", i.Account)
	l.prose("cause", i.Cause)
	l.prose("noticed", i.Noticed)
	l.time("opened", i.Opened)
	l.time("updated", i.Updated)
	l.time("closed", i.Closed)
	l.number("stops", i.Stops)
	l.number("recipients", i.Recipients)
	l.raw("state", i.State)
	l.raw("addresses", i.Addresses)
	l.close()
}

// raw writes JSON as it is, on one line; nothing if it is empty.
func (l *line) raw(name string, v json.RawMessage) {
	if len(v) == 0 {
		return
	}
	if bytes.ContainsFunc(v, func(r rune) bool { return r < ' ' }) {
		var compact bytes.Buffer
		if err := json.Compact(&compact, v); err != nil {
			l.err = fmt.Errorf("%s is not JSON: %w", name, err)
			return
		}
		v = compact.Bytes()
	} else if !json.Valid(v) {
		l.err = fmt.Errorf("%s is not JSON", name)
		return
	}
	if !utf8.Valid(v) {
		v = bytes.ToValidUTF8(v, []byte("\uFFFD"))
	}
	l.name(name)
	l.b = append(l.b, v...)
}

// waits is raw for what may be left out: the rest of the record is worth more.
func (l *line) waits(v json.RawMessage) {
	if len(v) <= MaxWaits && utf8.Valid(v) && json.Valid(v) {
		l.raw("waits", v)
	}
}

func (d Delivery) encode(l *line) {
	l.open("delivery")
	l.text("queue_id", d.QueueID)
	l.time("time", d.Time)
	l.text("status", d.Status)
	l.number("n", int64(d.N))
	l.close()
}

func (v Value) encode(l *line) {
	if len(v.Value) > maxValue {
		l.err = fmt.Errorf("value %q: %d octets, at most %d", v.Name, len(v.Value), maxValue)
		return
	}
	l.open("value")
	l.text("name", v.Name)
	l.limited("value", v.Value, maxValue)
	l.close()
}

func (p purge) encode(l *line) {
	l.open("purge")
	l.text("account", p.Account)
	l.time("time", p.Time)
	l.close()
}

// wire has a place for the members of all types of records.
type wire struct {
	T          string          `json:"t"`
	ID         string          `json:"id"`
	Time       int64           `json:"time"`
	Stage      string          `json:"stage"`
	Verdict    string          `json:"verdict"`
	Rule       string          `json:"rule"`
	Reason     string          `json:"reason"`
	Reply      string          `json:"reply"`
	Phase      string          `json:"phase"`
	Listener   string          `json:"listener"`
	Role       string          `json:"role"`
	Account    string          `json:"account"`
	Confidence string          `json:"confidence"`
	Login      string          `json:"login"`
	LoginBy    string          `json:"login_by"`
	LocalUser  string          `json:"local_user"`
	Network    string          `json:"network"`
	ClientIP   string          `json:"client_ip"`
	ClientName string          `json:"client_name"`
	Helo       string          `json:"helo"`
	UID        int             `json:"uid"`
	MailFrom   string          `json:"mail_from"`
	HeaderFrom string          `json:"from"`
	MessageID  string          `json:"message_id"`
	QueueID    string          `json:"queue_id"`
	Size       int64           `json:"size"`
	Recipients int64           `json:"recipients"`
	Domains    map[string]int  `json:"domains"`
	Findings   []wireFinding   `json:"findings"`
	Counters   []wireCounter   `json:"counters"`
	Repeats    int64           `json:"repeats"`
	Last       int64           `json:"last"`
	N          int64           `json:"n"`
	Arrival    int64           `json:"arrival"`
	State      json.RawMessage `json:"state"` // a hold's name, an incident's state
	By         string          `json:"by"`
	NewQueueID string          `json:"new_queue_id"`
	LoginUID   int             `json:"login_uid"`
	Verb       string          `json:"verb"`
	Target     string          `json:"target"`
	Outcome    string          `json:"outcome"`
	Origin     string          `json:"origin"`
	Cause      string          `json:"cause"`
	Noticed    string          `json:"noticed"`
	Opened     int64           `json:"opened"`
	Updated    int64           `json:"updated"`
	Closed     int64           `json:"closed"`
	Stops      int64           `json:"stops"`
	Late       bool            `json:"late"`
	Status     string          `json:"status"`
	Name       string          `json:"name"`
	Value      string          `json:"value"`
	Waits      json.RawMessage `json:"waits"`
	ChargeID   string          `json:"charge_id"`
	Site       string          `json:"site"`
	SiteBy     string          `json:"site_by"`
	Plugin     string          `json:"plugin"`
	PluginBy   string          `json:"plugin_by"`
	Node       string          `json:"node"`
	Template   string          `json:"template"`
	Entry      string          `json:"entry"`
	Script     string          `json:"script"`
	WebClient  string          `json:"web_client"`
	Pool       string          `json:"pool"`
	Software   string          `json:"software"`
	Addresses  json.RawMessage `json:"addresses"`
	What       string          `json:"what"`
	Why        string          `json:"why"`
	Since      int64           `json:"since"`
	Until      int64           `json:"until"`
}

type wireFinding struct {
	Rule    string `json:"rule"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
}

type wireCounter struct {
	Limit   string `json:"limit"`
	Key     string `json:"key"`
	Unit    string `json:"unit"`
	Kind    string `json:"kind"`
	Window  int64  `json:"window"`
	Count   int64  `json:"count"`
	Used    int64  `json:"used"`
	Amount  int64  `json:"amount"`
	Over    bool   `json:"over"`
	Soft    bool   `json:"soft"`
	Latched bool   `json:"latched"`
	FreeAt  int64  `json:"free_at"`
}

// record gives what w.T says it is; nil for a type that is not known.
func (w *wire) record() Record {
	switch w.T {
	case "decision":
		return w.decision()
	case "repeat":
		return Repeat{ID: w.ID, N: w.N, Last: moment(w.Last)}
	case "held":
		return Held{
			QueueID: w.QueueID, DecisionID: w.ID, Account: w.Account, Rule: w.Rule, Reason: w.Reason, MailFrom: w.MailFrom,
			Arrival: moment(w.Arrival), HeldAt: moment(w.Time), Size: w.Size, Recipients: int(w.Recipients), Domains: w.Domains,
			Site: w.Site, Plugin: w.Plugin, Template: w.Template,
		}
	case "hold-change":
		var state string
		if json.Unmarshal(w.State, &state) != nil {
			return nil
		}
		return HoldChange{
			QueueID: w.QueueID, DecisionID: w.ID, Time: moment(w.Time), State: State(state), By: w.By, Reason: w.Reason,
			NewQueueID: w.NewQueueID, Arrival: moment(w.Arrival), ChargeID: w.ChargeID,
		}
	case "admin":
		return AdminAction{
			Time: moment(w.Time), By: w.By, UID: w.UID, LoginUID: w.LoginUID,
			Verb: w.Verb, Target: w.Target, Reason: w.Reason, Outcome: w.Outcome,
		}
	case "incident":
		return Incident{
			ID: w.ID, Origin: w.Origin, Cause: w.Cause, Noticed: w.Noticed, Opened: moment(w.Opened), Updated: moment(w.Updated),
			Closed: moment(w.Closed), Stops: w.Stops, Recipients: w.Recipients, State: w.State, Account: w.Account, Addresses: w.Addresses,
		}
	case "delivery":
		return Delivery{QueueID: w.QueueID, Time: moment(w.Time), Status: w.Status, N: int(w.N)}
	case "value":
		return Value{Name: w.Name, Value: w.Value}
	case "trouble":
		return Trouble{What: w.What, Why: w.Why, Since: moment(w.Since), Until: moment(w.Until)}
	case "purge":
		return purge{Account: w.Account, Time: moment(w.Time)}
	}
	return nil
}

func (w *wire) decision() Decision {
	d := Decision{
		ID: w.ID, Time: moment(w.Time), Stage: w.Stage, Rule: w.Rule, Reason: w.Reason, Reply: w.Reply, Listener: w.Listener,
		Account: w.Account, Confidence: w.Confidence, Login: w.Login, LoginBy: w.LoginBy, LocalUser: w.LocalUser,
		Network: w.Network, ClientIP: w.ClientIP, ClientName: w.ClientName, Helo: w.Helo, UID: w.UID,
		MailFrom: w.MailFrom, HeaderFrom: w.HeaderFrom, MessageID: w.MessageID, QueueID: w.QueueID,
		Size: w.Size, Recipients: int(w.Recipients), Domains: w.Domains,
		Findings: findingsOf(w.Findings), Counters: countersOf(w.Counters), Repeats: w.Repeats, LastRepeat: moment(w.Last), Late: w.Late,
		Waits: w.Waits, Site: w.Site, SiteBy: w.SiteBy, Plugin: w.Plugin, PluginBy: w.PluginBy, Node: w.Node, Template: w.Template,
		Entry: w.Entry, Script: w.Script, WebClient: w.WebClient, Pool: w.Pool, Software: w.Software,
	}
	// A name that this version does not know leaves the zero value.
	d.Verdict, _ = policy.ParseVerdict(w.Verdict)
	d.Phase, _ = policy.ParsePhase(w.Phase)
	d.Role, _ = policy.ParseRole(w.Role)
	return d
}

func findingsOf(w []wireFinding) []policy.Finding {
	if len(w) == 0 {
		return nil
	}
	findings := make([]policy.Finding, len(w))
	for i, f := range w {
		verdict, _ := policy.ParseVerdict(f.Verdict)
		findings[i] = policy.Finding{Rule: f.Rule, Verdict: verdict, Reason: f.Reason}
	}
	return findings
}

func countersOf(w []wireCounter) []policy.Counter {
	if len(w) == 0 {
		return nil
	}
	counters := make([]policy.Counter, len(w))
	for i, c := range w {
		counters[i] = policy.Counter{
			Limit: c.Limit, Key: c.Key, Unit: c.Unit, Kind: c.Kind, Window: time.Duration(c.Window) * time.Microsecond,
			Count: c.Count, Used: c.Used, Amount: c.Amount, Over: c.Over, Soft: c.Soft, Latched: c.Latched, FreeAt: moment(c.FreeAt),
		}
	}
	return counters
}

// micros is a time as it is stored: microseconds since the epoch, 0 for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func moment(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// The zero values have no name in the log: they are left out.

func verdictName(v policy.Verdict) string {
	if v == 0 {
		return ""
	}
	return v.String()
}

func phaseName(p policy.Phase) string {
	if p == 0 {
		return ""
	}
	return p.String()
}

func roleName(r policy.Role) string {
	if r == 0 {
		return ""
	}
	return r.String()
}
