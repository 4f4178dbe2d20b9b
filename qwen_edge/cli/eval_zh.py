"""Chinese for the texts of ``eval``: its help, its report, and what it says besides."""

from __future__ import annotations

EVAL = {
    # help
    "Measure how well a model predicts or answers.": "测量模型预测和答题的质量。",
    "Perplexity of this text; - is standard input, as is a pipe without --text.": (
        "测量该文本的困惑度；- 表示标准输入，不给 --text 而用管道输入也一样。"
    ),
    "Accuracy on the questions with choices in this file, a JSON object in each line.": (
        "测量该文件中选择题的正确率，每行一个 JSON 对象。"
    ),
    "Tokens of a window of the text; 512 by default.": "每个文本窗口的词元数，默认 512。",
    "Score each token once, with windows N tokens apart; else the second half of each window.": (
        "窗口每次移动 N 个词元，每个词元计一次；不给则只计每个窗口的后一半。"
    ),
    "At most N windows, or N questions.": "最多 N 个窗口，或 N 道题。",
    "Take the text of control tokens, <|im_end|> say, for the tokens themselves.": (
        "把控制词元的文字（如 <|im_end|>）当作词元本身。"
    ),
    "Compare predictions with those of this model.": "与该模型的预测比较。",
    "Keep the predictions in FILE: 2 bytes for each token scored and id of the vocabulary.": (
        "把预测存入 FILE：每个计分词元占用词表大小的 2 倍字节。"
    ),
    "Compare with predictions that were kept; the file brings the text.": (
        "与存下的预测比较；文本由该文件提供。"
    ),
    "How choices are compared: letter (the default), or text, length-normalized.": (
        "比较选项的方式：letter（字母，默认），或 text（选项文字，按长度归一）。"
    ),
    "Type of the KV cache; f16 by default.": "KV 缓存的类型，默认 f16。",
    "int8 (the default), or f32: exact, and many times slower.": (
        "int8（默认），或 f32：精确，但慢很多倍。"
    ),
    "Write the result as JSON.": "以 JSON 输出结果。",
    "Write the result as JSON to FILE, too.": "同时把结果以 JSON 写入 FILE。",
    # errors and hints
    "--{first} and --{second} exclude each other.": "--{first} 与 --{second} 不能同时使用。",
    "--scoring works with --choices only.": "--scoring 只能与 --choices 一起使用。",
    "Add --choices FILE.": "请加上 --choices FILE。",
    "There is nothing to evaluate.": "没有可评测的内容。",
    "Give --text FILE, --choices FILE or --reference FILE, or pipe a text in.": (
        "请给出 --text FILE、--choices FILE 或 --reference FILE，或用管道输入文本。"
    ),
    "{path} cannot be read: {reason}.": "{path} 无法读取：{reason}。",
    "{path} is longer than {limit}.": "{path} 超过了 {limit}。",
    "Give it a part.": "请只给出一部分。",
    "{path} is empty.": "{path} 是空的。",
    "{path} is not UTF-8 text: byte {place} is wrong.": (
        "{path} 不是 UTF-8 文本：第 {place} 个字节有误。"
    ),
    "Convert it to UTF-8, with iconv say.": "请转换为 UTF-8，例如用 iconv。",
    "The text has {tokens} tokens, and a window takes {context}.": (
        "文本有 {tokens} 个词元，而一个窗口需要 {context} 个。"
    ),
    "Give a longer text, or --stride, which takes shorter ones.": (
        "请给出更长的文本，或使用 --stride，它接受较短的文本。"
    ),
    "The text has {tokens} tokens; there is nothing to predict.": (
        "文本只有 {tokens} 个词元，没有可预测的内容。"
    ),
    "Give a longer text.": "请给出更长的文本。",
    "The vocabularies differ.": "词表不同。",
    "{model} and {other} have different vocabularies.": "{model} 与 {other} 的词表不同。",
    "Only models that share their vocabulary can be compared.": "只能比较词表相同的模型。",
    "{model} and {other} side by side need {needed} of memory, and {allowed} may be taken.": (
        "{model} 与 {other} 同时加载需要 {needed} 内存，而最多可用 {allowed}。"
    ),
    "Take them one after the other: --save-reference FILE with {other}, then --reference FILE.": (
        "请先后进行：先对 {other} 用 --save-reference FILE，再用 --reference FILE。"
    ),
    "Evaluating {model} needs {needed} of memory, and {allowed} may be taken.": (
        "评测 {model} 需要 {needed} 内存，而最多可用 {allowed}。"
    ),
    "The file holds no questions.": "文件中没有题目。",
    "Each line is like {example}.": "每行形如 {example}。",
    "Line {line} is not JSON.": "第 {line} 行不是 JSON。",
    "Line {line} holds no question.": "第 {line} 行没有题目。",
    "Line {line} does not hold choices that are texts.": "第 {line} 行没有文字形式的选项。",
    "Line {line} has {count} choices; {low} to {high} are possible.": (
        "第 {line} 行有 {count} 个选项，应为 {low} 到 {high} 个。"
    ),
    "Line {line}: the answer {answer} is none of the {count} choices.": (
        "第 {line} 行：答案 {answer} 不在 {count} 个选项之中。"
    ),
    "It is an index from 0, a letter, or the text of a choice.": (
        "答案应为从 0 起的序号、字母，或某个选项的文字。"
    ),
    "Line {line}: the question takes {length} tokens, the context holds {context}.": (
        "第 {line} 行：题目需要 {length} 个词元，上下文只能容纳 {context} 个。"
    ),
    "Raise --context if the model takes more, or leave the question out.": (
        "如果模型支持，请调大 --context；否则请去掉这道题。"
    ),
    "The reference {path} has version {found}, this program reads {known}.": (
        "参考文件 {path} 的版本为 {found}，本程序支持 {known}。"
    ),
    "Write it again with --save-reference.": "请用 --save-reference 重新生成。",
    "The reference {path} is of a model with another vocabulary.": (
        "参考文件 {path} 来自词表不同的模型。"
    ),
    "The reference {path} is damaged.": "参考文件 {path} 已损坏。",
    "{path} is not a reference of this program.": "{path} 不是本程序的参考文件。",
    "Write one with --save-reference.": "请用 --save-reference 生成。",
    "The reference {path} cannot be read: {reason}.": "参考文件 {path} 无法读取：{reason}。",
    # notes
    "Evaluating": "正在评测",
    "standard input": "标准输入",
    "{tokens:,} tokens in {seconds:.1f} s, {speed:,.0f} tokens/s": (
        "{tokens:,} 个词元，{seconds:.1f} 秒，{speed:,.0f} 词元/秒"
    ),
    # the report
    "{file}: {model}, {bits} bits, {size}": "{file}：{model}，{bits} 位，{size}",
    "KV {kv}, activations {activations}, {isa}": "KV {kv}，激活 {activations}，{isa}",
    "with the adapter {adapter}": "使用适配器 {adapter}",
    "{file}: {model} with the adapter {adapter}, KV {kv}, activations {activations}": (
        "{file}：{model}，适配器 {adapter}，KV {kv}，激活值 {activations}"
    ),
    "{file}: {model}, KV {kv}, activations {activations}": (
        "{file}：{model}，KV {kv}，激活 {activations}"
    ),
    "{questions} questions, scoring: {scoring}": "{questions} 道题，计分方式：{scoring}",
    "{tokens:,} tokens, windows of {context:,}, {stride:,} apart: {windows_done:,} of "
    "{windows:,}": (
        "{tokens:,} 个词元，窗口 {context:,}，间隔 {stride:,}：完成 {windows_done:,} / {windows:,}"
    ),
    "{tokens:,} tokens, windows of {context:,}, second halves scored: {windows_done:,} of "
    "{windows:,}": (
        "{tokens:,} 个词元，窗口 {context:,}，计后一半：完成 {windows_done:,} / {windows:,}"
    ),
    "Perplexity": "困惑度",
    "perplexity": "困惑度",
    "nats a token": "每词元 nats",
    "tokens scored": "计分词元",
    "Against the reference": "与参考比较",
    "KL divergence, nats": "KL 散度，nats",
    "KL median": "KL 中位数",
    "KL 90th percentile": "KL 第 90 百分位",
    "KL 99th percentile": "KL 第 99 百分位",
    "KL maximum": "KL 最大值",
    "same first choice": "首选相同",
    "its perplexity": "参考的困惑度",
    "perplexity ratio": "困惑度之比",
    "change, nats a token": "变化，每词元 nats",
    "Accuracy": "正确率",
    "right answers": "答对",
    "accuracy": "正确率",
    "guessing": "随机猜测",
    "category": "类别",
    "right": "答对",
    "95 %": "95 %",
}
