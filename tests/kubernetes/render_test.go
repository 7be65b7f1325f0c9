package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	manifests = "../../config/kubernetes"
	namespace = "trial"
)

// What is applied: a folder, and whether the component tls is added to it.
type overlay struct {
	folder string
	tls    bool
}

var overlays = []overlay{
	{"single-node", false},
	{"single-node", true},
	{"three-nodes", false},
	{"three-nodes", true},
	{"with-etcd", false},
	{"with-etcd", true},
}

// The objects of an overlay.
type objects struct {
	sets     []*appsv1.StatefulSet
	services []*corev1.Service
	configs  []*corev1.ConfigMap
	budgets  []*policyv1.PodDisruptionBudget
	policies []*networkingv1.NetworkPolicy
}

func (o overlay) String() string {
	if o.tls {
		return o.folder + " with tls"
	}
	return o.folder
}

// A kustomization.yaml like that of src/docs/deploy.md, for this overlay.
func (o overlay) kustomization(base string) string {
	text := fmt.Sprintf("namespace: %s\nresources: [%s/%s]\n", namespace, base, o.folder)
	if o.tls {
		text += fmt.Sprintf("components: [%s/tls]\n", base)
	}
	return text
}

func (o overlay) render(t *testing.T) string {
	t.Helper()
	folder, base := place(t)
	text := []byte(o.kustomization(base))
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return build(t, folder)
}

// An empty folder, and the manifests as seen from it: Kustomize takes relative paths only.
func place(t *testing.T) (folder, base string) {
	t.Helper()
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if base, err = filepath.Abs(manifests); err != nil {
		t.Fatal(err)
	}
	if base, err = filepath.Rel(folder, base); err != nil {
		t.Fatal(err)
	}
	return folder, base
}

func build(t *testing.T, folder string) string {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatalf("%s: %v", folder, err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Decodes with the API's own types, strictly: an unknown or doubled field is an error, and so is a kind that is not
// expected here.
func decode(text string) (*objects, error) {
	all := &objects{}
	for _, document := range strings.Split(text, "\n---\n") {
		var head metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			return nil, err
		}
		if err := all.add(head, []byte(document)); err != nil {
			return nil, fmt.Errorf("%s: %w", head.Kind, err)
		}
	}
	return all, nil
}

func (all *objects) add(head metav1.TypeMeta, document []byte) error {
	switch head.APIVersion + "/" + head.Kind {
	case "apps/v1/StatefulSet":
		return into(&all.sets, document)
	case "v1/Service":
		return into(&all.services, document)
	case "v1/ConfigMap":
		return into(&all.configs, document)
	case "policy/v1/PodDisruptionBudget":
		return into(&all.budgets, document)
	case "networking.k8s.io/v1/NetworkPolicy":
		return into(&all.policies, document)
	}
	return fmt.Errorf("%s is not expected here", head.APIVersion)
}

func into[T any](list *[]*T, document []byte) error {
	object := new(T)
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		return err
	}
	*list = append(*list, object)
	return nil
}

func (all *objects) set(name string) *appsv1.StatefulSet {
	for _, set := range all.sets {
		if set.Name == name {
			return set
		}
	}
	return nil
}
