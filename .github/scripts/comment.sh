#!/usr/bin/env bash
# Shows the plan in the folder PLAN in one comment on the pull request NUMBER: the first run creates the comment, later
# ones edit it. The plan is never evaluated, only sent.
set -euo pipefail
source "$(dirname "$0")/common.sh"

marker="<!-- provisioner: $pipeline -->"
mkdir -p "$PLAN"
{
  echo "$marker"
  if [ ! -s "$PLAN/plan.md" ]; then
    echo "**The plan failed.** [The run]($run_url) shows why."
  fi
  shown_plan
} >"$PLAN/comment.md"

# Anybody may begin a comment with the marker, so the author counts too.
comments=$(gh api --paginate "repos/$GITHUB_REPOSITORY/issues/$NUMBER/comments?per_page=100" \
  --jq '.[] | [.id, .user.login, (.body | split("\n")[0] | rtrimstr("\r"))] | @tsv')
id=
while IFS=$'\t' read -r candidate author first_line; do
  if [ "$author" = "github-actions[bot]" ] && [ "$first_line" = "$marker" ]; then
    id=${id:-$candidate}
  fi
done <<<"$comments"

if [ -n "$id" ]; then
  gh api --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$id" --field "body=@$PLAN/comment.md"
else
  gh api --silent --method POST "repos/$GITHUB_REPOSITORY/issues/$NUMBER/comments" --field "body=@$PLAN/comment.md"
fi
