package kubernetes

import (
	"fmt"
	"regexp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// A pod of a StatefulSet, as the kubelet sees it.
type pod struct {
	name string
	spec corev1.PodSpec
	all  *objects
}

type variable struct{ name, value string }

var reference = regexp.MustCompile(`\$\(([A-Za-z0-9_.-]+)\)`)

func (all *objects) pods(set *appsv1.StatefulSet) []pod {
	var pods []pod
	for n := range *set.Spec.Replicas {
		pods = append(pods, pod{fmt.Sprintf("%s-%d", set.Name, n), set.Spec.Template.Spec, all})
	}
	return pods
}

// The containers that run for as long as the pod does: native sidecars first.
func (p pod) containers() []corev1.Container {
	return append(slices.Clone(p.spec.InitContainers), p.spec.Containers...)
}

// A container's environment: first what it takes from ConfigMaps, then its own list, where $(NAME) stands for a variable
// that has come before and for itself otherwise.
func (p pod) environment(c corev1.Container) ([]variable, error) {
	var env []variable
	for _, from := range c.EnvFrom {
		data, err := p.config(from)
		if err != nil {
			return nil, err
		}
		env = append(env, data...)
	}
	for _, v := range c.Env {
		value, err := p.value(v, env)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(env, func(known variable) bool { return known.name == v.Name }) {
			return nil, fmt.Errorf("%s is set twice", v.Name)
		}
		env = append(env, variable{v.Name, value})
	}
	return env, nil
}

func (p pod) config(from corev1.EnvFromSource) ([]variable, error) {
	if from.ConfigMapRef == nil {
		return nil, fmt.Errorf("envFrom without a ConfigMap is not expected here")
	}
	for _, config := range p.all.configs {
		if config.Name == from.ConfigMapRef.Name {
			var env []variable
			for name, value := range config.Data {
				env = append(env, variable{name, value})
			}
			return env, nil
		}
	}
	return nil, fmt.Errorf("there is no ConfigMap %s", from.ConfigMapRef.Name)
}

func (p pod) value(v corev1.EnvVar, before []variable) (string, error) {
	if v.ValueFrom != nil {
		if v.ValueFrom.FieldRef == nil {
			return "", fmt.Errorf("%s: only fields of the pod are expected here", v.Name)
		}
		switch path := v.ValueFrom.FieldRef.FieldPath; path {
		case "metadata.name":
			return p.name, nil
		case "metadata.namespace":
			return namespace, nil
		default:
			return "", fmt.Errorf("%s: the field %s is not expected here", v.Name, path)
		}
	}
	var unknown error
	value := reference.ReplaceAllStringFunc(v.Value, func(found string) string {
		name := reference.FindStringSubmatch(found)[1]
		for _, known := range before {
			if known.name == name {
				return known.value
			}
		}
		unknown = fmt.Errorf("%s: %s is not set before it", v.Name, found)
		return found
	})
	return value, unknown
}

func lookup(env []variable, name string) string {
	for _, v := range env {
		if v.name == name {
			return v.value
		}
	}
	return ""
}

func named(c corev1.Container, port string) (int32, bool) {
	for _, p := range c.Ports {
		if p.Name == port {
			return p.ContainerPort, true
		}
	}
	return 0, false
}
