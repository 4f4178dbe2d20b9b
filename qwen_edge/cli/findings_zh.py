"""Chinese for what ``doctor`` finds, for the reasons of a configuration, and for origins."""

from __future__ import annotations

FINDINGS = {
    "note": "提示",
    "Termux:API does not answer.": "Termux:API 没有响应。",
    "Install the app Termux:API from where Termux itself came from, and open it once.": (
        "请从 Termux 的同一来源安装 Termux:API 应用，并打开一次。"
    ),
    "Wake lock": "唤醒锁",
    "Battery": "电池",
    "not shown: only falling speed tells of heat": "无法得知：只能从速度下降看出发热",
    "plugged in": "已接电源",
    "not plugged in": "未接电源",
    "charger unknown": "不知是否接电源",
    "Termux:API": "Termux:API",
    "not installed (`pkg install termux-api`, and its app)": (
        "未安装（`pkg install termux-api`，以及同名应用）"
    ),
    "answers": "有响应",
    "does not answer": "没有响应",
    "fails": "出错",
    "not held": "未持有",
    "held by process {numbers}": "由进程 {numbers} 持有",
    "left behind by a program that was killed; it is released now": (
        "由被杀死的程序留下；现已释放"
    ),
    "speaking": "朗读",
    "listening": "听写",
    "clipboard": "剪贴板",
    "notifications": "通知",
    "warning": "警告",
    "error": "错误",
    "flag": "命令行选项",
    "environment": "环境变量",
    "file": "配置文件",
    "adaptive default": "按设备自动选择",
    "calibrated": "本机实测",
    "default": "默认值",
    "{ram} of RAM make it a device of the {tier} tier.": "内存为 {ram}，属于 {tier} 一档。",
    "A context of {context} would not fit into {allowed}.": (
        "{context} 个词元的上下文放不进 {allowed}。"
    ),
    "The model takes at most {context} tokens.": "该模型最多支持 {context} 个词元。",
    "An f16 cache would not fit into {allowed}.": "f16 缓存放不进 {allowed}。",
    "Decoding waits for memory, which {cores} big cores keep busy.": (
        "解码受内存带宽限制，{cores} 个大核已能用满带宽。"
    ),
    "What is calibrated was measured here, with a model of this shape: "
    "`qwen-edge doctor --calibrate`.": (
        "标为实测的值是用同样形状的模型在本机测得的：`qwen-edge doctor --calibrate`。"
    ),
    "{path} does not hold what this program wrote there, and counts as empty.": (
        "{path} 的内容不是本程序写入的，视为空。"
    ),
    "`qwen-edge doctor --calibrate` measures again.": (
        "`qwen-edge doctor --calibrate` 可重新测量。"
    ),
    "auto takes native: only it takes adapters.": "auto 选用 native：只有它能使用适配器。",
    "auto takes native: nothing was measured here yet (`qwen-edge bench --engine all`).": (
        "auto 选用 native：本机尚未测量（`qwen-edge bench --engine all`）。"
    ),
    "auto takes native: it was the fastest here.": "auto 选用 native：它在本机最快。",
    "auto takes {engine}: {speed:.1f} tokens/s were measured here, and {native:.1f} with native.": (
        "auto 选用 {engine}：本机测得每秒 {speed:.1f} 个词元，native 为 {native:.1f}。"
    ),
    "auto takes native: {engine} was faster here, and does not fit into memory now.": (
        "auto 选用 native：{engine} 在本机更快，但目前内存放不下。"
    ),
    "auto takes transformers: only it takes a checkpoint's folder.": (
        "auto 选用 transformers：只有它能使用检查点文件夹。"
    ),
    "{model} needs {needed} of memory, and the cap is {allowed}.": (
        "{model} 需要 {needed} 内存，而上限为 {allowed}。"
    ),
    "Raise --memory-cap, or use a smaller model.": "请提高 --memory-cap，或换用更小的模型。",
    "A --context of {context} fits.": "--context {context} 可以放下。",
    "On this device: {near}. `qwen-edge pull` gets others.": (
        "本设备上有：{near}。`qwen-edge pull` 可下载其他模型。"
    ),
    "Did you mean {near}? `qwen-edge pull` gets others.": (
        "您是否想用 {near}？`qwen-edge pull` 可下载其他模型。"
    ),
    "The native library does not belong to this version: {reason}.": (
        "原生库与本版本不匹配：{reason}。"
    ),
    "torch {version} loses memory on Android.": "torch {version} 在 Android 上会泄漏内存。",
    "Get 2.11 or later: `pkg upgrade python-torch`.": (
        "请更新到 2.11 或更高版本：`pkg upgrade python-torch`。"
    ),
    "The torch engine finds no C++ compiler: it is slow, and compiles nothing.": (
        "torch 引擎找不到 C++ 编译器：它会很慢，也不编译任何内容。"
    ),
    "There is no C++ compiler; it is needed only to install or update this program.": (
        "没有 C++ 编译器；只有安装或更新本程序时才需要。"
    ),
    "Termux: `pkg install clang`.": "Termux 中请运行 `pkg install clang`。",
    "No model is downloaded, so the tiny demo answers.": "尚未下载模型，由很小的演示模型回答。",
    "Get one with `qwen-edge pull qwen3-0.6b`.": ("可用 `qwen-edge pull qwen3-0.6b` 下载。"),
    "The model {path} lies on {kind}, where it runs at a small part of its speed.": (
        "模型 {path} 位于 {kind}，在那里运行会慢很多。"
    ),
    "Copy it below your home folder.": "请把它复制到主目录下。",
    "Python was upgraded: {names} still lie with Python {version}, not with {now}.": (
        "Python 已升级：{names} 仍在 Python {version} 中，不在 {now} 中。"
    ),
    "Run termux/install.sh again, or `pip install qwen-edge`; "
    "on Termux psutil comes with `pkg install python-psutil`.": (
        "请再次运行 termux/install.sh，或 `pip install qwen-edge`；"
        "在 Termux 中 psutil 用 `pkg install python-psutil` 安装。"
    ),
    "{name} is set and means nothing to this program.": "已设置 {name}，但本程序不认识它。",
    "This program lies where libraries cannot be loaded ({kind}).": (
        "本程序所在的位置不能加载库（{kind}）。"
    ),
    "Install it below your home folder.": "请把它安装到主目录下。",
    "This device does not tell its memory; 2 GiB are assumed.": (
        "无法得知本设备的内存，按 2 GiB 计算。"
    ),
    "This runs under proot: system calls are slower, and parts of /proc are made up.": (
        "当前在 proot 中运行：系统调用较慢，/proc 的部分内容是虚构的。"
    ),
    "Termux itself, outside proot, is faster.": "直接在 Termux 中（不经 proot）运行更快。",
}
