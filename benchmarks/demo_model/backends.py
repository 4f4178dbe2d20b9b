"""Two ways to run the demo model: a checkpoint in transformers, or a .qedge file in qwen_edge."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from model import round_int4
from pack import load_tokenizer
from transformers import Qwen3ForCausalLM

import qwen_edge
from qwen_edge.engine.interface import EngineConfig, Row
from qwen_edge.engine.native import NativeEngine
from qwen_edge.engine.sampler import token_logprobs
from qwen_edge.model.packed import open_model

Chat = list[dict[str, str]]
Dialogue = tuple[list[int], list[bool]]


class Backend(Protocol):
    """A model that can be scored and asked."""

    def loss(self, dialogues: list[Dialogue]) -> tuple[float, int]:
        """Summed negative log probability of the masked-in tokens, and their number."""
        ...

    def answers(self, chats: list[Chat], thinking: bool, limit: int) -> list[str]:
        """Greedy answers of at most `limit` tokens to each chat's last user message."""
        ...


def round_matrices(model: Qwen3ForCausalLM) -> float:
    """Replace every matrix by its INT4 rounding; returns the relative error over all weights."""
    error = total = 0.0
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                rounded = round_int4(weight)
                error += float((rounded - weight).square().sum())
                total += float(weight.square().sum())
                weight.copy_(rounded)
    return math.sqrt(error / total)


class HuggingFace:
    """A checkpoint folder in transformers, fp32."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def loss(self, dialogues: list[Dialogue]) -> tuple[float, int]:
        """See `Backend`."""
        loss, count = 0.0, 0
        dialogues = sorted(dialogues, key=lambda dialogue: len(dialogue[0]))
        for start in range(0, len(dialogues), 16):
            batch = dialogues[start : start + 16]
            length = max(len(ids) for ids, _ in batch)
            ids = torch.zeros(len(batch), length, dtype=torch.long)
            labels = torch.full((len(batch), length), -100)
            for row, (tokens, mask) in enumerate(batch):
                known = torch.tensor(tokens)
                ids[row, : len(tokens)] = known
                labels[row, : len(tokens)] = torch.where(torch.tensor(mask), known, -100)
            logits = self.model(ids).logits[:, :-1].flatten(0, 1)
            loss += float(F.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum"))
            count += int((labels[:, 1:] >= 0).sum())
        return loss, count

    @torch.inference_mode()
    def answers(self, chats: list[Chat], thinking: bool, limit: int) -> list[str]:
        """See `Backend`."""
        prompts = [
            self.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
            )
            for chat in chats
        ]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        result = [""] * len(prompts)
        for start in range(0, len(order), 32):
            part = order[start : start + 32]
            inputs = self.tokenizer(
                [prompts[i] for i in part],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=False,
            )
            ids = inputs["input_ids"]
            out = self.model.generate(
                input_ids=ids,
                attention_mask=inputs["attention_mask"],
                do_sample=False,
                top_k=None,
                top_p=None,
                temperature=None,
                max_new_tokens=limit,
            )
            texts = self.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for i, text in zip(part, texts, strict=True):
                result[i] = text.split("</think>")[-1].strip()
        return result


class QEdge:
    """A .qedge file in the native engine."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def loss(self, dialogues: list[Dialogue]) -> tuple[float, int]:
        """See `Backend`."""
        loss, count = 0.0, 0
        config = EngineConfig(context=1024, prefill_rows=1024)
        with open_model(self.file) as model, NativeEngine(model, config) as engine:
            for ids, mask in dialogues:
                wanted = [*mask[1:], False]
                rows = [Row(0, i, token, wanted[i]) for i, token in enumerate(ids)]
                following = [
                    token for token, learned in zip(ids[1:], mask[1:], strict=True) if learned
                ]
                for logits, token in zip(engine.forward(rows), following, strict=True):
                    loss -= token_logprobs(logits, token, 0)[0]
                count += len(following)
                engine.truncate(0)
        return loss, count

    def answers(self, chats: list[Chat], thinking: bool, limit: int) -> list[str]:
        """See `Backend`."""
        with qwen_edge.load(self.file, context=1024) as llm:
            given = [
                llm.chat(chat, thinking=thinking, temperature=0.0, max_tokens=limit)
                for chat in chats
            ]
            return [answer.text.strip() for answer in given]
