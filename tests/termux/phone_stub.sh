#!/bin/sh
# Stands for the commands of Termux and Android: what they change are small files below $PHONE.
# $PHONE/fail holds a line "PATTERN|MESSAGE": the command that fits says MESSAGE and fails.

name=${0##*/}
line="$name${*:+ $*}"
printf '%s\n' "$line" >>"$PHONE/calls"
if [ -f "$PHONE/fail" ]; then
    IFS='|' read -r pattern message <"$PHONE/fail"
    # shellcheck disable=SC2254 # a pattern is meant
    case "$line" in
    $pattern)
        printf '%s\n' "$message"
        exit 100
        ;;
    esac
fi

has() { grep -qx "$1" "$PHONE/packages"; }
version() { cat "$PHONE/python"; }
site() { echo "$PREFIX/lib/python$(version)/site-packages"; }

last() {
    for last in "$@"; do :; done
    printf '%s\n' "$last"
}

install_packages() {
    for package in "$@"; do
        case "$package" in -*) continue ;; esac
        has "$package" || echo "$package" >>"$PHONE/packages"
        case "$package" in
        python) ln -sf "$PHONE/stub" "$PHONE/bin/python" ;;
        proot-distro) ln -sf "$PHONE/stub" "$PHONE/bin/proot-distro" ;;
        esac
    done
}

run_python() {
    case "$*" in
    *'import psutil') has python-psutil ;;
    *'import qwen_edge') [ -f "$(site)/qwen_edge/works" ] ;;
    *'import sys'*) version ;;
    *'import numpy, torch'*) has python-torch && has python-numpy && echo "torch 2.11.0" ;;
    '-m pip install '*)
        mkdir -p "$(site)/qwen_edge" "$(site)/qwen_edge-0.1.0.dist-info" "$PREFIX/bin"
        : >"$(site)/qwen_edge/works"
        ln -sf "$PHONE/stub" "$PREFIX/bin/qwen-edge"
        ;;
    '-m pip uninstall -y qwen-edge')
        if [ -d "$(site)/qwen_edge" ]; then
            rm -rf "$(site)/qwen_edge" "$(site)"/qwen_edge-*.dist-info "$PREFIX/bin/qwen-edge"
        fi
        ;;
    *) exit 99 ;;
    esac
}

run_in_debian() {
    [ -d "$PHONE/debian" ] || exit 1
    case "$*" in
    true | env*apt-get* | apt-get* | ln* | */qwen-edge\ run*) ;;
    'test -x /opt/qwen-edge/bin/qwen-edge') [ -f "$PHONE/debian/program" ] ;;
    'test -d /opt/qwen-edge') [ -d "$PHONE/debian/venv" ] ;;
    'python3 -m venv /opt/qwen-edge') mkdir -p "$PHONE/debian/venv" ;;
    '/opt/qwen-edge/bin/pip install '*) : >"$PHONE/debian/program" ;;
    'rm -rf /opt/qwen-edge /usr/local/bin/qwen-edge')
        rm -rf "$PHONE/debian/venv" "$PHONE/debian/program"
        ;;
    *) exit 99 ;;
    esac
}

case "$name" in
id) cat "$PHONE/uid" ;;
uname)
    case "${1:-}" in
    -o) cat "$PHONE/system" ;;
    *) cat "$PHONE/kernel-machine" ;;
    esac
    ;;
getprop) cat "$PHONE/property-$1" 2>/dev/null ;;
df)
    echo "Filesystem 1024-blocks Used Available Capacity Mounted"
    echo "/dev/block/dm-5 52000000 1 $(cat "$PHONE/free-kb") 50% /data"
    ;;
dpkg)
    case "$1" in
    --print-architecture) cat "$PHONE/architecture" ;;
    --audit) cat "$PHONE/audit" 2>/dev/null || : ;;
    --configure) rm -f "$PHONE/audit" ;;
    esac
    ;;
dpkg-query)
    if has "$(last "$@")"; then printf 'install ok installed'; else exit 1; fi
    ;;
apt-get)
    echo "'file:///x/clang_21.deb' clang_21.deb 40000000 SHA256:0"
    echo "'file:///x/python_3.deb' python_3.deb 9500000 SHA256:0"
    ;;
pkg)
    case "$1" in
    update) cat "$PHONE/update-says" 2>/dev/null || : ;;
    upgrade) ;;
    install)
        shift
        install_packages "$@"
        ;;
    *) exit 99 ;;
    esac
    ;;
python) run_python "$@" ;;
qwen-edge) echo "I am a tiny model." ;;
proot-distro)
    case "$1" in
    install) mkdir -p "$PHONE/debian" ;;
    login)
        while [ "$1" != -- ]; do shift; done
        shift
        run_in_debian "$@"
        ;;
    esac
    ;;
termux-wake-lock | termux-wake-unlock) ;;
*) exit 99 ;;
esac
