#!/bin/sh
# Builds the container image with the first of podman, buildah and docker that is there and works. By environment:
#
#   IMAGE          the image's name (localhost/mlproxy:latest)
#   BASE           its base image (the Containerfile's: Python's official one)
#   ENGINE         use this one of the three only
#   BUILD_OPTIONS  further options of `podman build`, `buildah build` or `docker build`
#   PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_CONFIG_FILE PIP_CERT
#                  where pip finds packages; the two files are given to the build as secrets, not kept in the image
set -eu
cd "$(dirname "$0")/.."
image=${IMAGE:-localhost/mlproxy:latest}
base=${BASE:-$(sed -n 's/^ARG BASE=//p' Containerfile)}

say() { echo "image.sh: $*" >&2; }

# Is this engine there, and does it work? A docker client without its engine, for one, is there and does not.
works() {
    command -v "$1" >/dev/null || return 1
    case $1 in
        podman | buildah) reason=$("$1" info 2>&1 >/dev/null) && return 0 ;;
        docker) reason=$(docker version --format '{{.Server.Version}}' 2>&1 >/dev/null) && return 0 ;;
    esac
    say "skipping $1, which is installed but does not work: $(echo "$reason" | tail -n 1)"
    return 1
}

choose() {
    for candidate in ${ENGINE:-podman buildah docker}; do
        if works "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    say "no working ${ENGINE:-podman, buildah or docker} here. On Debian or Ubuntu: sudo apt-get install buildah"
    return 1
}

# The base is fetched apart from the build: what a builder says when it cannot does not say what to do about it.
fetch_base() {
    case $engine in
        buildah) buildah inspect --type image "$base" >/dev/null 2>&1 && return ;;
        *) "$engine" image inspect "$base" >/dev/null 2>&1 && return ;;
    esac
    say "fetching the base image $base"
    reason=$("$engine" pull --quiet "$base" 2>&1 >/dev/null) && return
    say "$base cannot be fetched: $(echo "$reason" | tail -n 1)"
    say "Name a base that $engine can fetch, for example: BASE=registry.example.com/python:3.12-slim make image"
    say "Without a registry, load it from a file first (on another machine: save it): $(load_command)"
    return 1
}

load_command() {
    case $engine in
        buildah) echo "buildah pull docker-archive:python.tar" ;;
        *) echo "$engine load --input python.tar" ;;
    esac
}

# Whether a command can be run in a container of the base. Inside another container it often cannot: namespaces or
# control groups are out of reach. Then a change of root is all the isolation there is, and it is enough to build.
can_run() {
    container=$(buildah from --quiet "$base") || exit 1
    status=0
    buildah run "$container" -- true >/dev/null 2>&1 || status=$?
    buildah rm "$container" >/dev/null
    return "$status"
}

engine=$(choose)
fetch_base
set -- --file Containerfile --tag "$image" --build-arg "BASE=$base"
case $engine in
    podman) podman run --rm "$base" true >/dev/null 2>&1 || isolation=chroot ;;
    buildah) can_run || isolation=chroot ;;
    docker) export DOCKER_BUILDKIT=1 ;; # the older builder knows no secrets
esac
if [ -n "${isolation:-}" ]; then
    say "$engine cannot start containers here; building with --isolation $isolation"
    set -- "$@" --isolation "$isolation"
fi
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST; do
    eval "value=\${$name:-}"
    if [ -n "$value" ]; then set -- "$@" --build-arg "$name=$value"; fi
done
if [ -n "${PIP_CONFIG_FILE:-}" ] && [ -f "$PIP_CONFIG_FILE" ]; then
    set -- "$@" --secret "id=pip.conf,src=$PIP_CONFIG_FILE"
fi
if [ -n "${PIP_CERT:-}" ] && [ -f "$PIP_CERT" ]; then set -- "$@" --secret "id=ca.pem,src=$PIP_CERT"; fi

say "building $image on $base with $engine"
# shellcheck disable=SC2086 # options are words
"$engine" build "$@" ${BUILD_OPTIONS:-} .
say "built $image; run it: podman or docker run --rm -p 8080:8080 $image serve --backend http://…"
