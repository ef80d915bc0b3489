package invoke_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestRoomForLargeAnswers: it is asked for once for an answer past SmallAnswer; without it the call counts no attempt.
func TestRoomForLargeAnswers(t *testing.T) {
	var text string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(text))
	}))
	defer srv.Close()
	caller := invoke.NewCaller(1, telemetry.Providers{})
	defer caller.Close()
	for _, row := range []struct {
		bytes, asked int
		err          error
		want         invoke.Class
	}{
		{invoke.SmallAnswer - 1, 0, nil, invoke.Done},
		{invoke.SmallAnswer + 1, 1, nil, invoke.Done},
		{10 * invoke.SmallAnswer, 1, nil, invoke.Done},
		{10 * invoke.SmallAnswer, 1, &invoke.TroubleError{Class: invoke.NotNow, Err: errors.New("no room")}, invoke.NotNow},
	} {
		text = strings.Repeat("x", row.bytes)
		asked := 0
		o, a := caller.Ask(t.Context(), invoke.Question{
			URL: srv.URL, Record: &record.Record{Body: []byte("{}")}, Timeout: testkit.Patience, Limit: 1 << 20,
			Room: func(context.Context) error { asked++; return row.err },
		})
		if o.Class != row.want || asked != row.asked || row.want == invoke.Done && string(a.Body) != text {
			t.Errorf("%d bytes: %s, asked %d times, %d bytes", row.bytes, o.Class, asked, len(a.Body))
		}
	}
}
