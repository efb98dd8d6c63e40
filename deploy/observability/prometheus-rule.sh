#!/bin/sh
# Prints alerts.yml as an object for the Prometheus operator, so that there is one copy of the rules:
#   deploy/observability/prometheus-rule.sh | kubectl apply -n loss-scoring -f -
set -eu
cat <<HEAD
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: loss-scoring
  labels:
    app.kubernetes.io/name: loss-scoring
spec:
HEAD
sed 's/^\(.\)/  \1/' "$(dirname "$0")/alerts.yml"
