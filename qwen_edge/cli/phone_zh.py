"""Chinese for speaking, listening, copying, and for moving models off slow storage."""

from __future__ import annotations

PHONE = {
    "Nothing is spoken: it takes `pkg install termux-api` and the app Termux:API.": (
        "无法朗读：需要 `pkg install termux-api` 和 Termux:API 应用。"
    ),
    "Nothing is spoken: the app Termux:API does not answer.": (
        "无法朗读：Termux:API 应用没有响应。"
    ),
    "Nothing is spoken: termux-tts-speak fails.": "无法朗读：termux-tts-speak 出错。",
    "Speak now.": "请说话。",
    "> {text}": "> {text}",
    "There is no way to listen here.": "这里无法听写。",
    "On Termux: `pkg install termux-api`, and install the app Termux:API.": (
        "Termux 上：`pkg install termux-api`，并安装 Termux:API 应用。"
    ),
    "Nothing was heard in {seconds:.0f} s.": "{seconds:.0f} 秒内没有听到内容。",
    "Is the app Termux:API installed, and may it use the microphone?": (
        "Termux:API 应用装好了吗？它有麦克风权限吗？"
    ),
    "Nothing was heard.": "没有听到内容。",
    "Try again, or write the prompt.": "请再试一次，或直接输入提示词。",
    "The answer is on the clipboard.": "回答已放到剪贴板。",
    "The answer is not copied: there is no clipboard; on Termux it takes "
    "`pkg install termux-api` and the app Termux:API.": (
        "回答未复制：没有剪贴板；Termux 上需要 `pkg install termux-api` 和 Termux:API 应用。"
    ),
    "The answer is not copied: the clipboard does not answer.": "回答未复制：剪贴板没有响应。",
    "The answer is not copied: the clipboard's command fails.": "回答未复制：剪贴板命令出错。",
    "Done.": "完成。",
    "`{command}` brings it where it is fast.": "`{command}` 把它搬到快的地方。",
    "Copy it ({size}) to {folder} ({free} free)?": "把它（{size}）复制到 {folder}（剩余 {free}）？",
    "It stays; `qwen-edge models move` copies it at any time.": (
        "保持原处；随时可用 `qwen-edge models move` 复制。"
    ),
    "`qwen-edge config set model {name}` makes it the usual one.": (
        "`qwen-edge config set model {name}` 将其设为常用模型。"
    ),
    "Copying": "正在复制",
    "The model is now {path}.": "模型现在是 {path}。",
    "Delete {path}?": "删除 {path}？",
    "{path} is still there.": "{path} 仍然保留。",
    "It is there already.": "它已经在那里。",
    "Give this one a --name.": "请用 --name 另取名称。",
    "There is no model file {path}.": "没有模型文件 {path}。",
    "The copy of {path} is not what was read.": "{path} 的副本与读到的不一致。",
    "{path} has changed since it was copied, and stays.": "{path} 在复制后有变化，因此保留。",
}
