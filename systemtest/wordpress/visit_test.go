package wordpress_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// visitor asks a site by HTTP, as browsers and attackers do. It follows no
// redirection and keeps no cookie.
var visitor = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", ctx.Value(addrKey{}).(string))
		},
		DisableKeepAlives: true,
	},
}

// addrKey is the context's key for where a site listens, whatever its name.
type addrKey struct{}

// post posts a form to a page and returns the status and the page.
func (s *site) post(ctx context.Context, page string, form url.Values) (int, string, error) {
	return s.visit(ctx, http.MethodPost, page, strings.NewReader(form.Encode()))
}

func (s *site) visit(ctx context.Context, method, page string, body io.Reader) (int, string, error) {
	request, err := http.NewRequestWithContext(context.WithValue(ctx, addrKey{}, s.addr), method, "http://"+s.asked+page, body)
	if err != nil {
		return 0, "", err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := visitor.Do(request)
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", s.name, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// share presses the share button of the site's post; false: the site could not
// hand the mail over.
func (s *site) share(ctx context.Context, who friend) (bool, error) {
	status, page, err := s.post(ctx, "/wp-admin/admin-ajax.php", url.Values{
		"action": {"share_by_mail"}, "post": {"1"}, "name": {who.name}, "email": {who.email}, "to": {who.to},
	})
	if err == nil && status != http.StatusOK && status != http.StatusBadGateway {
		err = fmt.Errorf("%s: share to %s: status %d: %s", s.name, who.to, status, page)
	}
	return status == http.StatusOK, err
}

// friend is whose name and address a share goes under, and to whom.
type friend struct{ name, email, to string }

// strangers are n of them, all different; kind keeps them apart from others.
func strangers(kind string, n int) []friend {
	first := []string{"Taro", "花子", "Ana", "Piotr", "Lucía", "健一", "Mehmet", "Chloé", "さくら", "John", "Ольга"}
	last := []string{"Yamada", "佐藤", "Silva", "Kowalski", "García", "Öztürk", "Martin", "Smith", "Иванова"}
	all := make([]friend, n)
	for i := range all {
		name := first[i%len(first)] + " " + last[i/2%len(last)]
		all[i] = friend{name, fmt.Sprintf("someone.%d@visitors-%d.example.org", i, i%13), fmt.Sprintf("%s-%d@d%d.example.net", kind, i, i%17)}
	}
	return all
}

// forgot asks for a new password for one of the customers.
func (s *site) forgot(ctx context.Context, customer string) error {
	status, page, err := s.post(ctx, "/wp-login.php?action=lostpassword", url.Values{"user_login": {customer}, "redirect_to": {""}})
	if err == nil && status != http.StatusFound {
		err = fmt.Errorf("%s: new password for %s: status %d: %s", s.name, customer, status, page)
	}
	return err
}

// contact writes to the site's owner by the form of the front page.
func (s *site) contact(ctx context.Context, text string) error {
	status, page, err := s.post(ctx, "/", url.Values{"contact_form_email": {"visitor@example.org"}, "contact_form_text": {text}})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: contact form: status %d: %s", s.name, status, page)
	}
	return err
}

// cron lets the site do what is due, as a hoster's crontab does.
func (s *site) cron(ctx context.Context) error {
	status, page, err := s.visit(ctx, http.MethodGet, "/wp-cron.php", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: wp-cron: status %d: %s", s.name, status, page)
	}
	return err
}
