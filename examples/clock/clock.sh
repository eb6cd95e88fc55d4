#!/bin/sh
# clock.sh SECONDS - a length of time as people write it: 65 is 1:05, 3725 is 1:02:05
set -eu
hours=$(($1 / 3600))
minutes=$(($1 / 60))
seconds=$(($1 % 60))
if [ "$hours" -gt 0 ]; then
    printf '%d:%02d:%02d\n' "$hours" "$minutes" "$seconds"
else
    printf '%d:%02d\n' "$minutes" "$seconds"
fi
