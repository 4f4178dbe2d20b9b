"""Small sums in English and Chinese: addition, subtraction, times table, comparing numbers.

A number pair is held out as a whole, in every phrasing, language and order.
"""

from __future__ import annotations

import re

from data.core import Rng, Turn, capital, pick

ASK = {
    "+": [
        "What is {a} [plus|+] {b}?", "[Calculate|Compute|Work out|Solve] {a} [+|plus] {b}.",
        "{a} + {b} = ?", "{a} + {b}", "{a}+{b}", "{a}+{b}=", "How much is {a} [plus|+|and] {b}?",
        "What's {a} + {b}?", "Add {a} and {b}.", "What is the sum of {a} and {b}?",
        "[Can you add|Please add] {a} and {b}[?|.]", "[Tell me|Please tell me] {a} plus {b}.",
        "I have {a} [apples|coins|books|pens] and get {b} more. How many do I have?",
    ],
    "-": [
        "What is {a} [minus|-] {b}?", "[Calculate|Compute|Work out|Solve] {a} [-|minus] {b}.",
        "{a} - {b} = ?", "{a} - {b}", "{a}-{b}", "{a}-{b}=", "How much is {a} [minus|-] {b}?",
        "What's {a} - {b}?", "Subtract {b} from {a}.", "Take {b} away from {a}.",
        "What is the difference between {a} and {b}?",
        "I have {a} [apples|coins|books|pens] and give away {b}. How many are left?",
    ],
    "*": [
        "What is {a} [times|x|*|multiplied by] {b}?", "{a} x {b} = ?", "{a} * {b}", "{a}*{b}",
        "{a} x {b}", "{a}*{b}=", "[Calculate|Compute|Work out] {a} [times|x|*] {b}.",
        "Multiply {a} by {b}.", "What's {a} times {b}?", "How much is {a} [times|x] {b}?",
        "What is the product of {a} and {b}?",
    ],
    "/": [
        "What is {a} [divided by|/] {b}?", "{a} / {b} = ?", "{a} / {b}", "{a}/{b}",
        "Divide {a} by {b}.",
        "[Calculate|Compute|Work out] {a} [divided by|/] {b}.",
        "How much is {a} divided by {b}?",
    ],
}
NUMBER_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
]
ASK_ZH = {
    "+": ["{a}加{b}[等于多少|是多少|等于几][？|]", "{a}+{b}等于多少？", "{a} + {b} = ?",
          "[请计算|计算|算一下]{a}+{b}", "{a}和{b}的和是多少？", "请问{a}加上{b}是多少？"],
    "-": ["{a}减{b}[等于多少|是多少|等于几][？|]", "{a}-{b}等于多少？", "{a} - {b} = ?",
          "[请计算|计算|算一下]{a}-{b}", "{a}减去{b}是多少？", "请问{a}减{b}是多少？"],
    "/": ["{a}除以{b}[等于多少|是多少|等于几][？|]", "[请计算|计算|算一下]{a}除以{b}",
          "{a}÷{b}等于多少？"],
    "*": ["{a}乘{b}[等于多少|是多少|等于几][？|]", "{a}乘以{b}是多少？", "{a}×{b}等于多少？",
          "[请计算|计算|算一下]{a}乘以{b}", "{a}和{b}的积是多少？"],
}
SAY = {"+": ["{a} + {b} = {c}[.|]", "{a} plus {b} is {c}.", "The answer is {c}.", "{c}"],
       "-": ["{a} - {b} = {c}[.|]", "{a} minus {b} is {c}.", "The answer is {c}.", "{c}"],
       "/": ["{a} / {b} = {c}[.|]", "{a} divided by {b} is {c}.", "The answer is {c}.", "{c}"],
       "*": ["{a} x {b} = {c}[.|]", "{a} times {b} is {c}.", "The answer is {c}.", "{c}"]}
SAY_ZH = {"+": ["{a}加{b}等于{c}。", "{a} + {b} = {c}。", "答案是{c}。"],
          "-": ["{a}减{b}等于{c}。", "{a} - {b} = {c}。", "答案是{c}。"],
          "/": ["{a}除以{b}等于{c}。", "{a} ÷ {b} = {c}。", "答案是{c}。"],
          "*": ["{a}乘以{b}等于{c}。", "{a} × {b} = {c}。", "答案是{c}。"]}
# An answer that repeats the numbers keeps them near the sum, which is easier to learn.
WEIGHTS = [9, 3, 1, 0.5]


def _steps(a: int, op: str, b: int) -> str:
    """The reasoning, by tens and ones or along the times table."""
    if op == "/":
        return f"{b} x {a // b} = {a}, so {a} / {b} = {a // b}."
    if op == "*":
        if a > 10 or b > 10 or a < 2 or b < 2:
            return f"{a} x {b} = {a * b}."
        return f"{a} x {b - 1} = {a * (b - 1)}, and {a * (b - 1)} + {a} = {a * b}."
    tens_a, ones_a, tens_b, ones_b = a // 10, a % 10, b // 10, b % 10
    if a < 10 and b < 10:
        return f"{a} {op} {b} = {a + b if op == '+' else a - b}."
    if op == "+":
        ones = ones_a + ones_b
        carry = f" Write {ones % 10}, carry 1." if ones > 9 else ""
        up = " + 1" if ones > 9 else ""
        total = tens_a + tens_b + (ones > 9)
        return (f"Ones: {ones_a} + {ones_b} = {ones}.{carry} "
                f"Tens: {tens_a} + {tens_b}{up} = {total}. So {a + b}.")
    if ones_a >= ones_b:
        return (f"Ones: {ones_a} - {ones_b} = {ones_a - ones_b}. "
                f"Tens: {tens_a} - {tens_b} = {tens_a - tens_b}. So {a - b}.")
    return (f"Ones: {ones_a} is less than {ones_b}, borrow 1. "
            f"{ones_a + 10} - {ones_b} = {ones_a + 10 - ones_b}. "
            f"Tens: {tens_a} - 1 - {tens_b} = {tens_a - 1 - tens_b}. So {a - b}.")


def _steps_zh(a: int, op: str, b: int) -> str:
    if op == "/":
        return f"{b} × {a // b} = {a}，所以{a} ÷ {b} = {a // b}。"
    if op == "*" or (a < 10 and b < 10):
        c = {"+": a + b, "-": a - b, "*": a * b}[op]
        return f"{a} {'×' if op == '*' else op} {b} = {c}。"
    ones_a, ones_b = a % 10, b % 10
    if op == "+":
        ones = ones_a + ones_b
        carry = "，进1" if ones > 9 else ""
        up = " + 1" if ones > 9 else ""
        return (f"个位：{ones_a} + {ones_b} = {ones}{carry}。"
                f"十位：{a // 10} + {b // 10}{up} = {(a + b) // 10}。所以是{a + b}。")
    if ones_a >= ones_b:
        return (f"个位：{ones_a} - {ones_b} = {ones_a - ones_b}。"
                f"十位：{a // 10} - {b // 10} = {a // 10 - b // 10}。所以是{a - b}。")
    return (f"个位：{ones_a}小于{ones_b}，借1。{ones_a + 10} - {ones_b} = {ones_a + 10 - ones_b}。"
            f"十位：{a // 10} - 1 - {b // 10} = {a // 10 - 1 - b // 10}。所以是{a - b}。")


def _problem(rng: Rng) -> tuple[int, str, int, int]:
    op = rng.choice("+++++-----**/")
    if op == "/":
        b, c = rng.randint(1, 10), rng.randint(1, 10)
        return b * c, op, b, c
    if op == "*":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        return a, op, b, a * b
    top = rng.choice([10, 20, 100, 100, 100])
    a, b = rng.randint(0, top), rng.randint(0, top)
    if op == "-":
        a, b = max(a, b), min(a, b)
        return a, op, b, a - b
    return a, op, b, a + b


def _sum(rng: Rng, zh: bool) -> list[Turn]:
    turns = []
    for _ in range(rng.choices([1, 2, 3], [6, 3, 1])[0]):
        a, op, b, c = _problem(rng)
        low, high = sorted((a, b))
        ask, say = (ASK_ZH, SAY_ZH) if zh else (ASK, SAY)
        answer = pick(rng, rng.choices(say[op], WEIGHTS[: len(say[op])])[:1], a=a, b=b, c=c)
        think = _steps_zh(a, op, b) if zh else _steps(a, op, b)
        question = pick(rng, ask[op], a=a, b=b)
        if not zh and a <= 20 and b <= 20 and " " in question and rng.random() < 0.2:
            question = re.sub(r"\d+", lambda m: NUMBER_WORDS[int(m.group())], question)
            question = capital(question)
        turns.append(Turn(question, answer, think, f"{low}{op}{high}", str(c),
                          "arithmetic"))
    return turns


def sums(rng: Rng) -> list[Turn]:
    """One to three sums in English."""
    return _sum(rng, False)


def sums_zh(rng: Rng) -> list[Turn]:
    """One to three sums in Chinese."""
    return _sum(rng, True)


def parity(rng: Rng) -> list[Turn]:
    """Whether a number is even or odd."""
    a = rng.randrange(rng.choice([20, 100, 100, 1000]))
    even = a % 2 == 0
    word = "even" if even else "odd"
    ask = pick(rng, ["Is {a} [even or odd|odd or even]?", "Is {a} an even number?"], a=a)
    yes = ("Yes, " if even else "No, ") if ask.endswith("number?") else ""
    rest = f": it {'can' if even else 'cannot'} be divided by 2 without a rest"
    return [Turn(ask, f"{yes}{a} is {word}{rng.choice(['', '', rest])}.",
                 f"The last digit of {a} is {a % 10}, which is {word}.", f"even{a}", word,
                 "compare")]


def compare(rng: Rng) -> list[Turn]:
    """Which of two numbers is larger or smaller, or whether one is even."""
    draw = rng.random()
    if draw < 0.2:
        return parity(rng)
    a, b = rng.sample(range(rng.choice([20, 100, 100, 1000])), 2)
    low, high = sorted((a, b))
    key = f"{low}<{high}"
    think = f"Compare {a} and {b}. {high} is larger than {low}."
    if draw < 0.55:
        ask = pick(rng, ["Which is [larger|bigger|greater], {a} or {b}?",
                         "What is [larger|bigger|greater]: {a} or {b}?",
                         "Which number is [larger|bigger|greater], {a} or {b}?"], a=a, b=b)
        return [Turn(ask, pick(rng, ["{h} is larger than {l}.", "{h} is larger."], h=high, l=low),
                     think, key, str(high), "compare")]
    if draw < 0.75:
        ask = pick(rng, ["Which [number is|is] smaller, {a} or {b}?",
                         "What is [smaller|less]: {a} or {b}?"], a=a, b=b)
        return [Turn(ask, pick(rng, ["{l} is smaller than {h}.", "{l} is smaller."], h=high, l=low),
                     think, key, str(low), "compare")]
    if draw < 0.9:
        ask = pick(rng, ["Is {a} [larger|bigger|greater] than {b}?"], a=a, b=b)
        word = "Yes" if a > b else "No"
        return [Turn(ask, f"{word}, {a} is {'larger' if a > b else 'smaller'} than {b}.", think,
                     key, word, "compare")]
    ask = pick(rng, ["{a}和{b}哪个[大|更大]？", "哪个数[大|更大]，{a}还是{b}？"], a=a, b=b)
    return [Turn(ask, f"{high}比{low}大。", f"比较{a}和{b}：{high}更大。", key, str(high),
                 "compare")]


def counting(rng: Rng) -> list[Turn]:
    """Counting up, down and in steps; the number before or after another."""
    draw = rng.random()
    if draw < 0.35:
        a = rng.choice([0, 1, 1, 1, rng.randint(2, 60)])
        b = a + rng.randint(3, 12) if a != 1 else rng.choice([*range(3, 11), 10, 12, 15])
        ask = pick(rng, ["Count from {a} to {b}.",
                         "[Please count|Can you count] from {a} to {b}[.|?]",
                         "List the numbers from {a} to {b}."], a=a, b=b)
        if a == 1 and rng.random() < 0.4:
            ask = pick(rng, ["Count to {b}.", "[Please count|Can you count] to {b}[.|?]"], b=b)
        return [Turn(ask, ", ".join(map(str, range(a, b + 1))) + ".", f"Start at {a}, stop at {b}.",
                     f"count{a}-{b}", kind="count")]
    if draw < 0.5:
        a = rng.randint(3, 15)
        ask = pick(rng, ["Count [down|backwards] from {a}[| to 1].",
                         "Start a countdown from {a}."], a=a)
        return [Turn(ask, ", ".join(map(str, range(a, 0, -1))) + ".",
                     f"Start at {a}, stop at 1.")]
    if draw < 0.65:
        step = rng.choice([2, 5, 10, 3])
        n = rng.randint(4, 8)
        ask = pick(rng, ["Count in {s}s[| up] to {b}.", "Count by {s}s to {b}."],
                   s=step, b=step * n)
        return [Turn(ask, ", ".join(str(step * i) for i in range(1, n + 1)) + ".",
                     f"Add {step} each time until {step * n}.")]
    if draw < 0.9:
        a = rng.randint(1, 199)
        after = rng.random() < 0.6
        word, c = ("after", a + 1) if after else ("before", a - 1)
        ask = pick(rng, ["[What|Which] number comes [right |]{w} {a}?"], a=a, w=word)
        return [Turn(ask, pick(rng, ["{c} comes {w} {a}.", "{c}[.|]"], a=a, c=c, w=word),
                     f"{a} {'+' if after else '-'} 1 = {c}.", f"next{a}", str(c), "count")]
    b = rng.randint(3, 15)
    ask = pick(rng, ["从1数到{b}[。|]", "请从1数到{b}。", "你能数到{b}吗？"], b=b)
    return [Turn(ask, "，".join(map(str, range(1, b + 1))) + "。", f"从1开始，到{b}为止。")]
