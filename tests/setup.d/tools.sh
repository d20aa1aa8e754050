# shellcheck shell=bash
# The other programs: built from source into the cache, of one pinned version each, or Debian's packages.

# The last commit of the archived project; its releases are source only.
MINIO_MODULE=github.com/minio/minio
MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
CARGO_DENY_VERSION=0.20.2

setup_minio() {
    local found go recipe
    if found=$(command -v minio) && "$found" --version >/dev/null 2>&1 </dev/null; then
        wrapper minio "$found"
        return
    fi
    recipe="$MINIO_MODULE@$MINIO_VERSION $(uname -sm)"
    if ! cache_good minio "$recipe"; then
        go=$(command -v go) || go=/usr/local/go/bin/go
        [ -x "$go" ] || die "no minio found, and no Go to build it" \
            "install Go 1.24 or later, or put a minio on PATH, and run this again"
        say "minio: building $MINIO_MODULE@$MINIO_VERSION with $("$go" env GOVERSION); takes a few minutes, once"
        local made=$WORK/made.minio
        mkdir -p "$made/tree"
        quietly env -u GOOS -u GOARCH CGO_ENABLED=0 GOBIN="$made/tree" \
            "$go" install -trimpath -ldflags '-s -w' "$MINIO_MODULE@$MINIO_VERSION" ||
            die "minio: the build failed; what Go said is above" \
                "Go 1.24 or later is needed, and Go's module proxy or the modules in Go's cache"
        quietly "$made/tree/minio" --version || die "minio: it was built but does not run"
        cache_put minio "$made" "$recipe"
    fi
    wrapper minio "$CACHE/minio/tree/minio"
}

# Always Debian's: it is what the benchmark names.
setup_mydumper() {
    local reason plugins program
    reason=$(debian_usable) || die "mydumper cannot be fetched: $reason"
    debian_tree mydumper mydumper
    tree_run "$CACHE/mydumper/tree"
    # The client library looks for its ways of authentication where it was compiled for.
    for plugins in "$CACHE/mydumper/tree"/usr/lib/*/libmariadb3/plugin; do
        [ ! -d "$plugins" ] || break
    done
    for program in mydumper myloader; do
        wrapper "$program" env "MARIADB_PLUGIN_DIR=$plugins" "${RUN[@]}" "$CACHE/mydumper/tree/usr/bin/$program"
    done
}

setup_cargo_deny() {
    local found recipe
    if found=$(command -v cargo-deny) && "$found" --version >/dev/null 2>&1 </dev/null; then
        wrapper cargo-deny "$found"
        return
    fi
    recipe="cargo-deny $CARGO_DENY_VERSION $(uname -sm)"
    if ! cache_good cargo-deny "$recipe"; then
        have cargo || die "no cargo to build cargo-deny"
        say "cargo-deny: building $CARGO_DENY_VERSION; takes some minutes, once"
        local made=$WORK/made.cargo-deny
        mkdir -p "$made"
        # It runs for a second: quick to build matters more than quick to run.
        quietly env -u CARGO_TARGET_DIR CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
            CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=symbols \
            cargo install cargo-deny --locked --version "$CARGO_DENY_VERSION" --root "$made/tree" \
            --target-dir "$WORK/target" || die "cargo-deny: the build failed; what cargo said is above"
        rm -f "$made/tree"/.crates*
        quietly "$made/tree/bin/cargo-deny" --version || die "cargo-deny: it was built but does not run"
        cache_put cargo-deny "$made" "$recipe"
    fi
    wrapper cargo-deny "$CACHE/cargo-deny/tree/bin/cargo-deny"
}

setup_shellcheck() {
    local program reason
    if program=$(command -v shellcheck); then
        wrapper shellcheck "$program"
        return
    fi
    reason=$(debian_usable) || die "no shellcheck found, and it cannot be fetched: $reason" "install shellcheck"
    debian_tree shellcheck shellcheck
    tree_run "$CACHE/shellcheck/tree"
    wrapper shellcheck "${RUN[@]}" "$CACHE/shellcheck/tree/usr/bin/shellcheck"
}

# What restores without Quillback: docs/RESTORE-BY-HAND.md.
setup_zstd() {
    local program reason
    if program=$(command -v zstd); then
        wrapper zstd "$program"
        return
    fi
    reason=$(debian_usable) || die "no zstd found, and it cannot be fetched: $reason" "install zstd"
    debian_tree zstd zstd
    tree_run "$CACHE/zstd/tree"
    wrapper zstd "${RUN[@]}" "$CACHE/zstd/tree/usr/bin/zstd"
}
