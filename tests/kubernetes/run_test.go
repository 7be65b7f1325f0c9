package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// How long anything may take that happens at all.
const timeout = 60 * time.Second

// Containers that run as processes of this machine, with what was rendered: only addresses and paths are others.
type machine struct {
	t   *testing.T
	dir string
	// `host:port` of the pods' network, and what stands for it here.
	addresses map[string]string
	replaces  *strings.Replacer
	running   []*process
	// A reader's, once there is a Secret.
	token string
}

type process struct {
	pod
	container corev1.Container
	command   *exec.Cmd
	log       *os.File
	ended     chan struct{}
}

func newMachine(t *testing.T, all *objects) *machine {
	// Not t.TempDir(), whose name is too long for that of a socket in it.
	dir, err := os.MkdirTemp("", "pods")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &machine{t: t, dir: dir, addresses: map[string]string{}}
	var pairs []string
	for _, set := range all.sets {
		for _, p := range all.pods(set) {
			for _, port := range set.Spec.Template.Spec.Containers[0].Ports {
				here := freePort(t)
				m.addresses[fmt.Sprintf("%s:%d", p.name, port.ContainerPort)] = here
				short := fmt.Sprintf("%s.%s", p.name, set.Spec.ServiceName)
				for _, name := range []string{short + "." + namespace + ".svc", short} {
					pairs = append(pairs, fmt.Sprintf("%s:%d", name, port.ContainerPort), here)
				}
			}
		}
	}
	m.replaces = strings.NewReplacer(pairs...)
	t.Cleanup(m.stop)
	return m
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// What stands for this value in a container here.
func (m *machine) here(p pod, c corev1.Container, value string) string {
	value = m.replaces.Replace(value)
	for _, port := range p.spec.Containers[0].Ports {
		_, number, _ := net.SplitHostPort(m.addresses[fmt.Sprintf("%s:%d", p.name, port.ContainerPort)])
		value = strings.ReplaceAll(value, fmt.Sprintf("0.0.0.0:%d", port.ContainerPort), "0.0.0.0:"+number)
	}
	for _, mount := range c.VolumeMounts {
		value = strings.ReplaceAll(value, mount.MountPath+"/", m.volume(p, mount.Name)+"/")
	}
	return value
}

// A Secret is the same for all pods, any other volume each pod's own.
func (m *machine) volume(p pod, name string) string {
	if name == "tls" {
		return filepath.Join(m.dir, name)
	}
	dir := filepath.Join(m.dir, p.name, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		m.t.Fatal(err)
	}
	return dir
}

func (m *machine) start(p pod, c corev1.Container) *process {
	m.t.Helper()
	env, err := p.environment(c)
	if err != nil {
		m.t.Fatal(err)
	}
	program := metad()
	if len(c.Command) > 0 { // an image's own entry point is metad
		if program, err = exec.LookPath(filepath.Base(c.Command[0])); err != nil {
			m.t.Fatal(err)
		}
	}
	command := inNamespace(program)
	for _, arg := range c.Args {
		command.Args = append(command.Args, m.here(p, c, arg))
	}
	for _, v := range env {
		command.Env = append(command.Env, v.name+"="+m.here(p, c, v.value))
	}
	command.Dir = m.dir
	log, err := os.OpenFile(filepath.Join(m.dir, p.name+"-"+c.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	command.Stdout, command.Stderr = log, log
	started := &process{p, c, command, log, make(chan struct{})}
	if err := command.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() {
		_ = command.Wait()
		close(started.ended)
	}()
	m.running = append(m.running, started)
	return started
}

// As process 1 of its own, which metad has to be to tell the guardian beside it of itself.
func inNamespace(program string) *exec.Cmd {
	command := exec.Command("/bin/sh", "-c", `/bin/mount -t proc proc /proc && exec "$@"`, "sh", program)
	command.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:    syscall.SIGKILL,
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS,
	}
	if os.Getuid() != 0 {
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return command
}

func (m *machine) stop() {
	for _, p := range m.running {
		_ = p.command.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range m.running {
		select {
		case <-p.ended:
		case <-time.After(timeout):
			_ = p.command.Process.Kill()
			m.t.Errorf("%s, container %s, does not end", p.name, p.container.Name)
		}
		if m.t.Failed() && p.container.Name != "etcd" {
			said, _ := os.ReadFile(p.log.Name())
			m.t.Logf("== %s, container %s\n%s", p.name, p.container.Name, said[max(0, len(said)-4000):])
		}
		p.log.Close()
	}
}

// Asks as the kubelet does: it verifies no certificate, shows none, keeps no connection, and is content with 200 to 399.
func (m *machine) probe(p *process, probe *corev1.Probe) error {
	scheme := strings.ToLower(string(probe.HTTPGet.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	code, said, err := m.get(p, scheme, probe.HTTPGet.Port.StrVal, probe.HTTPGet.Path, "")
	if err == nil && (code < 200 || code >= 400) {
		err = fmt.Errorf("%s: %d %s", probe.HTTPGet.Path, code, said)
	}
	return err
}

func (m *machine) get(p *process, scheme, port, path, token string) (int, string, error) {
	number, ok := named(p.container, port)
	if !ok {
		return 0, "", fmt.Errorf("no port %s", port)
	}
	url := fmt.Sprintf("%s://%s%s", scheme, m.addresses[fmt.Sprintf("%s:%d", p.name, number)], path)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	request.Header = http.Header{"User-Agent": {"kube-probe/1.34"}, "Accept": {"*/*"}}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
		ForceAttemptHTTP2: true,
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return answer.StatusCode, string(said), err
}

func (m *machine) until(what string, is func() error) {
	m.t.Helper()
	var err error
	for end := time.Now().Add(timeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = is(); err == nil {
			return
		}
		if m.t.Failed() {
			break
		}
	}
	m.t.Fatalf("not in time: %s: %v", what, err)
}

// Starts a set's pods, and waits until the kubelet would call them ready.
func (m *machine) startSet(all *objects, name string) []*process {
	var mains []*process
	for _, p := range all.pods(all.set(name)) {
		for _, c := range p.containers() {
			started := m.start(p, c)
			if c.Name == name {
				mains = append(mains, started)
			}
		}
	}
	for _, main := range mains {
		for _, kind := range []string{"startup", "readiness", "liveness"} {
			if probe := probesOf(main.container)[kind]; probe != nil {
				m.until(main.name+": "+kind, func() error { return m.probe(main, probe) })
			}
		}
	}
	return mains
}

// The arguments of metad in src/docs/deploy.md that make what belongs into the Secret of the component tls.
func certificates(folder, namespace string) [][]string {
	return [][]string{
		{"tls", "init", folder, "--members", "metad-0,metad-1,metad-2", "--hosts", "*.metad." + namespace + ".svc"},
		{"token", "--role", "reader", "--name", "prometheus", "--token-file", "prometheus.token"},
	}
}

// Makes the Secret, and a reader's token.
func (m *machine) makeSecret() {
	made, token, access := filepath.Join(m.dir, "certs"), filepath.Join(m.dir, "prometheus.token"), ""
	for _, args := range certificates(made, namespace) {
		command := exec.Command(metad(), args...)
		command.Dir = m.dir
		said, err := command.CombinedOutput()
		if err != nil {
			m.t.Fatalf("%v: %s", args, said)
		}
		access = string(said)
	}
	secret := filepath.Join(m.dir, "tls")
	if err := os.Mkdir(secret, 0o755); err != nil {
		m.t.Fatal(err)
	}
	files := []string{"ca.pem", "metad-0.pem", "metad-0.key", "metad-1.pem", "metad-1.key", "metad-2.pem", "metad-2.key"}
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(made, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(secret, name), content, 0o440)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	m.verifyNames(filepath.Join(secret, "metad-2.pem"))
	if err := os.WriteFile(filepath.Join(secret, "access"), []byte(access), 0o440); err != nil {
		m.t.Fatal(err)
	}
	content, err := os.ReadFile(token)
	if err != nil {
		m.t.Fatal(err)
	}
	m.token = strings.TrimSpace(string(content))
}

// The certificate is good for the name under which the other pods know this one.
func (m *machine) verifyNames(file string) {
	m.t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := certificate.VerifyHostname("metad-2.metad." + namespace + ".svc"); err != nil {
		m.t.Error(err)
	}
}

// Those who say that their main loop runs.
func (m *machine) leaders(nodes []*process, scheme string) []*process {
	var leaders []*process
	for _, node := range nodes {
		if code, _, err := m.get(node, scheme, "http", "/leader", m.token); err == nil && code == http.StatusOK {
			leaders = append(leaders, node)
		}
	}
	return leaders
}

func TestTheRenderedPodsElectAndAnswerTheKubelet(t *testing.T) {
	for _, o := range overlays {
		if o.folder == "three-nodes" {
			continue // with-etcd is the same with an etcd
		}
		t.Run(o.String(), func(t *testing.T) {
			t.Parallel()
			all, err := decode(o.render(t))
			if err != nil {
				t.Fatal(err)
			}
			m := newMachine(t, all)
			scheme := "http"
			if o.tls {
				scheme = "https"
				m.makeSecret()
			}
			if all.set("etcd") != nil {
				m.startSet(all, "etcd")
			}
			nodes := m.startSet(all, "metad")
			first := m.oneLeads(nodes, scheme)
			m.status(first)
			m.strangers(first, scheme)
			nodes = m.deleted(first, nodes, scheme)
			m.killed(m.oneLeads(nodes, scheme), nodes, scheme)
		})
	}
}

func (m *machine) oneLeads(nodes []*process, scheme string) *process {
	m.t.Helper()
	var leaders []*process
	m.until("one leads", func() error {
		if leaders = m.leaders(nodes, scheme); len(leaders) != 1 {
			return fmt.Errorf("%d lead", len(leaders))
		}
		return nil
	})
	m.t.Logf("%s leads", leaders[0].name)
	return leaders[0]
}

// `kubectl exec POD -- /metad status`: with the environment of the node, and as itself.
func (m *machine) status(node *process) {
	m.t.Helper()
	command := exec.Command(metad(), "status", "--meta", m.addresses[node.name+":5690"])
	command.Env, command.Dir = node.command.Env, m.dir
	if said, err := command.CombinedOutput(); err != nil || !bytes.Contains(said, []byte(node.name)) {
		m.t.Errorf("metad status: %v\n%s", err, said)
	}
}

// With TLS nobody sees anything without a token; what the probes ask for needs none.
func (m *machine) strangers(node *process, scheme string) {
	m.t.Helper()
	want := map[bool]int{true: http.StatusUnauthorized, false: http.StatusOK}[m.token != ""]
	for _, path := range []string{"/metrics", "/api/v1/state"} {
		if code, said, err := m.get(node, scheme, "http", path, ""); err != nil || code != want {
			m.t.Errorf("%s without a token: %d %s %v", path, code, said, err)
		}
		if code, said, err := m.get(node, scheme, "http", path, m.token); err != nil || code != http.StatusOK {
			m.t.Errorf("%s with a token: %d %s %v", path, code, said, err)
		}
	}
	if m.token == "" {
		return
	}
	if code, said, err := m.get(node, "http", "http", "/livez", ""); err == nil && code < 400 {
		m.t.Errorf("plain text: %d %s", code, said)
	}
}

// As when a pod is deleted: SIGTERM. The node hands over, and takes part again when it is there again.
func (m *machine) deleted(leader *process, nodes []*process, scheme string) []*process {
	m.t.Helper()
	_ = leader.command.Process.Signal(syscall.SIGTERM)
	m.waitEnd(leader)
	if code := leader.command.ProcessState.ExitCode(); code != 0 {
		m.t.Errorf("%s ended with %d", leader.name, code)
	}
	return m.restart(leader, nodes, scheme)
}

// As when a container is killed as a whole: the guardian beside it revokes the lease.
func (m *machine) killed(leader *process, nodes []*process, scheme string) {
	m.t.Helper()
	_ = leader.command.Process.Kill()
	m.waitEnd(leader)
	m.restart(leader, nodes, scheme)
	for _, p := range m.running {
		if p.container.Name == "guardian" && p.name == leader.name {
			if said, _ := os.ReadFile(p.log.Name()); !bytes.Contains(said, []byte("revoking its lease")) {
				m.t.Errorf("the guardian of %s did not notice", leader.name)
			}
		}
	}
}

func (m *machine) waitEnd(p *process) {
	m.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(timeout):
		m.t.Fatalf("%s does not end", p.name)
	}
}

// One of the others leads, if there are others; then this one is started again, and is ready.
func (m *machine) restart(ended *process, nodes []*process, scheme string) []*process {
	m.t.Helper()
	var all []*process
	for _, node := range nodes {
		if node != ended {
			all = append(all, node)
		}
	}
	if len(all) > 0 {
		m.oneLeads(all, scheme)
	}
	again := m.start(ended.pod, ended.container)
	m.until("it is back", func() error { return m.probe(again, again.container.ReadinessProbe) })
	all = append(all, again)
	m.oneLeads(all, scheme)
	return all
}
