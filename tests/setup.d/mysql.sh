# shellcheck shell=bash
# MySQL's server, clients and Router: a named prefix, else what is on PATH, else Debian's packages.

MYSQL_CLIENTS=(mysql mysqldump mysqlbinlog mysqladmin)
MYSQL_PACKAGES=(mysql-server-core mysql-client-core mysql-router)
MYSQL_ADVICE=(
    "install MySQL >= 8.0 (8.4 or later is best) with its clients, or unpack a tarball of it, and set"
    "QUILLBACK_MYSQL_PREFIX to where it is if it is not on PATH. MariaDB does not do."
    "  Ubuntu:   apt install mysql-server-core-8.0 mysql-client-core-8.0 mysql-router"
    "  Debian:   nothing to install: apt-get and dpkg fetch what is needed into the cache"
    "  RHEL etc: dnf install mysql-server mysql (or mysql8.4-server mysql8.4), and mysql-router of MySQL's own repository"
    "  macOS:    brew install mysql (mysql-router comes as a tarball: put its bin on PATH)"
)

setup_mysql() {
    local reason passed=() candidate
    if [ -n "${QUILLBACK_MYSQL_PREFIX:-}" ]; then
        mysql_prefix
        if mysql_is_tree "$MYSQL_PREFIX"; then
            debian_check_mysql "$MYSQL_PREFIX"
            mysql_wrap_tree "$MYSQL_PREFIX"
            return
        fi
        for candidate in bin sbin libexec; do
            if [ -x "$MYSQL_PREFIX/$candidate/mysqld" ]; then
                mysql_try_native "$MYSQL_PREFIX/$candidate/mysqld" && return
                die "QUILLBACK_MYSQL_PREFIX=$QUILLBACK_MYSQL_PREFIX: $REASON" "unset it, or name another MySQL"
            fi
        done
        die "QUILLBACK_MYSQL_PREFIX=$QUILLBACK_MYSQL_PREFIX: no mysqld in its bin, sbin or libexec"
    fi

    while read -r candidate; do
        mysql_try_native "$candidate" && return
        say "mysql: passed over $candidate: $REASON"
        passed+=("$candidate was passed over: $REASON")
    done < <(mysql_on_path)

    if ! reason=$(debian_usable); then
        die "no MySQL found, and it cannot be fetched: $reason" ${passed[@]+"${passed[@]}"} "${MYSQL_ADVICE[@]}"
    fi
    mysql_debian
    mysql_wrap_tree "$CACHE/mysql/tree"
}

mysql_debian() {
    # Router and servers share the tree, whichever of them is asked for.
    debian_tree mysql "${MYSQL_PACKAGES[@]}"
}

# Makes $MYSQL_PREFIX absolute, with the usr/ of an unpacked package.
mysql_prefix() {
    MYSQL_PREFIX=$(cd "$QUILLBACK_MYSQL_PREFIX" 2>/dev/null && pwd -P) ||
        die "QUILLBACK_MYSQL_PREFIX=$QUILLBACK_MYSQL_PREFIX: no such folder"
}

# Succeeds if $1 holds packages unpacked apart from the system: it has a C library of its own.
mysql_is_tree() {
    [ "$1" != / ] && [ -x "$1/usr/sbin/mysqld" ] && mysql_loader "$1" >/dev/null
}

mysql_loader() {
    local loader
    for loader in "$1"/usr/lib/*-linux-gnu/ld-linux*.so.*; do
        [ -x "$loader" ] && echo "$loader" && return 0
    done
    return 1
}

# Every mysqld that a shell would find, and those that distributions put beside its reach.
mysql_on_path() {
    local folder file seen=:
    while IFS= read -r -d : folder; do
        file=${folder:-.}/mysqld
        [ -x "$file" ] && [ ! -d "$file" ] || continue
        file=$(realpath "$file")
        case $seen in *":$file:"*) continue ;; esac
        seen=$seen$file:
        echo "$file"
    done <<<"$PATH:/usr/sbin:/usr/local/sbin:/usr/libexec:/usr/local/mysql/bin:"
}

# Uses the installed server $1, or says in REASON why not.
mysql_try_native() {
    local mysqld=$1 version prefix plugins='' folder client found tools=() options=()
    version=$("$mysqld" --version 2>&1 </dev/null) || { REASON="it does not run: ${version##*$'\n'}" && return 1; }
    if [[ $version == *MariaDB* ]]; then
        REASON="it is MariaDB"
        return 1
    fi
    if ! [[ $version =~ Ver\ ([0-9]+)\.[0-9]+\.[0-9]+ ]] || [ "${BASH_REMATCH[1]}" -lt 8 ]; then
        REASON="it is not MySQL 8.0 or later: $version"
        return 1
    fi

    prefix=$(cd "$(dirname "$mysqld")/.." && pwd -P)
    folder=$("$mysqld" --no-defaults --verbose --help 2>/dev/null </dev/null | sed -n 's/^plugin-dir  *//p') || folder=
    for folder in "${folder%/}" "$prefix"/lib{,64}/mysql/plugin "$prefix"/lib/plugin "$prefix"/lib/*/mysql/plugin; do
        if [ -f "$folder/group_replication.so" ] && [ -f "$folder/mysql_clone.so" ]; then
            plugins=$folder
            break
        fi
    done
    if [ -z "$plugins" ]; then
        REASON="it has no plugins group_replication.so and mysql_clone.so"
        return 1
    fi
    options+=("--plugin-dir=$plugins")

    for client in "${MYSQL_CLIENTS[@]}"; do
        found=
        for folder in "$(dirname "$mysqld")" "$prefix/bin"; do
            [ -x "$folder/$client" ] && found=$folder/$client && break
        done
        [ -n "$found" ] || found=$(command -v "$client") || { REASON="the client $client is missing" && return 1; }
        version=$("$found" --version 2>&1 </dev/null) || { REASON="$found does not run" && return 1; }
        if [[ $version == *MariaDB* ]]; then
            REASON="$found is MariaDB's"
            return 1
        fi
        tools+=("$found")
    done

    local i=0
    wrapper_mysql mysqld "${options[@]}" -- "$mysqld"
    for client in "${MYSQL_CLIENTS[@]}"; do
        wrapper "$client" "${tools[$i]}"
        i=$((i + 1))
    done
    mysql_apparmor "$mysqld"
}

# Ubuntu confines /usr/sbin/mysqld to its own folders; a server started elsewhere then fails with odd errors.
mysql_apparmor() {
    local profile=/etc/apparmor.d/usr.sbin.mysqld
    if [ "$1" = /usr/sbin/mysqld ] && [ -e "$profile" ] && [ ! -e /etc/apparmor.d/disable/usr.sbin.mysqld ] &&
        [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then
        say "warning: AppArmor confines $1 to the system's data folders; if servers fail to start, try:"
        say "    ln -s $profile /etc/apparmor.d/disable/ && apparmor_parser -R $profile"
    fi
}

setup_router() {
    local router
    if [ -n "${QUILLBACK_MYSQL_PREFIX:-}" ]; then
        mysql_prefix
        if mysql_is_tree "$MYSQL_PREFIX" && [ -x "$MYSQL_PREFIX/usr/bin/mysqlrouter" ]; then
            router_wrap_tree "$MYSQL_PREFIX"
            return
        fi
        router=$MYSQL_PREFIX/bin/mysqlrouter
        if [ -x "$router" ]; then
            router_native "$router" || die "$router does not run"
            return
        fi
    fi
    if router=$(command -v mysqlrouter); then
        router_native "$(realpath "$router")" && return
        say "router: passed over $router: it does not run"
    fi
    local reason
    reason=$(debian_usable) || die "no mysqlrouter found, and it cannot be fetched: $reason" "${MYSQL_ADVICE[@]}"
    mysql_debian
    router_wrap_tree "$CACHE/mysql/tree"
}

router_native() {
    "$1" --version >/dev/null 2>&1 </dev/null || return 1
    wrapper mysqlrouter "$1"
}

# ---- unpacked packages ----

# Sets RUN to the command that starts programs of the tree $1: its own loader with its own libraries, since those of
# the system are older. (LD_LIBRARY_PATH would reach programs that a server starts.)
tree_run() {
    local tree=$1 folder libraries=''
    local loader
    loader=$(mysql_loader "$tree") || die "$tree: no loader in usr/lib"
    for folder in "${loader%/*}" "${loader%/*}/mysql-router" "$tree/usr/lib/mysql-router"; do
        [ ! -d "$folder" ] || libraries=$libraries${libraries:+:}$folder
    done
    RUN=("$loader" --library-path "$libraries")
}

# Tries every program of the tree $1 that will be handed out.
debian_check_mysql() {
    local tree=$1 program
    tree_run "$tree"
    for program in sbin/mysqld "${MYSQL_CLIENTS[@]/#/bin/}"; do
        quietly "${RUN[@]}" "$tree/usr/$program" --version || die "$tree/usr/$program does not run on this machine"
    done
    [ ! -x "$tree/usr/bin/mysqlrouter" ] || quietly "${RUN[@]}" "$tree/usr/bin/mysqlrouter" --version ||
        die "$tree/usr/bin/mysqlrouter does not run on this machine"
    for program in group_replication mysql_clone; do
        [ -f "$tree/usr/lib/mysql/plugin/$program.so" ] || die "$tree: no plugin $program.so"
    done
}

mysql_wrap_tree() {
    local tree=$1 client
    tree_run "$tree"
    wrapper_mysql mysqld --basedir="$tree/usr" --lc-messages-dir="$tree/usr/share/mysql" \
        --character-sets-dir="$tree/usr/share/mysql/charsets" --plugin-dir="$tree/usr/lib/mysql/plugin" \
        -- "${RUN[@]}" "$tree/usr/sbin/mysqld"
    for client in "${MYSQL_CLIENTS[@]}"; do
        wrapper_mysql "$client" --character-sets-dir="$tree/usr/share/mysql/charsets" \
            -- "${RUN[@]}" "$tree/usr/bin/$client"
    done
}

# Router looks for its plugins where it was compiled for; the configuration's [DEFAULT] plugin_folder can also be given
# as an option, in one form for a run and in another for --bootstrap.
router_wrap_tree() {
    local tree=$1 plugins
    for plugins in "$tree"/usr/lib/mysqlrouter/plugin "$tree"/usr/lib/*/mysqlrouter/plugin; do
        [ ! -f "$plugins/routing.so" ] || break
    done
    [ -f "$plugins/routing.so" ] || die "$tree: no plugin folder of mysqlrouter"
    printf '%s\n' "$plugins" >"$SET/router-plugin-dir"
    tree_run "$tree"
    {
        cat <<EOF
#!/bin/sh
plugins=$(wrapper_words "plugin_folder=$plugins" | cut -c 2-)
for a; do
    case \$a in
        -V | --version | -\? | --help) plugins= ;;
        -B* | --bootstrap | --bootstrap=*) plugins=conf-set-option=DEFAULT.\$plugins ;;
    esac
done
case \$plugins in
    '') ;;
    conf-*) set -- "\$@" "--\$plugins" ;;
    *) set -- "\$@" "--DEFAULT.\$plugins" ;;
esac
exec$(wrapper_words "${RUN[@]}" "$tree/usr/bin/mysqlrouter") "\$@"
EOF
    } >"$SET/bin/mysqlrouter"
    chmod 755 "$SET/bin/mysqlrouter"
}
