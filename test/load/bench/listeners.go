package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"sync"
)

// listeners are the processes that hold the connections, half each: one process may often not open as many files.
type listeners struct {
	addrs  []string
	client *http.Client
}

func (b *bench) startListeners(ctx context.Context) (*listeners, error) {
	ls := &listeners{client: &http.Client{Transport: &http.Transport{}}}
	for range 2 {
		_, addr, err := b.self(ctx, "listen", "listen")
		if err != nil {
			return nil, err
		}
		ls.addrs = append(ls.addrs, addr)
	}
	return ls, nil
}

// open opens connections at each of the processes.
func (ls *listeners) open(ctx context.Context, of func(i int) opening) error {
	return ls.each(func(i int, url string) error {
		body, err := json.Marshal(of(i))
		if err != nil {
			return err
		}
		return ls.ask(ctx, http.MethodPost, url+"/open", body, nil)
	})
}

func (ls *listeners) expect(ctx context.Context, group, text string) error {
	return ls.each(func(_ int, url string) error {
		return ls.ask(ctx, http.MethodPost, url+"/expect?group="+group+"&text="+neturl.QueryEscape(text), nil, nil)
	})
}

// seen returns when each connection was told, once all have been.
func (ls *listeners) seen(ctx context.Context, group string) ([]int64, error) {
	at := make([][]int64, len(ls.addrs))
	err := ls.each(func(i int, url string) error {
		return ls.ask(ctx, http.MethodGet, url+"/seen?group="+group, nil, &at[i])
	})
	return append(at[0], at[1]...), err
}

// allOpen returns an error unless n connections are open.
func (ls *listeners) allOpen(ctx context.Context, group string, n int) error {
	lefts := make([]left, len(ls.addrs))
	err := ls.each(func(i int, url string) error {
		return ls.ask(ctx, http.MethodGet, url+"/left?group="+group, nil, &lefts[i])
	})
	for _, l := range lefts {
		n -= l.Open
	}
	if err == nil && n != 0 {
		err = fmt.Errorf("%d connections are missing: %v", n, lefts)
	}
	return err
}

func (ls *listeners) each(f func(i int, url string) error) error {
	errs := make([]error, len(ls.addrs))
	var wg sync.WaitGroup
	for i, addr := range ls.addrs {
		wg.Go(func() { errs[i] = f(i, "http://"+addr) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (ls *listeners) ask(ctx context.Context, method, url string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := ls.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("a listener: %.2000s", text)
	}
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(text, out)
}
