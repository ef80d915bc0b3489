package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// peer is what Weir's push is compared with. test/load/peers pins its version.
const peer = "github.com/centrifugal/centrifugo/v6"

// buildPeer builds Centrifugo, once a run, and reports whether it is there. Without it the rest is measured.
func (b *bench) buildPeer(ctx context.Context) bool {
	if b.peer != nil {
		return *b.peer
	}
	built := b.buildOther(ctx, "centrifugo", "", peer)
	b.peer = &built
	return built
}

// buildOther builds a program of test/load/peers, or of the module in a folder there, and reports whether it is there.
func (b *bench) buildOther(ctx context.Context, name, module, path string) bool {
	b.say("building %s (the first time takes minutes)", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(b.bin, name), path)
	cmd.Dir = filepath.Join(b.root, "test", "load", "peers", module)
	out, err := cmd.CombinedOutput()
	built := err == nil
	b.results.machine[name] = built
	if !built {
		b.say("%s IS LEFT OUT, it can't be built: %v\n%s", strings.ToUpper(name), err, out)
	}
	return built
}

// startCentrifugo starts two nodes with their defaults, but for logs, statistics for its makers and who may do what.
func (b *bench) startCentrifugo(ctx context.Context, natsURL string) ([]server, error) {
	var nodes []server
	for range 2 {
		addr, err := freeAddress(ctx)
		if err != nil {
			return nil, err
		}
		host, text, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		type object = map[string]any
		config, err := json.Marshal(object{
			"http_server": object{"address": host, "port": port},
			"log":         object{"level": "warn"},
			"usage_stats": object{"disabled": true},
			"health":      object{"enabled": true},
			"http_api":    object{"insecure": true},
			"client":      object{"allow_anonymous_connect_without_token": true},
			"channel":     object{"without_namespace": object{"allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true}},
			"broker":      object{"enabled": true, "type": "nats", "nats": object{"url": natsURL}},
		})
		if err != nil {
			return nil, err
		}
		file := b.folder("centrifugo") + ".json"
		if err := os.WriteFile(file, config, 0o600); err != nil {
			return nil, err
		}
		c, err := b.start("centrifugo", filepath.Join(b.bin, "centrifugo"), []string{"--config", file}, nil)
		if err != nil {
			return nil, err
		}
		if err := c.answers(ctx, "http://"+addr+"/health"); err != nil {
			return nil, err
		}
		nodes = append(nodes, server{c, addr})
	}
	return nodes, nil
}

// publish publishes data, which is JSON, in a channel.
func publish(ctx context.Context, client *http.Client, addr, channel string, data []byte) error {
	body, err := json.Marshal(map[string]any{"channel": channel, "data": json.RawMessage(data)})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/api/publish", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || bytes.Contains(answer, []byte(`"error"`)) {
		return fmt.Errorf("publication: %d, %w: %s", resp.StatusCode, err, answer)
	}
	return nil
}
