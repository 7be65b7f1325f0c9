// Renders the Kubernetes manifests with Kustomize, decodes them with the API's own types, and runs their pods' processes
// on this machine, with the real metad and the real etcd. `make kubernetes` does it all.
package kubernetes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The binary that is tried; `make kubernetes` builds it.
func metad() string {
	if path := os.Getenv("METAD"); path != "" {
		return path
	}
	path, _ := filepath.Abs("../../target/debug/metad")
	return path
}

func TestEveryOverlayIsValidAndFitsTogether(t *testing.T) {
	for _, overlay := range overlays {
		t.Run(overlay.String(), func(t *testing.T) {
			all, err := decode(overlay.render(t))
			if err != nil {
				t.Fatal(err)
			}
			for _, fault := range check(all) {
				t.Error(fault)
			}
			replicas := map[bool]int32{true: 1, false: 3}[overlay.folder == "single-node"]
			if got := *all.set("metad").Spec.Replicas; got != replicas {
				t.Errorf("%d replicas", got)
			}
			t.Logf("%d sets, %d services, %d policies, %d budgets", len(all.sets), len(all.services), len(all.policies), len(all.budgets))
		})
	}
}

// What `kubectl apply -k` applies, without a kustomization of one's own.
func TestEachFolderRendersByItself(t *testing.T) {
	for _, folder := range []string{"single-node", "three-nodes", "with-etcd"} {
		all, err := decode(build(t, filepath.Join(manifests, folder)))
		if err != nil {
			t.Fatalf("%s: %v", folder, err)
		}
		for _, fault := range check(all) {
			t.Errorf("%s: %s", folder, fault)
		}
	}
}

// The kustomization.yaml of the documentation, applied to this checkout.
func TestTheKustomizationOfTheDocumentationFits(t *testing.T) {
	page, err := os.ReadFile("../../src/docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\nnamespace: meta\n")
	block, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("src/docs/deploy.md has none")
	}
	folder, base := place(t)
	shown := "namespace: " + namespace + "\n" + strings.ReplaceAll(block, "metad/config/kubernetes", base)
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(shown), 0o644); err != nil {
		t.Fatal(err)
	}
	text := build(t, folder)
	all, err := decode(strings.ReplaceAll(text, "image: registry.example.com/", "image: "))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range check(all) {
		t.Error(fault)
	}
	for _, part := range []string{"image: registry.example.com/metad:0.1.0", "http://e1.example.com:2379", "scheme: HTTPS"} {
		if !strings.Contains(text, part) {
			t.Errorf("without %s:\n%s", part, text)
		}
	}
	for _, command := range certificates("certs", "meta") {
		if !strings.Contains(string(page), strings.ReplaceAll(strings.Join(command, " "), "*.metad.meta.svc", "'*.metad.meta.svc'")) {
			t.Errorf("src/docs/deploy.md lacks metad %v", command)
		}
	}
}

// Every check is seen to fail: `from` is replaced in what was rendered, and `says` is the fault.
func TestEachFaultIsNoticed(t *testing.T) {
	whole := overlay{"with-etcd", true}.render(t)
	open := overlay{"with-etcd", false}.render(t)
	for _, m := range []struct{ name, text, from, to, says string }{
		{"a field that does not exist", whole, "podManagementPolicy:", "podManagement:", "unknown field"},
		{"a kind that is not expected", whole, "kind: PodDisruptionBudget", "kind: Budget", "not expected"},
		{"a template without a label of the selector", whole, "app.kubernetes.io/component: meta\n        app.kubernetes.io/instance: metad\n        app.kubernetes.io/name: metad\n    spec:", "app.kubernetes.io/instance: metad\n        app.kubernetes.io/name: other\n    spec:", "selects 0 sets"},
		{"a service for another app", whole, "  selector:\n    app.kubernetes.io/instance: metad\n    app.kubernetes.io/name: metad", "  selector:\n    app.kubernetes.io/name: other", "Service metad: its selector"},
		{"a service that does not exist", whole, "serviceName: metad", "serviceName: meta", "no headless Service meta"},
		{"a service's port", whole, "targetPort: grpc", "targetPort: rpc", "no port rpc"},
		{"a policy's port", whole, "- port: http\n", "- port: web\n", "no port web"},
		{"no way to etcd", whole, "port: 2379\n      protocol: TCP\n  ingress", "port: 2380\n      protocol: TCP\n  ingress", "lets no node go"},
		{"an etcd that is not there", whole, "http://etcd-2.etcd:2379", "http://etcd-3.etcd:2379", "is no pod of"},
		{"a probe's port", whole, "path: /livez\n            port: http\n", "path: /livez\n            port: web\n", "there is no port web"},
		{"a probe's scheme", whole, "scheme: HTTPS", "scheme: HTTP", "its scheme is"},
		{"readiness by leadership", whole, "path: /readyz", "path: /leader", "asks for /leader"},
		{"a mount without a volume", whole, "mountPath: /etc/metad/tls\n          name: tls", "mountPath: /etc/metad/tls\n          name: certs", "no volume certs"},
		{"a key that metad does not know", whole, "METAD_NODE__DATA_DIR_EXCLUSIVE", "METAD_NODE__EXCLUSIVE", "unknown key"},
		{"a value that metad refuses", whole, "METAD_META__META_LEADER_LEASE_SECS: \"15\"", "METAD_META__META_LEADER_LEASE_SECS: \"1\"", "metad config check"},
		{"a reference to what comes later", whole, "- name: METAD_NODE__ADVERTISE_ADDR\n          value: $(METAD_NODE__ID)", "- name: METAD_NODE__ADVERTISE_ADDR\n          value: $(METAD_TLS__CA_FILE)", "is not set before it"},
		{"a config map that is not there", whole, "kind: ConfigMap\nmetadata:\n  name: metad", "kind: ConfigMap\nmetadata:\n  name: other", "no ConfigMap metad"},
		{"another port than the container's", whole, "value: 0.0.0.0:5690", "value: 0.0.0.0:5790", "METAD_RPC__LISTEN_ADDR is"},
		{"an address of another service", whole, ".metad.$(METAD_NODE__CLUSTER)", ".meta.$(METAD_NODE__CLUSTER)", "METAD_NODE__ADVERTISE_ADDR is"},
		{"open without saying so", open, "        - name: METAD_AUTH__INSECURE\n          value: \"true\"\n", "", "auth.insecure"},
		{"open in spite of TLS", whole, "        - name: METAD_RPC__LISTEN_ADDR", "        - name: METAD_AUTH__INSECURE\n          value: \"true\"\n        - name: METAD_RPC__LISTEN_ADDR", "has no effect"},
		{"another socket than the guardian's", whole, "value: /run/metad/guardian.sock", "value: /run/metad/other.sock", "METAD_NODE__GUARDIAN_SOCKET is"},
		{"a guardian that is waited for", whole, "        restartPolicy: Always\n", "", "would wait"},
		{"a volume of many pods", whole, "- ReadWriteOncePod", "- ReadWriteOnce", "ReadWriteOncePod: false"},
		{"a data dir that is not kept", whole, "value: /data/metad", "value: /tmp/metad", "not a folder on a claimed volume"},
		{"a secret for everybody", whole, "defaultMode: 288", "defaultMode: 292", "not for the pod's group alone"},
		{"a secret that can be written", whole, "name: tls\n          readOnly: true", "name: tls", "can be written"},
		{"a certificate elsewhere", whole, "value: /etc/metad/tls/ca.pem", "value: /etc/ssl/ca.pem", "where no Secret is mounted"},
		{"too little time to stop", whole, "terminationGracePeriodSeconds: 30", "terminationGracePeriodSeconds: 10", "is 10, below"},
		{"a process that may gain rights", whole, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "restricted:"},
		{"a root that can be written", whole, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "its root can be written"},
	} {
		t.Run(m.name, func(t *testing.T) {
			if !strings.Contains(m.text, m.from) {
				t.Fatalf("%q is not there:\n%s", m.from, m.text)
			}
			all, err := decode(strings.ReplaceAll(m.text, m.from, m.to))
			var faults []string
			if err != nil {
				faults = append(faults, err.Error())
			} else {
				faults = check(all)
			}
			if !strings.Contains(strings.Join(faults, "\n"), m.says) {
				t.Fatalf("not %q, but %q", m.says, faults)
			}
		})
	}
}
