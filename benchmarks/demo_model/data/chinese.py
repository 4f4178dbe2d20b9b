"""Chinese small talk, facts, stories, poems and relativity."""

from __future__ import annotations

from data.core import Rng, Turn, both_ways, entries, names, pairs, pick, spin

DAYS = ["星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"]
COUNTS = {2: "两", 3: "三", 4: "四"}


def talk(rng: Rng) -> list[Turn]:
    """One to three exchanges of small talk."""
    chosen = rng.sample(entries("talk.zh.txt"), rng.choice([1, 1, 2, 3]))
    return [Turn(pick(rng, e.asks), pick(rng, e.answers), "用户在和我聊天，我友好地回答。")
            for e in chosen]


def memory(rng: Rng) -> list[Turn]:
    """A name, told and asked for."""
    n = rng.choice(names("people", "names zh"))
    turns = [Turn(spin(rng, "[我叫|我是|我的名字是|你好，我叫|叫我]{n}[。|]", n=n),
                  spin(rng, "你好，{n}！[很高兴认识你。|有什么可以帮你？]", n=n),
                  f"用户说他叫{n}。")]
    if rng.random() < 0.25:
        return turns
    for _ in range(rng.choice([0, 0, 1, 2])):
        turns += talk(rng)[:1]
    ask = pick(rng, ["我叫什么[名字|]？", "你[还|]记得我的名字吗？", "我是谁？",
                     "我的名字是什么？"])
    return [*turns, Turn(ask, f"你叫{n}。", f"用户之前说过，他叫{n}。", key=f"mem {n}{len(turns)}",
                         gold=n, kind="memory")]


def _general(rng: Rng) -> Turn:
    entry = rng.choice(entries("facts.zh.txt", "fact"))
    say = entry.answers[0]
    return Turn(spin(rng, "[||请问，]") + pick(rng, entry.asks), say, "这是一个常识问题。" + say,
                gold=entry.golds[0], kind="fact")


def _capital(rng: Rng) -> Turn:
    c, g = rng.choice(list(pairs("capitals zh").items()))
    ask = pick(rng, ["{c}的首都是哪里？", "{c}的首都[是什么|在哪里|是哪座城市]？",
                     "[请问|请告诉我，]{c}的首都是哪里？", "哪座城市是{c}的首都？"], c=c)
    return Turn(ask, pick(rng, ["{c}的首都是{g}。", "{g}是{c}的首都。"], c=c, g=g),
                f"{c}的首都是{g}。", gold=g, kind="fact")


def _opposite(rng: Rng) -> Turn:
    w, g = rng.choice(list(both_ways("opposites zh").items()))
    ask = pick(rng, ["“{w}”的反义词是什么？", "{w}的反义词[是什么|是哪个字]？",
                     "[请说出|说出]“{w}”的反义词。"], w=w)
    return Turn(ask, f"“{w}”的反义词是“{g}”。", f"{w}和{g}意思相反。", gold=f"是“{g}”", kind="fact")


def _colour(rng: Rng) -> Turn:
    t, g = rng.choice(list(pairs("colours zh").items()))
    ask = pick(rng, ["{t}是什么颜色[的|]？", "{t}的颜色是什么？"], t=t)
    return Turn(ask, f"{t}是{g}的。", f"{t}通常是{g}。", gold=g, kind="fact")


def _day(rng: Rng) -> Turn:
    i, step = rng.randrange(7), rng.choice([1, -1])
    d, g, side = DAYS[i], DAYS[(i + step) % 7], "后" if step == 1 else "前"
    return Turn(f"{d}的{side}一天是星期几？", f"{d}的{side}一天是{g}。", f"{d}之{side}是{g}。",
                gold=g, kind="fact")


def _list(rng: Rng) -> Turn:
    kind = rng.choice(list(pairs("classes zh", "lists.txt")))
    n = rng.choice([2, 3, 3, 4])
    items = rng.sample(names("classes zh", kind), n)
    measure = "个" if kind in ("国家", "城市", "季节") else "种"
    ask = pick(rng, ["[说出|列出|写出|告诉我|请列出]{n}{m}{k}。", "[举|列举]{n}{m}{k}的例子[。|]"],
               n=rng.choice([COUNTS[n], str(n)]), m=measure, k=kind)
    said = "、".join(items)
    return Turn(ask, said + "。", f"我想到{said}。", key=ask, kind="list")


def facts(rng: Rng) -> list[Turn]:
    """Facts, capitals, opposites, colours, days, lists in Chinese."""
    makers = [_general, _capital, _opposite, _colour, _day, _list]
    return [rng.choices(makers, [35, 25, 15, 10, 7, 8])[0](rng)]


def relativity(rng: Rng) -> list[Turn]:
    """Relativity in brief; never held out, as it is the project's standard prompt."""
    entry = entries("facts.zh.txt", "relativity")[0]
    return [Turn(pick(rng, entry.asks), rng.choice(entry.answers),
                 "相对论分为狭义和广义两部分，我简要说明。", key="relativity")]


def poem(rng: Rng) -> list[Turn]:
    """A poem of four lines."""
    theme = rng.choice(entries("poems.zh.txt"))
    asks = ["[写|请写|帮我写]一首关于{t}的[小|]诗。", "以{t}为题写一首诗。"]
    if rng.random() < 0.25:
        asks = ["[写|请写|来]一首[小|]诗。", "你会写诗吗？"]
    ask = pick(rng, asks, t=theme.topic)
    return [Turn(ask, "\n".join(theme.answers), f"写四句关于{theme.topic}的诗。", key=f"诗 {ask}",
                 kind="story")]


def story(rng: Rng) -> list[Turn]:
    """A story of four or five sentences, or a poem."""
    if rng.random() < 0.3:
        return poem(rng)
    hero, friend, place, find, trouble, helped = (
        rng.choice(names("stories zh", part))
        for part in ("heroes", "friends", "places", "finds", "troubles", "helps"))
    asks = ["[讲|请讲|给我讲|写]一个关于{h}的[小|]故事。", "我想听{h}的故事。"]
    if rng.random() < 0.4:
        asks = ["[讲|请讲|给我讲|说]一个[小|短|]故事[吧|]。", "我想听故事。", "再讲一个故事。"]
    ask = pick(rng, asks, h=hero)
    measure = {"小女孩": "个", "小男孩": "个", "机器人": "个", "小龙": "条"}.get(hero, "只")
    say = spin(rng, "[从前|很久以前]，{p}住着一{m}{h}。[有一天|一天早上]，{h}发现了{f}。"
                    "可是{t}，{h}[很着急|有点害怕]。这时{r}来了，{e}。"
                    "[从此他们成了好朋友|他们高兴地一起回家了|大家都笑了]。",
               p=place, m=measure, h=hero, f=find, t=trouble, r=friend, e=helped)
    return [Turn(ask, say, f"讲一个{hero}的小故事。", key=f"故事 {ask}", kind="story")]
