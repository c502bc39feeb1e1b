#!/usr/bin/env bash
# Tests the deployment with one object.
set -euo pipefail
source "$(dirname "$0")/common.sh"

unheard provisioner verify
