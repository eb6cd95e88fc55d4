#!/bin/sh
# Tries clock.sh with each line of $CASES: seconds, and what must come out.
set -eu
failed=0
while read -r seconds expected; do
    found=$(sh clock.sh "$seconds")
    if [ "$found" = "$expected" ]; then
        echo "ok    $seconds is $found"
    else
        echo "FAIL  $seconds is $found, expected $expected"
        failed=1
    fi
done <"${CASES:?}"
exit "$failed"
