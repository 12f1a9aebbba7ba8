#!/bin/sh
# The page is tested in Debian's Chromium. Installed when we may; else its tests say that they were skipped, and why.
set -eu
command -v chromium >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null
else
    echo "Chromium is not installed: the page's tests will be skipped (apt-get install chromium)." >&2
fi
