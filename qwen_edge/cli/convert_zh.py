"""Chinese for what ``convert`` says about GGUF files and about exports."""

from __future__ import annotations

CONVERT = {
    "There is no checkpoint folder or GGUF file {path}.": "没有检查点文件夹或 GGUF 文件 {path}。",
    "{path} is a model file already.": "{path} 已经是模型文件。",
    "`--to gguf` and `--to safetensors` turn it into something else; --aot compiles it.": (
        "`--to gguf` 和 `--to safetensors` 可把它转换为其他格式；--aot 可将其编译。"
    ),
    "--aot takes no other option than --kv.": "--aot 只能与 --kv 同用。",
    "--kv goes with --aot.": "--kv 须与 --aot 同用。",
    "{size}; --engine torch starts from it with every model of this shape.": (
        "{size}；--engine torch 会从它启动，形状相同的模型都适用。"
    ),
    "--to takes neither --bits nor --name nor --lora.": (
        "--to 不能与 --bits、--name 或 --lora 同用。"
    ),
    "--dtype goes with --to.": "--dtype 须与 --to 同用。",
    "--to takes gguf or safetensors, not {value}.": (
        "--to 只接受 gguf 或 safetensors，而不是 {value}。"
    ),
    "--dtype takes bf16, f16 or f32, not {value}.": (
        "--dtype 只接受 bf16、f16 或 f32，而不是 {value}。"
    ),
    "{size}; every weight is what it was.": "{size}；所有权重与原来完全相同。",
    "{path} is a GGUF file, not a {suffix} file.": "{path} 是 GGUF 文件，不是 {suffix} 文件。",
    "Convert it first: `qwen-edge convert {path} -o {stem}{suffix}`.": (
        "请先转换：`qwen-edge convert {path} -o {stem}{suffix}`。"
    ),
    "The GGUF file {path} cannot be used: {problem}.": "GGUF 文件 {path} 无法使用：{problem}。",
    "Download the file again, or take another one of the same model.": (
        "请重新下载，或换用同一模型的另一个文件。"
    ),
    "There is no GGUF file {path} that can be read: {reason}.": (
        "没有可读取的 GGUF 文件 {path}：{reason}。"
    ),
    "The part {part} of the GGUF file {path} cannot be read: {reason}.": (
        "GGUF 文件 {path} 的分卷 {part} 无法读取：{reason}。"
    ),
    "Put all parts of a split file into one folder.": "请把全部分卷放在同一文件夹中。",
    "Take a file in Q4_0, Q4_K_M, Q5_K_M, Q6_K, Q8_0, IQ4_NL or BF16.": (
        "请换用 Q4_0、Q4_K_M、Q5_K_M、Q6_K、Q8_0、IQ4_NL 或 BF16 的文件。"
    ),
    "The GGUF file {path} is of the architecture {found}, which is not supported.": (
        "GGUF 文件 {path} 的架构为 {found}，不受支持。"
    ),
    "The GGUF file {path} is a part of a split file, and not the first by its name.": (
        "GGUF 文件 {path} 是分卷之一，且按名称不是第一卷。"
    ),
    "Give the part that ends in -00001-of-{count:05}.gguf, named as it was downloaded.": (
        "请给出以 -00001-of-{count:05}.gguf 结尾的分卷，并保持下载时的名称。"
    ),
    "The weights cannot be written as {type}.": "权重不能写成 {type}。",
    "{path} exists already.": "{path} 已经存在。",
    "Name a folder that does not exist.": "请指定一个尚不存在的文件夹。",
}
