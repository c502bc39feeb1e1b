#!/usr/bin/env bash
# Applies the plan in the folder PLAN as it was saved, or nothing if the live or the desired state has changed since, and
# tests the deployment.
set -euo pipefail
source "$(dirname "$0")/common.sh"

if ! unheard provisioner apply "$PLAN/plan.json" --yes; then
  echo "::error::The plan was not applied as a whole. Re-run all jobs of the newest run on this branch: it plans again."
  exit 1
fi
unheard provisioner verify
