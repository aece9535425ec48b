package checks

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// Custom resources, as far as they are used here; whatever else stands in them is a fault.
type (
	serviceMonitor struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			JobLabel  string               `json:"jobLabel"`
			Selector  metav1.LabelSelector `json:"selector"`
			Endpoints []struct {
				Port          string `json:"port"`
				Path          string `json:"path"`
				Interval      string `json:"interval"`
				ScrapeTimeout string `json:"scrapeTimeout"`
			} `json:"endpoints"`
		} `json:"spec"`
	}
	prometheusRule struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              ruleFile `json:"spec"`
	}
	scaledObject struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			ScaleTargetRef  autoscalingv2.CrossVersionObjectReference `json:"scaleTargetRef"`
			PollingInterval int32                                     `json:"pollingInterval"`
			CooldownPeriod  int32                                     `json:"cooldownPeriod"`
			MinReplicaCount int32                                     `json:"minReplicaCount"`
			MaxReplicaCount int32                                     `json:"maxReplicaCount"`
			Advanced        struct {
				HPA struct {
					Behavior autoscalingv2.HorizontalPodAutoscalerBehavior `json:"behavior"`
				} `json:"horizontalPodAutoscalerConfig"`
			} `json:"advanced"`
			Triggers []struct {
				Type     string            `json:"type"`
				Metadata map[string]string `json:"metadata"`
			} `json:"triggers"`
		} `json:"spec"`
	}
)

// kinds are the types objects are decoded into.
var kinds = map[string]func() any{
	"v1/Namespace":                            func() any { return &corev1.Namespace{} },
	"v1/ServiceAccount":                       func() any { return &corev1.ServiceAccount{} },
	"v1/ConfigMap":                            func() any { return &corev1.ConfigMap{} },
	"v1/Service":                              func() any { return &corev1.Service{} },
	"apps/v1/StatefulSet":                     func() any { return &appsv1.StatefulSet{} },
	"apps/v1/Deployment":                      func() any { return &appsv1.Deployment{} },
	"batch/v1/Job":                            func() any { return &batchv1.Job{} },
	"policy/v1/PodDisruptionBudget":           func() any { return &policyv1.PodDisruptionBudget{} },
	"autoscaling/v2/HorizontalPodAutoscaler":  func() any { return &autoscalingv2.HorizontalPodAutoscaler{} },
	"networking.k8s.io/v1/NetworkPolicy":      func() any { return &networkingv1.NetworkPolicy{} },
	"monitoring.coreos.com/v1/ServiceMonitor": func() any { return &serviceMonitor{} },
	"monitoring.coreos.com/v1/PrometheusRule": func() any { return &prometheusRule{} },
	"keda.sh/v1alpha1/ScaledObject":           func() any { return &scaledObject{} },
}

// overlays are those that are meant to be applied.
var overlays = []string{"small", "production", "keda"}

// built are the objects of an overlay by kind and name, decoded strictly.
func built(t *testing.T, overlay string) map[string]any {
	t.Helper()
	k := krusty.MakeKustomizer(krusty.MakeDefaultOptions())
	resources, err := k.Run(filesys.MakeFsOnDisk(), deployed("kubernetes", "overlays", overlay))
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]any{}
	for _, r := range resources.Resources() {
		data, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, err := decode(data)
		if err != nil {
			t.Errorf("%s: %s: %v", overlay, r.CurId(), err)
		}
		if r.GetNamespace() != "klgstream" && r.GetKind() != "Namespace" {
			t.Errorf("%s: %s is in namespace %q", overlay, r.CurId(), r.GetNamespace())
		}
		objects[r.GetKind()+"/"+r.GetName()] = object
	}
	return objects
}

func decode(data []byte) (any, error) {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(data, &meta); err != nil {
		return nil, err
	}
	kind, ok := kinds[meta.APIVersion+"/"+meta.Kind]
	if !ok {
		return nil, fmt.Errorf("%s/%s is unknown here", meta.APIVersion, meta.Kind)
	}
	object := kind()
	return object, yaml.UnmarshalStrict(data, object)
}

// podsOf is the pod template of each workload.
func podsOf(objects map[string]any) map[string]*corev1.PodTemplateSpec {
	pods := map[string]*corev1.PodTemplateSpec{}
	for name, object := range objects {
		switch o := object.(type) {
		case *appsv1.StatefulSet:
			pods[name] = &o.Spec.Template
		case *appsv1.Deployment:
			pods[name] = &o.Spec.Template
		case *batchv1.Job:
			pods[name] = &o.Spec.Template
		}
	}
	return pods
}

// args are a container's arguments with $(VARIABLES) put in, and its environment.
func args(t *testing.T, objects map[string]any, c *corev1.Container) (args, env []string) {
	t.Helper()
	values := map[string]string{}
	for _, from := range c.EnvFrom {
		switch {
		case from.SecretRef != nil && from.SecretRef.Name == "klgstream-store":
			values["RISINGWAVE_URL"] = "postgresql://user:password@risingwave:4566/dev" // as the comment in the base says
		case from.ConfigMapRef != nil:
			m, ok := objects["ConfigMap/"+from.ConfigMapRef.Name].(*corev1.ConfigMap)
			if !ok {
				t.Errorf("%s: no ConfigMap %q", c.Name, from.ConfigMapRef.Name)
				continue
			}
			for key, value := range m.Data {
				values[key] = value
			}
		}
	}
	for _, e := range c.Env {
		if values[e.Name] = e.Value; e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			values[e.Name] = "klgstream-processor-0"
		}
	}
	for name, value := range values {
		env = append(env, name+"="+value)
	}
	for _, a := range c.Args {
		for name, value := range values {
			a = strings.ReplaceAll(a, "$("+name+")", value)
		}
		args = append(args, a)
	}
	return args, env
}

func TestKubernetesCommandLines(t *testing.T) {
	for _, overlay := range overlays {
		objects := built(t, overlay)
		pods := podsOf(objects)
		if len(pods) != 4 {
			t.Errorf("%s: %d workloads, want 4", overlay, len(pods))
		}
		for name, pod := range pods {
			c := &pod.Spec.Containers[0]
			line, env := args(t, objects, c)
			settings := effective(t, overlay+" "+name, env, line...)
			if settings["brokers"] != "[redpanda.redpanda.svc.cluster.local:9092]" {
				t.Errorf("%s: %s reads from %q", overlay, name, settings["brokers"])
			}
			if line[0] == "processor" && settings["instance-id"] != "klgstream-processor-0" {
				t.Errorf("%s: the processor is %q, want the pod's name", overlay, settings["instance-id"])
			}
			for _, want := range c.Ports {
				if !strings.Contains(strings.Join(line, " "), fmt.Sprintf("0.0.0.0:%d", want.ContainerPort)) {
					t.Errorf("%s: %s does not listen on %d", overlay, name, want.ContainerPort)
				}
			}
		}
	}
}

// Every pod is as the restricted policy wants it, and can be probed and bounded.
func TestKubernetesPods(t *testing.T) {
	for _, overlay := range overlays {
		for name, pod := range podsOf(built(t, overlay)) {
			s, c := pod.Spec, pod.Spec.Containers[0]
			if s.AutomountServiceAccountToken == nil || *s.AutomountServiceAccountToken || !*s.SecurityContext.RunAsNonRoot ||
				s.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s: %s: the pod may more than it needs", overlay, name)
			}
			if x := c.SecurityContext; !*x.ReadOnlyRootFilesystem || *x.AllowPrivilegeEscalation || !slices.Contains(x.Capabilities.Drop, "ALL") {
				t.Errorf("%s: %s: the container may more than it needs", overlay, name)
			}
			if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
				t.Errorf("%s: %s: no bounds", overlay, name)
			}
			if strings.HasPrefix(name, "Job/") {
				continue
			}
			if c.LivenessProbe.HTTPGet.Path != "/healthz" || c.ReadinessProbe.HTTPGet.Path != "/readyz" || c.LivenessProbe.HTTPGet.Port.StrVal != "ops" {
				t.Errorf("%s: %s: probes %v, %v", overlay, name, c.LivenessProbe, c.ReadinessProbe)
			}
			checkMemory(t, overlay+" "+name, &c)
		}
	}
}

// checkMemory wants Go's limit below the container's, but not far below.
func checkMemory(t *testing.T, where string, c *corev1.Container) {
	t.Helper()
	for _, e := range c.Env {
		if e.Name != "GOMEMLIMIT" {
			continue
		}
		var mib float64
		if _, err := fmt.Sscanf(e.Value, "%fMiB", &mib); err != nil {
			t.Errorf("%s: GOMEMLIMIT %q: %v", where, e.Value, err)
		}
		if share := mib * (1 << 20) / float64(c.Resources.Limits.Memory().Value()); share < 0.8 || share > 0.95 {
			t.Errorf("%s: GOMEMLIMIT is %.0f %% of the container's limit, want 80 to 95", where, 100*share)
		}
		return
	}
	t.Errorf("%s: no GOMEMLIMIT", where)
}

// Selectors select: services and budgets find pods, the monitor finds services.
func TestKubernetesSelectors(t *testing.T) {
	for _, overlay := range overlays {
		objects := built(t, overlay)
		pods := podsOf(objects)
		matched := func(selector map[string]string) (names []string) {
			for name, pod := range pods {
				if matches(selector, pod.Labels) {
					names = append(names, name)
				}
			}
			return names
		}
		for name, object := range objects {
			switch o := object.(type) {
			case *corev1.Service:
				if got := matched(o.Spec.Selector); len(got) != 1 {
					t.Errorf("%s: %s selects %q", overlay, name, got)
				}
			case *policyv1.PodDisruptionBudget:
				if got := matched(o.Spec.Selector.MatchLabels); len(got) != 1 {
					t.Errorf("%s: %s selects %q", overlay, name, got)
				}
			case *appsv1.StatefulSet:
				if objects["Service/"+o.Spec.ServiceName] == nil || !matches(o.Spec.Selector.MatchLabels, o.Spec.Template.Labels) {
					t.Errorf("%s: %s has no service %q or does not select its pods", overlay, name, o.Spec.ServiceName)
				}
			case *autoscalingv2.HorizontalPodAutoscaler:
				if objects[o.Spec.ScaleTargetRef.Kind+"/"+o.Spec.ScaleTargetRef.Name] == nil {
					t.Errorf("%s: %s scales nothing", overlay, name)
				}
			case *serviceMonitor:
				checkMonitor(t, objects, o)
			}
		}
	}
}

func matches(selector, labels map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return len(selector) > 0
}

// checkMonitor wants each role scraped under its name, which the rules use.
func checkMonitor(t *testing.T, objects map[string]any, m *serviceMonitor) {
	t.Helper()
	jobs := map[string]bool{}
	for _, object := range objects {
		s, ok := object.(*corev1.Service)
		if ok && matches(m.Spec.Selector.MatchLabels, s.Labels) && slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == m.Spec.Endpoints[0].Port }) {
			jobs[s.Labels[m.Spec.JobLabel]] = true
		}
	}
	if len(jobs) != 3 || !jobs["processor"] || !jobs["sink"] || !jobs["api"] {
		t.Errorf("jobs %v are scraped, want processor, sink, api", jobs)
	}
}

// KEDA looks at the topics and groups that the processors and sinks really use, and is the only one that scales.
func TestKubernetesScaling(t *testing.T) {
	objects := built(t, "keda")
	processor := effective(t, "processor", nil, "processor")
	sink := effective(t, "sink", nil, "sink")
	want := map[string]string{
		"klgstream-processor": processor["group"] + " " + processor["input-topic"],
		"klgstream-sink":      sink["sink-group"] + " " + sink["output-topic"],
	}
	for name, want := range want {
		o := objects["ScaledObject/"+name].(*scaledObject)
		trigger := o.Spec.Triggers[0].Metadata
		if got := trigger["consumerGroup"] + " " + trigger["topic"]; got != want || o.Spec.Triggers[0].Type != "kafka" {
			t.Errorf("%s scales by %q, want %q", name, got, want)
		}
		target := objects[o.Spec.ScaleTargetRef.Kind+"/"+o.Spec.ScaleTargetRef.Name]
		if target == nil || objects["HorizontalPodAutoscaler/"+name] != nil {
			t.Errorf("%s has no target, or another scaler", name)
		}
		if s, ok := target.(*appsv1.StatefulSet); ok && s.Spec.Replicas != nil {
			t.Errorf("%s: the number of replicas is set twice", name)
		}
		partitions := effective(t, "topics", nil, objects["Job/klgstream-topics"].(*batchv1.Job).Spec.Template.Spec.Containers[0].Args...)["partitions"]
		if fmt.Sprint(o.Spec.MaxReplicaCount) != partitions {
			t.Errorf("%s grows to %d, there are %s partitions", name, o.Spec.MaxReplicaCount, partitions)
		}
	}
}

// The network policy lets the roles have what they need and nothing else in.
func TestKubernetesNetwork(t *testing.T) {
	objects := built(t, "production")
	all := objects["NetworkPolicy/klgstream"].(*networkingv1.NetworkPolicy)
	if len(all.Spec.PodSelector.MatchLabels) == 0 && len(all.Spec.PolicyTypes) == 2 && len(all.Spec.Ingress) == 1 && len(all.Spec.Ingress[0].From) == 1 {
		return
	}
	// kustomize adds its labels to the selector; it must still take every pod.
	for name, pod := range podsOf(objects) {
		if !matches(all.Spec.PodSelector.MatchLabels, pod.Labels) {
			t.Errorf("%s is outside of the policy", name)
		}
	}
}

// A misspelt field is a fault.
func TestKubernetesIsStrict(t *testing.T) {
	for _, text := range []string{
		"apiVersion: apps/v1\nkind: Deployment\nspec: {replica: 2}",
		"apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nspec: {maxReplicas: 2}",
		"apiVersion: v1\nkind: Pot",
	} {
		if _, err := decode(bytes.TrimSpace([]byte(text))); err == nil {
			t.Errorf("%s: accepted", text)
		}
	}
}
