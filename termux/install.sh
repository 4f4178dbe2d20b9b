#!/bin/sh
# Installs qwen-edge in Termux: `sh install.sh --help`. Run it again whenever something went wrong.
#
# One file and plain POSIX sh, because on a fresh Termux there is nothing else to rely on. What is
# already there is looked up, never remembered, so that every run goes on where the last one ended.

set -u

# Rough sizes in MB, for the time before apt knows the exact ones: download, disk.
LITE_MB="150 900"
FULL_MB="130 700"
PROOT_MB="450 2600"
# Later releases for aarch64 on the index need CUDA.
PROOT_TORCH="torch==2.10.0"
VENV=/opt/qwen-edge
MOUNT=/opt/qwen-edge-source

EXIT_LOG=1 EXIT_USAGE=2 EXIT_TERMUX=10 EXIT_PLAY=11 EXIT_ARCH=12 EXIT_ANDROID=13 EXIT_ROOT=14 EXIT_SPACE=15
EXIT_NETWORK=16 EXIT_BUSY=17 EXIT_UPDATE=20 EXIT_PACKAGES=21 EXIT_PIP=22 EXIT_CHECK=23
EXIT_DEBIAN=24 EXIT_IN_DEBIAN=25 EXIT_UNINSTALL=26 EXIT_INTERRUPTED=130

usage() {
    t 'Usage: sh install.sh [--full] [--proot] [--source SPEC] [--dry-run]
       sh install.sh --uninstall [--dry-run]

Installs qwen-edge in Termux: updates all packages, installs python, clang and
python-psutil, then builds and installs the program with pip.

  --full         also python-torch and python-numpy, for the engine torch
  --proot        also a Debian (proot-distro) with torch, for the engines torch
                 and transformers; 64-bit Arm only
  --source SPEC  what pip installs: a checkout, an archive, a URL or a name with
                 version; by default the checkout that holds this script, else
                 the name qwen-edge. So does the variable QWEN_EDGE_SOURCE.
  --dry-run      checks and shows the commands, changes nothing
  --uninstall    removes the program; models, conversations and packages stay
  --help         this text

Nothing breaks when it is run again: what is done is skipped, what failed is
tried once more, and after an upgrade of Python the program is put back.

Exit codes: 0 done; 1 no log can be kept; 2 usage; 10 not Termux; 11 Termux of
Google Play; 12 processor; 13 Android too old; 14 run as root; 15 no space;
16 no network; 17 already running; failed while 20 updating packages,
21 installing packages, 22 installing the program, 23 trying it out,
24 installing Debian, 25 working in Debian, 26 uninstalling; 130 interrupted.' '用法：sh install.sh [--full] [--proot] [--source SPEC] [--dry-run]
      sh install.sh --uninstall [--dry-run]

在 Termux 中安装 qwen-edge：更新所有软件包，安装 python、clang 和
python-psutil，然后用 pip 编译并安装本程序。

  --full         另装 python-torch 和 python-numpy，供 torch 引擎使用
  --proot        另装带 torch 的 Debian（proot-distro），供 torch 和
                 transformers 引擎使用；仅限 64 位 Arm
  --source SPEC  pip 安装的对象：源码目录、压缩包、URL 或带版本的名称；默认为
                 本脚本所在的源码目录，否则为名称 qwen-edge。
                 变量 QWEN_EDGE_SOURCE 作用相同。
  --dry-run      只做检查并显示命令，不作任何改动
  --uninstall    删除本程序；模型、对话和软件包保留
  --help         显示本说明

可以反复运行：已完成的跳过，失败的重试；Python 升级之后会重新装好本程序。

退出码：0 完成；1 无法记录日志；2 用法错误；10 不是 Termux；11 Google Play 版 Termux；
12 处理器；13 Android 太旧；14 以 root 运行；15 空间不足；16 没有网络；
17 已在运行；失败于 20 更新软件包、21 安装软件包、22 安装程序、23 试运行、
24 安装 Debian、25 在 Debian 中、26 卸载；130 中断。'
}

# --- Talking -------------------------------------------------------------------------------------

# t ENGLISH CHINESE: the text in the user's language.
t() {
    if [ "$language" = zh ]; then printf '%s\n' "$2"; else printf '%s\n' "$1"; fi
}

choose_language() {
    # As the program does; Termux itself always says en_US, so that Android is asked last.
    for name in "${QWEN_EDGE_LANG:-}" "${LC_ALL:-}" "${LC_MESSAGES:-}" "${LANG:-}"; do
        [ -n "$name" ] && break
    done
    language=en
    case "$name" in zh*) language=zh ;; esac
    if [ -z "${QWEN_EDGE_LANG:-}${LC_ALL:-}${LC_MESSAGES:-}" ] && [ "$name" = en_US.UTF-8 ]; then
        case "$(property persist.sys.locale)" in zh*) language=zh ;; esac
    fi
}

say() {
    t "$@"
    [ -z "$log" ] || t "$@" >>"$log"
}

# fail CODE SENTENCE HINT SENTENCE-ZH HINT-ZH: one sentence, one hint, and how far it came.
fail() {
    {
        t "error: $2" "错误：$4"
        t "hint: $3" "提示：$5"
        if [ -n "$begun" ]; then
            t "Not finished: done are ${done_en:-no steps}; failed: ${step_en:-the start}. Run the same command again to go on." \
                "尚未完成：已完成 ${done_zh:-零步}；失败：${step_zh:-启动}。再次运行同一命令即可继续。"
            [ -z "$log" ] || t "Everything is in $log" "详情见 $log"
        fi
    } >&2
    [ -z "$log" ] || t "error: $2 (exit code $1)" "错误：$4（退出码 $1）" >>"$log"
    exit "$1"
}

# step ENGLISH CHINESE: the step before this is done, this one begins.
step() {
    if [ -n "$step_en" ]; then
        done_en="${done_en:+$done_en, }$step_en" done_zh="${done_zh:+$done_zh、}$step_zh"
    fi
    step_en=$1 step_zh=$2
    say "== $1" "== $2"
}

interrupted() {
    trap '' INT TERM HUP
    fail $EXIT_INTERRUPTED "Interrupted." "Nothing is lost; keep Termux in the foreground." \
        "已中断。" "不会丢失任何内容；请让 Termux 保持在前台。"
}

cleanup() {
    [ -z "$lock" ] || rm -rf "$lock"
    [ -z "$awake" ] || termux-wake-unlock </dev/null >/dev/null 2>&1 &
}

# --- Running -------------------------------------------------------------------------------------

have() { command -v "$1" >/dev/null 2>&1; }

property() { if have getprop; then getprop "$1" </dev/null 2>/dev/null; fi; }

# run COMMAND...: shows and logs it and what it says; in a dry run only the command.
run() {
    shown=$*
    case "$1" in debian) shown="proot-distro login${mount:+ --bind $mount} debian -- ${shown#debian }" ;; esac
    printf '$ %s\n' "$shown"
    [ -z "$dry" ] || return 0
    printf '$ %s\n' "$shown" >>"$log"
    rm -f "$lock/status"
    : >"$lock/output"
    # Nothing may read the rest of this script, which is what stdin holds in `curl … | sh`.
    {
        "$@" </dev/null 2>&1
        echo $? >"$lock/status"
    } | tee -a "$log" "$lock/output"
    status=1
    [ ! -s "$lock/status" ] || read -r status <"$lock/status"
    return "$status"
}

# must CODE SENTENCE HINT SENTENCE-ZH HINT-ZH -- COMMAND...: run, or fail for the likeliest reason.
must() {
    code=$1 sentence=$2 hint=$3 sentence_zh=$4 hint_zh=$5
    shift 6
    run "$@" && return
    explain_failure
    fail "$code" "$sentence" "$hint" "$sentence_zh" "$hint_zh"
}

said() { grep -qiE "$1" "$lock/output" 2>/dev/null; }

# Fails with the reason that lies behind many a failure: a full disk or no network.
explain_failure() {
    if said 'no space left on device|enough free space'; then
        fail $EXIT_SPACE "The disk is full." "Free some space (apps, videos), then run it again." \
            "磁盘已满。" "请腾出空间（应用、视频），然后重新运行。"
    fi
    if said 'could not resolve|name resolution|could not connect|connection (failed|refused|reset|timed out)|network is unreachable|no address associated|some index files failed|failed to establish|max retries exceeded'; then
        fail $EXIT_NETWORK "The network does not answer." \
            "Check Wi-Fi or mobile data; \`termux-change-repo\` chooses another mirror." \
            "网络没有响应。" "请检查 Wi-Fi 或移动数据；可用 \`termux-change-repo\` 更换镜像。"
    fi
}

installed() { [ "$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null)" = "install ok installed" ]; }

# --- Checks that change nothing ------------------------------------------------------------------

check_termux() {
    if [ -z "${TERMUX_VERSION:-}" ] || [ -z "${PREFIX:-}" ] || ! have pkg ||
        [ "$(uname -o 2>/dev/null)" != Android ]; then
        fail $EXIT_TERMUX "This is not Termux." \
            "Run it in the app Termux; on other systems, \`pip install qwen-edge\` is enough." \
            "这里不是 Termux。" "请在 Termux 应用中运行；其他系统用 \`pip install qwen-edge\` 即可。"
    fi
    # The last release on Google Play before its packages became different ones was 0.101.
    case "${TERMUX_APK_RELEASE:-}${TERMUX_APP__APK_RELEASE:-}/$TERMUX_VERSION" in
    *GOOGLE_PLAY* | *googleplay* | */0.[0-9] | */0.[0-9][!0-9]* | */0.[0-9][0-9] | \
        */0.[0-9][0-9][!0-9]* | */0.10[0-9]*)
        fail $EXIT_PLAY "This Termux is of Google Play or too old ($TERMUX_VERSION); its packages differ." \
            "Uninstall it, and install Termux from F-Droid or its GitHub releases." \
            "此 Termux 来自 Google Play 或太旧（$TERMUX_VERSION），其软件包不同。" \
            "请卸载它，并从 F-Droid 或 GitHub 发布页安装 Termux。"
        ;;
    esac
    if [ "$(id -u)" = 0 ]; then
        fail $EXIT_ROOT "This runs as root, which spoils the permissions of Termux's files." \
            "Run it without su or sudo." \
            "当前以 root 运行，会破坏 Termux 文件的权限。" "请不要使用 su 或 sudo。"
    fi
}

check_device() {
    machine=$(dpkg --print-architecture 2>/dev/null) || machine=$(uname -m)
    case "$machine" in
    aarch64 | arm64 | x86_64 | amd64) ;;
    arm | armhf | armv7* | armv8l | i?86)
        fail $EXIT_ARCH "This Termux is 32-bit ($machine), and qwen-edge needs 64 bits." \
            "The processor is $(uname -m): if that is aarch64, install the arm64 build of Termux." \
            "此 Termux 为 32 位（$machine），而 qwen-edge 需要 64 位。" \
            "处理器为 $(uname -m)：若为 aarch64，请安装 arm64 版 Termux。"
        ;;
    *)
        fail $EXIT_ARCH "The processor $machine is not supported." "64-bit Arm and x86 are." \
            "不支持处理器 $machine。" "支持 64 位的 Arm 和 x86。"
        ;;
    esac
    if [ -n "$proot" ]; then
        case "$machine" in
        aarch64 | arm64) ;;
        *)
            fail $EXIT_ARCH "--proot is for 64-bit Arm, and this is $machine." \
                "Leave --proot out." "--proot 仅用于 64 位 Arm，而这里是 $machine。" "请去掉 --proot。"
            ;;
        esac
    fi
    sdk=$(property ro.build.version.sdk)
    case "$sdk" in
    '' | *[!0-9]*)
        sdk=0
        say "warning: Android does not tell its version; 7 or later is needed." \
            "警告：无法得知 Android 版本；需要 7 或更高版本。"
        ;;
    *)
        if [ "$sdk" -lt 24 ]; then
            fail $EXIT_ANDROID "This Android is too old (API level $sdk)." \
                "Android 7 or later (API level 24) is needed." \
                "Android 版本太旧（API 级别 $sdk）。" "需要 Android 7 或更高版本（API 级别 24）。"
        fi
        ;;
    esac
}

# Adds up what is missing in MB, rough, and holds the disk against it.
check_space() {
    download=5 disk=150
    if ! installed clang || ! installed python; then add_mb "$LITE_MB"; fi
    if [ -n "$full" ] && ! installed python-torch; then add_mb "$FULL_MB"; fi
    if [ -n "$proot" ] && ! debian test -x "$VENV/bin/qwen-edge" >/dev/null 2>&1; then
        add_mb "$PROOT_MB"
    fi
    free=$(df -Pk "$PREFIX" 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }')
    if [ -z "$free" ]; then
        say "warning: df does not tell the free space; $disk MB are needed." \
            "警告：无法得知剩余空间；需要 $disk MB。"
    elif [ "$free" -lt "$disk" ]; then
        fail $EXIT_SPACE "$free MB are free, and about $disk MB are needed." \
            "Free some space, and leave 500 MB more for a model." \
            "剩余 $free MB，而大约需要 $disk MB。" "请腾出空间，并为模型再留 500 MB。"
    fi
}

add_mb() {
    download=$((download + ${1% *})) disk=$((disk + ${1#* }))
}

# Minutes for so many MB at 10 Mbit/s, the unpacking, and the compiling.
minutes() { echo $(($1 * 8 / 600 + $1 / 100 + 3)); }

check_source() {
    kind=name
    if [ -n "$source_given" ]; then source=$source_given; else
        source=qwen-edge
        # Empty where the script comes through a pipe.
        here=$(cd "$(dirname "$0")/.." 2>/dev/null && pwd)
        if [ -f "$here/termux/install.sh" ] && [ -f "$here/pyproject.toml" ]; then source=$here; fi
    fi
    case "$source" in
    *://*) kind=url ;;
    */* | *.whl | *.tar.gz | *.zip | . | ..)
        if [ -f "$source/pyproject.toml" ]; then
            kind=folder source=$(cd "$source" && pwd)
            mount=$source:$MOUNT
        elif [ -f "$source" ]; then
            kind=file folder=$(cd "$(dirname "$source")" && pwd)
            source=$folder/$(basename "$source") mount=$folder:$MOUNT
        else
            fail $EXIT_USAGE "There is no Python project in $source." \
                "Give a checkout of qwen-edge, an archive, a URL or a name." \
                "$source 中没有 Python 项目。" "请给出 qwen-edge 的源码目录、压缩包、URL 或名称。"
        fi
        ;;
    esac
}

# --- The steps -----------------------------------------------------------------------------------

begin() {
    [ -z "$dry" ] || return 0
    mkdir -p "$state" || fail $EXIT_LOG "The folder $state cannot be made." "Is the disk full?" \
        "无法创建文件夹 $state。" "磁盘是否已满？"
    if ! mkdir "$state/lock" 2>/dev/null; then
        other=$(cat "$state/lock/pid" 2>/dev/null)
        if [ -n "$other" ] && kill -0 "$other" 2>/dev/null; then
            fail $EXIT_BUSY "Another installation is under way (process $other)." \
                "Wait for it to end, or delete $state/lock." \
                "另一个安装正在进行（进程 $other）。" "请等它结束，或删除 $state/lock。"
        fi
    fi
    lock=$state/lock log=$state/install.log begun=yes
    echo $$ >"$lock/pid"
    printf '\n==== %s: install.sh%s\n' "$(date)" "$options" >>"$log"
    # Android may stop everything once the screen is off. Never waited for: it can hang.
    if have termux-wake-lock; then
        awake=yes
        termux-wake-lock </dev/null >/dev/null 2>&1 &
    fi
}

announce() {
    names=lite${full:+, full}${proot:+, proot}
    say "qwen-edge ($names) from $source" "qwen-edge（$names），来源：$source"
    say "To download: about $download MB, on disk $disk MB; about $(minutes "$download") minutes at 10 Mbit/s." \
        "约需下载 $download MB，占用磁盘 $disk MB；网速 10 Mbit/s 时约 $(minutes "$download") 分钟。"
    if [ -n "$log" ]; then say "Log: $log" "日志：$log"; fi
}

# What apt would download for the packages, counting each file once: number and MB.
exact_download() {
    {
        apt-get full-upgrade -y --print-uris </dev/null
        # shellcheck disable=SC2086 # a list of names
        apt-get install -y --print-uris $packages </dev/null
    } 2>/dev/null | awk '/^\047/ && !seen[$2]++ { files++; bytes += $3 }
        END { if (files) printf "%d %d\n", files, (bytes + 999999) / 1000000 }'
}

update_packages() {
    step "updating packages" "更新软件包"
    if [ -n "$(dpkg --audit 2>/dev/null)" ]; then
        say "An earlier installation was cut short; dpkg finishes it." "先前的安装被中断，由 dpkg 完成。"
        must $EXIT_UPDATE "dpkg cannot finish an earlier installation." "Its last lines say why." \
            "dpkg 无法完成先前的安装。" "原因见其最后几行输出。" -- dpkg --configure -a
    fi
    set -- "The list of packages cannot be updated." "Try \`termux-change-repo\`, then run it again." \
        "无法更新软件包列表。" "请尝试 \`termux-change-repo\`，然后重新运行。"
    must $EXIT_UPDATE "$@" -- pkg update
    # apt warns of what it could not fetch, and succeeds all the same.
    if [ -z "$dry" ] && said 'some index files failed|failed to fetch'; then
        explain_failure
        fail $EXIT_UPDATE "$@"
    fi
    exact=$(exact_download)
    if [ -n "$exact" ]; then
        say "Exactly: ${exact% *} packages, ${exact#* } MB." "准确数字：${exact% *} 个软件包，${exact#* } MB。"
    fi
    # Old and new packages side by side break imports: all are upgraded. Settings files stay.
    must $EXIT_UPDATE "The packages cannot be upgraded." "Its last lines say why." \
        "无法升级软件包。" "原因见其最后几行输出。" -- \
        pkg upgrade -y -o Dpkg::Options::=--force-confold
}

install_packages() {
    step "installing packages" "安装软件包"
    missing=
    for name in $packages; do installed "$name" || missing="$missing $name"; done
    if [ -z "$missing" ]; then
        say "Already there: $packages." "已安装：$packages。"
        return
    fi
    # shellcheck disable=SC2086 # a list of names
    must $EXIT_PACKAGES "The packages$missing cannot be installed." "Its last lines say why." \
        "无法安装软件包$missing。" "原因见其最后几行输出。" -- pkg install -y $missing
}

python_works() { python -c "import $1" </dev/null >/dev/null 2>&1; }

python_version() {
    python -c 'import sys; print("%d.%d" % sys.version_info[:2])' </dev/null 2>/dev/null
}

# Identifies the sources of a checkout; empty for anything else, of which pip knows the version.
fingerprint() {
    [ "$kind" = folder ] || return 0
    (cd "$source" && find pyproject.toml qwen_edge -type f ! -name '*.so' ! -name '*.pyc' \
        -exec cksum {} + | sort | cksum)
}

install_program() {
    step "installing the program" "安装程序"
    if [ -z "$dry" ] && ! python_works psutil; then
        fail $EXIT_PIP "Python does not find psutil, which pip cannot build here." \
            "\`pkg reinstall python python-psutil\`, then run it again." \
            "Python 找不到 psutil，而 pip 无法在此编译它。" \
            "请运行 \`pkg reinstall python python-psutil\`，然后重新运行。"
    fi
    stamp="$(python_version) $(fingerprint)" known=$(cat "$state/installed" 2>/dev/null)
    if [ "$known" != untried ] && python_works qwen_edge; then
        if [ "$kind" = folder ] && [ "$known" = "$stamp" ]; then
            say "Already there, from the same sources." "已安装，且来自相同的源码。"
            return
        fi
    elif [ -e "$PREFIX/bin/qwen-edge" ]; then
        explain_repair
        # Else pip may call it installed, where it is only damaged.
        run python -m pip uninstall -y qwen-edge || :
        remove_leftovers
    fi
    say "Compiling takes a minute or several." "编译需要一分钟到几分钟。"
    # Never --upgrade pip itself: Termux's is patched.
    must $EXIT_PIP "pip cannot install $source." "Its last lines say why." \
        "pip 无法安装 $source。" "原因见其最后几行输出。" -- \
        python -m pip install --no-input --disable-pip-version-check --upgrade "$source"
}

explain_repair() {
    now=$(python_version)
    for folder in "$PREFIX"/lib/python3.*/site-packages/qwen_edge; do
        before=${folder#"$PREFIX"/lib/python} before=${before%%/*}
        if [ ! -d "$folder" ] || [ "$before" = "$now" ]; then continue; fi
        say "Python was upgraded from $before to $now, which left pip's packages behind: the program is installed again." \
            "Python 已从 $before 升级到 $now，pip 安装的软件包留在了旧版本中：现在重新安装本程序。"
        return
    done
    say "The program is there and does not work: it is installed again." \
        "程序已安装但无法工作：现在重新安装。"
}

# What another Python version holds of the program, where pip does not look any more.
remove_leftovers() {
    for folder in "$PREFIX"/lib/python3.*/site-packages/qwen_edge \
        "$PREFIX"/lib/python3.*/site-packages/qwen_edge-*.dist-info; do
        [ ! -d "$folder" ] || run rm -rf "$folder"
    done
    [ ! -e "$PREFIX/bin/qwen-edge" ] || run rm -f "$PREFIX/bin/qwen-edge"
}

try_program() {
    step "trying the program" "试运行程序"
    # Should it fail, the next run installs it anew.
    [ -n "$dry" ] || echo untried >"$state/installed"
    must $EXIT_CHECK "The program does not run." "Run it again; if that does not help, report the log." \
        "程序无法运行。" "请重新运行；若仍不行，请附上日志报告。" -- \
        "$PREFIX/bin/qwen-edge" run --model demo --no-think --max-tokens 24 "Who are you?"
    [ -n "$dry" ] || printf '%s\n' "$stamp" >"$state/installed"
    [ -n "$full" ] || return 0
    must $EXIT_CHECK "torch does not load." "\`pkg reinstall python-torch python-numpy\`." \
        "torch 无法加载。" "请运行 \`pkg reinstall python-torch python-numpy\`。" -- \
        python -c 'import numpy, torch; print("torch", torch.__version__)'
}

# debian COMMAND...: runs it in the Debian, where a local source lies at $MOUNT.
debian() {
    proot-distro login ${mount:+--bind "$mount"} debian -- "$@" </dev/null
}

# The source as pip names it inside the Debian, with the extra that brings torch.
debian_source() {
    case "$kind" in
    folder) echo "${MOUNT}[torch]" ;;
    file) echo "qwen-edge[torch] @ file://$MOUNT/$(basename "$source")" ;;
    url) echo "qwen-edge[torch] @ $source" ;;
    *)
        name=${source%%[=<>~!]*}
        echo "${name}[torch]${source#"$name"}"
        ;;
    esac
}

install_debian() {
    step "installing Debian" "安装 Debian"
    if debian true >/dev/null 2>&1; then
        say "Already there." "已安装。"
    else
        must $EXIT_DEBIAN "Debian cannot be installed." \
            "If a half of it is left, \`proot-distro remove debian\` first." \
            "无法安装 Debian。" "若残留一半，请先运行 \`proot-distro remove debian\`。" -- \
            proot-distro install debian
    fi
    step "installing in Debian" "在 Debian 中安装"
    set -- "A command in Debian failed." "Its last lines say why." \
        "Debian 中的命令失败。" "原因见其最后几行输出。" --
    must $EXIT_IN_DEBIAN "$@" debian apt-get update
    must $EXIT_IN_DEBIAN "$@" debian env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        python3 python3-venv g++ ca-certificates
    must $EXIT_IN_DEBIAN "$@" debian python3 -m venv "$VENV"
    must $EXIT_IN_DEBIAN "$@" debian "$VENV/bin/pip" install --no-input --upgrade \
        "$PROOT_TORCH" "$(debian_source)"
    must $EXIT_IN_DEBIAN "$@" debian ln -sf "$VENV/bin/qwen-edge" /usr/local/bin/qwen-edge
    step "trying it in Debian" "在 Debian 中试运行"
    must $EXIT_CHECK "The program does not run in Debian." "Run it again, or report the log." \
        "程序在 Debian 中无法运行。" "请重新运行，或附上日志报告。" -- \
        debian "$VENV/bin/qwen-edge" run --model demo --no-think --max-tokens 24 "Who are you?"
}

finish() {
    if [ -n "$dry" ]; then
        say "Nothing was changed." "未作任何改动。"
        return
    fi
    say "Done. Next: \`qwen-edge pull qwen3-0.6b\` (1.5 GB), then \`qwen-edge chat\`." \
        "完成。接下来：\`qwen-edge pull qwen3-0.6b\`（1.5 GB），然后 \`qwen-edge chat\`。"
    if [ -n "$proot" ]; then
        say "In Debian: \`proot-distro login debian -- qwen-edge chat --engine torch\`." \
            "在 Debian 中：\`proot-distro login debian -- qwen-edge chat --engine torch\`。"
    fi
    if [ "$sdk" -ge 31 ]; then
        say "note: Android 12 and later may kill programs in the background; termux/README.md says how to stop it." \
            "说明：Android 12 及以后可能杀死后台程序；解决办法见 termux/README.zh-CN.md。"
    fi
}

uninstall() {
    begin
    step "uninstalling" "卸载"
    if have python; then
        must $EXIT_UNINSTALL "pip cannot uninstall the program." "Its last lines say why." \
            "pip 无法卸载程序。" "原因见其最后几行输出。" -- python -m pip uninstall -y qwen-edge
    fi
    remove_leftovers
    if have proot-distro && debian test -d "$VENV" >/dev/null 2>&1; then
        must $EXIT_UNINSTALL "The program cannot be removed from Debian." "Its last lines say why." \
            "无法从 Debian 中删除程序。" "原因见其最后几行输出。" -- \
            debian rm -rf "$VENV" /usr/local/bin/qwen-edge
        say "Debian itself stays: \`proot-distro remove debian\` deletes it and all that is in it." \
            "Debian 本身保留：\`proot-distro remove debian\` 会删除它和其中的一切。"
    fi
    [ -n "$dry" ] || rm -f "$state/installed"
    data=${QWEN_EDGE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/qwen-edge}
    say "Models and conversations stay in $data; packages stay, too: \`pkg uninstall\` removes them." \
        "模型和对话保留在 $data；软件包也保留，可用 \`pkg uninstall\` 删除。"
    if [ -n "$dry" ]; then say "Nothing was changed." "未作任何改动。"; fi
}

main() {
    full='' proot='' dry='' remove='' log='' lock='' awake='' begun='' sdk=0
    step_en='' step_zh='' done_en='' done_zh='' kind=name mount='' options="${*:+ $*}"
    source_given=${QWEN_EDGE_SOURCE:-}
    # The program would warn of a variable that it does not know.
    unset QWEN_EDGE_SOURCE
    state=${XDG_STATE_HOME:-$HOME/.local/state}/qwen-edge
    choose_language
    while [ $# -gt 0 ]; do
        case "$1" in
        --full) full=yes ;;
        --proot) proot=yes ;;
        --dry-run) dry=yes ;;
        --uninstall) remove=yes ;;
        --source=*) source_given=${1#*=} ;;
        --source)
            source_given=${2:-}
            [ $# -lt 2 ] || shift
            [ -n "$source_given" ] || fail $EXIT_USAGE "--source needs a value." "See --help." \
                "--source 需要一个值。" "见 --help。"
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            fail $EXIT_USAGE "There is no option $1." "See --help." "没有选项 $1。" "见 --help。"
            ;;
        esac
        shift
    done
    packages="python python-pip clang python-psutil${full:+ python-numpy python-torch}${proot:+ proot-distro}"
    export DEBIAN_FRONTEND=noninteractive
    trap cleanup EXIT
    trap interrupted INT TERM HUP
    check_termux
    if [ -n "$remove" ]; then
        uninstall
        return
    fi
    check_device
    check_source
    check_space
    begin
    announce
    update_packages
    install_packages
    install_program
    try_program
    [ -z "$proot" ] || install_debian
    finish
}

# Called in the last line, so that a script cut off on its way does nothing.
main "$@"
