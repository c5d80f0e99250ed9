#!/usr/bin/env bash
# Brings an overlay of deploy/kubernetes to a cluster, that of kubectl's configuration:
#
#   scripts/deploy.sh apply OVERLAY REGISTRY TAG    with these images; waits until they run
#   scripts/deploy.sh undo                          deployments and CronJobs are what they were before that
#
# Which revisions of deployments there were before, and what CronJobs were, is in build/deploy/before,
# so that `undo` goes back over what this `apply` changed, and no further: not at all, if it changed
# nothing, or was that of another build of Jenkins (BUILD_TAG), whose workspace this was.
set -euo pipefail
cd "$(dirname "$0")/.."
deployments=(deployment/fraud-serving deployment/fraud-watch)
cronjobs=(cronjob/fraud-{daily,state-build,backup,restore,shell})
folder=build/deploy
before=$folder/before
kubectl() { command kubectl --namespace fraud "$@"; }
revision() { # of a deployment; nothing if it is not there
    kubectl get "$1" --ignore-not-found \
        --output 'jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}'
}
specification() { # of a CronJob, as a line of JSON; nothing if it is not there
    kubectl get "$1" --ignore-not-found --output 'jsonpath={.spec}'
}
wait_for() {
    for deployment; do kubectl rollout status "$deployment" --timeout=10m; done
}

case ${1:-} in
apply)
    mkdir -p "$folder"
    rm -f "$before"
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
    found="build ${BUILD_TAG-}"$'\n'
    for deployment in "${deployments[@]}"; do
        number=$(revision "$deployment")
        found+="$deployment $number"$'\n'
    done
    for cronjob in "${cronjobs[@]}"; do
        json=$(specification "$cronjob")
        found+="$cronjob $json"$'\n'
    done
    printf %s "$found" >"$before"
    # After an undo, it is kubectl's own field manager that has the old images.
    kubectl apply --server-side --force-conflicts --kustomize "$folder"
    wait_for "${deployments[@]}"
    ;;
undo)
    [ -f "$before" ] || { echo "$before is missing: nothing was deployed from here, nothing is undone" >&2 && exit 2; }
    undone=()
    if [ "$(head -n 1 "$before")" != "build ${BUILD_TAG-}" ]; then
        echo "$before is of another build: this one deployed nothing, nothing is undone" >&2
        exit 2
    fi
    while read -r object was; do
        if [ -z "$was" ]; then
            echo "$object was not there before; it stays" >&2
        elif [[ $object = cronjob/* ]]; then
            [ "$(specification "$object" </dev/null)" = "$was" ] ||
                kubectl patch "$object" --type=json </dev/null \
                    --patch "[{\"op\": \"replace\", \"path\": \"/spec\", \"value\": $was}]"
        elif [ "$(revision "$object" </dev/null)" != "$was" ]; then
            kubectl rollout undo "$object" --to-revision="$was" </dev/null
            undone+=("$object")
        fi
    done < <(tail -n +2 "$before")
    wait_for "${undone[@]}"
    ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
