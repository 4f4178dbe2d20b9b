#!/bin/sh
# Stands for the commands of Termux and Android that a Debian lacks. Packages are real: only their
# names are translated, and apt works as root, as Termux's user owns all of Termux.

system_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Writes the arguments with Debian's names for the packages, a line each.
translated() {
    for word in "$@"; do
        case "$word" in
        python) echo python3 ;;
        python-pip) echo python3-venv ;;
        python-psutil) echo python3-psutil ;;
        *) echo "$word" ;;
        esac
    done
}

name=${0##*/}
case "$name" in
apt-get | dpkg-query)
    # shellcheck disable=SC2046 # no argument holds a space
    PATH=$system_path exec "$name" $(translated "$@")
    ;;
pkg)
    action=$1
    shift
    case "$action" in
    upgrade) action=full-upgrade ;;
    install) action="install --no-install-recommends" ;;
    esac
    # shellcheck disable=SC2046,SC2086 # several words are meant
    PATH=$system_path exec apt-get $action $(translated "$@")
    ;;
getprop)
    # As recorded on a phone.
    if [ $# -eq 0 ]; then cat "$PREFIX/properties"; else
        sed -n "s/^\[$1]: \[\(.*\)]$/\1/p" "$PREFIX/properties"
    fi
    ;;
id) echo 10234 ;;
uname)
    if [ "${1:-}" = -o ]; then echo Android; else PATH=$system_path exec uname "$@"; fi
    ;;
termux-wake-lock | termux-wake-unlock) echo "$name" >>"$HOME/wake-locks" ;;
*)
    echo "$name is not stood for" >&2
    exit 99
    ;;
esac
