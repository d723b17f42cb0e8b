package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/render"
	"relayguard/incident"
)

// letterShown is a letter as JSON has it.
type letterShown struct {
	Incident string `json:"incident"`
	Language string `json:"language"`
	Stage    string `json:"stage"`
	Subject  string `json:"subject"`
	Text     string `json:"text"`
}

func newNotice() *cobra.Command {
	var lang, stage, site, from, cause, file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "notice SITE|INCIDENT",
		Short: "write the letter about an incident to a site's owner",
		Long: strings.TrimSpace(`
Writes the letter that a hoster forwards to the owner of a web site: what happened,
what was done, what is asked of the owner, what is held and what becomes of it. Of
several incidents of a SITE it is about the newest open one, else the newest; the
others are told on standard error.

--stage first is the first letter, update says how it stands, recovered that it is
over, analysis what it was: time line, cause, measures. Without --stage: first for
an open incident, recovered for a closed one. --cause is what you found, for
analysis, in at most 2,000 characters; without, it says what is known by itself. The
text goes by the limit: one that stays shut until relayguard resume, one that has
room again by itself, or a suspension. Read the letter before it is sent.

The letter has no recipients, no content, no addresses of web clients, and no path
but a file's below the site's root. It begins with its subject. Only incidents of
web sites have letters; where only the text of the mail is known, as of sites that
share an account, --site says whose it is. Nothing is sent by this command.

While the daemon is dead root reads the journal itself.

Exit status: 0; 1 there is no incident of it, or none that is about a web site;
2 usage; 3 cannot tell, or the file cannot be written. A FILE that is there is not
written over.`),
		Example: "  relayguard notice shop.example.jp\n  relayguard notice shop.example.jp --lang ja --stage update --sign 'Example Hosting'\n  relayguard notice i-0d5kqw3m8x --stage analysis --out letter.txt",
		Args:    exactly("SITE or INCIDENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case args[0] == "":
				return usage(cmd, "SITE or INCIDENT is empty")
			case !slices.Contains(incident.LetterLanguages, lang):
				return usage(cmd, "--lang: got %q, want one of %s", lang, strings.Join(incident.LetterLanguages, ", "))
			case stage != "" && !slices.Contains(incident.Stages, incident.Stage(stage)):
				return usage(cmd, "--stage: got %q, want one of %s", stage, names(incident.Stages))
			case cause != "" && stage != string(incident.StageAnalysis):
				return usage(cmd, "--cause is for --stage analysis")
			case utf8.RuneCountInString(cause) > incident.MaxCause:
				return usage(cmd, "--cause: got %d characters, want at most %d", utf8.RuneCountInString(cause), incident.MaxCause)
			case utf8.RuneCountInString(from) > incident.MaxFrom:
				return usage(cmd, "--sign: got %d characters, want at most %d", utf8.RuneCountInString(from), incident.MaxFrom)
			}
			who := args[0]
			facts, err := askOrRead(cmd, "/v1/notice", url.Values{"who": {who}}, func(ctx context.Context, j originJournal) (noticeFacts, error) {
				c, err := commandConfig(cmd)
				if err != nil {
					return noticeFacts{}, err
				}
				known, err := knownWithout(c, time.Now())
				if err != nil {
					return noticeFacts{}, err
				}
				return noticeOf(ctx, j, known, who)
			})
			if err != nil {
				return err
			}
			letter := facts.letter(lang, incident.Stage(stage))
			letter.Site, letter.From, letter.Cause = strings.ToLower(strings.TrimPrefix(site, "site:")), from, cause
			subject, text, err := letter.Write()
			switch {
			case errors.Is(err, incident.ErrWhichSite):
				return &exitError{exitFinding, &escapedError{fmt.Errorf("%w; look (relayguard origins show %s) and name it: --site", err, facts.Incident.Origin)}}
			case errors.Is(err, incident.ErrNoLetter):
				return &exitError{exitFinding, &escapedError{err}}
			case err != nil:
				return &exitError{exitCannotTell, &escapedError{err}}
			}
			if len(facts.More) > 0 {
				remark(cmd, "this is about %s; other incidents of it: %s", facts.Incident.ID, strings.Join(facts.More, ", "))
			}
			if asJSON {
				err = render.JSON(cmd.OutOrStdout(), letterShown{facts.Incident.ID, lang, string(letter.Stage), subject, text})
			} else {
				err = putLetter(cmd, file, "Subject: "+subject+"\n\n"+text)
			}
			if err != nil {
				return &exitError{exitCannotTell, &escapedError{err}}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&lang, "lang", "en", "`language`: "+strings.Join(incident.LetterLanguages, ", "))
	flags.StringVar(&stage, "stage", "", "`"+strings.ReplaceAll(names(incident.Stages), ", ", "|")+"`")
	flags.StringVar(&site, "site", "", "the `site`, where the incident knows only the text of the mail")
	flags.StringVar(&from, "sign", "", "`name` below the letter")
	flags.StringVar(&cause, "cause", "", "what was found to be the cause: `text` for analysis")
	flags.StringVar(&file, "out", "", "into this `file` instead of standard output")
	jsonFlag(cmd, &asJSON)
	cmd.MarkFlagsMutuallyExclusive("out", "json")
	cmd.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions(incident.LetterLanguages, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("stage", cobra.FixedCompletions(words(incident.Stages), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// letter is one about these facts.
func (f *noticeFacts) letter(lang string, stage incident.Stage) incident.Letter {
	if stage == "" {
		if stage = incident.StageFirst; !f.Incident.Open() {
			stage = incident.StageRecovered
		}
	}
	return incident.Letter{Incident: f.Incident, Lang: lang, Stage: stage, PassedMessages: f.Passed.Messages, PassedRecipients: f.Passed.Recipients,
		Kind: f.Kind, Strangers: f.Strangers, Suspended: f.Suspended, Probation: f.Probation,
		Held: f.Held, Waiting: f.Waiting, Released: f.Released, Paced: f.Paced, Deleted: f.Deleted, Now: time.Now(), Location: time.Local}
}

// putLetter writes to a new file, or to standard output.
func putLetter(cmd *cobra.Command, file, text string) error {
	if file == "" {
		_, err := fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the letter: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the letter %s: %w", file, err), os.Remove(file))
	}
	return nil
}
