# shellcheck shell=bash
# Functions of several scripts. The scripts are run by the actions run and report, and by the tests as they stand.

# Lengths are in characters, as GitHub counts them.
export LC_ALL=C.UTF-8

# The longest plan that is shown. GitHub's limit of a comment and of an issue is 65,536 characters, of which this leaves
# some for the text around the plan.
LONGEST_PLAN=64000

# The pipeline's name in comments and issues.
pipeline="${PIPELINE_CONFIG:-pipeline.toml}${PIPELINE_ENV:+ ($PIPELINE_ENV)}"

run_url="$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID"

# Runs a command whose output the runner does not take for commands: it contains names that others chose.
unheard() {
  local token code=0
  token=$(openssl rand -hex 16)
  echo "::stop-commands::$token"
  "$@" || code=$?
  printf '\n::%s::\n' "$token"
  return "$code"
}

# Prints the plan in PLAN, cut to LONGEST_PLAN. A pointer to the rest is above it: below, it would be within whatever
# section was cut.
shown_plan() {
  local plan
  plan=$(cat "$PLAN/plan.md" 2>/dev/null || true)
  if [ "${#plan}" -gt "$LONGEST_PLAN" ]; then
    printf '> The plan is cut off: [the summary of the run](%s) has all of it.\n\n' "$run_url"
  fi
  printf '%s\n' "${plan:0:$LONGEST_PLAN}"
}
