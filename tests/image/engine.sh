#!/usr/bin/env bash
# A Docker engine to build and run the image on, and stand-ins for the base images.
#
#   engine.sh up     use the engine that is there, or bring one up from Debian's packages; make stand-ins for
#                    base images that it does not have; print what to export
#   engine.sh down   remove the stand-ins and what was built on them; stop the engine and remove its files, if it
#                    is one of this script
#
# ENGINE is the folder for all that it writes. A stand-in is a Debian with Python and torch under the base
# image's own name: it shows that the Dockerfiles work, not what the real base holds.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# the engine's sockets lie in it, and the path of a socket has about 100 characters at most
state=${ENGINE:-${TMPDIR:-/tmp}/tunecask-engine-$(cksum <<<"$repository" | cut -d ' ' -f 1)}
packages=(docker.io containerd docker-buildx docker-compose)
stand_in=tunecask/stand-in
built=tunecask-test # what the tests call their images
python_of_stand_in=3.11 # of Debian bookworm

say() { echo "==> $*" >&2; }
fail() { echo "error: $*" >&2; exit 1; }

base_of() { sed -n 's/^ARG BASE_IMAGE=//p' "$repository/$1"; }
assets() { sed -n 's/^ARG ASSETS_IMAGE=//p' "$repository/Dockerfile"; }
pinned_torch() { sed -n 's/^torch==//p' "$repository/requirements-torch.txt"; }
has_image() { docker image inspect "$1" >/dev/null 2>&1; }
works() {
    docker info >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

install_packages() {
    local missing=() name
    for name in "$@"; do
        dpkg -s "${name%/*}" >/dev/null 2>&1 || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get -q "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2
}

# Debian's engine, of the release after bookworm: bookworm's own has no BuildKit client and an old compose.
use_debian() {
    local file
    command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] \
        || fail "no working Docker with buildx and compose here, and only root on a Debian can install one: install Docker first"
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ "$codename" = bookworm ] \
        || fail "no working Docker with buildx and compose here, and '$codename' is not Debian bookworm: install Docker first"
    mkdir -p "$state/sources" "$state/lists/partial"
    rm -f "$state"/sources/*
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -s "$file" ] && grep -q "$codename" "$file" || continue
        cp "$file" "$state/sources/this-$(basename "$file")"
        sed "s/$codename/trixie/g" "$file" >"$state/sources/next-$(basename "$file")"
    done
    apt=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::sourceparts=$state/sources"
        -o "Dir::State::lists=$state/lists" -o "APT::Default-Release=$codename" -o DPkg::Lock::Timeout=300)
    apt-get -q "${apt[@]}" update >&2
}

start_engine() {
    use_debian
    install_packages runc iptables tini "${packages[@]/%//trixie}"
    export DOCKER_HOST=unix://$state/docker.sock
    ! works || return 0
    say "starting dockerd"
    rm -f "$state/pid"
    # a small MTU passes through whatever tunnel the machine's own network may be
    setsid dockerd --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/pid" \
        --host "$DOCKER_HOST" --mtu 1400 </dev/null >"$state/dockerd.log" 2>&1 &
    for _ in $(seq 60); do
        ! works || return 0
        sleep 1
    done
    tail -n 20 "$state/dockerd.log" >&2
    fail "dockerd did not start; its log is above"
}

# What reaches the package registry from here has to reach it from the image's build: certificates and index.
registry_settings() {
    local variable value
    for variable in SSL_CERT_FILE REQUESTS_CA_BUNDLE PIP_CERT; do
        echo "ENV $variable=/etc/ssl/certs/ca-certificates.crt"
    done
    value=${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || :)}
    [ -z "$value" ] || printf 'ENV %s\n' "PIP_INDEX_URL=$value" "UV_DEFAULT_INDEX=$value"
}

certificates() {
    local file=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
    [ -s "$file" ] || fail "no certificates in $file: install ca-certificates"
    echo "$file"
}

make_root() {
    ! has_image "$stand_in:root" || return 0
    say "making a Debian for the stand-ins"
    if [ ! -s "$state/pid" ]; then
        docker build --quiet --label "$stand_in" --tag "$stand_in:root" - >/dev/null <<'END'
FROM debian:bookworm
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip python3-venv
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && ln -s python3 /usr/bin/python
END
        return
    fi
    install_packages mmdebstrap
    mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io \
        --include=ca-certificates,python3,python3-pip,python3-venv \
        --customize-hook="cp $(certificates) \"\$1/etc/ssl/certs/ca-certificates.crt\"" \
        --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED; ln -s python3 "$1/usr/bin/python"' \
        "$codename" - "$state"/sources/this-* | docker import --change "LABEL $stand_in=" - "$stand_in:root" >/dev/null
}

# The torch of the second stand-in is the pinned one, that of the first is only a name and an old version: it is
# there to be replaced.
make_bases() {
    local wheels=$state/wheels
    mkdir -p "$wheels"
    if ! ls "$wheels/torch-$(pinned_torch)"* >/dev/null 2>&1; then
        say "downloading torch"
        python3 -m pip download --quiet --dest "$wheels" --only-binary=:all: --no-deps \
            --python-version "$python_of_stand_in" -r "$repository/requirements-torch.txt"
    fi
    if ! has_image "$(base_of Dockerfile.ubuntu2204)"; then
        say "making $(base_of Dockerfile.ubuntu2204)"
        { echo "FROM $stand_in:root"; registry_settings; cat <<'END'; } |
RUN --mount=type=bind,from=wheels,target=/wheels \
    python -m pip install --quiet --no-cache-dir --root-user-action=ignore --find-links /wheels /wheels/torch-*.whl numpy
END
            docker build --quiet --label "$stand_in" --build-context wheels="$wheels" --tag "$(base_of Dockerfile.ubuntu2204)" - >/dev/null
    fi
    if ! has_image "$(base_of Dockerfile)"; then
        say "making $(base_of Dockerfile)"
        { echo "FROM $stand_in:root"; registry_settings; cat <<'END'; } |
RUN <<SCRIPT
    set -eu
    site=$(python -c 'import site; print(site.getsitepackages()[0])')
    mkdir -p "$site/torch" "$site/torch-2.4.1.dist-info"
    echo '__version__ = "2.4.1+stand.in"' >"$site/torch/__init__.py"
    cd "$site/torch-2.4.1.dist-info"
    printf 'Metadata-Version: 2.1\nName: torch\nVersion: 2.4.1\n' >METADATA
    printf 'Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: true\nTag: py3-none-any\n' >WHEEL
    echo pip >INSTALLER
    printf '%s,,\n' torch/__init__.py torch-2.4.1.dist-info/METADATA torch-2.4.1.dist-info/WHEEL \
        torch-2.4.1.dist-info/INSTALLER torch-2.4.1.dist-info/RECORD >RECORD
SCRIPT
END
            docker build --quiet --label "$stand_in" --tag "$(base_of Dockerfile)" - >/dev/null
    fi
    if ! has_image "$(assets)"; then
        say "making $(assets)"
        docker build --quiet --label "$stand_in" --tag "$(assets)" "$repository/tests/image/assets" >/dev/null
    fi
}

up() {
    mkdir -p "$state"
    works || start_engine
    make_root
    make_bases
    [ -z "${DOCKER_HOST:-}" ] || echo "export DOCKER_HOST=$DOCKER_HOST"
    echo "export WHEELS=$state/wheels"
}

down() {
    local images
    [ ! -s "$state/pid" ] || export DOCKER_HOST=unix://$state/docker.sock
    if [ ! -s "$state/pid" ] && works; then
        mapfile -t images < <(
            docker images --quiet --filter "reference=$built"
            docker images --quiet --filter "label=$stand_in"
        )
        [ ${#images[@]} = 0 ] || docker rmi --force "${images[@]}" >/dev/null
    fi
    if [ -s "$state/pid" ]; then
        say "stopping dockerd"
        kill "$(cat "$state/pid")" || :
        for _ in $(seq 60); do
            [ -e "$state/pid" ] || break
            sleep 1
        done
        # its network namespaces, and what a container that would not end has left
        awk -v state="$state/" 'index($2, state) == 1 { print $2 }' /proc/mounts | tac | xargs -r umount --lazy
    fi
    rm -rf "$state"
}

case ${1:-} in
    up | down) "$1" ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
