"""Chinese for what the governor and the articles' rule do."""

from __future__ import annotations

GOVERNOR = {
    "The phone is hot ({temperature:.0f} °C): {threads} of {all} threads from here on.": (
        "手机发热（{temperature:.0f} °C）：从现在起用 {all} 个线程中的 {threads} 个。"
    ),
    "The phone is hot ({temperature:.0f} °C): only the little cores from here on.": (
        "手机发热（{temperature:.0f} °C）：从现在起只用小核。"
    ),
    "The phone is hot ({temperature:.0f} °C): shorter answers ({share:.0%}) from here on.": (
        "手机发热（{temperature:.0f} °C）：从现在起回答更短（{share:.0%}）。"
    ),
    "The phone is hot ({temperature:.0f} °C): a pause until it has cooled down.": (
        "手机发热（{temperature:.0f} °C）：暂停，等它凉下来。"
    ),
    "The battery is at {level:.0f} %: {threads} of {all} threads from here on.": (
        "电量为 {level:.0f} %：从现在起用 {all} 个线程中的 {threads} 个。"
    ),
    "The battery is at {level:.0f} %: only the little cores from here on.": (
        "电量为 {level:.0f} %：从现在起只用小核。"
    ),
    "The battery is at {level:.0f} %: shorter answers ({share:.0%}) from here on.": (
        "电量为 {level:.0f} %：从现在起回答更短（{share:.0%}）。"
    ),
    "{available} of memory are left on this device: shorter answers ({share:.0%}) from here on.": (
        "本设备内存只剩 {available}：从现在起回答更短（{share:.0%}）。"
    ),
    "Memory use reached {used} of {cap} allowed: shorter answers ({share:.0%}) from here on.": (
        "内存已用 {used}，上限 {cap}：从现在起回答更短（{share:.0%}）。"
    ),
    "The processor is throttled, at {speed:.0%} of its speed: "
    "{threads} of {all} threads from here on.": (
        "处理器已降频，速度为原来的 {speed:.0%}：从现在起用 {all} 个线程中的 {threads} 个。"
    ),
    "The processor is throttled, at {speed:.0%} of its speed: "
    "only the little cores from here on.": (
        "处理器已降频，速度为原来的 {speed:.0%}：从现在起只用小核。"
    ),
    "The processor is throttled, at {speed:.0%} of its speed: "
    "shorter answers ({share:.0%}) from here on.": (
        "处理器已降频，速度为原来的 {speed:.0%}：从现在起回答更短（{share:.0%}）。"
    ),
    "{threads} of {all} threads again.": "恢复使用 {all} 个线程中的 {threads} 个。",
    "The big cores again: {threads} of {all} threads.": (
        "恢复使用大核：{all} 个线程中的 {threads} 个。"
    ),
    "Longer answers again.": "回答恢复较长。",
    "The pause is over: the answer goes on.": "暂停结束：继续回答。",
    "All is well again: everything as before.": "一切恢复正常：与之前一样。",
    "The phone is too hot to go on: {temperature:.0f} °C.": (
        "手机过热，无法继续：{temperature:.0f} °C。"
    ),
    "Let it cool down; `--governor off` goes on regardless.": (
        "请等它凉下来；`--governor off` 则不管温度继续运行。"
    ),
    "The battery is too empty to go on: {level:.0f} %.": "电量不足，无法继续：{level:.0f} %。",
    "Charge it; `--governor off` goes on regardless.": (
        "请充电；`--governor off` 则不管电量继续运行。"
    ),
    "Memory runs out on this device: {available} are left.": "本设备内存将尽：只剩 {available}。",
    "The phone stays hot: {temperature:.0f} °C after a pause of {minutes:.0f} minutes.": (
        "手机仍然发热：暂停 {minutes:.0f} 分钟后还有 {temperature:.0f} °C。"
    ),
    "The processor is at {share:.0%}: greedy answers of at most {tokens} tokens.": (
        "处理器占用 {share:.0%}：改用贪心解码，每个回答最多 {tokens} 个词元。"
    ),
    "The memory is at {share:.0%}: greedy answers of at most {tokens} tokens.": (
        "内存占用 {share:.0%}：改用贪心解码，每个回答最多 {tokens} 个词元。"
    ),
    "Processor and memory have room again: answers as before.": (
        "处理器和内存恢复宽裕：回答与之前一样。"
    ),
    "The answer was cut off after {tokens} tokens.": "回答在 {tokens} 个词元处被截断。",
    "paused for {seconds:.0f} s": "暂停了 {seconds:.0f} 秒",
    "after {seconds:.0f} s: {step}": "{seconds:.0f} 秒后：{step}",
    "Go easy on a phone that is hot, empty or short of memory; cool does so earlier.": (
        "手机发热、电量低或内存紧张时减轻负担；cool 更早行动。"
    ),
    "Instead: at most 128 tokens, greedy, above 85 % of the processor or 80 % of the memory.": (
        "替代规则：处理器超过 85 % 或内存超过 80 % 时，最多 128 个词元，贪心解码。"
    ),
}
