package postfix

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// parameters are all that relayguard reads of Postfix. What an older Postfix
// does not know is empty.
var parameters = []string{
	"always_bcc", "sender_bcc_maps",
	"bounce_queue_lifetime", "empty_address_recipient", "hash_queue_depth", "hash_queue_names", "maximal_queue_lifetime",
	"command_directory", "config_directory", "content_filter", "cleanup_service_name", "data_directory", "default_transport",
	"header_checks", "inet_interfaces", "info_log_addr_form", "mail_name", "mail_owner", "mail_version", "maillog_file", "master_service_disable",
	"milter_command_timeout", "milter_connect_timeout", "milter_content_timeout", "milter_default_action",
	"milter_header_checks", "milter_macro_daemon_name", "milter_protocol", "multi_instance_directories", "multi_instance_name",
	"mydestination", "mydomain", "myhostname", "mynetworks", "myorigin",
	"non_smtpd_milters", "parent_domain_matches_subdomains", "qmqpd_authorized_clients", "queue_directory",
	"receive_override_options", "recipient_bcc_maps", "recipient_delimiter", "relay_domains", "relayhost",
	"sender_dependent_default_transport_maps", "sender_dependent_relayhost_maps", "sendmail_path", "setgid_group",
	"smtp_generic_maps", "smtp_header_checks", "smtpd_authorized_xclient_hosts", "smtpd_milter_maps", "smtpd_milters",
	"smtpd_recipient_restrictions", "smtpd_relay_restrictions", "smtpd_restriction_classes", "smtpd_sasl_auth_enable", "smtpd_sender_login_maps",
	"smtpd_tls_auth_only", "smtpd_tls_security_level", "smtpd_tls_wrappermode", "smtpd_use_tls", "smtpd_enforce_tls",
	"transport_maps", "virtual_alias_domains", "virtual_alias_maps", "virtual_mailbox_domains",
}

// Instance is one Postfix as it was configured when Load read it. Its methods
// only read it; safe for concurrent use.
type Instance struct {
	Name      string // multi_instance_name; empty: of one that has none, or one that cannot be part of a file's name
	ConfigDir string
	QueueDir  string
	Version   string // "3.7.11"
	Services  []Service

	tools Tools
	main  map[string]string // expanded
}

// Service is one entry of master.cf.
type Service struct {
	Name      string            // "submission", "127.0.0.1:10025"
	Type      string            // "inet", "unix", "pass", "fifo"
	Chroot    bool              // its paths are under the queue directory
	Command   string            // "smtpd"
	Overrides map[string]string // -o name=value, as written
	Args      []string          // other arguments

	words    []string          // the whole entry
	settings map[string]string // expanded with the overrides in force; nil: main.cf's
}

// QueueDirectory is QueueDir.
func (i *Instance) QueueDirectory() string { return i.QueueDir }

// ID names the service as postconf(1) does: "submission/inet".
func (s *Service) ID() string { return s.Name + "/" + s.Type }

// Load reads the settings in force of the instance in configDir: main.cf with
// its defaults and expansions in one run of postconf, master.cf in another,
// and one more for each service that has overrides which may matter here.
func Load(ctx context.Context, tools Tools, configDir string) (*Instance, error) {
	i := &Instance{ConfigDir: configDir, tools: tools}
	var err error
	if i.main, err = i.expand(ctx, nil); err != nil {
		return nil, fmt.Errorf("read Postfix settings of %s: %w", configDir, err)
	}
	i.QueueDir, i.Version = i.main["queue_directory"], i.main["mail_version"]
	if name := i.main["multi_instance_name"]; validInstance(name) {
		i.Name = name
	}
	s, err := tools.run(ctx, nil, maxToolOutput, "postconf", tools.inDir(configDir, "-M")...)
	if err != nil {
		return nil, fmt.Errorf("read Postfix services of %s: %w", configDir, err)
	}
	services, err := parseServices(string(s.stdout))
	if err != nil {
		return nil, fmt.Errorf("read Postfix services of %s: %w", configDir, err)
	}
	for _, service := range services {
		if i.disabled(&service) {
			continue
		}
		if len(service.Overrides) > 0 && slices.Contains([]string{"smtpd", "postscreen", "qmqpd", "pickup", "cleanup"}, service.Command) {
			if service.settings, err = i.expand(ctx, service.Overrides); err != nil {
				return nil, fmt.Errorf("read Postfix settings of service %s in %s: %w", service.ID(), configDir, err)
			}
		}
		i.Services = append(i.Services, service)
	}
	return i, nil
}

// expand asks postconf what is in force. An override is handed in as a setting
// of its own, so that whatever main.cf derives from it follows.
func (i *Instance) expand(ctx context.Context, overrides map[string]string) (map[string]string, error) {
	args := i.tools.inDir(i.ConfigDir, "-x")
	for _, name := range sortedKeys(overrides) {
		args = append(args, "-o", name+"="+overrides[name])
	}
	s, err := i.tools.run(ctx, nil, maxToolOutput, "postconf", append(args, parameters...)...)
	if err != nil {
		return nil, err
	}
	return parseSettings(string(s.stdout))
}

// Setting returns a main.cf parameter in force, expanded. Only the parameters
// that this package reads are known.
func (i *Instance) Setting(name string) string { return i.main[name] }

// Effective returns what a parameter is for one service.
func (i *Instance) Effective(s *Service, name string) string {
	if s.settings != nil {
		return s.settings[name]
	}
	return i.main[name]
}

// Service finds a service by name and type; nil if there is none.
func (i *Instance) Service(name, kind string) *Service {
	for n := range i.Services {
		if s := &i.Services[n]; s.Name == name && s.Type == kind {
			return s
		}
	}
	return nil
}

// disabled reports services that master(8) does not start, by the list of
// master_service_disable: name/type, name.type or type (match_service.c). There is
// no word for all of them: Postfix takes no notice of "static:all".
func (i *Instance) disabled(s *Service) bool {
	items, err := splitList(i.main["master_service_disable"])
	if err != nil {
		return false
	}
	for _, item := range items {
		name := strings.TrimLeft(item, "!")
		not := (len(item)-len(name))%2 == 1
		if dot := strings.LastIndexByte(name, '.'); dot >= 0 && !strings.Contains(name, "/") {
			name = name[:dot] + "/" + name[dot+1:]
		}
		if name == s.Type || name == s.ID() {
			return !not
		}
	}
	return false
}

// path is where a service finds a file that Postfix names: relative to the
// queue directory, which is also the root of a chrooted service.
func (i *Instance) path(s *Service, name string) string {
	if filepath.IsAbs(name) && (s == nil || !s.Chroot) {
		return filepath.Clean(name)
	}
	return filepath.Join(i.QueueDir, name)
}

// parseSettings reads "name = value" lines, as postconf prints them.
func parseSettings(text string) (map[string]string, error) {
	settings := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !found || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("got line %q, want name = value", line)
		}
		settings[name] = strings.TrimSpace(value)
	}
	return settings, nil
}

// parseServices reads master.cf as postconf -M prints it, a service a line:
// name type private unpriv chroot wakeup maxproc command + args (master(5)).
func parseServices(text string) ([]Service, error) {
	var services []Service
	for line := range strings.Lines(text) {
		words, err := splitWords(line)
		if err != nil {
			return nil, err
		}
		if len(words) == 0 {
			continue
		}
		if len(words) < 8 {
			return nil, fmt.Errorf("service line %q: got %d fields, want 8 or more", strings.TrimSpace(line), len(words))
		}
		s := Service{Name: words[0], Type: words[1], Chroot: words[4] == "y", Command: words[7], words: words}
		if err := s.arguments(words[8:]); err != nil {
			return nil, fmt.Errorf("service %s: %w", s.ID(), err)
		}
		services = append(services, s)
	}
	return services, nil
}

func (s *Service) arguments(words []string) error {
	for n := 0; n < len(words); n++ {
		word := words[n]
		if bare, _ := inBraces(word); !strings.HasPrefix(bare, "-") { // options end here: what follows may be of pipe(8)'s argv
			s.Args = append(s.Args, words[n:]...)
			return nil
		}
		if !strings.HasPrefix(word, "-o") {
			s.Args = append(s.Args, word)
			continue
		}
		setting := word[2:]
		if setting == "" {
			if n++; n == len(words) {
				return fmt.Errorf("-o without a setting")
			}
			setting = words[n]
		}
		setting, _ = inBraces(setting)
		name, value, found := strings.Cut(setting, "=")
		if name = strings.TrimSpace(name); !found || name == "" || strings.ContainsAny(name, "{}") {
			return fmt.Errorf("-o %s: want name=value", setting)
		}
		if s.Overrides == nil {
			s.Overrides = map[string]string{}
		}
		s.Overrides[name] = strings.TrimSpace(value) // the last one counts
	}
	return nil
}

// with is the entry with some overrides changed or added, for postconf -Me:
// postconf -Pe takes no white space in values (observed, 3.7.11).
func (s *Service) with(overrides map[string]string) string {
	words := slices.Clone(s.words[:8])
	var rest []string
	for n := 8; n < len(s.words); n++ {
		word := s.words[n]
		if bare, _ := inBraces(word); !strings.HasPrefix(bare, "-") { // options end here
			rest = s.words[n:]
			break
		}
		var setting string
		if word == "-o" && n+1 < len(s.words) {
			n++
			setting = s.words[n]
		} else if rest, found := strings.CutPrefix(word, "-o"); found {
			setting = rest
		} else {
			words = append(words, word)
			continue
		}
		inner, _ := inBraces(setting)
		name, _, _ := strings.Cut(inner, "=")
		if _, changed := overrides[strings.TrimSpace(name)]; !changed {
			words = append(words, "-o", setting)
		}
	}
	for _, name := range sortedKeys(overrides) {
		words = append(words, "-o", quoteOverride(name, overrides[name]))
	}
	return strings.Join(append(words, rest...), " ")
}

func quoteOverride(name, value string) string {
	if strings.ContainsAny(value, " \t") || strings.HasPrefix(value, "{") {
		return "{" + name + "=" + value + "}"
	}
	return name + "=" + value
}

// splitWords splits at white space, but keeps "{ ... }" at the start of a word
// together.
func splitWords(line string) ([]string, error) {
	var words []string
	rest := strings.TrimFunc(line, func(r rune) bool { return r < 0x80 && isSpace(byte(r)) })
	for rest != "" {
		end := 0
		if rest[0] == '{' {
			depth := 0
			for end = 0; end < len(rest); end++ {
				if rest[end] == '{' {
					depth++
				} else if rest[end] == '}' {
					if depth--; depth == 0 {
						end++
						break
					}
				}
			}
			if depth != 0 {
				return nil, fmt.Errorf("line %q: opening brace without a closing one", line)
			}
		}
		for end < len(rest) && !isSpace(rest[end]) {
			end++
		}
		words = append(words, rest[:end])
		for end < len(rest) && isSpace(rest[end]) {
			end++
		}
		rest = rest[end:]
	}
	return words, nil
}

// Copies is how many recipients Postfix itself may add to each message: those of
// always_bcc and sender_bcc_maps. recipient_bcc_maps, which add one for each
// recipient, are not among them.
func (i *Instance) Copies() int {
	n := 0
	for _, name := range []string{"always_bcc", "sender_bcc_maps"} {
		if i.main[name] != "" {
			n++
		}
	}
	return n
}
