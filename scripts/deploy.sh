#!/usr/bin/env bash
# Brings an overlay of deploy/kubernetes to a cluster, that of kubectl's configuration:
#
#   scripts/deploy.sh apply OVERLAY REGISTRY TAG    with these images; waits until they run
#   scripts/deploy.sh undo                          the deployments are what they were before
set -euo pipefail
cd "$(dirname "$0")/.."
deployments=(deployment/fraud-serving deployment/fraud-watch)
kubectl() { command kubectl --namespace fraud "$@"; }

case ${1:-} in
apply)
    folder=build/deploy
    mkdir -p "$folder"
    cat >"$folder/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../deploy/kubernetes/overlays/$2]
images:
- {name: fraud-serving, newName: $3/serving, newTag: "$4"}
- {name: fraud-pipeline, newName: $3/pipeline, newTag: "$4"}
- {name: registry.example/fraud/serving, newName: $3/serving, newTag: "$4"}
- {name: registry.example/fraud/pipeline, newName: $3/pipeline, newTag: "$4"}
YAML
    kubectl apply --server-side --kustomize "$folder"
    for deployment in "${deployments[@]}"; do
        kubectl rollout status "$deployment" --timeout=10m
    done
    ;;
undo)
    for deployment in "${deployments[@]}"; do
        kubectl rollout undo "$deployment"
        kubectl rollout status "$deployment" --timeout=10m
    done
    ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
