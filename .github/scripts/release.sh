#!/usr/bin/env bash
# Downloads the release VERSION of REPOSITORY into the folder RELEASE, and unpacks it if its sums and its attestation prove
# that the release workflow of the repository built it from the tag.
set -euo pipefail

version=${VERSION#v}
archive="provisioner-$version-x86_64-linux.tar.gz"
mkdir -p "$RELEASE"
gh release download "v$version" --repo "$REPOSITORY" --dir "$RELEASE" --pattern "$archive" --pattern SHA256SUMS
(cd "$RELEASE" && sha256sum --check --strict --ignore-missing SHA256SUMS)
gh attestation verify "$RELEASE/$archive" --repo "$REPOSITORY" \
  --signer-workflow "$REPOSITORY/.github/workflows/release.yml" --source-ref "refs/tags/v$version"
tar --extract --gzip --file "$RELEASE/$archive" --directory "$RELEASE" --strip-components 1
