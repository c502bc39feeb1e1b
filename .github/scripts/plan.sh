#!/usr/bin/env bash
# Plans, saves the plan in the folder PLAN, and shows it in the summary of the job. Sets the output `code`: 0 in sync,
# 2 changes or problems, 3 only orphaned resources. Any other code is a failure.
set -euo pipefail
source "$(dirname "$0")/common.sh"

plan() {
  local code=0
  provisioner plan --detailed-exitcode --format markdown --out "$PLAN/plan.json" >"$PLAN/plan.md" || code=$?
  cat "$PLAN/plan.md"
  return "$code"
}

mkdir -p "$PLAN"
code=0
unheard plan || code=$?
echo "code=$code" >>"$GITHUB_OUTPUT"
cat "$PLAN/plan.md" >>"$GITHUB_STEP_SUMMARY"
case "$code" in
  0 | 2 | 3) ;;
  *) exit "$code" ;;
esac
