package smtptest

// Transaction is what the server said to one mail transaction. Replies after
// the one that ended it are zero.
type Transaction struct {
	Mail  Reply
	Rcpts []Reply // one for each recipient, in order
	Data  Reply   // the answer to the message, or to DATA if that was refused
}

// Accepted tells whether the message was taken for at least one recipient.
func (t Transaction) Accepted() bool { return t.Data.Code == 250 }

// Refusal is the first negative reply, zero if there is none.
func (t Transaction) Refusal() Reply {
	for _, reply := range append(append([]Reply{t.Mail}, t.Rcpts...), t.Data) {
		if reply.Code >= 400 {
			return reply
		}
	}
	return Reply{}
}

// Send runs one transaction in an open session: MAIL, all RCPTs, DATA. With
// no recipient accepted it says RSET instead of DATA, as mail programs do.
func (c *Client) Send(from string, to []string, message string) (Transaction, error) {
	var t Transaction
	var err error
	if t.Mail, err = c.Mail(from); err != nil {
		return t, err
	}
	if !t.Mail.Positive() {
		return t, nil
	}
	accepted := 0
	for _, address := range to {
		reply, err := c.Rcpt(address)
		if err != nil {
			return t, err
		}
		t.Rcpts = append(t.Rcpts, reply)
		if reply.Positive() {
			accepted++
		}
	}
	if accepted == 0 {
		_, err := c.Rset()
		return t, err
	}
	t.Data, err = c.Data(message)
	return t, err
}
