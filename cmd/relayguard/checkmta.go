package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/config"
	"relayguard/milter"
	"relayguard/mta"
	"relayguard/mta/postfix"
	"relayguard/mta/sendmail"
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
	in := sendmail.Inspection{Instance: i, Listeners: mtaListeners(c), Deadline: c.Milter.DecisionTimeout, GuardUser: guardUser(), WebNode: c.Sign.Node != "", Built: true}
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
