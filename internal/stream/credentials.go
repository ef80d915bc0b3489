package stream

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/weir-dev/weir/internal/secret"
)

// Validate reports settings that contradict each other.
func (c *Config) Validate() error {
	if (c.User == "") != (c.PasswordFile == "") {
		return errors.New("stream: a user of NATS needs the file of its password, and the other way round: give both or neither")
	}
	if c.User == "" {
		return nil
	}
	for part := range strings.SplitSeq(c.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(part)); err == nil && u.User != nil {
			return fmt.Errorf("stream: the URL of NATS (host %s) holds credentials, and user %s is given besides: leave one of them out", u.Host, c.User)
		}
	}
	return nil
}

// credentials are the options of TLS and of the user. The files have to be there now, and they are read again each
// time a connection is made, so that a rotated password or CA needs no restart.
func (c *Conn) credentials(cfg Config) ([]nats.Option, error) {
	var opts []nats.Option
	if cfg.User != "" {
		read := secret.File(cfg.PasswordFile)
		if _, err := read(c.life); err != nil {
			return nil, fmt.Errorf("the password of user %s of NATS: %w", cfg.User, err)
		}
		opts = append(opts, nats.UserInfoHandler(func() (string, string) {
			password, err := read(c.life)
			if err != nil { // the server refuses the connection, and it is tried again
				c.trouble.Warn("the password of NATS can't be read", err)
			}
			return cfg.User, string(password)
		}))
	}
	if cfg.CAFile != "" {
		opts = append(opts, nats.RootCAs(cfg.CAFile)) // reads it each time; TLS is asked for with it
	}
	return opts, nil
}
