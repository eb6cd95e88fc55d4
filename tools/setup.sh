#!/bin/sh
# Makes .venv with everything in it, as uv.lock says. Needs nothing but Python 3.11 or newer.
set -eu
: "${PYTHON:=python3}" "${UV_VERSION:?}"
command -v "$PYTHON" >/dev/null 2>&1 || { echo "Python 3.11 or newer is needed: apt-get install python3" >&2; exit 1; }
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; $PYTHON is $("$PYTHON" -V 2>&1). Set PYTHON=…" >&2; exit 1
}
if [ ! -x .venv/bin/pip ]; then
    "$PYTHON" -c 'import ensurepip' 2>/dev/null || sh tools/packages.sh python3-venv
    rm -rf .venv
    "$PYTHON" -m venv .venv
fi
.venv/bin/pip install -q --disable-pip-version-check "uv==$UV_VERSION"
# uv brings certificates of its own; where a company's are needed too, those of the system have them.
sync() { .venv/bin/uv sync -q --frozen --inexact --all-packages "$@"; }
if [ -s /etc/ssl/certs/ca-certificates.crt ]; then sync --system-certs; else sync; fi
