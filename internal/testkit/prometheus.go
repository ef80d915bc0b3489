package testkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// Prometheus is a client of a real one.
type Prometheus struct {
	URL    string
	Client *http.Client
}

// Sample is one of an instant vector.
type Sample struct {
	Metric map[string]string
	Value  float64
}

// Get returns the body of an answer with 200.
func (p Prometheus) Get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := p.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return b, err
}

// Query returns the instant vector that q gives now.
func (p Prometheus) Query(ctx context.Context, q string) (out []Sample, err error) {
	b, err := p.Get(ctx, "/api/v1/query", url.Values{"query": {q}})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  []any // when, and the number as a string
			}
		}
	}
	err = json.Unmarshal(b, &answer)
	for _, s := range answer.Data.Result {
		if len(s.Value) != 2 {
			err = errors.Join(err, fmt.Errorf("%s gives no instant vector", q))
			continue
		}
		text, _ := s.Value[1].(string)
		n, nerr := strconv.ParseFloat(text, 64)
		err = errors.Join(err, nerr)
		out = append(out, Sample{s.Metric, n})
	}
	return out, err
}
