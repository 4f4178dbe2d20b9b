"""Chinese for the texts of ``bench``: its help, its report, and what it says besides."""

from __future__ import annotations

BENCH = {
    # help
    "Measure speed and memory on this device.": "测量本设备上的速度和内存。",
    "Nothing to measure; `compare A.json B.json` to set two results side by side.": (
        "留空则进行测量；`compare A.json B.json` 并排比较两份结果。"
    ),
    "Measure random weights of this shape: 0.6b, 1.7b or 4b; made and deleted again.": (
        "测量该形状的随机权重：0.6b、1.7b 或 4b；用完即删。"
    ),
    "Take less than 40 seconds rather than 3 minutes.": "用时少于 40 秒，而不是 3 分钟。",
    "Seconds that the measuring may take.": "测量最多可用的秒数。",
    "The procedure of published articles: one question, ten answers of 256 tokens.": (
        "已发表文章的做法：一个问题，十次各 256 个词元的回答。"
    ),
    "Write the result with every sample as JSON.": "以 JSON 输出结果及每个样本。",
    "Write the result as a Markdown table.": "以 Markdown 表格输出结果。",
    "Draw the result: a file that ends in .svg or .png.": "绘制结果：以 .svg 或 .png 结尾的文件。",
    # errors and hints
    "--json and --markdown exclude each other.": "--json 与 --markdown 不能同时使用。",
    "--synthetic and --model exclude each other.": "--synthetic 与 --model 不能同时使用。",
    "Give one of them.": "请只给出其中一个。",
    "bench measures, or compares two results.": "bench 用于测量，或比较两份结果。",
    "Write `qwen-edge bench`, or `qwen-edge bench compare A.json B.json`.": (
        "请写 `qwen-edge bench`，或 `qwen-edge bench compare A.json B.json`。"
    ),
    "{path} ends in neither .svg nor .png.": "{path} 不以 .svg 或 .png 结尾。",
    "Name a .svg file.": "请给出 .svg 文件名。",
    "There is no folder {path}.": "没有文件夹 {path}。",
    "Make it first.": "请先创建它。",
    "Drawing a PNG needs matplotlib, which is not installed.": (
        "绘制 PNG 需要 matplotlib，而它没有安装。"
    ),
    "The folder {path} cannot be written to: {reason}.": "文件夹 {path} 无法写入：{reason}。",
    "A fresh process of this program failed: {reason}": "本程序的新进程失败：{reason}",
    "The result {path} cannot be read: {reason}.": "结果 {path} 无法读取：{reason}。",
    "{path} is not a result of this program's benchmark.": "{path} 不是本程序的测量结果。",
    "Write one with `qwen-edge bench --json >FILE`.": (
        "可用 `qwen-edge bench --json >FILE` 生成。"
    ),
    # notes
    "A model of the shape {size} with random weights is made for the measurement and deleted "
    "afterwards: its speed and memory are a real one's, its answers are noise.": (
        "将生成形状为 {size}、权重随机的模型用于测量，用完即删："
        "速度和内存与真实模型相同，回答没有意义。"
    ),
    "Measuring": "正在测量",
    "The plot is in {path}.": "图在 {path}。",
    "Broken off: this is what was measured until then.": "已中断：以上是此前测得的结果。",
    "Nothing could be measured: {reason}": "什么也没能测量：{reason}",
    "{part} is left out: it takes a context of {needed} tokens, and this one has {context}.": (
        "未测{part}：需要 {needed} 个词元的上下文，而这里是 {context}。"
    ),
    "{part} is left out: it would take {needed} of memory, and {allowed} may be taken.": (
        "未测{part}：需要 {needed} 内存，而最多可用 {allowed}。"
    ),
    "{part} is left out for lack of time (about {seconds:.1f} s each); --budget allows more.": (
        "时间不足，未测{part}（每次约 {seconds:.1f} 秒）；可用 --budget 放宽。"
    ),
    "{part} was broken off: memory ran out.": "{part}已中断：内存不足。",
    # the report
    "{model}, {bits} bits, {size}; {read} are read for a token": (
        "{model}，{bits} 位，{size}；每个词元读取 {read}"
    ),
    "{processor}, {cores} cores, {memory}": "{processor}，{cores} 核，{memory}",
    "{threads} threads ({prefill_threads} for prefill), {isa}, KV {kv}": (
        "{threads} 个线程（预填充 {prefill_threads} 个），{isa}，KV {kv}"
    ),
    "Random weights: the speed is a real model's, the answers are noise.": (
        "随机权重：速度与真实模型相同，回答没有意义。"
    ),
    "Start": "启动",
    "Prefill, tokens/s": "预填充，词元/秒",
    "Decode at depth, tokens/s": "各深度的解码，词元/秒",
    "Sequences at once, tokens/s": "同时多个序列，词元/秒",
    "%: bytes of weights and cache, as a share of the read bandwidth": (
        "%：读取的权重和缓存字节占读取带宽的比例"
    ),
    "Stability": "稳定性",
    "Machine": "机器",
    "load": "加载",
    "first token, new process": "首个词元，新进程",
    "first token, loaded": "首个词元，已加载",
    "prefill of {size:,} tokens": "预填充 {size:,} 个词元",
    "decode at depth {size:,}": "深度 {size:,} 处的解码",
    "share of bandwidth at {size:,}": "深度 {size:,} 处的带宽占比",
    "batch of {size:,}": "{size:,} 个序列",
    "read bandwidth": "读取带宽",
    "share of all cores": "占全部核心",
    "peak memory, short answer": "内存峰值，简短回答",
    "memory at depth {size:,}": "深度 {size:,} 处的内存",
    "battery": "电池",
    "answers": "回答",
    "chat of 30 turns": "30 轮对话",
    "last turns against first": "末几轮对比前几轮",
    "memory growth": "内存增长",
    "leak, extrapolated": "泄漏（推算）",
    "One question, ten answers of 256 tokens": "一个问题，十次各 256 个词元的回答",
    "The repeats, tokens/s": "各次，词元/秒",
    "load time": "加载时间",
    "first token latency": "首个词元延迟",
    "mean speed": "平均速度",
    "least speed": "最低速度",
    "greatest speed": "最高速度",
    "peak memory": "内存峰值",
    "processor share of all cores": "占全部核心的比例",
    # engines side by side
    "What computes the answers; all sets everything that this device has side by side.": (
        "由什么来计算回答；all 并排比较本设备上的全部引擎。"
    ),
    "--engine all and --{option} exclude each other.": "--engine all 与 --{option} 不能同时使用。",
    "Leave --{option} out, or name one engine.": "请去掉 --{option}，或指定一个引擎。",
    "{engine} is left out: {reason}": "未测 {engine}：{reason}",
    "its weights take {needed} on the disk, and {free} are free.": (
        "其权重需要 {needed} 磁盘空间，而可用的只有 {free}。"
    ),
    "it was not done after {seconds:.0f} s; --budget allows more.": (
        "{seconds:.0f} 秒后仍未完成；可用 --budget 放宽。"
    ),
    "its process was ended by signal {signal}.": "其进程被信号 {signal} 终止。",
    "its process failed with status {status}.": "其进程失败，状态为 {status}。",
    "the model cannot be compiled here: {reason}": "模型无法在此编译：{reason}",
    "{engine}: {reason}": "{engine}：{reason}",
    "Engines side by side": "各引擎并排比较",
    "native": "原生",
    "torch compiled": "torch 编译",
    "torch eager": "torch 即时",
    "torch AOT": "torch 预编译",
    "engine": "引擎",
    "ready": "就绪",
    "1st token": "首词元",
    "prefill": "预填充",
    "decode": "解码",
    "ratio": "比值",
    "memory": "内存",
    "packages": "软件包",
    "ready, 1st token: from the start of a process. prefill ({tokens} tokens), decode: tokens/s. "
    "ratio: decode, turn by turn, to {first}. memory: the process's peak. packages: on this "
    "disk.": (
        "就绪、首词元：自进程启动起。预填充（{tokens} 个词元）、解码：词元/秒。比值：逐轮的解码速度"
        "与{first}之比。内存：进程峰值。软件包：占用的磁盘。"
    ),
    "Read bandwidth between the turns: {speed}.": "各轮之间的读取带宽：{speed}。",
    "first token, very first process": "首个词元，最初的进程",
    "process start to ready": "进程启动到就绪",
    "peak memory of the process": "进程内存峰值",
    "packages on disk": "软件包占用的磁盘",
    # tables
    "tokens/s": "词元/秒",
    "what": "项目",
    "median": "中位数",
    "range": "范围",
    "samples": "样本数",
    "change": "变化",
    "verdict": "判断",
    "faster": "更快",
    "slower": "更慢",
    "less": "更少",
    "more": "更多",
    "too few samples": "样本太少",
    "B against A; what has no verdict is within the noise.": (
        "B 对比 A；没有判断的差异在噪声之内。"
    ),
    "The results are of different procedures: their rows differ.": (
        "两份结果的测量方式不同：项目也不同。"
    ),
    "The models differ.": "模型不同。",
    "The machines differ: this compares them as much as anything else.": (
        "机器不同：比较的也是机器本身。"
    ),
    "The settings differ.": "设置不同。",
    "The machine's read bandwidth was {change:+.0%} in B: as much of a difference may be the "
    "machine's.": "B 的机器读取带宽为 {change:+.0%}：差异中可能有这么多来自机器。",
    "A result was broken off before its end.": "有一份结果中途中断。",
}
