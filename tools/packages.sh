#!/bin/sh
# Installs the named Debian packages that are missing; says how when it may not.
set -eu
missing=""
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then become=""; elif command -v sudo >/dev/null 2>&1; then become="sudo"; else
    echo "needed:$missing. Install them as root: apt-get install$missing" >&2; exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
# A package that brings a daemon must not start it: what runs here is started by the tests themselves.
policy=/usr/sbin/policy-rc.d
if [ "$(id -u)" = 0 ] && [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod 755 "$policy"; trap 'rm -f "$policy"' EXIT
fi
install() { $become apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1; }
install || { $become apt-get update -qq >/dev/null && install; } || {
    echo "apt-get could not install$missing. Try: apt-get update && apt-get install$missing" >&2; exit 1
}
