#!/bin/sh
# pitstop-step: steers the job from a shell inside its sandbox. Speaks to the host by files in the job folder.
folder=/run/pitstop

help() {
    cat <<'END'
pitstop-step continue   go on with the remaining steps (as `exit` from the last shell does)
pitstop-step retry      run the step again, exactly as CI would; shows its output, returns its exit code
pitstop-step skip       count the step as skipped, and go on
pitstop-step fail       count the step as failed, and go on; the steps after it go by their `if`
pitstop-step next       go on, and pause again after the next step
pitstop-step pause      pause when the step in progress ends (while a step runs)
pitstop-step env        what this shell has changed in the environment of the step; - the step's, + the shell's
pitstop-step status     the steps, why the job is paused, who is in, until when
pitstop-step help       this
END
}

fail() {
    echo "pitstop-step: $1" >&2
    exit 2
}

rest() {
    sleep 0.05 2>/dev/null || sleep 1
}

case "${1:-help}" in
    continue | retry | skip | fail | next | pause | env | status) verb=$1 ;;
    help | -h | --help)
        help
        exit 0
        ;;
    *) fail "no such verb: $1; try \`pitstop-step help\`" ;;
esac

[ -e "$folder/open" ] || fail "the job is not paused and nobody is in; there is nothing to $verb"

ask() {
    if [ "$1" = env ]; then cat /proc/self/environ >"$folder/requests/.$2.env" || fail "cannot write there"; fi
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
    rest
done
if [ -z "$shown" ] && [ -e "$reply.out" ]; then
    exec 3<"$reply.out"
    shown=yes
fi
[ -n "$shown" ] && cat <&3
{
    read -r code
    case "$verb" in
        env | status) cat ;;
        *) cat >&2 ;;
    esac
} <"$reply"
rm -f "$reply" "$reply.out"
exit "${code:-2}"
