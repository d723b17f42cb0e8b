package database

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"relayguard/forward/tables"
)

// defaultLDAPI is the socket of a slapd that no URL names.
const defaultLDAPI = "/var/run/slapd/ldapi"

// ldapTable is one table, connected.
type ldapTable struct {
	databases *Databases
	conn      *ldap.Conn
	templates *templates
	domains   *matchDomain
	limit     int
	size      int // size_limit
	depth     int // recursion_limit

	base, query            string
	scope, deref           int
	terminal, leaf, normal []string
	special                []string
	attributes             []string // all of them
	entries                int      // read so far
}

func (d *Databases) listLDAP(ctx context.Context, s settings) ([]tables.Pair, error) {
	t, err := d.ldapTable(ctx, s)
	if err != nil {
		return nil, err
	}
	f, err := readFilter(t.query)
	if err != nil {
		return nil, err
	}
	password := Secret(s["bind_pw"])
	if t.conn, err = d.openLDAP(ctx, s, password); err != nil {
		return nil, scrub(err, password)
	}
	defer t.conn.Close()
	stop := context.AfterFunc(ctx, func() { t.conn.Close() })
	defer stop()
	pairs, err := t.list(ctx, f)
	if ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	return pairs, scrub(err, password)
}

// ldapTable reads the settings that ldap_table(5) has for searches.
func (d *Databases) ldapTable(ctx context.Context, s settings) (*ldapTable, error) {
	t := &ldapTable{databases: d, base: s["search_base"], query: s.or("query_filter", "(mailacceptinggeneralid=%s)")}
	var err error
	if t.templates, err = newTemplates(s.or("result_format", s.or("result_filter", "%s")), t.base, t.query); err != nil {
		return nil, err
	}
	if t.domains, err = d.domains(ctx, s["domain"]); err != nil {
		return nil, err
	}
	if t.limit, err = s.number("expansion_limit", 0); err != nil {
		return nil, err
	}
	if t.size, err = s.number("size_limit", t.limit); err != nil {
		return nil, err
	}
	if t.depth, err = s.number("recursion_limit", 1000); err != nil {
		return nil, err
	}
	if t.deref, err = s.number("dereference", 0); err != nil || t.deref > 3 {
		t.deref = 0
	}
	t.scope = map[string]int{"one": ldap.ScopeSingleLevel, "base": ldap.ScopeBaseObject}[strings.ToLower(s["scope"])]
	if t.scope == 0 && !strings.EqualFold(s["scope"], "base") {
		t.scope = ldap.ScopeWholeSubtree
	}
	t.terminal, t.leaf = list(s["terminal_result_attribute"]), list(s["leaf_result_attribute"])
	t.normal, t.special = []string{"maildrop"}, list(s["special_result_attribute"])
	if v, set := s["result_attribute"]; set {
		t.normal = list(v)
	}
	for _, a := range [][]string{t.terminal, t.leaf, t.normal, t.special} {
		t.attributes = append(t.attributes, a...)
	}
	return t, nil
}

// openLDAP connects and binds as the .cf says.
func (d *Databases) openLDAP(ctx context.Context, s settings, password Secret) (*ldap.Conn, error) {
	var errs []error
	for _, server := range list(s.or("server_host", "localhost")) {
		c, err := d.connectLDAP(ctx, server, s)
		if err == nil {
			if err = bindLDAP(c, s, password); err == nil {
				return c, nil
			}
			c.Close()
		}
		errs = append(errs, fmt.Errorf("open ldap %s: %w", server, err))
	}
	return nil, errors.Join(errs...)
}

func (d *Databases) connectLDAP(ctx context.Context, server string, s settings) (*ldap.Conn, error) {
	network, address, secure, err := ldapAddress(server, s.or("server_port", "389"))
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: statementFor}
	raw, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	starttls := strings.EqualFold(s["start_tls"], "yes")
	if !secure && !starttls {
		return startLDAP(raw, false), nil
	}
	config, err := d.tlsConfig(ctx, s["tls_cert"], s["tls_key"], s["tls_ca_cert_file"], strings.EqualFold(s["tls_require_cert"], "yes"))
	if err != nil {
		raw.Close()
		return nil, err
	}
	config.ServerName, _, _ = net.SplitHostPort(address)
	if secure {
		wrapped, err := tlsClient(ctx, raw, config)
		if err != nil {
			raw.Close()
			return nil, err
		}
		return startLDAP(wrapped, true), nil
	}
	c := startLDAP(raw, false)
	if err := c.StartTLS(config); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func startLDAP(raw net.Conn, secure bool) *ldap.Conn {
	c := ldap.NewConn(raw, secure)
	c.SetTimeout(statementFor)
	c.Start()
	return c
}

// ldapAddress reads one of server_host: a URL, or a host with or without a port.
func ldapAddress(server, port string) (network, address string, secure bool, err error) {
	scheme, rest, isURL := strings.Cut(server, "://")
	if !isURL {
		if strings.Contains(server, ":") {
			return "tcp", server, false, nil
		}
		return "tcp", net.JoinHostPort(server, port), false, nil
	}
	rest, _, _ = strings.Cut(rest, "/")
	switch strings.ToLower(scheme) {
	case "ldapi":
		if rest == "" {
			return "unix", defaultLDAPI, false, nil
		}
		socket, err := url.PathUnescape(rest)
		return "unix", socket, false, err
	case "ldap":
		return "tcp", withPort(rest, "389"), false, nil
	case "ldaps":
		return "tcp", withPort(rest, "636"), true, nil
	}
	return "", "", false, fmt.Errorf("%q is no scheme of LDAP", scheme)
}

func withPort(host, port string) string {
	if host == "" {
		host = "localhost"
	}
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

func bindLDAP(c *ldap.Conn, s settings, password Secret) error {
	switch bind := strings.ToLower(s.or("bind", "yes")); bind {
	case "no", "none":
		return nil
	case "yes", "simple":
		if s["bind_dn"] == "" || password == "" {
			return c.UnauthenticatedBind(s["bind_dn"])
		}
		return c.Bind(s["bind_dn"], password.reveal())
	case "sasl":
		if strings.EqualFold(s["sasl_mechs"], "EXTERNAL") {
			return c.ExternalBind()
		}
		return fmt.Errorf("bind = sasl with sasl_mechs = %.40q: only EXTERNAL is known", s["sasl_mechs"])
	default:
		return fmt.Errorf("bind = %.40q is not known", bind)
	}
}
