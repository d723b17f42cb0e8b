package databasetest

import (
	"context"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Slapd is a private slapd with the suffix dc=corp,dc=test.
type Slapd struct {
	URL      string // ldapi://...
	BindDN   string // may read all but passwords
	Password string
}

const slapdConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include DIR/mail.schema
pidfile DIR/pid
modulepath /usr/lib/ldap
moduleload back_mdb
allow bind_v2
sizelimit size.soft=100 size.hard=unlimited size.prtotal=unlimited
database mdb
maxsize 67108864
suffix dc=corp,dc=test
rootdn cn=admin,dc=corp,dc=test
rootpw admin
directory DIR/data
access to attrs=userPassword by anonymous auth
access to * by dn.exact=cn=reader,dc=corp,dc=test read by * auth
`

// A schema as mail servers' installations have: an address, targets, members.
const mailSchema = `attributetype ( 1.3.6.1.4.1.99999.1 NAME 'maildrop' EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreIA5SubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.26{256} )
attributetype ( 1.3.6.1.4.1.99999.2 NAME 'mailacceptinggeneralid' EQUALITY caseIgnoreMatch SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15{1024} )
attributetype ( 1.3.6.1.4.1.99999.3 NAME 'memberurl' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15{1024} )
attributetype ( 1.3.6.1.4.1.99999.4 NAME 'memberdn' EQUALITY distinguishedNameMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.12 )
attributetype ( 1.3.6.1.4.1.99999.5 NAME 'accountstatus' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )
objectclass ( 1.3.6.1.4.1.99999.9 NAME 'mailuser' SUP top AUXILIARY MAY ( mail $ maildrop $ mailacceptinggeneralid $ memberurl $ memberdn $ accountstatus ) )
`

const slapdBase = `dn: dc=corp,dc=test
objectClass: dcObject
objectClass: organization
dc: corp
o: Corp

dn: cn=reader,dc=corp,dc=test
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: s3cret-of-ldap

`

// StartSlapd starts one with the entries of an LDIF.
func StartSlapd(t testing.TB, ldif string) *Slapd {
	t.Helper()
	need(t, "slapd", "/usr/sbin/slapd", "/usr/sbin/slapadd")
	dir := directory(t, "")
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	Write(t, filepath.Join(dir, "mail.schema"), mailSchema)
	conf := Write(t, filepath.Join(dir, "slapd.conf"), replaceDir(slapdConf, dir))
	run(t, as(t, exec.Command("/usr/sbin/slapadd", "-q", "-f", conf), ""), slapdBase+ldif)
	socket := filepath.Join(dir, "s")
	s := &Slapd{URL: "ldapi://" + url.PathEscape(socket), BindDN: "cn=reader,dc=corp,dc=test", Password: "s3cret-of-ldap"}
	cmd := as(t, exec.Command("/usr/sbin/slapd", "-d", "0", "-f", conf, "-h", s.URL), "")
	start(t, cmd, filepath.Join(dir, "log"), syscall.SIGTERM, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			conn.Close()
		}
		return err
	})
	return s
}

func replaceDir(text, dir string) string { return strings.ReplaceAll(text, "DIR", dir) }

// CF is how a .cf file begins that asks this server.
func (s *Slapd) CF() string {
	return "server_host = " + s.URL + "\nversion = 3\nbind = yes\nbind_dn = " + s.BindDN + "\nbind_pw = " + s.Password + "\nsearch_base = dc=corp,dc=test\n"
}
