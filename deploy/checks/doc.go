// Package checks holds the tests of what is deployed: image, compose file, Kubernetes objects, systemd units, Prometheus
// rules, Grafana dashboards and documents. They build the real binary once, as the Dockerfile does, and hold every command
// line, metric, setting and link in those files to it. Run them with "make check-deploy", and with -update where a
// document is made by the binary.
//
//	main_test.go        the binary                            line_test.go        command lines, wherever they stand
//	image_test.go       Dockerfile                            compose_test.go     compose.yaml
//	kubernetes_test.go  base, components, overlays            systemd_test.go     units
//	running_test.go     the whole flow in one process         metrics_test.go     what it shows, and the table of it
//	prometheus_test.go  rules, their tests, the runbook       grafana_test.go     dashboards
//	docs_test.go        links, settings, what documents claim
package checks
