# shellcheck shell=bash
# The cache folder: one writer at a time, and entries that count only when they are whole.
#
# An entry NAME is the folder $CACHE/NAME with
#   tree/   what is kept
#   files   its files with type, mode, size and time of change: compared at every run
#   sums    their SHA-256: compared when `files` differs, so that a copied or touched cache stays good
#   recipe  how it was made: another recipe makes it anew
# It is made in $WORK and renamed into place, so an interrupted run leaves nothing that counts.

CACHE=
WORK=
SHA256=(sha256sum)
have sha256sum || SHA256=(shasum -a 256)

cache_open() {
    [ -n "${QUILLBACK_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-}" ] ||
        die "no folder for the cache" "set QUILLBACK_CACHE to a folder, or HOME"
    CACHE=${QUILLBACK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/quillback}
    mkdir -p "$CACHE" 2>/dev/null && [ -w "$CACHE" ] ||
        die "cannot write to the cache folder $CACHE" "set QUILLBACK_CACHE to a folder that can be written to"
    CACHE=$(cd "$CACHE" && pwd -P)
    # The loader takes its folders as a list with colons.
    case $CACHE in *:*) die "the cache folder $CACHE has a colon in its name" "set QUILLBACK_CACHE to another folder" ;; esac

    if have flock; then
        exec 9>"$CACHE/lock"
        if ! flock -n 9; then
            say "another run is setting up in $CACHE; waiting for it"
            flock 9
        fi
        # Under the lock nobody else works here: what is left is of interrupted runs.
        local left
        for left in "$CACHE"/tmp.*; do
            [ -e "$left" ] && rm -rf "$left"
        done
    else
        say "no flock on this machine: start only one set-up at a time"
    fi
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    WORK=$(mktemp -d "$CACHE/tmp.XXXXXX")
}

# The files below a folder, one a line: path, type, mode, size, time of the last change of any of these, target of a link.
cache_listing() {
    if find / -maxdepth 0 -printf '' 2>/dev/null; then
        (cd "$1" && find . ! -type d -printf '%p\t%y\t%m\t%s\t%C@\t%l\n')
    else
        (cd "$1" && find . ! -type d -exec stat -f '%N%t%HT%t%Lp%t%z%t%c%t%Y' {} +)
    fi | LC_ALL=C sort
}

cache_sha256() {
    "${SHA256[@]}" "$@"
}

# Succeeds if the entry is there, of this recipe, and whole.
cache_good() {
    local entry=$CACHE/$1 recipe=$2
    [ -f "$entry/recipe" ] && [ -f "$entry/files" ] && [ -f "$entry/sums" ] && [ -d "$entry/tree" ] || return 1
    if [ "$(cat "$entry/recipe")" != "$recipe" ]; then
        say "$1: made by another recipe; making it anew"
        return 1
    fi
    cache_listing "$entry/tree" >"$WORK/files"
    cmp -s "$WORK/files" "$entry/files" && return 0

    # Without times: is it only that the cache was copied or touched?
    cut -f 1-4,6 "$WORK/files" >"$WORK/is"
    cut -f 1-4,6 "$entry/files" >"$WORK/was"
    if cmp -s "$WORK/is" "$WORK/was" && (cd "$entry/tree" && cache_sha256 -c ../sums) >/dev/null 2>&1; then
        cp "$WORK/files" "$WORK/files.new" && mv "$WORK/files.new" "$entry/files"
        return 0
    fi
    local first
    first=$(diff "$WORK/was" "$WORK/is" | sed -n 's/^[<>] \.\/\([^\t]*\).*/\1/p' | head -n 1)
    say "$1: damaged in the cache (${first:-contents differ}); repairing it"
    return 1
}

# Puts the folder $2, which holds tree/, into the cache as the entry $1.
cache_put() {
    local name=$1 made=$2 recipe=$3
    cache_listing "$made/tree" >"$made/files"
    (cd "$made/tree" && find . -type f -exec "${SHA256[@]}" {} +) >"$made/sums"
    printf '%s\n' "$recipe" >"$made/recipe"
    # What is renamed into place is on the disk, power cut or not.
    sync -f "$made/recipe" 2>/dev/null || sync
    cache_replace "$CACHE/$name" "$made"
}

# Renames the folder $2 to $1; what was there goes away.
cache_replace() {
    local gone
    if [ -e "$1" ]; then
        gone=$(mktemp -d "$WORK/gone.XXXXXX")
        mv "$1" "$gone/"
    fi
    mv "$2" "$1"
}
