package manifest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/autoscaling"
	"knative.dev/serving/pkg/apis/config"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weir-dev/weir/internal/catalog"
)

// knativeContext is the context of Knative's webhook when an object is created, with the configuration of a fresh
// installation. A cluster's own config-defaults may differ; its webhook has the last word there.
func knativeContext() context.Context {
	ctx := context.Background()
	return apis.WithinCreate(config.ToContext(ctx, config.FromContextOrDefaults(ctx)))
}

// checkService validates a defaulted svc by Knative's code, and returns one problem for each path.
func checkService(ctx context.Context, svc *servingv1.Service) []problem {
	var problems []problem
	for _, e := range svc.Validate(ctx).Filter(apis.ErrorLevel).WrappedErrors() {
		msg := "Knative refuses it: " + e.Message
		if e.Details != "" {
			msg += ": " + strings.Join(strings.Fields(e.Details), " ")
		}
		if len(e.Paths) == 0 {
			problems = append(problems, problem{"", msg})
		}
		for _, path := range e.Paths {
			problems = append(problems, problem{path, msg})
		}
	}
	return problems
}

// knativeService is what the checks of other objects and the local runner need of a Service.
type knativeService struct {
	Service
	origin  Origin
	refused bool // by Knative
	limits  []timeLimit
}

// timeLimit is a bound that Knative puts on a call.
type timeLimit struct {
	field string
	value time.Duration
}

// where says how to find the Service: "Service order-api (order-api.yaml:12)".
func (s *knativeService) where(path string) string {
	return "Service " + s.Name + at(&s.origin, path)
}

// shortest returns the limit that ends a call first.
func (s *knativeService) shortest() (timeLimit, bool) {
	if len(s.limits) == 0 {
		return timeLimit{}, false
	}
	l := s.limits[0]
	for _, other := range s.limits[1:] {
		if other.value < l.value {
			l = other
		}
	}
	return l, true
}

// describeService reads a defaulted Service.
func describeService(key catalog.Key, svc *servingv1.Service) *knativeService {
	spec := &svc.Spec.Template.Spec
	s := &knativeService{Service: Service{Key: key}}
	if cc := spec.ContainerConcurrency; cc != nil {
		s.ContainerConcurrency = int(*cc)
	}
	// Get knows max-scale and the older maxScale. Knative refuses a value that is not a number.
	if _, v, ok := autoscaling.MaxScaleAnnotation.Get(svc.Spec.Template.Annotations); ok {
		if n, err := strconv.ParseInt(v, 10, 32); err == nil && n > 0 {
			s.MaxScale = int(n)
		}
	}
	for _, l := range []struct {
		field   string
		seconds *int64
	}{
		{"timeoutSeconds", spec.TimeoutSeconds},
		{"responseStartTimeoutSeconds", spec.ResponseStartTimeoutSeconds},
		{"idleTimeoutSeconds", spec.IdleTimeoutSeconds},
	} {
		if l.seconds != nil && *l.seconds > 0 && *l.seconds < int64(maxServiceTimeout/time.Second) {
			s.limits = append(s.limits, timeLimit{l.field, time.Duration(*l.seconds) * time.Second})
		}
	}
	if spec.TimeoutSeconds != nil {
		s.Timeout = time.Duration(min(*spec.TimeoutSeconds, int64(maxServiceTimeout/time.Second))) * time.Second
	}
	if c := servingContainer(spec.Containers); c != nil {
		s.Image, s.H2C = c.Image, len(c.Ports) > 0 && c.Ports[0].Name == "h2c"
		s.Env = envOf(c)
		s.SecretMounts = secretMountsOf(c, spec.Volumes)
	}
	return s
}

// maxServiceTimeout keeps the arithmetic of a Service that Knative has refused within bounds.
const maxServiceTimeout = 365 * 24 * time.Hour

// servingContainer is the only container, or with sidecars the one that has a port, as in Knative.
func servingContainer(containers []corev1.Container) *corev1.Container {
	if len(containers) == 1 {
		return &containers[0]
	}
	for i := range containers {
		if len(containers[i].Ports) > 0 {
			return &containers[i]
		}
	}
	return nil
}

func envOf(c *corev1.Container) []EnvVar {
	var env []EnvVar
	for _, e := range c.Env {
		switch {
		case e.ValueFrom == nil:
			env = append(env, EnvVar{Name: e.Name, Value: e.Value})
		case e.ValueFrom.SecretKeyRef != nil:
			ref := e.ValueFrom.SecretKeyRef
			env = append(env, EnvVar{Name: e.Name, SecretName: ref.Name, SecretKey: ref.Key})
		}
	}
	return env
}

func secretMountsOf(c *corev1.Container, volumes []corev1.Volume) []SecretMount {
	var mounts []SecretMount
	for _, m := range c.VolumeMounts {
		for _, v := range volumes {
			if v.Name == m.Name && v.Secret != nil {
				mounts = append(mounts, SecretMount{Path: m.MountPath, SecretName: v.Secret.SecretName})
			}
		}
	}
	return mounts
}

// at returns " (file:line)" of the field at path, or "" for an object from a cluster.
func at(s *Origin, path string) string {
	if s.File == "" {
		return ""
	}
	return fmt.Sprintf(" (%s:%d)", s.File, s.line(path))
}
