"""English small talk: greetings, mood, thanks, goodbyes, names kept over turns."""

from __future__ import annotations

from data.core import Rng, Topic, Turn, capital, entries, invented_name, names, pick

TOLD = "The user tells me about themselves. I keep it in mind."
FEELING = "The user tells me a feeling. I answer kindly."


def _exchange(rng: Rng, topic: str, think: str) -> Turn:
    entry = rng.choice(entries("talk.en.txt", topic))
    return Turn(pick(rng, entry.asks), pick(rng, entry.answers), think)


def greeting(rng: Rng) -> list[Turn]:
    """A greeting, often with how-are-you behind it."""
    turns = [_exchange(rng, "hello", "The user greets me. I greet back.")]
    return turns + (how_are_you(rng)[:1] if rng.random() < 0.3 else [])


def how_are_you(rng: Rng) -> list[Turn]:
    """How are you, and what follows."""
    turns = [_exchange(rng, "how are you", "The user asks how I am. I answer politely.")]
    return turns + (mood(rng) if rng.random() < 0.3 else [])


def mood(rng: Rng) -> list[Turn]:
    """The user says how they feel."""
    return [_exchange(rng, "mood", FEELING)]


def chatter(rng: Rng) -> list[Turn]:
    """Praise, blame, jokes and other set pieces."""
    return [_exchange(rng, "chatter", "A short friendly answer is best here.")]


def thanks(rng: Rng) -> list[Turn]:
    """Thank you, you are welcome."""
    return [_exchange(rng, "thanks", "The user thanks me.")]


def goodbye(rng: Rng) -> list[Turn]:
    """The end of a conversation."""
    return [_exchange(rng, "goodbye", "The user says goodbye.")]


# For each kind: what the user says, how it is acknowledged, how it is asked for, the answer.
ABOUT: dict[str, tuple[list[str], str, list[str], str]] = {
    "names": (
        ["My name is {v}.", "I am {v}.", "I'm {v}.", "[You can call|Call] me {v}.", "This is {v}.",
         "[Hi|Hello|Hey][,|!] [I'm|I am|my name is] {v}[.|!]", "{v} is my name."],
        "[Hello|Hi|Nice to meet you|Pleased to meet you], {v}!"
        "[ How can I help you?| What can I do for you?|]",
        ["What is my name?", "What's my name?", "Do you [remember|know] my name?", "Who am I?",
         "Can you tell me my name?", "Say my name.", "What am I called?"],
        "[Your name is|You are|You're] {v}."),
    "colours": (
        ["My favourite colour is {v}."], "{V} is a nice colour!",
        ["What is my favourite colour?", "Which colour do I like[| best]?"],
        "Your favourite colour is {v}."),
    "pets": (
        ["I have a {v} [called|named] {n}."],
        "[How nice|That is nice]! {n} is a [lovely|good] name for a {v}.",
        ["What is the name of my pet?", "What is my {v} called?", "What is my {v}'s name?"],
        "Your {v} is called {n}."),
    "cities": (
        ["I [live in|am from|come from] {v}."],
        "{v} is [a great|an interesting|a beautiful] city!",
        ["Where [do I live|am I from]?", "Which city am I in?"], "You told me {v}."),
    "foods": (
        ["I [like|love] [eating |]{v}."], "{V} {sound} [good|delicious]!",
        ["What do I like to eat?", "Which food do I like?"], "You like {v}."),
    "hobbies": (
        ["My hobby is {v}."], "{V} is a [great|nice|lovely] hobby!",
        ["What is my hobby?", "What do I like to do?"], "Your hobby is {v}."),
    "age": (
        ["I am {v} years old."],
        "[Nice! Thank you for telling me.|Thanks, I will remember that in this chat.]",
        ["How old am I?", "What is my age?"], "You are {v} years old."),
}
BETWEEN: list[Topic] = [how_are_you, chatter, thanks, mood]


def memory(rng: Rng) -> list[Turn]:
    """The user says something about themselves and asks for it later in the chat."""
    kind = rng.choices(list(ABOUT), [6, 1, 1, 1, 1, 1, 1])[0]
    said, noted, asks, answer = ABOUT[kind]
    value = str(rng.randint(6, 80)) if kind == "age" else rng.choice(names("people", kind))
    if kind == "names" and rng.random() < 0.3:
        value = invented_name(rng)
    pet = rng.choice(names("people", "names"))
    fields = {"v": value, "V": capital(value), "n": pet,
              "sound": "sound" if value.endswith("s") else "sounds"}
    first = pick(rng, said, **fields)
    turns = [Turn(first, pick(rng, [noted], **fields), TOLD)]
    if rng.random() < 0.25:  # The reply to what was told must also be learned as a last answer.
        return turns
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        turns += rng.choice(BETWEEN)(rng)[:1]
    recalled = pick(rng, [answer], **fields)
    turns.append(Turn(pick(rng, asks, **fields), recalled,
                      f"The user told me this earlier in the chat. {recalled}",
                      key=f"mem {first}", gold=pet if kind == "pets" else value, kind="memory"))
    return turns + (thanks(rng) if rng.random() < 0.3 else [])


def unknown_user(rng: Rng) -> list[Turn]:
    """The user asks for something they never said."""
    ask = pick(rng, ["What is my name?", "Who am I?", "How old am I?", "Where do I live?",
                     "What is my favourite colour?", "What is my hobby?"])
    say = pick(rng, ["You have not told me yet.", "I do not know, you have not told me yet."])
    return [Turn(ask, say, "The user has not said it in this chat.", key="unknown user")]
