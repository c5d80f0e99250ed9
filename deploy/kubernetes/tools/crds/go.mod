module fraud/crds

go 1.26.0

require (
	github.com/kserve/kserve v0.15.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
