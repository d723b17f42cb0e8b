package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/render"
)

func newHeldShow() *cobra.Command {
	var headers, content, asJSON bool
	var reason string
	cmd := &cobra.Command{
		Use:   "show ID...",
		Short: "show held mail, without its content unless asked",
		Long: strings.TrimSpace(`
Shows what is known of held messages: who sent them, which rule held them and
why, how many recipients in which domains, the size.

--headers and --content print the message's own header or body, of one message at
a time. Only members of control.inspect_group and root may; it needs a --reason,
and the journal keeps who looked at what, and why. On a terminal control
characters are escaped; elsewhere the text comes as it is. In JSON it is
base64.

What others put on hold is none of this: it is said so, and relayguard queue show
tells of it.

Exit status: 0; 1 relayguard holds nothing under an ID; 2 usage; 3 cannot tell, or not
allowed.`),
		Example: "  relayguard held show 4ZJ1k82Vz1y\n  relayguard held show 4ZJ1k82Vz1y --headers --reason 'complaint of 3 March'",
		RunE: func(cmd *cobra.Command, ids []string) error {
			switch {
			case len(ids) == 0 || slices.Contains(ids, ""):
				return usage(cmd, "ID is missing; relayguard held list lists them")
			case headers && content:
				return usage(cmd, "--headers and --content do not go together; call twice")
			case !headers && !content && reason != "":
				return usage(cmd, "--reason goes with --headers or --content")
			case !headers && !content:
				return heldShow(cmd, ids, asJSON)
			case len(ids) > 1:
				return usage(cmd, "--headers and --content show one message at a time")
			}
			if err := needed(cmd, "reason", reason, "mail is private; say why you look, the journal keeps it"); err != nil {
				return err
			}
			look := desk.Look{ID: ids[0], Part: "headers", Reason: reason}
			if content {
				look.Part = "content"
			}
			return heldInspect(cmd, look, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&headers, "headers", false, "print the message's header")
	flags.BoolVar(&content, "content", false, "print the message's body")
	flags.StringVar(&reason, "reason", "", "why you look: `text` for the journal")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func heldShow(cmd *cobra.Command, ids []string, asJSON bool) error {
	h, err := reach(cmd)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.List(cmd.Context(), desk.Filter{IDs: ids})
	if err != nil {
		return answerOf(err)
	}
	out, page := cmd.OutOrStdout(), render.PageOf(cmd.OutOrStdout())
	var b bytes.Buffer
	if asJSON {
		err = render.JSON(&b, l.Held)
	}
	for i := 0; i < len(l.Held) && !asJSON && err == nil; i++ {
		if i > 0 {
			b.WriteByte('\n')
		}
		err = writeHeld(&b, page, time.Now(), &l.Held[i])
	}
	if err == nil {
		_, err = out.Write(b.Bytes())
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return isHeld(l.Held, id) })
	if len(ids) == 0 {
		return nil
	}
	others := othersHolds(cmd, h, ids)
	missing := make([]error, len(ids))
	for i, id := range ids {
		if missing[i] = errNotHeld(id); others[id] {
			missing[i] = fmt.Errorf("%s is on hold, and relayguard did not put it there; relayguard queue show %s tells of it", id, shellWord(id, "ID"))
		}
	}
	return &exitError{exitFinding, &escapedError{errors.Join(missing...)}}
}

// othersHolds are those ids under which others hold mail. If the queue cannot be asked,
// nothing is said of them.
func othersHolds(cmd *cobra.Command, h hands, ids []string) map[string]bool {
	others := map[string]bool{}
	all, err := h.QueueShow(cmd.Context(), desk.QueueLook{IDs: ids})
	if err != nil {
		remark(cmd, "the queue could not be asked whether others hold it: %v", err)
	}
	for i := range all {
		if m := &all[i]; m.Queue == "hold" && m.HeldBy == byOther {
			others[m.QueueID] = true
			others[m.ID] = true
		}
	}
	return others
}

func errNotHeld(id string) error {
	return fmt.Errorf("relayguard holds nothing under %s; relayguard explain %s may know what became of it", id, shellWord(id, "ID"))
}

// isHeld reports whether id names one of these.
func isHeld(all []desk.Held, id string) bool {
	for _, h := range all {
		if h.QueueID == id || h.ID == id || h.NewQueueID == id {
			return true
		}
	}
	return false
}

func heldInspect(cmd *cobra.Command, look desk.Look, asJSON bool) error {
	h, err := reach(cmd)
	if err != nil {
		return err
	}
	defer h.Close()
	seen, err := h.Inspect(cmd.Context(), look)
	if err != nil {
		return answerOf(err)
	}
	out := cmd.OutOrStdout()
	switch {
	case asJSON:
		err = render.JSON(out, seen)
	case render.PageOf(out).Cut:
		err = writeMail(out, seen.Text)
	default:
		_, err = out.Write(seen.Text)
	}
	if err != nil {
		return &exitError{exitCannotTell, err}
	}
	return nil
}

// writeMail shows a stranger's text on a terminal: its lines stay lines, and
// nothing in it moves the cursor.
func writeMail(w io.Writer, text []byte) error {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		b.WriteString(render.Escape(strings.ReplaceAll(line, "\t", "        ")))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
