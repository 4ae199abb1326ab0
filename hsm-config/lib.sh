# shellcheck shell=bash
# Shell functions that hsm-config/quickstart, hsm-config/pki, hsm-config/token and tests/run share. Sourced by bash.

KMS_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# A short heading between the steps of a script.
kms_heading() {
    printf '\n== %s\n' "$*"
}

# One line of progress or of explanation.
kms_say() {
    printf '   %s\n' "$*"
}

# Stop with a message that says what to do.
kms_die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Run a command as root: directly, or through sudo.
kms_as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -- "$@"
    fi
}

# The package names of the given lists in hsm-config/packages/, comments left out.
kms_package_names() {
    local list
    for list in "$@"; do
        sed -e 's/#.*//' -e '/^[[:space:]]*$/d' -e 's/[[:space:]]//g' "$KMS_ROOT/hsm-config/packages/$list"
    done
}

# Those of the given packages that are not installed.
kms_missing_packages() {
    local name
    for name in "$@"; do
        if [ "$(dpkg-query -W -f='${db:Status-Status}\n' "$name" 2>/dev/null | head -n 1)" != installed ]; then
            printf '%s\n' "$name"
        fi
    done
}

# Install what is missing of the given lists (build, run, test) from Debian's archive; says so when there is nothing to do.
kms_install_packages() {
    local names missing log
    command -v dpkg-query >/dev/null || kms_die "this is not a Debian system (dpkg-query is missing); kms is built for Debian 12"
    mapfile -t names < <(kms_package_names "$@")
    mapfile -t missing < <(kms_missing_packages "${names[@]}")
    if [ "${#missing[@]}" -eq 0 ]; then
        kms_say "all ${#names[@]} packages are installed"
        return
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        kms_die "these packages are missing, and neither root nor sudo is at hand to install them:
    apt-get install --no-install-recommends ${missing[*]}"
    fi
    kms_say "installing ${#missing[@]} of ${#names[@]} packages: ${missing[*]}"
    log=$(mktemp)
    if ! kms_apt_install "${missing[@]}" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        kms_die "the packages could not be installed; see apt-get's message above"
    fi
    rm -f "$log"
}

# apt-get install without questions. The package lists are fetched when they are missing or name versions that are gone.
kms_apt_install() {
    local -a install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends
        -o DPkg::Lock::Timeout=120)
    if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || ! kms_as_root "${install[@]}" "$@"; then
        kms_as_root env DEBIAN_FRONTEND=noninteractive apt-get update -o DPkg::Lock::Timeout=120
        kms_as_root "${install[@]}" "$@"
    fi
}

# How many compilers at once: one for each processor, but never more than one for 768 MiB of free memory.
kms_jobs() {
    local processors memory
    processors=$(nproc)
    memory=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 786432))
    [ "$memory" -ge 1 ] || memory=1
    printf '%s\n' "$((processors < memory ? processors : memory))"
}

# Configure and build a preset; `kms_build PRESET [CMAKE OPTION]... -- [TARGET]...`. Quiet unless it fails.
kms_build() {
    local preset=$1 log
    local -a options=() targets=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift || true
    if [ $# -gt 0 ]; then
        targets=(--target "$@")
    fi
    mkdir -p "$KMS_ROOT/build"
    log=$KMS_ROOT/build/$preset.log
    if ! (cd "$KMS_ROOT" && cmake --preset "$preset" "${options[@]}" &&
        cmake --build --preset "$preset" -j "$(kms_jobs)" "${targets[@]}") >"$log" 2>&1; then
        grep -E -A 12 '^FAILED|error:|CMake Error' "$log" | head -n 80 >&2 || true
        printf 'the build of preset %s failed; the whole output is in %s\n' "$preset" "$log" >&2
        return 1
    fi
}
