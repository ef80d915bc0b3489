package orderdb

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/weir-dev/weir/internal/telemetry"
)

const (
	// DefaultMaxConns is small on purpose: a function instance needs as many connections as it
	// answers calls at once, and there are many instances.
	DefaultMaxConns = 4
	maxMaxConns     = 1000

	// QueueTimeout is the query_wait_timeout of the PgBouncer of weir local and of the chart: TestTimeoutsFit.
	QueueTimeout = 3 * time.Second
	// Margin is what CallTimeout needs beyond waiting in PgBouncer and the statement: acquireMargin for a connection of
	// this instance, answerMargin until the server's or PgBouncer's last word has come. PgBouncer looks at its queue
	// three times a second.
	Margin        = acquireMargin + answerMargin
	acquireMargin = time.Second
	answerMargin  = time.Second

	connectTimeout  = 5 * time.Second
	maxConnLifetime = 30 * time.Minute // after a rotation the old credentials are gone by then
	maxConnIdleTime = 5 * time.Minute
)

// Config says how to reach the database.
type Config struct {
	URLFile  string // a file with the connection string, through PgBouncer
	MaxConns int32  // connections of this instance, at most

	StatementTimeout time.Duration // of one statement, enforced by the server
	// QueueTimeout is PgBouncer's query_wait_timeout, or longer; 0 means the constant.
	QueueTimeout time.Duration
	// CallTimeout bounds waiting for a connection, the statement and its answer. At least QueueTimeout +
	// StatementTimeout + Margin, and shorter than the function's caller waits.
	CallTimeout time.Duration

	// MaxMessageBytes bounds what the server may send at once, such as a row; 0 means no bound. A connection that is sent
	// more is closed.
	MaxMessageBytes int

	// Name is the pool's in metrics, whose pools must have different ones: the function's.
	Name string
	// Telemetry makes its instruments; the zero value means OpenTelemetry's global providers, which function.Serve sets.
	Telemetry telemetry.Providers

	SecretTTL time.Duration // how long the connection string is kept; 0 means secret.DefaultTTL
	Log       *slog.Logger  // nil means slog.Default()
}

// ConfigFromEnv reads DATABASE_URL_FILE and DATABASE_MAX_CONNS. The timeouts are the caller's.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	cfg := Config{URLFile: getenv("DATABASE_URL_FILE"), MaxConns: DefaultMaxConns}
	if cfg.URLFile == "" {
		return Config{}, errors.New("DATABASE_URL_FILE is not set: it is the path of a file with the connection string, such as a mounted Secret's key")
	}
	if s := getenv("DATABASE_MAX_CONNS"); s != "" {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil || n < 1 || n > maxMaxConns {
			return Config{}, fmt.Errorf("DATABASE_MAX_CONNS is %q: use a number from 1 to %d, or leave it out for %d", s, maxMaxConns, DefaultMaxConns)
		}
		cfg.MaxConns = int32(n)
	}
	return cfg, nil
}

// Validate names the field that is wrong.
func (c Config) Validate() error {
	switch {
	case c.URLFile == "":
		return errors.New("orderdb: URLFile is empty")
	case c.MaxConns < 1 || c.MaxConns > maxMaxConns:
		return fmt.Errorf("orderdb: MaxConns is %d; use 1 to %d", c.MaxConns, maxMaxConns)
	case c.StatementTimeout < time.Millisecond:
		return fmt.Errorf("orderdb: StatementTimeout is %v; use at least 1ms", c.StatementTimeout)
	case c.QueueTimeout < 0:
		return fmt.Errorf("orderdb: QueueTimeout is %v; use PgBouncer's query_wait_timeout, or 0 for %v", c.QueueTimeout, QueueTimeout)
	case c.acquireTimeout() < acquireMargin:
		return fmt.Errorf("orderdb: CallTimeout %v must be at least QueueTimeout %v + StatementTimeout %v + %v: a call that gives up before PgBouncer and the server do costs the database a connection",
			c.CallTimeout, c.queueTimeout(), c.StatementTimeout, Margin)
	}
	return nil
}

func (c Config) queueTimeout() time.Duration { return cmp.Or(c.QueueTimeout, QueueTimeout) }

// acquireTimeout is how long a call may wait for a connection of this instance, so that its statement has the rest of
// CallTimeout to itself.
func (c Config) acquireTimeout() time.Duration {
	return c.CallTimeout - c.queueTimeout() - c.StatementTimeout - answerMargin
}

// parseURL reads a connection string. Unless it says otherwise (default_query_exec_mode=…) nothing
// is prepared: PgBouncer knows prepared statements in transaction mode from 1.21 on, and Debian's is
// 1.18. pgx's own default would prepare on one server and execute on another.
func parseURL(s string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(s)
	if err != nil {
		// pgx redacts the password as well as it can, which a malformed string may defeat.
		return nil, errors.New("the database's connection string cannot be parsed; it must be like postgres://user:password@host:port/database")
	}
	plain, err := pgconn.ParseConfig(s)
	if err != nil {
		return nil, errors.New("the database's connection string cannot be parsed")
	}
	if _, chosen := plain.RuntimeParams["default_query_exec_mode"]; !chosen {
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	return cfg, nil
}
