package kubernetes

import (
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// What the API server does not check: that the objects fit together, and fit metad.
var checks = []func(*objects) []string{
	selectors, networkPorts, probes, volumes, variables, listeners, sidecars, dataDirs, secrets, stops, restricted,
}

func check(all *objects) []string {
	var faults []string
	for _, one := range checks {
		faults = append(faults, one(all)...)
	}
	return faults
}

// The StatefulSets whose pods a selector selects.
func (all *objects) selected(selector map[string]string) []*appsv1.StatefulSet {
	var found []*appsv1.StatefulSet
	for _, set := range all.sets {
		if len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(set.Spec.Template.Labels)) {
			found = append(found, set)
		}
	}
	return found
}

func matchLabels(selector *metav1.LabelSelector) map[string]string {
	if selector == nil {
		return nil
	}
	return selector.MatchLabels
}

// Each selector selects the pods of the set that has its object's name, and no others.
func selectors(all *objects) []string {
	var faults []string
	one := func(kind, name string, selector map[string]string) {
		found := all.selected(selector)
		if len(found) != 1 || found[0].Name != name {
			faults = append(faults, fmt.Sprintf("%s %s: its selector %v selects %d sets", kind, name, selector, len(found)))
		}
	}
	for _, s := range all.services {
		one("Service", s.Name, s.Spec.Selector)
	}
	for _, b := range all.budgets {
		one("PodDisruptionBudget", b.Name, matchLabels(b.Spec.Selector))
	}
	for _, p := range all.policies {
		one("NetworkPolicy", p.Name, matchLabels(p.Spec.PodSelector.DeepCopy()))
	}
	for _, set := range all.sets {
		one("StatefulSet", set.Name, matchLabels(set.Spec.Selector))
		governs := func(s *corev1.Service) bool { return s.Name == set.Spec.ServiceName && s.Spec.ClusterIP == "None" }
		if !slices.ContainsFunc(all.services, governs) {
			faults = append(faults, fmt.Sprintf("StatefulSet %s: there is no headless Service %s", set.Name, set.Spec.ServiceName))
		}
		for _, term := range set.Spec.Template.Spec.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			one("the anti-affinity of", set.Name, matchLabels(term.PodAffinityTerm.LabelSelector))
		}
	}
	return faults
}

// Has a container of this set the port?
func hasPort(set *appsv1.StatefulSet, port intstr.IntOrString) bool {
	return slices.ContainsFunc(set.Spec.Template.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
			return p.Name == port.StrVal && p.Name != "" || p.ContainerPort == port.IntVal
		})
	})
}

// Services and policies name ports of the pods that they are about, and the store may be reached.
func networkPorts(all *objects) []string {
	var faults []string
	for _, s := range all.services {
		for _, port := range s.Spec.Ports {
			for _, set := range all.selected(s.Spec.Selector) {
				if !hasPort(set, port.TargetPort) {
					faults = append(faults, fmt.Sprintf("Service %s: its pods have no port %s", s.Name, port.TargetPort.String()))
				}
			}
		}
	}
	for _, p := range all.policies {
		for _, rule := range p.Spec.Ingress {
			for _, port := range rule.Ports {
				for _, set := range all.selected(p.Spec.PodSelector.MatchLabels) {
					if !hasPort(set, *port.Port) {
						faults = append(faults, fmt.Sprintf("NetworkPolicy %s: its pods have no port %s", p.Name, port.Port.String()))
					}
				}
			}
		}
		for _, rule := range p.Spec.Egress {
			for _, to := range rule.To {
				for _, set := range all.selected(matchLabels(to.PodSelector)) {
					for _, port := range rule.Ports {
						if !hasPort(set, *port.Port) {
							faults = append(faults, fmt.Sprintf("NetworkPolicy %s: %s has no port %s", p.Name, set.Name, port.Port.String()))
						}
					}
				}
			}
		}
	}
	return append(faults, reachable(all)...)
}

// Every endpoint of etcd is at a port to which the policy lets the nodes go, and one of the set's own etcd is a pod of it.
func reachable(all *objects) []string {
	var faults []string
	eachContainer(all, &faults, func(p pod, c corev1.Container, env []variable) []string {
		var found []string
		for _, endpoint := range strings.Split(lookup(env, "METAD_STORE__ETCD__ENDPOINTS"), ",") {
			if endpoint == "" {
				continue
			}
			host, port, _ := strings.Cut(strings.TrimPrefix(endpoint, "http://"), ":")
			if !allowed(all, port) {
				found = append(found, fmt.Sprintf("the NetworkPolicy metad lets no node go to %s", endpoint))
			}
			if etcd := all.set("etcd"); etcd != nil && !isPod(all, etcd, host) {
				found = append(found, fmt.Sprintf("%s is no pod of the StatefulSet etcd", endpoint))
			}
		}
		return found
	})
	return faults
}

func isPod(all *objects, set *appsv1.StatefulSet, host string) bool {
	return slices.ContainsFunc(all.pods(set), func(p pod) bool { return p.name+"."+set.Spec.ServiceName == host })
}

func allowed(all *objects, port string) bool {
	for _, p := range all.policies {
		for _, rule := range p.Spec.Egress {
			for _, to := range rule.Ports {
				if p.Name == "metad" && len(rule.To) == 0 && to.Port.String() == port {
					return true
				}
			}
		}
	}
	return false
}

// Calls with each container of each pod, and its environment. A sidecar without restartPolicy would be waited for.
func eachContainer(all *objects, faults *[]string, call func(pod, corev1.Container, []variable) []string) {
	for _, set := range all.sets {
		for _, p := range all.pods(set) {
			for _, c := range p.containers() {
				env, err := p.environment(c)
				found := []string{}
				if err != nil {
					found = append(found, err.Error())
				} else {
					found = call(p, c, env)
				}
				for _, fault := range found {
					*faults = append(*faults, fmt.Sprintf("%s, container %s: %s", p.name, c.Name, fault))
				}
			}
		}
	}
}

func probesOf(c corev1.Container) map[string]*corev1.Probe {
	all := map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe}
	for name, probe := range all {
		if probe == nil {
			delete(all, name)
		}
	}
	return all
}

// Probes ask a port of their container, in its scheme, and never for leadership or, to live, for the store.
func probes(all *objects) []string {
	var faults []string
	eachContainer(all, &faults, func(_ pod, c corev1.Container, env []variable) []string {
		var found []string
		scheme := corev1.URISchemeHTTP
		if lookup(env, "METAD_TLS__CERT_FILE") != "" {
			scheme = corev1.URISchemeHTTPS
		}
		for name, probe := range probesOf(c) {
			get := probe.HTTPGet
			if _, ok := named(c, get.Port.StrVal); !ok {
				found = append(found, fmt.Sprintf("%s probe: there is no port %s", name, get.Port.String()))
			}
			if get.Scheme != scheme && (get.Scheme != "" || scheme != corev1.URISchemeHTTP) {
				found = append(found, fmt.Sprintf("%s probe: its scheme is %q, and the listener's %s", name, get.Scheme, scheme))
			}
			if c.Name == "metad" && get.Path != map[bool]string{true: "/readyz", false: "/livez"}[name == "readiness"] {
				found = append(found, fmt.Sprintf("%s probe: it asks for %s", name, get.Path))
			}
		}
		return found
	})
	return faults
}

// Every mount names a volume or a claim, every volume is mounted, and every container's root is read-only.
func volumes(all *objects) []string {
	var faults []string
	for _, set := range all.sets {
		there, used := map[string]bool{}, map[string]bool{}
		for _, v := range set.Spec.Template.Spec.Volumes {
			there[v.Name] = true
		}
		for _, claim := range set.Spec.VolumeClaimTemplates {
			there[claim.Name] = true
		}
		for _, c := range all.pods(set)[0].containers() {
			for _, mount := range c.VolumeMounts {
				used[mount.Name] = true
				if !there[mount.Name] {
					faults = append(faults, fmt.Sprintf("%s, container %s: there is no volume %s", set.Name, c.Name, mount.Name))
				}
			}
		}
		for name := range there {
			if !used[name] {
				faults = append(faults, fmt.Sprintf("%s: nobody mounts the volume %s", set.Name, name))
			}
		}
	}
	return faults
}

// metad knows every key, and has nothing to say about it.
func variables(all *objects) []string {
	var faults []string
	eachContainer(all, &faults, func(_ pod, c corev1.Container, env []variable) []string {
		if !strings.HasPrefix(c.Image, "metad") {
			return nil
		}
		command := exec.Command(metad(), "config", "check")
		for _, v := range env {
			if !strings.HasPrefix(v.name, "METAD_") {
				return []string{v.name + " is no variable of metad"}
			}
			command.Env = append(command.Env, v.name+"="+v.value)
		}
		said, err := command.CombinedOutput()
		if err != nil || strings.Contains(string(said), "warning") {
			return []string{fmt.Sprintf("metad config check: %v\n%s", err, said)}
		}
		return nil
	})
	return faults
}

// Others reach the node where it listens, and listening in the open has been said exactly where there is no TLS.
func listeners(all *objects) []string {
	var faults []string
	eachContainer(all, &faults, func(p pod, c corev1.Container, env []variable) []string {
		if c.Name != "metad" {
			return nil
		}
		var found []string
		for port, key := range map[string]string{"grpc": "METAD_RPC__LISTEN_ADDR", "http": "METAD_HTTP__LISTEN_ADDR"} {
			number, _ := named(c, port)
			if want := fmt.Sprintf("0.0.0.0:%d", number); lookup(env, key) != want {
				found = append(found, fmt.Sprintf("%s is %s, and the port %s %s", key, lookup(env, key), port, want))
			}
		}
		set := all.set("metad")
		for port, key := range map[string]string{"grpc": "METAD_NODE__ADVERTISE_ADDR", "http": "METAD_HTTP__ADVERTISE_ADDR"} {
			number, _ := named(c, port)
			want := fmt.Sprintf("%s.%s.%s.svc:%d", p.name, set.Spec.ServiceName, namespace, number)
			if at := lookup(env, key); at != want {
				found = append(found, fmt.Sprintf("%s is %s, and the pod's name %s", key, at, want))
			}
		}
		if lookup(env, "METAD_NODE__CLUSTER") != namespace {
			found = append(found, "METAD_NODE__CLUSTER is not the namespace")
		}
		hasTLS, isOpen := lookup(env, "METAD_TLS__CERT_FILE") != "", lookup(env, "METAD_AUTH__INSECURE") != ""
		if hasTLS == isOpen {
			found = append(found, fmt.Sprintf("TLS: %t, METAD_AUTH__INSECURE: %t", hasTLS, isOpen))
		}
		return found
	})
	return faults
}

// The guardian beside a node has its socket where the node looks for it, on a volume of both, and the store of the node.
func sidecars(all *objects) []string {
	var faults []string
	var socket, store, volume string
	eachContainer(all, &faults, func(_ pod, c corev1.Container, env []variable) []string {
		var found []string
		mine := lookup(env, "METAD_STORE__ETCD__ENDPOINTS")
		switch c.Name {
		case "guardian":
			if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
				found = append(found, "without restartPolicy: Always the node would wait for its end")
			}
			socket, store, volume = c.Args[slices.Index(c.Args, "--socket")+1], mine, mounted(c, socketDir(c.Args))
		case "metad":
			at := lookup(env, "METAD_NODE__GUARDIAN_SOCKET")
			if at != socket || mounted(c, path.Dir(at)) != volume {
				found = append(found, fmt.Sprintf("METAD_NODE__GUARDIAN_SOCKET is %q, the guardian's %q", at, socket))
			}
			if socket != "" && mine != store {
				found = append(found, fmt.Sprintf("its etcd is %q, the guardian's %q", mine, store))
			}
			if (socket == "") != (lookup(env, "METAD_STORE__KIND") == "sqlite") {
				found = append(found, "a guardian belongs beside each node that elects through etcd")
			}
			socket, store, volume = "", "", ""
		}
		return found
	})
	return faults
}

func socketDir(args []string) string {
	return path.Dir(args[slices.Index(args, "--socket")+1])
}

// The volume that is mounted there.
func mounted(c corev1.Container, dir string) string {
	for _, mount := range c.VolumeMounts {
		if mount.MountPath == dir {
			return mount.Name
		}
	}
	return ""
}

// The data dir is a folder on a claimed volume, and called exclusive only where no second pod gets that.
func dataDirs(all *objects) []string {
	var faults []string
	eachContainer(all, &faults, func(_ pod, c corev1.Container, env []variable) []string {
		if c.Name != "metad" {
			return nil
		}
		volume := mounted(c, path.Dir(lookup(env, "METAD_NODE__DATA_DIR")))
		for _, claim := range all.set("metad").Spec.VolumeClaimTemplates {
			if claim.Name != volume {
				continue
			}
			once := slices.Equal(claim.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod})
			if said := lookup(env, "METAD_NODE__DATA_DIR_EXCLUSIVE") == "true"; said != once {
				return []string{fmt.Sprintf("METAD_NODE__DATA_DIR_EXCLUSIVE: %t, ReadWriteOncePod: %t", said, once)}
			}
			return nil
		}
		return []string{"METAD_NODE__DATA_DIR is not a folder on a claimed volume"}
	})
	return faults
}

// A Secret is mounted read-only, for the group of the pod and nobody else, and every file of it has its place there.
func secrets(all *objects) []string {
	var faults []string
	eachContainer(all, &faults, func(p pod, c corev1.Container, env []variable) []string {
		var found []string
		for _, v := range p.spec.Volumes {
			if v.Secret == nil {
				continue
			}
			if v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440 || p.spec.SecurityContext.FSGroup == nil {
				found = append(found, fmt.Sprintf("the Secret %s is not for the pod's group alone", v.Secret.SecretName))
			}
			for _, mount := range c.VolumeMounts {
				if mount.Name == v.Name && !mount.ReadOnly {
					found = append(found, fmt.Sprintf("the Secret %s can be written", v.Secret.SecretName))
				}
			}
		}
		for _, v := range env {
			if isFile := strings.HasPrefix(v.name, "METAD_TLS__") || v.name == "METAD_AUTH__ACCESS_FILE"; !isFile {
				continue
			}
			if mounted(c, path.Dir(v.value)) != "tls" {
				found = append(found, fmt.Sprintf("%s is %s, where no Secret is mounted", v.name, v.value))
			}
		}
		return found
	})
	return faults
}

// The kubelet waits for longer than a node takes to stop: its main loop (10 s) and its hand-over (2 s).
func stops(all *objects) []string {
	set := all.set("metad")
	sleep := set.Spec.Template.Spec.Containers[0].Lifecycle.PreStop.Sleep.Seconds
	if grace := *set.Spec.Template.Spec.TerminationGracePeriodSeconds; grace < sleep+10+2 {
		return []string{fmt.Sprintf("terminationGracePeriodSeconds is %d, below %d + 10 + 2", grace, sleep)}
	}
	return nil
}

// A namespace that enforces the strictest of the Pod Security Standards takes the pods.
func restricted(all *objects) []string {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		return []string{err.Error()}
	}
	var faults []string
	for _, set := range all.sets {
		template := set.Spec.Template
		strictest := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
		for _, result := range evaluator.EvaluatePod(strictest, &template.ObjectMeta, &template.Spec) {
			if !result.Allowed {
				faults = append(faults, fmt.Sprintf("%s: restricted: %s (%s)", set.Name, result.ForbiddenReason, result.ForbiddenDetail))
			}
		}
		for _, c := range append(template.Spec.InitContainers, template.Spec.Containers...) {
			if root := c.SecurityContext.ReadOnlyRootFilesystem; root == nil || !*root {
				faults = append(faults, fmt.Sprintf("%s, container %s: its root can be written", set.Name, c.Name))
			}
		}
	}
	return faults
}
