package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
)

// As many clients as a node lets in, each of which has asked once, fit into the container's memory beside all else.
func TestTheMemoryLimitFitsTheLimitOfConnections(t *testing.T) {
	all, err := decode(overlay{"single-node", true}.render(t))
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, all)
	m.makeSecret()
	node := m.startSet(all, "metad")[0]
	env, err := node.environment(node.container)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(lookup(env, "METAD_RPC__MAX_CONNECTIONS"))
	if err != nil {
		t.Fatal(err)
	}
	before := m.memory(node.command.Process.Pid)
	hangUp := m.connect(node, n)
	defer hangUp()
	after, limit := m.memory(node.command.Process.Pid), node.container.Resources.Limits.Memory().Value()
	t.Logf("%d MiB, with %d connections %d MiB; the limit is %d MiB", before>>20, n, after>>20, limit>>20)
	// What is being read and what is being sent take 64 MiB each at most, on top.
	if after+128<<20 > limit {
		t.Errorf("%d MiB and 128 MiB are above the limit", after>>20)
	}
	if code, said, err := m.get(node, "https", "http", "/metrics", m.token); err != nil || !strings.Contains(said, fmt.Sprintf("metad_connections{listener=\"grpc\"} %d\n", n)) {
		t.Errorf("not all are open: %d %v", code, err)
	}
}

// Opens connections, each of which has made a call.
func (m *machine) connect(node *process, n int) (hangUp func()) {
	m.t.Helper()
	var lock sync.Mutex
	var open []*http.Transport
	var group errgroup.Group
	group.SetLimit(32)
	for range n {
		group.Go(func() error {
			transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
			lock.Lock()
			open = append(open, transport)
			lock.Unlock()
			return m.call(node, transport)
		})
	}
	if err := group.Wait(); err != nil {
		m.t.Fatal(err)
	}
	return func() {
		for _, transport := range open {
			transport.CloseIdleConnections()
		}
	}
}

func (m *machine) call(node *process, transport *http.Transport) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	url := "https://" + m.addresses[node.name+":5690"] + "/grpc.health.v1.Health/Check"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(make([]byte, 5)))
	if err != nil {
		return err
	}
	request.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if status := answer.Trailer.Get("Grpc-Status"); status != "0" {
		return fmt.Errorf("grpc-status %q", status)
	}
	return nil
}

// The bytes that a process and its descendants hold.
func (m *machine) memory(pid int) int64 {
	m.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		m.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		m.t.Fatal(err)
	}
	all := kilobytes << 10
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		children, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(child); err == nil {
				all += m.memory(n)
			}
		}
	}
	return all
}
