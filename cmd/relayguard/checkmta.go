package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/milter"
	"relayguard/mta"
	"relayguard/mta/local"
	"relayguard/mta/postfix"
	"relayguard/mta/sendmail"
	"relayguard/policy/address"
	"relayguard/policy/origin/stamp"
)

// inspectedMTA is what was found of an MTA's settings.
type inspectedMTA struct {
	name     string // "Postfix 3.7.11 in /etc/postfix"
	queueDir string
	setting  func(string) string // of Postfix; of another MTA all are empty
	findings []mta.Finding
}

// inspectMTA reads the settings in force and names the ways round the guard.
func inspectMTA(cmd *cobra.Command, c *config.Config, noProbe bool) (inspectedMTA, error) {
	if c.MTA.Kind == config.KindSendmail {
		return inspectSendmail(cmd.Context(), c, noProbe)
	}
	return inspectPostfix(cmd.Context(), c, noProbe)
}

func inspectPostfix(ctx context.Context, c *config.Config, noProbe bool) (inspectedMTA, error) {
	i, err := postfix.Load(ctx, postfix.Tools{}, c.MTA.ConfigDirectory)
	if err != nil {
		return inspectedMTA{}, err
	}
	in := postfix.Inspection{Instance: i, Listeners: mtaListeners(c), LocalMail: localMail(c), Deadline: c.Milter.DecisionTimeout, GuardUser: guardUser()}
	if c.Sign.Node != "" {
		in.NodeHeader = stamp.NodeHeader
	}
	if !noProbe {
		in.Probe = postfix.SMTPProbe{}
	}
	return inspectedMTA{fmt.Sprintf("Postfix %s in %s", i.Version, i.ConfigDir), i.QueueDir, i.Setting, postfix.Inspect(ctx, in)}, nil
}

func inspectSendmail(ctx context.Context, c *config.Config, noProbe bool) (inspectedMTA, error) {
	i, err := sendmail.Load(ctx, sendmail.Tools{}, c.MTA.ConfigDirectory)
	if err != nil {
		return inspectedMTA{}, err
	}
	in := sendmail.Inspection{Instance: i, Listeners: mtaListeners(c), Deadline: c.Milter.DecisionTimeout, GuardUser: guardUser(), WebNode: c.Sign.Node != "", Inside: insideView(c), Built: true}
	if !noProbe {
		in.Probe = sendmail.RulesProbe{}
	}
	return inspectedMTA{fmt.Sprintf("Sendmail %s in %s", i.Version, i.ConfigDir), i.QueueDirectory(), func(string) string { return "" }, sendmail.Inspect(ctx, in)}, nil
}

func mtaListeners(c *config.Config) []mta.Listener {
	all := make([]mta.Listener, len(c.Listeners))
	for i, l := range c.Listeners {
		all[i] = mta.Listener{Role: l.Role, Network: l.Endpoint.Network(), Address: l.Endpoint.Address()}
	}
	return all
}

func localMail(c *config.Config) postfix.LocalMail {
	m := postfix.LocalMail{DaemonName: c.Local.DaemonName, UIDHeader: milter.UIDHeader, Strip: []string{stamp.Header, stamp.CallHeader}}
	if c.Sign.Node == "" { // else the relay is to read it
		m.Strip = append(m.Strip, stamp.NodeHeader)
	}
	return m
}

// insideView is what the guard knows of the inside domains beside what Sendmail says;
// nil if it does not ask Sendmail. Root alone can tell what the daemon's account may
// read.
func insideView(c *config.Config) *sendmail.InsideView {
	if !c.Inside.FromMTA {
		return nil
	}
	named := map[string]bool{}
	for _, d := range c.Inside.Domains {
		named[address.Domain(d)] = true
	}
	v := &sendmail.InsideView{Named: func(domain string) bool { return named[address.Domain(domain)] }}
	if guard := accountNamed(guardUser()); guard != nil && isRoot() {
		guard.groups = append(guard.groups, groupsOfDaemon(c.Control.Socket)...)
		v.MayRead = func(path string) bool { return guard.may(reading, path) }
	}
	return v
}

// groupsOfDaemon are the supplementary groups of the daemon that runs, by the process
// that listens on its control socket: a drop-in of the unit may give it more. None if
// it does not run.
func groupsOfDaemon(socket string) []string {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return nil
	}
	defer conn.Close()
	peer, err := local.PeerCred(conn.(*net.UnixConn))
	if err != nil || peer.UID == 0 { // of systemd, or of a daemon for a try
		return nil
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", peer.PID))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(status)) {
		if groups, found := strings.CutPrefix(line, "Groups:"); found {
			return strings.Fields(groups)
		}
	}
	return nil
}
