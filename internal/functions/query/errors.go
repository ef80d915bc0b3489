package query

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/orderdb"
)

// maxCauseBytes of an error are told: it may quote what it is about.
const maxCauseBytes = 4 << 10

// nameBusy is the error of a call that is being made already, by an attempt that its caller has given up. Whoever runs state machines
// makes it again.
const nameBusy = "Weir.CallInProgress"

// failure is an error that a state machine catches by its name: those of the Data API, with the prefix that the SDK integration of
// Step Functions gives them.
type failure struct {
	Name  string `json:"error"`
	Cause string `json:"cause"`
}

func (f *failure) Error() string { return f.Name + ": " + f.Cause }

func badRequest(format string, args ...any) error {
	return &failure{"RdsData.BadRequestException", fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return &failure{"RdsData.UnsupportedResultException", fmt.Sprintf(format, args...)}
}

// sorted is the error of a call, as a failure if it is the statement's own and not the database's, which is away. Unlike the other
// samples' statements, which don't change, it may be what is wrong with the schema.
func sorted(err error, c *call, standby bool) error {
	if _, ok := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err); ok {
		return tooLarge()
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pg.SeverityUnlocalized == "FATAL" { // the connection is over
		return err
	}
	switch {
	case pg.Code == "57014": // query_canceled
		return &failure{"RdsData.StatementTimeoutException", fmt.Sprintf("the statement did not end within %v, or was cancelled: %s", StatementTimeout, pg.Message)}
	case pg.Code == "25006" && standby: // read_only_sql_transaction
		return errStandby
	case strings.HasPrefix(pg.Code, "40"), pg.Code == "53100", pg.Code == "53300": // deadlocks and the like, disk_full, too_many_connections
		return err
	case strings.HasPrefix(pg.Code, "08"), strings.HasPrefix(pg.Code, "57P"), strings.HasPrefix(pg.Code, "58"): // connections, shutdown, I/O
		return err
	case pg.Code == "42601" && c.several:
		return badRequest("Multistatements aren't supported: Sql is one statement")
	}
	cause := "ERROR: " + pg.Message
	if pg.Detail != "" {
		cause += "; Detail: " + pg.Detail
	}
	if pg.Hint != "" {
		cause += "; Hint: " + pg.Hint
	}
	if len(cause) > maxCauseBytes {
		cause = strings.ToValidUTF8(cause[:maxCauseBytes], "") + " …"
	}
	return &failure{"RdsData.DatabaseErrorException", cause + "; SQLState: " + pg.Code}
}

// refuse answers with an error, and returns its status.
func refuse(w http.ResponseWriter, err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.write(w, http.StatusBadRequest)
	}
	if errors.Is(err, errBusy) { // no "not now", which would be about all calls
		return (&failure{nameBusy, "the call is being made already; make it again later"}).write(w, http.StatusConflict)
	}
	if errors.Is(err, errStandby) || orderdb.Unavailable(err) {
		p := function.ProblemOf(function.NotNow(function.WithDetail(err, "The database can't take the call now; make it again."), RetryAfter))
		p.Write(w)
		return p.Status
	}
	return (&failure{"RdsData.InternalServerErrorException", "the function failed; its log says why"}).write(w, http.StatusInternalServerError)
}

func (f *failure) write(w http.ResponseWriter, status int) int {
	body, err := json.Marshal(f)
	if err != nil {
		panic(fmt.Sprintf("query: two texts always marshal: %v", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller has gone: nobody is left to tell
	return status
}
