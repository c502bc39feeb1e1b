#!/usr/bin/env bash
# Keeps one open issue while the pipeline is not in sync or does not work. CODE is the exit code of the plan in the folder
# PLAN, empty if there is none; VERIFIED is the result of the job that verifies, which may be skipped.
set -euo pipefail
source "$(dirname "$0")/common.sh"

title="Drift of $pipeline"
issues="repos/$GITHUB_REPOSITORY/issues"
mkdir -p "$PLAN"

problems=()
case "$CODE" in
  0) ;;
  2 | 3) problems+=("The live state differs from the desired state, or has a problem; the plan is below.") ;;
  *) problems+=("The plan failed.") ;;
esac
case "$VERIFIED" in
  success | skipped) ;;
  *) problems+=("\`provisioner verify\` failed: files may be left uncounted.") ;;
esac

open=$(gh api --paginate "$issues?state=open&labels=drift&per_page=100" \
  --jq '.[] | select(.pull_request | not) | [.number, .title] | @tsv')
number=
while IFS=$'\t' read -r candidate candidate_title; do
  if [ "$candidate_title" = "$title" ]; then
    number=${number:-$candidate}
  fi
done <<<"$open"

if [ "${#problems[@]}" -eq 0 ]; then
  if [ -n "$number" ]; then
    gh api --silent --method POST "$issues/$number/comments" --raw-field "body=In sync again: $run_url"
    gh api --silent --method PATCH "$issues/$number" --raw-field state=closed --raw-field state_reason=completed
  fi
  exit
fi

{
  printf '%s\n\n' "${problems[@]}" "The newest check: $run_url"
  shown_plan
} >"$PLAN/issue.md"
if [ -n "$number" ]; then
  gh api --silent --method PATCH "$issues/$number" --field "body=@$PLAN/issue.md"
else
  gh label create drift --repo "$GITHUB_REPOSITORY" --force --color fbca04 \
    --description "The live pipeline is not as its file declares it"
  gh api --silent --method POST "$issues" --raw-field "title=$title" --raw-field "labels[]=drift" \
    --field "body=@$PLAN/issue.md"
fi
