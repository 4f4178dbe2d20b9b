"""Chinese for the texts of ``--help`` and for the ranges of settings."""

from __future__ import annotations

HELP = {
    "Run INT4 Qwen3 models on this device's CPU, offline.": (
        "在本设备的 CPU 上离线运行 INT4 的 Qwen3 模型。"
    ),
    "Show the version.": "显示版本。",
    "Usage: ": "用法：",
    "Options:": "选项：",
    "Arguments:": "参数：",
    "Commands:": "命令：",
    "[required]": "（必填）",
    "[default: {value}]": "（默认：{value}）",
    "Show this message and exit.": "显示本说明并退出。",
    "Install completion for the current shell.": "为当前 shell 安装自动补全。",
    "Show completion for the current shell, to copy it or customize the installation.": (
        "显示当前 shell 的补全脚本，供复制或自行安装。"
    ),
    # chat
    "Talk with a model.": "与模型对话。",
    "Continue the last conversation.": "继续上次的对话。",
    "Write speed and memory after each answer.": "每次回答后显示速度和内存。",
    "Show these commands.": "显示这些命令。",
    "Think before answering, or do not.": "回答前思考，或不思考。",
    "Answer with a LoRA adapter, or without.": "使用 LoRA 适配器回答，或不使用。",
    "Begin a new conversation.": "开始新的对话。",
    "Put the last answer on the clipboard.": "把上次的回答放到剪贴板。",
    "Listen for the next message.": "听写下一条消息。",
    "Speak the answer while it comes (Termux:API).": "边生成边朗读回答（Termux:API）。",
    "Listen for the prompt (Termux:API).": "听写提示词（Termux:API）。",
    "Put the whole answer on the clipboard in the end.": "最后把整个回答放到剪贴板。",
    "Show speed and memory of the last answer.": "显示上次回答的速度和内存。",
    "Leave; Ctrl-D does too.": "退出；Ctrl-D 也可以。",
    # run
    "Answer one prompt, from arguments or standard input.": "回答参数或标准输入中的一个提示词。",
    "The prompt; what is piped in comes after it.": "提示词；管道输入的内容接在其后。",
    "How the model should behave.": "模型应如何表现（系统提示）。",
    "The most tokens to think for.": "思考最多用多少个词元。",
    "Text that ends the answer; can be repeated.": "遇到该文字即结束回答；可重复。",
    "Take the prompt as it is, without chat template.": "原样使用提示词，不套用对话模板。",
    "Write one JSON object with text, ids, usage and timings.": (
        "输出一个 JSON 对象：文字、词元编号、用量和用时。"
    ),
    "With --json: the N likeliest tokens at each step.": "与 --json 合用：每步最可能的 N 个词元。",
    "Write speed and memory to standard error.": "把速度和内存写到标准错误。",
    "Write where each setting came from to standard error.": "把每项设置的来源写到标准错误。",
    # settings
    "A LoRA adapter (PEFT's folder) to merge first; may be repeated.": (
        "先行合并的 LoRA 适配器（PEFT 的文件夹）；可重复。"
    ),
    "A factor for the adapter's own scale: one for all, or one for each --lora.": (
        "适配器自身缩放之外的系数：一个用于全部，或每个 --lora 各一个。"
    ),
    "The model to use.": "使用的模型。",
    "What computes the answers.": "用什么来计算回答。",
    "Whether the torch engine compiles the model first.": "torch 引擎是否先编译模型。",
    "Type of the transformers engine's weights; nf4, fp4 and int8 take bitsandbytes.": (
        "transformers 引擎的权重类型；nf4、fp4 和 int8 需要 bitsandbytes。"
    ),
    "Quantize the scales of nf4 and fp4 in turn.": "对 nf4 和 fp4 的缩放系数再次量化。",
    "Use the KV cache; without it every token costs the whole text before it.": (
        "使用 KV 缓存；不使用时，每个词元都要重新计算之前的全部文字。"
    ),
    "Prompt and answer together, in tokens.": "提示词与回答合计的词元数。",
    "A LoRA adapter to answer with.": "回答时使用的 LoRA 适配器。",
    "a path, or off": "路径，或 off",
    "-100 to 100": "-100 到 100",
    "A factor for the adapter's own scale.": "适配器自身缩放之外的系数。",
    "Type of the KV cache.": "KV 缓存的类型。",
    "The longest answer, in tokens.": "回答的最大长度（词元）。",
    "Think before answering.": "回答前先思考。",
    "0 is greedy.": "0 表示贪心解码。",
    "Draw from the likeliest tokens that reach this share.": "只在累计概率达到该值的词元中抽取。",
    "Draw from this many tokens; 0 means all.": "只在最可能的这么多词元中抽取；0 表示全部。",
    "Drop tokens below this share of the likeliest.": "舍去概率低于最大概率该比例的词元。",
    "Above 1 discourages tokens already seen.": "大于 1 时抑制已出现过的词元。",
    "Above 0 discourages tokens of the answer.": "大于 0 时抑制回答中已有的词元。",
    "Makes answers repeatable.": "使回答可以重现。",
    "Threads of a decode step.": "解码所用的线程数。",
    "Threads while the prompt is read.": "读取提示词所用的线程数。",
    "The cores to run on; by default the fast ones for the answer, all for the prompt.": (
        "使用哪些核心；默认回答用快核，读取提示词用全部核心。"
    ),
    "Guess tokens from what was said before and check them together; changes the speed only.": (
        "根据前文猜测后续词元并一次验证；只影响速度，不影响内容。"
    ),
    "The most memory the program may take.": "程序最多可用的内存。",
    "Available memory that is left alone.": "可用内存中保留不用的部分。",
    "Disk space for computed system prompts.": "保存已计算的系统提示所用的磁盘空间。",
    "Keep a phone awake while it works (Termux).": "工作时让手机保持唤醒（Termux）。",
    "a size such as 256MB, or off": "大小（如 256MB），或 off",
    "Keep the computed prompt in FILE, and take from there what the next prompt begins with.": (
        "把计算好的提示词存入 FILE，下次从中取出与新提示词相同的开头部分。"
    ),
    "Delete the system prompts that were kept computed; they are computed again when needed.": (
        "删除保存的已计算系统提示；需要时会重新计算。"
    ),
    "a name or a path": "名称或路径",
    "64 to 1048576, and what the model takes": "64 到 1048576，且不超过模型的上限",
    "on or off": "on 或 off",
    "0 to 5": "0 到 5",
    "above 0, up to 1": "大于 0，最大为 1",
    "0 to 1048576": "0 到 1048576",
    "1 to 1048576": "1 到 1048576",
    "0 to 1": "0 到 1",
    "0.1 to 10": "0.1 到 10",
    "-2 to 2": "-2 到 2",
    "0 to 2^63 - 1": "0 到 2^63 - 1",
    "1 to 256": "1 到 256",
    "a size such as 900MB or 1GiB, auto, or off": "大小（如 900MB、1GiB）、auto 或 off",
    "a size such as 200MB": "大小，如 200MB",
    "core numbers such as 4-7 or 0,2": "核心编号，如 4-7 或 0,2",
    # models, convert
    "List, inspect, move and remove the models on this device.": (
        "列出、查看、移入和删除本设备上的模型。"
    ),
    "Bring a model into the folder of models, where it is fast; the original goes if you agree.": (
        "把模型搬进模型文件夹，在那里运行才快；经您同意后删除原文件。"
    ),
    "A model file, on shared storage say.": "模型文件，例如在共享存储中的。",
    "What it is called there.": "在那里的名称。",
    "Delete the original without asking.": "不询问即删除原文件。",
    "List the models, the one that is part of the program first.": "列出模型，程序自带的在前。",
    "Print JSON.": "输出 JSON。",
    "Show everything about one model.": "显示一个模型的全部信息。",
    "Name or path of a model.": "模型的名称或路径。",
    "Delete a model from this device.": "从本设备删除一个模型。",
    "Whole name of a model.": "模型的全名。",
    "Do not ask.": "不询问。",
    "Make a model of a true size with random weights, to measure speed and memory.": (
        "生成真实大小、随机权重的模型，用来测量速度和内存。"
    ),
    "qwen3-0.6b, qwen3-1.7b or qwen3-4b.": "qwen3-0.6b、qwen3-1.7b 或 qwen3-4b。",
    "The file to make.": "要生成的文件。",
    "4 or 8.": "4 或 8。",
    "Columns that share a scale.": "共用一个缩放系数的列数。",
    "Qwen3's tokenizer.json.": "Qwen3 的 tokenizer.json。",
    "Turn a checkpoint into a model file.": "把检查点转换为模型文件。",
    "Turn a checkpoint or GGUF file of a dense Qwen3 model into a model file, or back.\n\n"
    "An existing FILE is replaced once the new one is complete; "
    "breaking off leaves it as it was.": (
        "把稠密 Qwen3 模型的检查点或 GGUF 文件转换为模型文件，或反向转换。\n\n"
        "新文件完成后才会替换已有的文件；中途中断则保持原样。"
    ),
    "A folder with a Hugging Face checkpoint, or a GGUF file; with --to, a model.": (
        "Hugging Face 检查点文件夹或 GGUF 文件；用 --to 时为模型。"
    ),
    "Turn a model file into gguf (for llama.cpp) or safetensors (for transformers).": (
        "把模型文件转换为 gguf（用于 llama.cpp）或 safetensors（用于 transformers）。"
    ),
    "With --to: all matrices as bf16, f16 or f32; safetensors has bf16 by default.": (
        "用 --to 时：所有矩阵写成 bf16、f16 或 f32；safetensors 默认为 bf16。"
    ),
    "Compile a model file ahead of time for --engine torch on this device.": (
        "为本设备上的 --engine torch 提前编译模型文件。"
    ),
    "With --aot: type of the KV cache.": "用 --aot 时：KV 缓存的类型。",
    "The file to make; by default one among the models of this device.": (
        "要生成的文件；默认放入本设备的模型库。"
    ),
    "How weights are rounded: nearest, aware or gptq; by default gptq to 4 bits.": (
        "权重的舍入方法：nearest、aware 或 gptq；4 位默认用 gptq。"
    ),
    "What 4-bit codes stand for: iq4_nl, or int4, which is simpler to compute with.": (
        "4 位编码代表的数值：iq4_nl，或计算更简单的 int4。"
    ),
    "Another format for some matrices, such as lm_head=8; may be repeated.": (
        "为部分矩阵另选格式，如 lm_head=8；可重复。"
    ),
    "The text that the methods aware and gptq go by; by default one of their own.": (
        "aware 和 gptq 方法所依据的文本；默认用自带的。"
    ),
    "Bits of a weight: 4, 8 or 16; by default the source's own, 4 for floats.": (
        "每个权重的位数：4、8 或 16；默认沿用来源的位数，浮点权重为 4。"
    ),
    "Columns that share a scale: 32, 64 or 128.": "共用一个缩放系数的列数：32、64 或 128。",
    "What the model is called.": "模型的名称。",
    "Threads; 0 means all cores.": "线程数；0 表示全部核心。",
    # doctor, config
    "Look at this device and say what it can run.": "检查本设备，说明它能运行什么。",
    "Check this device, the model and the setup, and show what would run.": (
        "检查设备、模型和安装，并显示将如何运行。"
    ),
    "Name or path of the model to check.": "要检查的模型的名称或路径。",
    "Load torch and its operators, too, which takes seconds.": (
        "同时加载 torch 及其算子，需要几秒钟。"
    ),
    "Write what a bug report needs as JSON, nothing private in it; - is the terminal.": (
        "以 JSON 写出错误报告所需的内容，不含隐私信息；- 表示输出到终端。"
    ),
    "Measure which threads and cores are best for the model, and use them from now on; takes half "
    "a minute.": "测量哪些线程和核心最适合该模型，今后照此使用；需要半分钟。",
    "Delete what was compiled for torch; it is compiled again.": (
        "删除为 torch 编译的内容；需要时会重新编译。"
    ),
    "Print everything as JSON.": "以 JSON 输出全部内容。",
    "Show and change settings.": "查看和修改设置。",
    "Show and change settings. Flags and QWEN_EDGE_* variables override the file.": (
        "查看和修改设置。命令行选项和 QWEN_EDGE_* 变量优先于文件。"
    ),
    "Show what is set; with --explain, what a run would use and why.": (
        "显示已有的设置；加 --explain 显示运行时的值及其来源。"
    ),
    "All settings with the values in force and their origin.": "全部设置的当前值及其来源。",
    "Write a setting to the file. Put -- before a negative VALUE.": (
        "把设置写入文件。负的 VALUE 前请加 --。"
    ),
    "Name of a setting.": "设置项的名称。",
    "Its new value.": "新的值。",
    "Remove a setting from the file.": "从文件中删除设置。",
    "List all settings with their ranges.": "列出全部设置项及其范围。",
    "Print where the file is.": "显示文件的位置。",
}
