# shellcheck shell=bash
# Debian's packages, unpacked into the cache and run from there.
#
# apt-get works on lists, a status file and an archive folder of its own, from the mirror that the system itself uses,
# at the suite sid: only that suite has MySQL. Signatures are checked as for any other apt-get run.

DEBIAN_SUITE=sid
DEBIAN_RECIPE=1

# Says why Debian's packages cannot be used here, and fails; or succeeds.
debian_usable() {
    local id
    id=$(debian_release ID)
    if [ "$(uname -s)" != Linux ] || [ "$id" != debian ]; then
        echo "this is not Debian"
    elif ! have apt-get || ! have dpkg-deb || ! have dpkg; then
        echo "apt-get or dpkg is missing"
    else
        case $(dpkg --print-architecture) in
            amd64 | arm64) return 0 ;;
            *) echo "no packages for the architecture $(dpkg --print-architecture)" ;;
        esac
    fi
    return 1
}

debian_release() {
    # shellcheck source=/dev/null
    [ -r /etc/os-release ] && (. /etc/os-release && eval "printf '%s\n' \"\${$1:-}\"")
}

# Makes sure that the cache has the entry $1 with the packages $2..., each with what it depends on. The caller's
# function debian_check_NAME, if there is one, tries the tree before it counts.
debian_tree() {
    local name=$1 recipe why
    shift
    recipe="debian $DEBIAN_RECIPE $DEBIAN_SUITE $(dpkg --print-architecture 2>/dev/null) $*"
    cache_good "$name" "$recipe" && return 0
    why=$(debian_usable) || die "$name: $why"

    debian_debs_good "$name" "$recipe" || debian_download "$name" "$recipe" "$@"
    local made=$WORK/made.$name deb
    rm -rf "$made"
    mkdir -p "$made/tree"
    say "$name: unpacking"
    for deb in "$CACHE/$name.debs"/*.deb; do
        # mysql-server-core wants perl for a few scripts that are not used here.
        case ${deb##*/} in perl* | libperl*) continue ;; esac
        quietly dpkg-deb -x "$deb" "$made/tree" || die "cannot unpack $deb" "is the disk full? (df $CACHE)"
    done
    (cd "$made/tree/usr/share" && rm -rf doc man locale lintian gdb gcc)
    if declare -F "debian_check_$name" >/dev/null; then
        "debian_check_$name" "$made/tree"
    fi
    cache_put "$name" "$made" "$recipe"
}

debian_debs_good() {
    local debs=$CACHE/$1.debs
    [ -f "$debs/SHA256SUMS" ] && [ "$(cat "$debs/recipe" 2>/dev/null)" = "$2" ] || return 1
    (cd "$debs" && sha256sum -c --quiet --strict SHA256SUMS) >/dev/null 2>&1 && return 0
    say "$1: the packages kept in the cache are damaged; fetching them again"
    return 1
}

debian_download() {
    local name=$1 recipe=$2 apt=$WORK/apt candidate count=0
    shift 2
    rm -rf "$apt"
    mkdir -p "$apt"
    debian_sources "$apt" /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources
    for candidate in "$apt"/*.sources; do
        [ -f "$candidate" ] || continue
        count=$((count + 1))
        debian_apt_conf "$apt" "$candidate"
        say "$name: asking $(sed -n 's/^URIs: //p' "$candidate") for $* of Debian $DEBIAN_SUITE"
        if ! apt-get -c "$apt/apt.conf" update >"$WORK/log" 2>&1 </dev/null; then
            tail -n 8 "$WORK/log" >&2
            if grep -qE 'NO_PUBKEY|EXPKEYSIG|REVKEYSIG|BADSIG|is not signed|public key is not available' "$WORK/log"; then
                die "$name: the signature of Debian $DEBIAN_SUITE could not be verified, so nothing of it is used" \
                    "the system's keys may be too old. try: apt-get install --only-upgrade debian-archive-keyring"
            fi
            continue
        fi
        if quietly apt-get -c "$apt/apt.conf" install --download-only "$@"; then
            mkdir -p "$apt/debs"
            mv "$apt/cache/archives"/*.deb "$apt/debs/"
            (cd "$apt/debs" && sha256sum -- *.deb >SHA256SUMS)
            printf '%s\n' "$recipe" >"$apt/debs/recipe"
            say "$name: fetched $(find "$apt/debs" -name '*.deb' | wc -l) packages, $(du -sm "$apt/debs" | cut -f 1) MB"
            cache_replace "$CACHE/$name.debs" "$apt/debs"
            return 0
        fi
    done
    [ "$count" -gt 0 ] ||
        die "$name: /etc/apt/sources.list and /etc/apt/sources.list.d name no mirror of Debian" "${DEBIAN_ADVICE[@]}"
    die "$name: could not fetch $* from Debian's mirror" \
        "what apt-get said is above. try: apt-get update, to see if the mirror answers at all" "${DEBIAN_ADVICE[@]}"
}

DEBIAN_ADVICE=("or install what is missing yourself and run this again")

debian_apt_conf() {
    local apt=$1 source=$2 arch
    arch=$(dpkg --print-architecture)
    rm -rf "$apt/lists" "$apt/cache"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    cat >"$apt/apt.conf" <<EOF
Dir::Etc::SourceList "$source";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$apt";
Dir::State::Lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Log "$apt";
Debug::NoLocking "1";
// The system's hooks are for the system's own runs.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Architectures { "$arch"; };
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
Acquire::Retries "3";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
EOF
    # The account that apt-get would drop to cannot reach into a private cache folder.
    [ "$(id -u)" -ne 0 ] || echo 'APT::Sandbox::User "root";' >>"$apt/apt.conf"
}

# Writes a deb822 file NN.sources into the folder $1 for each mirror of Debian that the files $2... name, the likeliest
# first.
debian_sources() {
    local out=$1 codename file
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    codename=$(debian_release VERSION_CODENAME)
    [ -f "$keyring" ] || keyring=
    shift
    for file; do
        [ -r "$file" ] || continue
        case $file in
            *.sources) cat "$file" ;;
            *) debian_one_line "$file" ;;
        esac
        echo
    done | awk -v out="$out" -v suites="$codename stable testing unstable sid" -v want="$DEBIAN_SUITE" -v keyring="$keyring" '
        function word(list, w) { return index(" " list " ", " " w " ") > 0 }
        function stanza(    i, n, s, fits, uri, u, rank, file) {
            n = split(suites, s, " ")
            for (i = 1; i <= n; i++) if (word(field["suites"], s[i])) fits = 1
            if (fits && word(field["types"], "deb") && word(field["components"], "main") &&
                tolower(field["enabled"]) !~ /no|false|off|0/) {
                split(field["uris"], u, " ")
                uri = u[1]
                if (uri !~ /^cdrom/ && !(uri in seen)) {
                    seen[uri] = 1
                    rank = (uri ~ /\/debian\/?$/) ? 1 : 2
                    file = sprintf("%s/%d%02d.sources", out, rank, ++count)
                    printf "Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n", uri, want > file
                    if (signed == "" && keyring != "") signed = " " keyring
                    if (signed != "") printf "Signed-By:%s\n", signed > file
                    close(file)
                }
            }
            split("", field); signed = ""; name = ""
        }
        /^[ \t]*#/ { next }
        /^[ \t]*$/ { stanza(); next }
        /^[ \t]/ { if (name == "signed-by") signed = signed "\n" $0; else field[name] = field[name] " " $0; next }
        {
            colon = index($0, ":")
            name = tolower(substr($0, 1, colon - 1))
            value = substr($0, colon + 1)
            if (name == "signed-by") { signed = value } else { gsub(/[ \t]+/, " ", value); field[name] = value " " }
        }
        END { stanza() }
    '
}

# A sources.list of one-line entries as deb822 stanzas.
debian_one_line() {
    sed -n 's/#.*//; s/^[ \t]*deb[ \t]\{1,\}//p' "$1" | awk '
        {
            signed = ""
            if ($0 ~ /^\[/) {
                options = substr($0, 2, index($0, "]") - 2)
                $0 = substr($0, index($0, "]") + 1)
                n = split(options, o, " ")
                for (i = 1; i <= n; i++) if (o[i] ~ /^signed-by=/) signed = substr(o[i], 11)
            }
            printf "Types: deb\nURIs: %s\nSuites: %s\nComponents:", $1, $2
            for (i = 3; i <= NF; i++) printf " %s", $i
            print ""
            gsub(/,/, " ", signed)
            if (signed != "") printf "Signed-By: %s\n", signed
            print ""
        }
    '
}
