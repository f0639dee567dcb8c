#!/bin/sh
# Re-makes this folder from npm and refuses anything but the recorded bytes.
# To move to another release: change the three values below, run, update README.md.
set -eu

version=2.23.0
bundle_sha256=053820ce316a0d9881e54d4745eeb45b96575c05d3591a214f318168336e1367
licence_sha256=09e8a9bcec8067104652c168685ab0931e7868f9c8284b66f5ae6edae5f1130b

here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

(cd "$scratch" && npm pack --silent "livekit-client@$version" >/dev/null && tar -xzf "livekit-client-$version.tgz")

printf '%s  %s\n' \
  "$bundle_sha256" "$scratch/package/dist/livekit-client.esm.mjs" \
  "$licence_sha256" "$scratch/package/LICENSE" | sha256sum --check --quiet

cp "$scratch/package/dist/livekit-client.esm.mjs" "$here/livekit-client.esm.mjs"
cp "$scratch/package/LICENSE" "$here/livekit-client.LICENSE.txt"
echo "livekit-client $version: verified and copied"
