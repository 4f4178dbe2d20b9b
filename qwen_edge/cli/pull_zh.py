"""Chinese for what ``pull`` says."""

from __future__ import annotations

PULL = {
    # the network
    "There is no connection to {host}: {reason}.": "无法连接 {host}：{reason}。",
    "Check the network; where {host} is out of reach, set HF_ENDPOINT to a mirror or use "
    "--source modelscope.": (
        "请检查网络；如果 {host} 无法访问，可把 HF_ENDPOINT 设为镜像，或用 --source modelscope。"
    ),
    "There is no connection to {host} through the proxy {proxy}: {reason}.": (
        "无法通过代理 {proxy} 连接 {host}：{reason}。"
    ),
    "Check HTTPS_PROXY; if {host} can be reached without it, name that in NO_PROXY.": (
        "请检查 HTTPS_PROXY；如果不用代理就能访问 {host}，请把它写入 NO_PROXY。"
    ),
    "The proxy {proxy} wants a valid name and password (status 407).": (
        "代理 {proxy} 要求有效的用户名和密码（状态 407）。"
    ),
    "Set HTTPS_PROXY=http://NAME:PASSWORD@{proxy}.": (
        "请设置 HTTPS_PROXY=http://用户名:密码@{proxy}。"
    ),
    "The proxy {proxy} does not let through to {host} (status {status}).": (
        "代理 {proxy} 不允许访问 {host}（状态 {status}）。"
    ),
    "Ask who runs it; if {host} can be reached without it, name that in NO_PROXY.": (
        "请询问代理的管理者；如果不用代理就能访问 {host}，请把它写入 NO_PROXY。"
    ),
    "HTTPS_PROXY names a proxy of another kind than http://, which is not supported.": (
        "HTTPS_PROXY 指定的代理不是 http:// 类型，不支持。"
    ),
    "Most programs that offer SOCKS offer an HTTP proxy as well: give its address.": (
        "提供 SOCKS 的程序大多也提供 HTTP 代理，请填写后者的地址。"
    ),
    "HTTPS_PROXY is not the address of a proxy.": "HTTPS_PROXY 不是代理的地址。",
    "Write it as http://HOST:PORT or http://NAME:PASSWORD@HOST:PORT; /, @, # and % in a password "
    "are written as %2F, %40, %23 and %25.": (
        "请写成 http://主机:端口 或 http://用户名:密码@主机:端口；密码中的 /、@、#、% 要写成 "
        "%2F、%40、%23、%25。"
    ),
    "The connection to {host} broke: {reason}.": "与 {host} 的连接中断：{reason}。",
    "Run the same command again: it goes on where it stopped.": (
        "请再次运行同一条命令，它会从中断处继续。"
    ),
    "timed out": "超时",
    "it ended early": "数据提前结束",
    "The certificate of {host} is not valid: {reason}.": "{host} 的证书无效：{reason}。",
    "Check the date of this device, and `pkg install ca-certificates` on Termux.": (
        "请检查本设备的日期；在 Termux 上可运行 `pkg install ca-certificates`。"
    ),
    "{url} is not an address that can be downloaded from.": "{url} 不是可供下载的地址。",
    "{url} is plain HTTP, which anyone on the way can read and change.": (
        "{url} 是明文 HTTP，途中任何人都能读取和篡改。"
    ),
    "Use the address with https://.": "请使用以 https:// 开头的地址。",
    "{host} sends from one address to the next.": "{host} 一再转向别的地址。",
    "{host} sends to an address that is none.": "{host} 转向了一个无效的地址。",
    "{host} sends to plain HTTP ({target}), which anyone on the way can read and change.": (
        "{host} 转向了明文 HTTP（{target}），途中任何人都能读取和篡改。"
    ),
    "A network that asks for a login does so; otherwise try another network or source.": (
        "需要登录的网络会这样做；否则请换一个网络或来源。"
    ),
    "{host} has had too many requests from here.": "{host} 收到本机的请求过多。",
    "Try again in {wait}; a token (HF_TOKEN) is allowed more of them.": (
        "请在 {wait} 后重试；使用令牌（HF_TOKEN）可获得更高的限额。"
    ),
    "{host} is out of order at the moment (status {status}).": (
        "{host} 暂时无法提供服务（状态 {status}）。"
    ),
    "Try again in {wait}; what is downloaded so far is kept.": (
        "请在 {wait} 后重试；已下载的部分会保留。"
    ),
    "{host} refuses the download (status {status}).": "{host} 拒绝下载（状态 {status}）。",
    "Try again later, or another --source.": "请稍后重试，或换一个 --source。",
    "{host} answers in a way that makes no sense.": "{host} 的回应无法理解。",
    "The answer of {host} is too long.": "{host} 的回应过长。",
    "{host} does not say how large the file is.": "{host} 没有说明文件的大小。",
    "There is nothing at this address of {host}.": "{host} 的这个地址没有内容。",
    "Check the address.": "请检查地址。",
    "{name} has another size at {host} than is published for it ({size}).": (
        "{host} 上 {name} 的大小与公布的（{size}）不同。"
    ),
    "It has just changed, or the server is at fault: try again later, or another --source.": (
        "文件可能刚刚更新，或是服务器有误：请稍后重试，或换一个 --source。"
    ),
    "{name} does not have the checksum that is published for it.": "{name} 的校验和与公布的不符。",
    "It was changed on its way, or the source is at fault: try again, or another --source.": (
        "文件在途中被改动，或是来源有误：请重试，或换一个 --source。"
    ),
    # the sources
    "There is no model {repo} at {host}, or not for everyone.": (
        "{host} 上没有模型 {repo}，或者它不对所有人开放。"
    ),
    "Check the name at {address}; for a model that is not public, set {variable}.": (
        "请到 {address} 核对名称；非公开的模型需要设置 {variable}。"
    ),
    "Did you mean {near}? For a model that is not public, set {variable}.": (
        "您是否想用 {near}？非公开的模型需要设置 {variable}。"
    ),
    "{repo} is not for everyone: its terms must be agreed to first.": (
        "{repo} 不对所有人开放：须先同意其条款。"
    ),
    "Agree to them at {page}, then set {variable} to a token of yours.": (
        "请在 {page} 同意条款，再把 {variable} 设为您的令牌。"
    ),
    "{repo} has no revision {revision}.": "{repo} 没有版本 {revision}。",
    "See {page} for those it has, or leave --revision out.": (
        "已有的版本见 {page}；也可以不用 --revision。"
    ),
    "A file that {repo} lists is not there.": "{repo} 列出的一个文件不存在。",
    "It has just changed: run the same command again.": "它刚刚更新过：请再次运行同一条命令。",
    "{host} does not accept the token for {repo}.": "{host} 不接受用于 {repo} 的令牌。",
    "Check {variable}, and whether the token may read this model.": (
        "请检查 {variable}，以及该令牌是否有权读取此模型。"
    ),
    "The token for {source} has characters that no token has.": (
        "{source} 的令牌含有令牌中不会出现的字符。"
    ),
    "Check {variable}.": "请检查 {variable}。",
    # the disk
    "The disk is full: {path} needs {needed} more and {free} are free.": (
        "磁盘已满：{path} 还需要 {needed}，剩余 {free}。"
    ),
    "Free some space and run the same command again: it goes on where it stopped.": (
        "请腾出一些空间后再次运行同一条命令，它会从中断处继续。"
    ),
    "{needed} of disk space are needed in {place} ({download} for the download, {model} for the "
    "model), and only {free} are free.": (
        "{place} 需要 {needed} 磁盘空间（下载 {download}，模型 {model}），但只剩 {free}。"
    ),
    "Free some space, or let QWEN_EDGE_HOME name a folder with more of it.": (
        "请腾出一些空间，或把 QWEN_EDGE_HOME 设为空间更大的文件夹。"
    ),
    "There is another model at {path}.": "{path} 处已有另一个模型。",
    "Give this one a --name, or replace that one with --force.": (
        "请用 --name 给新模型另起名字，或用 --force 替换原有的。"
    ),
    "{name} is being downloaded by another process.": "另一个进程正在下载 {name}。",
    "Wait until it is done.": "请等它完成。",
    # what to download
    "No model is called {name} for short.": "没有简称为 {name} 的模型。",
    "Short names are {near}; others are given as owner/name.": (
        "可用的简称有 {near}；其他模型请写成 owner/name。"
    ),
    "Did you mean {near}? Models of others are given as owner/name.": (
        "您是否想用 {near}？其他模型请写成 owner/name。"
    ),
    "{option} does not go with {name}.": "{option} 不能与 {name} 同用。",
    "Give the repository as owner/name.": "请以 owner/name 给出仓库。",
    "{name} names no file after the colon.": "{name} 的冒号后没有文件名。",
    "{name} is not the name of a model that can be downloaded.": "{name} 不是可下载的模型的名称。",
    "Give owner/name as Hugging Face writes it, Qwen/Qwen3-0.6B say, or a URL.": (
        "请按 Hugging Face 的写法给出 owner/name，例如 Qwen/Qwen3-0.6B，或给出网址。"
    ),
    "{url} is not the address of a model.": "{url} 不是模型的地址。",
    "It must end in .gguf or .qedge, or be a model's page at Hugging Face or ModelScope.": (
        "它须以 .gguf 或 .qedge 结尾，或是 Hugging Face 或 ModelScope 上的模型页面。"
    ),
    "{url} is not at {source}.": "{url} 不在 {source} 上。",
    "{repo} has no model file {name}.": "{repo} 没有模型文件 {name}。",
    "A model is config.json with model.safetensors, a .gguf or a .qedge file; it has: {found}.": (
        "模型是 config.json 加 model.safetensors，或 .gguf、.qedge 文件；该仓库有：{found}。"
    ),
    "{repo} has several models: {found}.": "{repo} 有多个模型：{found}。",
    "Say which, with a part of its name: `qwen-edge pull {repo}:{example}`.": (
        "请用名称的一部分指明，例如 `qwen-edge pull {repo}:{example}`。"
    ),
    "{name} is a part of a GGUF in several files, which are not read.": (
        "{name} 是分成多个文件的 GGUF 的一部分，无法读取。"
    ),
    "Choose one that is whole.": "请选择完整的文件。",
    "Take another repository of this model.": "请改用该模型的其他仓库。",
    "--timeout is {value}; it must be from 1 to 3600.": (
        "--timeout 为 {value}；它必须在 1 到 3600 之间。"
    ),
    # on the way
    "Downloading": "下载",
    "Checking what is here": "检查已有部分",
    "{name}: {missing} of {total} are to be downloaded.": (
        "{name}：共 {total}，需下载 {missing}。"
    ),
    "{reason}; trying again in {seconds:.0f} s.": "{reason}；{seconds:.0f} 秒后重试。",
    "{size} are kept in {folder}; the same command goes on from there.": (
        "已下载的 {size} 保留在 {folder}；再次运行同一条命令会从那里继续。"
    ),
    "It is here already; --force downloads and converts it again.": (
        "该模型已经在本设备上；--force 可重新下载并转换。"
    ),
    "{missing} of {total} would be downloaded from {name}, to make {target} ({made}).": (
        "将从 {name} 下载 {missing}（共 {total}），制作 {target}（{made}）。"
    ),
    "`qwen-edge pull {name}` gets a model that has room here.": (
        "`qwen-edge pull {name}` 可下载此处放得下的模型。"
    ),
    "Disk space needed: {needed}; free: {free}.": "需要磁盘空间 {needed}；剩余 {free}。",
    "{size}, as it was published.": "{size}，与发布的文件相同。",
    "What was downloaded is kept in {folder}.": "下载的文件保留在 {folder}。",
    # help
    "Download a model and convert it.": "下载模型并转换。",
    "Download a model from Hugging Face or ModelScope and convert it.\n\nA download that breaks "
    "off goes on where it stopped when the command is run again.": (
        "从 Hugging Face 或 ModelScope 下载模型并转换。\n\n"
        "中断的下载会在再次运行命令时从中断处继续。"
    ),
    "qwen3-0.6b, qwen3-1.7b, qwen3-4b, qwen3-4b-instruct-2507, qwen3-4b-thinking-2507, "
    "owner/name, owner/name:file, or a URL.": (
        "qwen3-0.6b、qwen3-1.7b、qwen3-4b、qwen3-4b-instruct-2507、qwen3-4b-thinking-2507、"
        "owner/name、owner/name:文件，或网址。"
    ),
    "A .gguf or .qedge file of the repository.": "仓库中的 .gguf 或 .qedge 文件。",
    "huggingface or modelscope.": "huggingface 或 modelscope。",
    "A branch, tag or commit.": "分支、标签或提交。",
    "Keep what was downloaded.": "保留下载的文件。",
    "Replace a model that is there already.": "替换已有的模型。",
    "Only say what would be downloaded.": "只说明将下载什么。",
    "How long a connection may be silent.": "连接最长可以多久没有数据。",
}
