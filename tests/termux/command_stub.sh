#!/bin/sh
# Stands for a command of Termux or Termux:API. It writes down that it begins, what it was given and
# that it ends, and behaves as the file of its name in ../modes says.

name=${0##*/}
phone=${0%/*}/..
number=$$
mode=works
[ -f "$phone/modes/$name" ] && read -r mode <"$phone/modes/$name"
for word in "$@"; do printf '%s\n' "$word"; done >"$phone/given/$number.arguments"
printf '%s\n' "begin $name $number" >>"$phone/events"

case "$mode" in
hangs)
    sleep 1000
    ;;
waits)
    while [ ! -e "$phone/go" ]; do sleep 0.02; done
    ;;
babbles)
    cat /dev/urandom
    ;;
esac
case "$name" in
termux-wake-lock) : >"$phone/awake" ;;
termux-wake-unlock) rm -f "$phone/awake" ;;
termux-tts-speak | termux-clipboard-set) cat >"$phone/given/$number.text" ;;
*) [ -f "$phone/answers/$name" ] && cat "$phone/answers/$name" ;;
esac
printf '%s\n' "end $name $number" >>"$phone/events"
if [ "$mode" = fails ]; then
    echo "It went wrong."
    exit 3
fi
