# shellcheck shell=bash
# The folder of wrappers that is the result. Its name is made of its contents: the same programs give the same folder,
# others another one, and a run that still uses the former is not disturbed.

wrappers_begin() {
    SET=$WORK/set
    mkdir -p "$SET/bin"
}

wrappers_commit() {
    local id
    id=$(cd "$SET" && find . -type f | LC_ALL=C sort | while read -r file; do echo "$file" && cat "$file"; done |
        cache_sha256 | cut -c 1-12)
    if ! diff -r "$SET" "$CACHE/set-$id" >/dev/null 2>&1 || ! wrappers_executable "$CACHE/set-$id"; then
        cache_replace "$CACHE/set-$id" "$SET"
    fi
    printf '%s\n' "$CACHE/set-$id/bin"
}

wrappers_executable() {
    local file
    for file in "$1"/bin/*; do
        [ -x "$file" ] || return 1
    done
}

# wrapper NAME COMMAND... : NAME is COMMAND with the arguments.
wrapper() {
    local name=$1
    shift
    {
        echo '#!/bin/sh'
        echo "exec$(wrapper_words "$@") \"\$@\""
    } >"$SET/bin/$name"
    chmod 755 "$SET/bin/$name"
}

# wrapper_mysql NAME OPTIONS... -- COMMAND... : the same for a program of MySQL's, with options that go before the
# caller's own, but after those that MySQL takes only at the front.
wrapper_mysql() {
    local name=$1 options=()
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    if [ ${#options[@]} -eq 0 ]; then
        wrapper "$name" "$@"
        return
    fi
    {
        cat <<'EOF'
#!/bin/sh
# --no-defaults, --defaults-file and the like stay at the front.
front=0
for a; do
    case $a in
        --no-defaults | --print-defaults | --no-login-paths | --defaults-*=* | --login-path=*) front=$((front + 1)) ;;
        *) break ;;
    esac
done
at=0
for a; do
    [ $at -ne $front ] || break
    at=$((at + 1))
    shift
    set -- "$@" "$a"
done
EOF
        # The arguments are now rotated: the others first, then the front ones.
        cat <<EOF
rest=\$((\$# - front))
set -- "\$@"$(wrapper_words "${options[@]}")
while [ \$rest -gt 0 ]; do
    rest=\$((rest - 1))
    a=\$1
    shift
    set -- "\$@" "\$a"
done
exec$(wrapper_words "$@") "\$@"
EOF
    } >"$SET/bin/$name"
    chmod 755 "$SET/bin/$name"
}

# The arguments, each quoted for sh with a space before it.
wrapper_words() {
    local word quote=\'
    for word in "$@"; do
        printf " '%s'" "${word//$quote/$quote\\$quote$quote}"
    done
}
