"""Chinese for the English templates: errors, hints and notes, then the texts of ``--help``."""

from __future__ import annotations

from qwen_edge.cli.bench_zh import BENCH
from qwen_edge.cli.convert_zh import CONVERT
from qwen_edge.cli.eval_zh import EVAL
from qwen_edge.cli.findings_zh import FINDINGS
from qwen_edge.cli.governor_zh import GOVERNOR
from qwen_edge.cli.help_zh import HELP
from qwen_edge.cli.phone_zh import PHONE
from qwen_edge.cli.pull_zh import PULL

_ERRORS = {
    "{message}": "{message}",
    "See `{command} --help`.": "用法见 `{command} --help`。",
    "Something unexpected happened: {kind}.": "发生了意外错误：{kind}。",
    "The details are in {path}; please send them with a report.": (
        "详情见 {path}；报告问题时请附上该文件。"
    ),
    "Memory ran out.": "内存不足。",
    "--calibrate goes with --model alone.": "--calibrate 只能与 --model 同用。",
    "Only the native engine is calibrated, not {engine}.": (
        "只能校准 native 引擎，不能校准 {engine}。"
    ),
    "Its threads go where the system puts them; leave the engine setting out.": (
        "它的线程由系统安排；请不要设置引擎。"
    ),
    "Close other apps, or use a smaller model.": "请关闭其他应用，或换用更小的模型。",
    "Writing to standard output failed: {reason}.": "写入标准输出失败：{reason}。",
    "There is no command {name}.": "没有命令 {name}。",
    "Did you mean {near}?": "您是否想用 {near}？",
    "Commands: {known}.": "可用的命令：{known}。",
    "There is no prompt.": "没有给出提示词。",
    'Give it as an argument, `qwen-edge run "Hello"`, or pipe it in; '
    "`qwen-edge chat` is for talking.": (
        '请以参数给出，如 `qwen-edge run "你好"`，或用管道输入；对话请用 `qwen-edge chat`。'
    ),
    "There is no adapter {path}.": "没有适配器 {path}。",
    "Give the folder that PEFT saved, or the adapter_model.safetensors in it.": (
        "请给出 PEFT 保存的文件夹，或其中的 adapter_model.safetensors。"
    ),
    "{path} has no {name}.": "{path} 中没有 {name}。",
    "An adapter is a folder with adapter_config.json and adapter_model.safetensors; pickled "
    "ones (.bin) are not read.": (
        "适配器是含有 adapter_config.json 和 adapter_model.safetensors 的文件夹；不读取 .bin 文件。"
    ),
    "The adapter {path} cannot be used: {problem}.": "适配器 {path} 无法使用：{problem}。",
    "Get the adapter again, and make sure that it was made for this model.": (
        "请重新获取适配器，并确认它是为该模型制作的。"
    ),
    "The adapter {path} uses {feature}, which is not supported.": (
        "适配器 {path} 使用了尚不支持的 {feature}。"
    ),
    "Merge it with PEFT (merge_and_unload), and convert the result.": (
        "请用 PEFT 合并（merge_and_unload），再转换合并后的模型。"
    ),
    "The adapter {path} has rank {rank}; {most} is the most here.": (
        "适配器 {path} 的秩为 {rank}，这里最多为 {most}。"
    ),
    "Merge it into the model with `qwen-edge convert DIR --lora ADAPTER`.": (
        "请用 `qwen-edge convert DIR --lora ADAPTER` 将其合并到模型中。"
    ),
    "Use an adapter of a lower rank.": "请使用秩更低的适配器。",
    "The engine {engine} needs the package {package}, which is not installed.": (
        "引擎 {engine} 需要软件包 {package}，而它没有安装。"
    ),
    'Install it with `pip install "qwen-edge[torch]"`.': (
        '请用 `pip install "qwen-edge[torch]"` 安装。'
    ),
    "Install it with `pkg install python-torch`, version 2.11 or later: 2.10 loses memory.": (
        "请用 `pkg install python-torch` 安装 2.11 或更高版本：2.10 会泄漏内存。"
    ),
    "It does not exist for Android: install qwen-edge[torch] in a Linux distribution "
    "under proot.": ("它没有 Android 版本：请在 proot 的 Linux 发行版中安装 qwen-edge[torch]。"),
    "{model} is a {suffix} model; the engine transformers takes a checkpoint's folder.": (
        "{model} 是 {suffix} 模型；引擎 transformers 需要检查点文件夹。"
    ),
    "Make one with `qwen-edge convert {model} --to safetensors`.": (
        "请用 `qwen-edge convert {model} --to safetensors` 生成。"
    ),
    "The checkpoint {path} is quantized by {method}, and the engine transformers takes "
    "bitsandbytes only.": (
        "检查点 {path} 由 {method} 量化，而引擎 transformers 只支持 bitsandbytes。"
    ),
    "The native engine takes it: `qwen-edge convert {path}`.": (
        "原生引擎可用：`qwen-edge convert {path}`。"
    ),
    "transformers cannot load the checkpoint {path}: {reason}.": (
        "transformers 无法加载检查点 {path}：{reason}。"
    ),
    "The native engine may: `qwen-edge convert {path}`.": (
        "可试试原生引擎：`qwen-edge convert {path}`。"
    ),
    "There are no {length} positions to keep.": "没有 {length} 个位置可保留。",
    "There is no sequence {sequence}.": "没有序列 {sequence}。",
    "The token {token} cannot stand at position {position}.": (
        "词元 {token} 不能位于位置 {position}。"
    ),
    "--kv and --activations do not apply to the engine transformers.": (
        "--kv 和 --activations 不适用于引擎 transformers。"
    ),
    "--weights chooses its precision.": "它的精度由 --weights 决定。",
    "The engine {engine} does not load: {reason}.": "引擎 {engine} 无法加载：{reason}。",
    "Install its packages again, or use --engine native.": (
        "请重新安装其软件包，或使用 --engine native。"
    ),
    "The engine {engine} does not answer with adapters.": "引擎 {engine} 不能使用适配器。",
    "Use --engine native, or merge it: `qwen-edge convert DIR --lora ADAPTER`.": (
        "请使用 --engine native，或将其合并：`qwen-edge convert DIR --lora ADAPTER`。"
    ),
    "--prompt-cache and --no-kv-cache exclude each other.": (
        "--prompt-cache 与 --no-kv-cache 不能同时使用。"
    ),
    "The engine {engine} keeps no prompts on disk.": "引擎 {engine} 不在磁盘上保存提示词。",
    "Leave --prompt-cache out, or use --engine native.": (
        "请去掉 --prompt-cache，或使用 --engine native。"
    ),
    "The adapter {path} needs {needed} of memory, and {left} are left.": (
        "适配器 {path} 需要 {needed} 内存，只剩 {left}。"
    ),
    "Turn the present one off first, or begin anew with a smaller --context.": (
        "请先停用当前的适配器，或用更小的 --context 重新开始。"
    ),
    "There are {adapters} --lora and {scales} --lora-scale.": (
        "有 {adapters} 个 --lora 和 {scales} 个 --lora-scale。"
    ),
    "Give one --lora-scale for all of them, or one for each, in the same order.": (
        "请给出一个用于全部的 --lora-scale，或按相同顺序为每个各给一个。"
    ),
    "Standard input holds more than {limit}.": "标准输入超过了 {limit}。",
    "No context is that long: give it a part.": "没有这么长的上下文，请只给出一部分。",
    "--logprobs works with --json only.": "--logprobs 只能与 --json 一起使用。",
    "Add --json.": "请加上 --json。",
    "--{option} takes a number from {low} to {high}, not {value}.": (
        "--{option} 需要 {low} 到 {high} 之间的数，而不是 {value}。"
    ),
    "There is no option {name}.": "没有选项 {name}。",
    "The option {name} cannot be {value}.": "选项 {name} 不能是 {value}。",
    "This model is busy with another answer.": "该模型正在生成另一个回答。",
    "Wait for it to end, or load the model a second time.": "请等它结束，或再加载一次模型。",
    "This model is closed.": "该模型已关闭。",
    "Load it again.": "请重新加载。",
    "The prompt is empty.": "提示词为空。",
    "Give some text to answer.": "请给出需要回答的文字。",
    "The prompt has {length} tokens, the context holds {context}.": (
        "提示词有 {length} 个词元，上下文只能容纳 {context} 个。"
    ),
    "Shorten the prompt or raise --context.": "请缩短提示词，或调大 --context。",
    "The answer must be allowed at least one token.": "回答至少要允许一个词元。",
    "{name} cannot be {value}.": "{name} 不能是 {value}。",
    "Use one of {choices}.": "可选的值：{choices}。",
    "A call takes at most {most} rows, not {given}.": "一次调用最多 {most} 行，而不是 {given} 行。",
    "The engine is closed.": "引擎已关闭。",
    "The native library failed: {reason}.": "本机库出错：{reason}。",
    "The native library is broken: {reason}.": "本机库已损坏：{reason}。",
    "The native library has interface version {found}, this program needs {needed}.": (
        "本机库的接口版本为 {found}，本程序需要 {needed}。"
    ),
    "Reinstall with `pip install --force-reinstall --no-deps qwen-edge`.": (
        "请用 `pip install --force-reinstall --no-deps qwen-edge` 重新安装。"
    ),
    "The native library {path} does not load: {reason}.": "本机库 {path} 无法加载：{reason}。",
    "Reinstall with `pip install --force-reinstall --no-deps qwen-edge`; "
    "a C++ compiler is needed (Termux: `pkg install clang`).": (
        "请用 `pip install --force-reinstall --no-deps qwen-edge` 重新安装；"
        "需要 C++ 编译器（Termux：`pkg install clang`）。"
    ),
    "Out of memory: {reason}.": "内存不足：{reason}。",
    "Use a smaller --context, --kv int4, or raise --memory-cap.": (
        "请减小 --context，使用 --kv int4，或调大 --memory-cap。"
    ),
    "The model cannot be used: {reason}.": "该模型无法使用：{reason}。",
    "Download or convert the model again.": "请重新下载或转换该模型。",
    "Invalid request: {reason}.": "请求无效：{reason}。",
    "Memory use reached {used}, and the cap is {cap}.": "内存已用到 {used}，上限为 {cap}。",
    "Raise --memory-cap, or use a smaller --context.": "请调大 --memory-cap，或减小 --context。",
    "An allocation failed under the memory cap.": "在内存上限之内无法再分配内存。",
    "{model} needs {needed} of memory, and it may take {allowed}: "
    "{available} are available, {reserve} of that stay in reserve.": (
        "{model} 需要 {needed} 内存，而最多可用 {allowed}：空闲 {available}，其中保留 {reserve}。"
    ),
    "Use a smaller --context, close other apps, or use a smaller model.": (
        "请减小 --context、关闭其他应用，或换用更小的模型。"
    ),
    "Raise --memory-cap, close other apps, or use a smaller model.": (
        "请调大 --memory-cap、关闭其他应用，或换用更小的模型。"
    ),
    "context is {value}, and {model} takes 1 to {longest}.": (
        "context 为 {value}，而 {model} 可用 1 到 {longest}。"
    ),
    "Choose a context in that range.": "请在该范围内选择上下文长度。",
    "kv is {value}; allowed are {allowed}.": "kv 为 {value}；可用的有 {allowed}。",
    "There is no setting {key}.": "没有设置项 {key}。",
    "Settings: {known}.": "可用的设置项：{known}。",
    "{value} is no value for {key} ({origin}).": "{value} 不是 {key} 的有效值（{origin}）。",
    "Allowed: {allowed}.": "允许的值：{allowed}。",
    "The configuration file {path} cannot be read: {reason}.": (
        "配置文件 {path} 无法读取：{reason}。"
    ),
    "Mend or delete it.": "请修正或删除它。",
    "{key} in {path} is not a plain value.": "{path} 中的 {key} 不是单个的值。",
    "Write one setting a line: key = value.": "每行写一个设置：key = value。",
    "The configuration file {path} cannot be written: {reason}.": (
        "配置文件 {path} 无法写入：{reason}。"
    ),
    "The conversation could not be saved to {path}: {reason}.": "对话无法保存到 {path}：{reason}。",
    "The saved conversation {path} cannot be read.": "已保存的对话 {path} 无法读取。",
    "Move that file away to continue an older one, or start afresh without --resume.": (
        "请移走该文件以继续更早的对话，或不加 --resume 重新开始。"
    ),
    "{name} cannot be the name of a model.": "{name} 不能用作模型名。",
    "The folder {path} cannot be made: {reason}.": "无法创建文件夹 {path}：{reason}。",
    "Set QWEN_EDGE_HOME to a folder that is writable.": "请把 QWEN_EDGE_HOME 设为可写的文件夹。",
    "Several models fit the name {name}: {found}.": "有多个模型符合名称 {name}：{found}。",
    "Give one of these names in full.": "请写出其中一个的全名。",
    "There is no model on this device.": "本设备上没有模型。",
    "Get one with `qwen-edge pull qwen3-0.6b`.": ("可用 `qwen-edge pull qwen3-0.6b` 下载。"),
    "There is no model {name}.": "没有模型 {name}。",
    "`qwen-edge pull {short}` gets it.": "可用 `qwen-edge pull {short}` 下载。",
    "The store has no model {name}.": "模型库中没有 {name}。",
    "{path} is a folder, not a {suffix} file.": "{path} 是文件夹，不是 {suffix} 文件。",
    "Convert a checkpoint first: `qwen-edge convert {path} -o model{suffix}`; or use "
    "--engine transformers.": (
        "请先转换检查点：`qwen-edge convert {path} -o model{suffix}`；"
        "或使用 --engine transformers。"
    ),
    "The demo model is part of the program and cannot be removed.": (
        "演示模型是程序的一部分，不能删除。"
    ),
    "There is no model file {path}.": "没有模型文件 {path}。",
    "`qwen-edge models` lists what is installed, `qwen-edge pull` gets more.": (
        "`qwen-edge models` 列出已有的模型，`qwen-edge pull` 可下载更多。"
    ),
    "{path} is a folder, not a .qedge model file.": "{path} 是文件夹，不是 .qedge 模型文件。",
    "Convert a Hugging Face checkpoint or a GGUF file with `qwen-edge convert`.": (
        "请用 `qwen-edge convert` 转换 Hugging Face 检查点或 GGUF 文件。"
    ),
    "The model file {path} cannot be read: {reason}.": "模型文件 {path} 无法读取：{reason}。",
    "Check the path and its permissions.": "请检查路径及其权限。",
    "{path} is not a .qedge model file: {problem}.": "{path} 不是 .qedge 模型文件：{problem}。",
    "The model file {path} is truncated: {problem}.": "模型文件 {path} 不完整：{problem}。",
    "The model file {path} is damaged: {problem}.": "模型文件 {path} 已损坏：{problem}。",
    "Copy, download or convert it again.": "请重新复制、下载或转换。",
    "The model file {path} has format version {found}, this program reads up to {known}.": (
        "模型文件 {path} 的格式版本为 {found}，本程序最多支持 {known}。"
    ),
    "Update qwen-edge, or convert the model with this version.": (
        "请更新 qwen-edge，或用本版本转换该模型。"
    ),
    "The model file {path} holds the architecture {found}, which is not supported.": (
        "模型文件 {path} 的架构 {found} 不受支持。"
    ),
    "Dense Qwen3 models are supported.": "支持的是稠密的 Qwen3 模型。",
    "There is no address space to map {path}.": "没有足够的地址空间来映射 {path}。",
    "Raise --memory-cap, or use a smaller model.": "请调大 --memory-cap，或换用更小的模型。",
    "{path} needs {needed} of disk space and only {free} are free.": (
        "{path} 需要 {needed} 磁盘空间，而只剩 {free}。"
    ),
    "Free some space, or write it elsewhere.": "请腾出空间，或写到别处。",
    "{path} exists and is not a prompt cache; it is left as it is.": (
        "{path} 已存在且不是提示词缓存，未作改动。"
    ),
    "Name a new file, or an old prompt cache.": "请指定一个新文件，或已有的提示词缓存。",
    "The prompt cache {path} is damaged; it is made anew.": (
        "提示词缓存 {path} 已损坏，将重新生成。"
    ),
    "The prompt cache {path} is of another model or other settings; it is made anew.": (
        "提示词缓存 {path} 属于别的模型或设置，将重新生成。"
    ),
    "The prompt cache {path} cannot be read: {reason}.": "提示词缓存 {path} 无法读取：{reason}。",
    "The prompt cache {path} led to results that are not numbers.": (
        "提示词缓存 {path} 导致计算结果不是数值。"
    ),
    "Delete it.": "请删除它。",
    "A prompt kept on disk led to results that are not numbers.": (
        "磁盘上保存的提示词导致计算结果不是数值。"
    ),
    "It is deleted now; ask again.": "它已被删除，请重新提问。",
    "There are no {length} positions to save.": "没有 {length} 个位置可保存。",
    "{path} needs {needed}, more than a file may have there.": (
        "{path} 需要 {needed}，超过了那里单个文件的上限。"
    ),
    "Write it to another file system, or raise the limit (ulimit -f).": (
        "请写到别的文件系统，或提高限制（ulimit -f）。"
    ),
    "{path} cannot be written: {reason}.": "{path} 无法写入：{reason}。",
    "{path} cannot be deleted: {reason}.": "{path} 无法删除：{reason}。",
    "Choose a folder that exists and is writable.": "请选择存在且可写的文件夹。",
    "{path} is a folder; the name of a file is needed.": "{path} 是文件夹；这里需要文件名。",
    "{name} is not deleted without being asked.": "未经确认不会删除 {name}。",
    "Say --yes where there is no terminal.": "没有终端时请加 --yes。",
    "There is no checkpoint folder {path}.": "没有检查点文件夹 {path}。",
    "Give the folder that holds config.json and the safetensors files.": (
        "请给出含有 config.json 和 safetensors 文件的文件夹。"
    ),
    "None of the cores {cpus} may be used; {allowed} may.": (
        "核心 {cpus} 均不可用；可用的是 {allowed}。"
    ),
    "threads is {value}; it cannot be less than 0.": "threads 为 {value}，不能小于 0。",
    "The checkpoint file {path} cannot be used: {problem}.": (
        "检查点文件 {path} 无法使用：{problem}。"
    ),
    "Download the checkpoint again.": "请重新下载该检查点。",
    "It is what `huggingface-cli download` makes: a folder with config.json.": (
        "应为 `huggingface-cli download` 得到的、含有 config.json 的文件夹。"
    ),
    "The folder {path} has no config.json.": "文件夹 {path} 中没有 config.json。",
    "A checkpoint needs config.json, tokenizer.json and safetensors weights.": (
        "检查点需要 config.json、tokenizer.json 和 safetensors 权重。"
    ),
    "The checkpoint {path} is of the architecture {found}, which is not supported.": (
        "检查点 {path} 的架构 {found} 不受支持。"
    ),
    "Dense Qwen3 models (Qwen3ForCausalLM) are supported.": (
        "支持的是稠密的 Qwen3 模型（Qwen3ForCausalLM）。"
    ),
    "The checkpoint {path} cannot be used: {problem}.": "检查点 {path} 无法使用：{problem}。",
    "The checkpoint {path} has no tokenizer.json.": "检查点 {path} 中没有 tokenizer.json。",
    "Download the whole checkpoint; vocab.json and merges.txt alone are not read.": (
        "请下载完整的检查点；只有 vocab.json 和 merges.txt 是不够的。"
    ),
    "The checkpoint {path} is quantized by the unsupported method {method}.": (
        "检查点 {path} 使用不受支持的量化方法 {method}。"
    ),
    "There is too little memory for the method {method}: {instead} was used, which loses more.": (
        "内存不足以使用方法 {method}：已改用 {instead}，损失会更大。"
    ),
    "{kept} of {matrices} matrices are taken over code for code; only their scales are rounded to "
    "fp16.": "{matrices} 个矩阵中有 {kept} 个按原编码保留，仅缩放系数舍入为 fp16。",
    "The checkpoint {path} uses {feature}, which is not supported.": (
        "检查点 {path} 用到了不受支持的 {feature}。"
    ),
    "Use the model's original checkpoint.": "请使用该模型的原始检查点。",
    "The checkpoint {path} cannot be used: "
    "its tokenizer has {tokens} tokens and its embedding {rows} rows.": (
        "检查点 {path} 无法使用：分词器有 {tokens} 个词元，而嵌入只有 {rows} 行。"
    ),
    "There is no method {method}.": "没有名为 {method} 的方法。",
    "Methods are {methods}.": "可用的方法：{methods}。",
    "The calibration text is empty.": "校准文本是空的。",
    "The calibration text {path} cannot be used: {reason}.": "无法使用校准文本 {path}：{reason}。",
    "The override {text} is not understood.": "无法理解 --override 的值 {text}。",
    "Write PATTERN=FORMAT, such as lm_head=8 or 'layers.0.*=16'; formats: 4, 8, 16, {books}.": (
        "请写成 模式=格式，如 lm_head=8 或 'layers.0.*=16'；格式有 4、8、16、{books}。"
    ),
    "The override {pattern} fits no weights.": ("--override 的模式 {pattern} 不匹配任何权重。"),
    "Matrices are named like lm_head, embed_tokens, down_proj or layers.0.mlp.down_proj.": (
        "矩阵名称形如 lm_head、embed_tokens、down_proj 或 layers.0.mlp.down_proj。"
    ),
    "The weights cannot be stored that way: {reason}.": "权重不能这样存储：{reason}。",
    "The checkpoint {path} cannot be used: in the tensor {name}, rows {begin} and on, {reason}.": (
        "检查点 {path} 无法使用：张量 {name} 自第 {begin} 行起，{reason}。"
    ),
    "The checkpoint {path} has several files of weights: {found}.": (
        "检查点 {path} 有多个权重文件：{found}。"
    ),
    "Convert a folder that holds only one of them.": "请转换只含其中一个的文件夹。",
    "The weights in {path} are pickled ({name}), and reading those could run any code.": (
        "{path} 中的权重是 pickle 格式（{name}），读取它可能会运行任意代码。"
    ),
    "Take a checkpoint with safetensors weights.": "请改用带 safetensors 权重的检查点。",
    "There are no safetensors weights in {path}.": "{path} 中没有 safetensors 权重。",
    "It needs model.safetensors, or shards with model.safetensors.index.json; "
    "pickled checkpoints (.bin, .pth) are not read.": (
        "需要 model.safetensors，或分片及 model.safetensors.index.json；"
        "不读取 pickle 格式的检查点（.bin、.pth）。"
    ),
    "The shard {shard} that {index} names cannot be read: {reason}.": (
        "{index} 中列出的分片 {shard} 无法读取：{reason}。"
    ),
    "There is no synthetic model {size} with {bits} bits.": "没有 {bits} 位的合成模型 {size}。",
    "Sizes are {sizes}; bits are 4 or 8.": "大小可选 {sizes}；位数可选 4 或 8。",
    "The tokenizer {path} cannot be read: {reason}.": "分词器 {path} 无法读取：{reason}。",
    "A message holds {kind}, which is not text.": "消息中含有 {kind}，不是文字。",
    "The model's chat template is too long: {size} characters.": (
        "该模型的对话模板过长：{size} 个字符。"
    ),
    "Download or convert the model again; its makers may have corrected the template.": (
        "请重新下载或转换该模型；其作者可能已修正模板。"
    ),
    "There is no message to answer.": "没有需要回答的消息。",
    "A message is nested too deeply.": "消息嵌套过深。",
    "The chat template refuses these messages: {reason}.": "对话模板拒绝了这些消息：{reason}。",
    "Check the roles of the messages and their order.": "请检查消息的角色及其顺序。",
    "The model's chat template fails: {reason}.": "该模型的对话模板出错：{reason}。",
    "A message must be an object with role and content.": "消息必须是含有 role 和 content 的对象。",
    "A message uses every private character of Unicode.": "消息用到了 Unicode 的全部私用字符。",
    "This kind of tokenizer is not supported: {what}.": "不支持这种分词器：{what}。",
    "Use a Qwen3 model, or one with the same kind of tokenizer.": (
        "请使用 Qwen3 模型，或分词器相同的模型。"
    ),
    "The tokenizer is damaged: {what}.": "分词器已损坏：{what}。",
    "Download the model again.": "请重新下载该模型。",
    "The tokenizer is not valid JSON: {reason}.": "分词器不是有效的 JSON：{reason}。",
    "A token id does not fit into 32 bits.": "词元编号超出了 32 位。",
    "torch's compiler does not work here ({reason}).": "torch 的编译器在此不可用（{reason}）。",
    "It needs a C++ compiler: `pkg install clang` on Termux, `apt install g++` elsewhere.": (
        "需要 C++ 编译器：Termux 上用 `pkg install clang`，其他系统用 `apt install g++`。"
    ),
    "The model's layers differ in how they are quantized: no package can serve them all.": (
        "模型各层的量化方式不同：没有一个编译包能用于所有层。"
    ),
    "Use --compile on.": "请使用 --compile on。",
    "The KV cache type cannot be {value}.": "KV 缓存的类型不能是 {value}。",
}

_NOTES = {
    "error:": "错误：",
    "hint:": "提示：",
    "warning:": "警告：",
    "error": "错误",
    "warning": "警告",
    "note": "说明",
    "prompt: {tokens} tokens ({cached} cached), {seconds:.2f} s, {speed:.1f} tokens/s": (
        "提示词：{tokens} 个词元（缓存 {cached} 个），{seconds:.2f} 秒，{speed:.1f} 词元/秒"
    ),
    "answer: {tokens} tokens, first after {first:.2f} s, then {speed:.1f} tokens/s ({reason})": (
        "回答：{tokens} 个词元，首个用时 {first:.2f} 秒，之后 {speed:.1f} 词元/秒（{reason}）"
    ),
    "lookup: {accepted} of {drafted} drafted tokens accepted": (
        "查找：{drafted} 个草拟词元，其中 {accepted} 个被采纳"
    ),
    "loading: {seconds:.2f} s": "加载：{seconds:.2f} 秒",
    "peak memory: {size}": "内存峰值：{size}",
    "This is the tiny demo model, which is not clever. "
    "Get a real one with `qwen-edge pull qwen3-0.6b`.": (
        "这是很小的演示模型，并不聪明。可用 `qwen-edge pull qwen3-0.6b` 下载真正的模型。"
    ),
    "The context of {context} tokens is full; --context sets its size.": (
        "{context} 个词元的上下文已满；其大小由 --context 设定。"
    ),
    "The answer was cut off after {tokens} tokens; --max-tokens allows more.": (
        "回答在 {tokens} 个词元后被截断；可用 --max-tokens 放宽。"
    ),
    "Reading the prompt": "正在读取提示词",
    "Loading torch": "正在加载 torch",
    "Loading torch and transformers": "正在加载 torch 和 transformers",
    "Building the operators for torch": "正在编译 torch 算子",
    "Compiling the model for torch": "正在为 torch 编译模型",
    "The operators for torch cannot be built ({reason}).": "无法编译 torch 算子（{reason}）。",
    "The operators for torch cannot be built ({reason}); slow ones are used.": (
        "无法编译 torch 算子（{reason}）；改用较慢的算子。"
    ),
    "torch's compiler does not work here ({reason}); going on without.": (
        "torch 的编译器在此不可用（{reason}）；不编译而继续。"
    ),
    'Lines between two lines of """ are one message.': '两行 """ 之间的各行算作一条消息。',
    "{model}, context {context} tokens. /help lists commands, Ctrl-D leaves.": (
        "{model}，上下文 {context} 个词元。/help 列出命令，Ctrl-D 退出。"
    ),
    "There is no saved conversation; this is a new one.": "没有已保存的对话，这是新的对话。",
    "The last conversation goes on, {turns} turns so far.": "继续上次的对话，已有 {turns} 轮。",
    "Ctrl-C once more leaves; so does Ctrl-D.": "再按一次 Ctrl-C 或按 Ctrl-D 退出。",
    "Stopped. Ctrl-C once more leaves.": "已停止。再按一次 Ctrl-C 退出。",
    "The context is full: the oldest {count} messages are left out.": (
        "上下文已满：最早的 {count} 条消息不再使用。"
    ),
    "The conversation is saved; `qwen-edge chat --resume` goes on with it.": (
        "对话已保存；可用 `qwen-edge chat --resume` 继续。"
    ),
    "There is no command {name}; /help lists them.": "没有命令 {name}；/help 列出全部命令。",
    "Write /think on or /think off.": "请写 /think on 或 /think off。",
    "This model does not think before it answers.": "该模型没有思考模式。",
    "There is no adapter; write /lora PATH.": "没有使用适配器；请输入 /lora 路径。",
    "The adapter {name}, rank {rank}, takes {size}; /lora off goes without it.": (
        "适配器 {name}（秩 {rank}）占用 {size}；/lora off 将其停用。"
    ),
    "The adapter {name}, rank {rank}, from here on.": "从现在起使用适配器 {name}（秩 {rank}）。",
    "The adapter {name}, rank {rank}, from here on; the conversation is read anew with it.": (
        "从现在起使用适配器 {name}（秩 {rank}）；对话将用它重新读取。"
    ),
    "No adapter from here on.": "从现在起不使用适配器。",
    "No adapter from here on; the conversation is read anew without it.": (
        "从现在起不使用适配器；对话将重新读取。"
    ),
    "The adapter {name} has rank {rank} and takes {size} of the predicted peak of {peak}.": (
        "适配器 {name} 的秩为 {rank}，在预计峰值 {peak} 中占 {size}。"
    ),
    "Thinking is on.": "思考已开启。",
    "Thinking is off.": "思考已关闭。",
    "A new conversation.": "新的对话。",
    "There was no answer yet.": "还没有回答。",
    "For the model {model}.": "针对模型 {model}。",
    "{key} is set in {path}.": "{key} 已写入 {path}。",
    "{key} is not set in {path}.": "{path} 中没有设置 {key}。",
    "{name} is set and means nothing to this program.": "设置了 {name}，但本程序不识别它。",
    "Nothing is set: everything follows from the device. See --explain.": (
        "没有任何设置：一切由设备决定。参见 --explain。"
    ),
    "{size}; the weights are off by {error:.2%} in all, by {worst:.2%} in {name}.": (
        "{size}；权重总误差 {error:.2%}，其中 {name} 最大，为 {worst:.2%}。"
    ),
    "{path} does not end in {suffix}: it is found by its path only.": (
        "{path} 不以 {suffix} 结尾：只能用路径找到它。"
    ),
    "{path} lies on shared storage, where it runs at a small part of its speed.": (
        "{path} 位于共享存储上，在那里运行会慢很多。"
    ),
    "Converting": "正在转换",
    "layer {number}": "第 {number} 层",
    "Writing": "正在写入",
    "Models lie in {folder}.": "模型存放在 {folder}。",
    "Computed prompts: {prompts}, {size}; `qwen-edge models clear-cache` deletes them.": (
        "已计算的提示词：{prompts} 个，{size}；`qwen-edge models clear-cache` 可删除。"
    ),
    "{prompts} computed prompts are deleted, {size}.": (
        "已删除 {prompts} 个计算好的提示词，{size}。"
    ),
    "{name} is deleted.": "已删除 {name}。",
    "Delete {name} ({size})?": "删除 {name}（{size}）？",
    "{bits} bits": "{bits} 位",
    "yes": "是",
    "no": "否",
    "damaged": "已损坏",
    "none": "无",
    "unknown": "未知",
    "big": "大核",
    "little": "小核",
    "name": "名称",
    "size": "大小",
    "weights": "权重",
    "setting": "设置",
    "value": "值",
    "({range})": "（{range}）",
}

_DOCTOR = {
    "Device": "设备",
    "Processor": "处理器",
    "Memory": "内存",
    "Program": "程序",
    "Version": "版本",
    "Kernels": "内核",
    "Compiler": "编译器",
    "Model": "模型",
    "Storage": "存储",
    "Prompts": "提示词",
    "{prompts} computed, {size} in {path}; `qwen-edge models clear-cache` deletes them": (
        "已计算 {prompts} 个，{size}，位于 {path}；`qwen-edge models clear-cache` 可删除"
    ),
    "Configuration": "配置",
    "Findings": "发现的问题",
    "Predicted peak": "预计峰值",
    "Recommended": "推荐",
    "{total}, {available} available, {swap} of swap free": (
        "{total}，可用 {available}，交换区空闲 {swap}"
    ),
    "the native library does not load": "本机库无法加载",
    "{in_use}; this processor runs {available}; {variable} forces one": (
        "{in_use}；本处理器支持 {available}；可用 {variable} 指定"
    ),
    "{version}, loaded with its operators in {seconds:.1f} s": (
        "{version}，连同算子加载用时 {seconds:.1f} 秒"
    ),
    "{version}, loaded in {seconds:.1f} s; its operators do not load": (
        "{version}，加载用时 {seconds:.1f} 秒；算子无法加载"
    ),
    "{version}, its operators are built": "{version}，算子已编译",
    "{version}, its operators are built on first use with {compiler}": (
        "{version}，首次使用时由 {compiler} 编译算子"
    ),
    "{version}, its operators cannot be built": "{version}，无法编译算子",
    "Compiled": "编译缓存",
    "Calibrated": "实测",
    "no; `qwen-edge doctor --calibrate` takes half a minute": (
        "未测；`qwen-edge doctor --calibrate` 只需半分钟"
    ),
    "threads: {threads} (cores: {cores}), for prompts {prefill}; {speed:.1f} tokens/s; "
    "{days} days old": (
        "线程：{threads}（核心 {cores}），提示词 {prefill}；每秒 {speed:.1f} 个词元；{days} 天前"
    ),
    "Answers": "回答",
    "Cores": "核心",
    "Threads": "线程",
    "Tokens/s": "词元/秒",
    "all": "全部",
    "* is used from now on: the fewest threads that nothing beats by 3 %.": (
        "今后使用标 * 的：没有其他选择比它快 3 % 的最少线程数。"
    ),
    "The time was not enough to try everything.": "时间不够，未能全部试过。",
    "{key} is set ({origin}), which goes before this.": (
        "已设置 {key}（{origin}），它优先于此结果。"
    ),
    "{size} in {path}; `qwen-edge doctor --clear-cache` deletes it": (
        "{size}，位于 {path}；`qwen-edge doctor --clear-cache` 可删除"
    ),
    "Compiled for torch: {size} in {path}.": "为 torch 编译的内容：{size}，位于 {path}。",
    "It is deleted.": "已删除。",
    "--report and --json do not go together.": "--report 和 --json 不能同时使用。",
    "{path} has what a bug report needs; look through it before you send it.": (
        "{path} 中是错误报告所需的内容；发送前请先查看。"
    ),
    "--clear-cache goes alone.": "--clear-cache 只能单独使用。",
    "not installed (not needed)": "未安装（不需要）",
    "{name}, {bits} bits, {size}, {path}": "{name}，{bits} 位，{size}，{path}",
    "{type}, {free} free": "{type}，剩余 {free}",
    "For {model} at INT4, as no model could be opened:": (
        "没有能打开的模型，以 INT4 的 {model} 为准："
    ),
    "None: see the findings below.": "无：见下面的问题。",
    "{short} with {tokens} tokens in use, {full} with a full context; {allowed} may be taken": (
        "使用 {tokens} 个词元时 {short}，上下文用满时 {full}；最多可用 {allowed}"
    ),
    "{model}, which has room in what is available": "{model}，可用内存放得下",
    "the demo; too little memory is available for a larger model": (
        "演示模型；可用内存放不下更大的模型"
    ),
}

MESSAGES = (
    _ERRORS | _NOTES | _DOCTOR | FINDINGS | BENCH | CONVERT | EVAL | GOVERNOR | PULL | PHONE | HELP
)
"""English template -> Chinese template, with the same fields."""
