#!/bin/sh
# pitstop-step: steers the job from a shell inside its sandbox. Speaks to the host by files in the job folder.
folder=/run/pitstop

help() {
    cat <<'END'
pitstop-step continue   go on with the remaining steps (as `exit` from the last shell does)
pitstop-step retry      run the step again, exactly as CI would; shows its output, returns its exit code
pitstop-step status     the steps, why the job is paused, who is in, until when
pitstop-step help       this
END
}

fail() {
    echo "pitstop-step: $1" >&2
    exit 2
}

pause() {
    sleep 0.05 2>/dev/null || sleep 1
}

case "${1:-help}" in
    continue | retry | status) verb=$1 ;;
    help | -h | --help)
        help
        exit 0
        ;;
    skip | fail | next | env) fail "\`$1\` comes later; today: continue, retry, status, help" ;;
    *) fail "no such verb: $1; try \`pitstop-step help\`" ;;
esac

[ -e "$folder/open" ] || fail "the job is not paused and nobody is in; there is nothing to $verb"

ask() {
    printf 'verb=%s\nsession=%s\n' "$1" "${PITSTOP_SESSION:-}" >"$folder/requests/.$2" &&
        mv "$folder/requests/.$2" "$folder/requests/$2" || fail "cannot write to $folder/requests"
}

id="$$-$(date +%s%N 2>/dev/null || echo 0)"
reply="$folder/replies/$id"
abort() {
    [ "$verb" = retry ] && ask abort "$id-abort"
    trap - INT TERM HUP
}
trap abort INT TERM HUP
ask "$verb" "$id"

shown=
silent=0
while [ ! -e "$reply" ]; do
    if [ -z "$shown" ] && [ -e "$reply.out" ]; then
        exec 3<"$reply.out"
        shown=yes
    fi
    [ -n "$shown" ] && cat <&3
    if [ -e "$folder/open" ]; then
        silent=0
    else
        silent=$((silent + 1))
        [ "$silent" -gt 100 ] && fail "nobody answers: the pause is over"
    fi
    pause
done
if [ -z "$shown" ] && [ -e "$reply.out" ]; then
    exec 3<"$reply.out"
    shown=yes
fi
[ -n "$shown" ] && cat <&3
{
    read -r code
    cat >&2
} <"$reply"
rm -f "$reply" "$reply.out"
exit "${code:-2}"
