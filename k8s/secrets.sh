#!/bin/sh
# Create the Secrets that k8s/ refers to by name. Run it once, from a folder where `raypath` runs.
#   raypath-ray-training, raypath-ray-serving   tokens that Ray requires
#   raypath-mlflow    token that MLflow requires
#   raypath-redis     password of Redis
#   raypath-access    hashes of the endpoint's API keys, as created by `raypath keys create`
#   raypath-webhook   MLflow's secret for signing webhooks, and the key that encrypts it in MLflow's database
#   raypath-signing   the key that signs models, for training; raypath-trusted has the public keys, for serving too
# Existing Secrets are kept, except raypath-access, raypath-signing and raypath-trusted, which are updated.
set -eu
home=${RAYPATH_HOME:-.raypath}
namespace=raypath
once() { kubectl -n "$namespace" get secret "$1" >/dev/null 2>&1 || kubectl -n "$namespace" create -f -; }
secret() { # name, key; the value comes in by standard input, so that no list of processes shows it
  printf '{"apiVersion":"v1","kind":"Secret","metadata":{"name":"%s"},"stringData":{"%s":"%s"}}' "$1" "$2" "$(cat)"
}
random() { od -An -tx1 -N32 /dev/urandom | tr -d ' \n'; }

kubectl apply -f "$(dirname "$0")/base/namespace.yaml"
random | secret raypath-ray-training auth_token | once raypath-ray-training
random | secret raypath-ray-serving auth_token | once raypath-ray-serving
random | secret raypath-mlflow MLFLOW_TRACKING_TOKEN | once raypath-mlflow
random | secret raypath-redis password | once raypath-redis
printf '{"apiVersion":"v1","kind":"Secret","metadata":{"name":"raypath-webhook"},"stringData":{"secret":"%s","encryption-key":"%s"}}' \
  "$(random)" "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')" | once raypath-webhook
ls "$home"/signing/*.key >/dev/null 2>&1 || raypath models --rotate-key >&2
kubectl -n "$namespace" create secret generic raypath-signing --dry-run=client -o yaml \
  --from-file=RAYPATH_SIGNING_KEY="$(ls -t "$home"/signing/*.key | head -n 1)" | kubectl apply -f -
cat "$home"/signing/*.pub | kubectl -n "$namespace" create secret generic raypath-trusted --dry-run=client -o yaml \
  --from-file=RAYPATH_PUBLIC_KEYS=/dev/stdin | kubectl apply -f -
test -f "$home/access/keys.json" || raypath keys create first
kubectl -n "$namespace" create secret generic raypath-access --dry-run=client -o yaml \
  --from-file="$home/access/keys.json" --from-file="$home/access/pepper" | kubectl apply -f -
