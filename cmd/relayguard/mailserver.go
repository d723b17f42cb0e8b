package main

import (
	"context"

	"relayguard/cmd/internal/config"
	"relayguard/mta"
	"relayguard/mta/postfix"
	"relayguard/mta/sendmail"
)

// mailServer is what the guard asks of the MTA's settings, whichever MTA it is.
type mailServer interface {
	QueueDirectory() string
	Copies() int // recipients that it adds to each message
	Origin() (string, error)
	InsideDomains(ctx context.Context) (domains []string, unread []mta.Unread, err error)
	Sending(ctx context.Context) (mta.Sending, error)
}

// loadMailServer reads the settings of the MTA that the configuration names.
func loadMailServer(ctx context.Context, c *config.Config) (mailServer, error) {
	if c.MTA.Kind == config.KindSendmail {
		i, err := sendmail.Load(ctx, sendmail.Tools{}, c.MTA.ConfigDirectory)
		if err != nil {
			return nil, err
		}
		return i, nil
	}
	i, err := postfix.Load(ctx, postfix.Tools{}, c.MTA.ConfigDirectory)
	if err != nil {
		return nil, err
	}
	return i, nil
}

// mtaSettings is the file in which the red switch is.
func mtaSettings(c *config.Config) string {
	if c.MTA.Kind == config.KindSendmail {
		return "sendmail.cf"
	}
	return "main.cf"
}
