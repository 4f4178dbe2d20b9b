"""Train the demo model from scratch on a CPU, within a time budget, resumable.

    python train.py TOKENIZER_DIR TRAIN_NPZ OUT_DIR --minutes 75

OUT_DIR/hf is a Hugging Face folder of the newest weights, OUT_DIR/state.pt the state to resume
from. Matrices are trained with Muon (Jordan et al. 2024, scaled as by Liu et al. 2025,
arXiv:2502.16982), the embedding and the gains with AdamW. Muon's orthogonal updates with weight
decay leave few outliers, which serves 4-bit quantization. In the last part of the budget the model
computes with weights rounded to INT4 as in a .qedge file, while the optimizers go on moving the
unrounded ones (straight-through estimate, Bengio et al. 2013, arXiv:1308.3432).
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from model import Qwen3, Shape, export, rotary, round_int4, segment_mask
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor


def orthogonalize(g: Tensor, steps: int = 4) -> Tensor:
    """The nearest orthogonal matrices to a stack [n, rows, columns], by Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[1] > g.shape[2]
    x = (g.transpose(1, 2) if tall else g).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.transpose(1, 2)
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalized; matrices of one shape go through it as one stack."""

    def __init__(
        self,
        params: list[Tensor],
        lr: float,
        momentum: float,
        decay: float,
        pool: ThreadPoolExecutor,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})
        self.pool = pool

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            tasks = [
                self.pool.submit(self._move, group, shape, params)
                for shape, params in shapes.items()
            ]
            for task in tasks:
                task.result()

    @torch.no_grad()
    def _move(self, group: dict[str, Any], shape: torch.Size, params: list[Tensor]) -> None:
        moving = []
        for p in params:
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            moving.append(p.grad.lerp(state["momentum"], group["momentum"]))
        update = orthogonalize(torch.stack(moving))
        scale = 0.2 * max(shape) ** 0.5
        for p, u in zip(params, update, strict=True):
            p.mul_(1 - group["lr"] * group["decay"]).add_(u, alpha=-group["lr"] * scale)


def loss_of(model: Qwen3, hidden: Tensor, ids: Tensor, target: Tensor) -> Tensor:
    """Summed cross-entropy of the target tokens; the head runs on those positions alone."""
    chosen = target[:, 1:].reshape(-1).nonzero().squeeze(1)
    flat = hidden[:, :-1].reshape(-1, hidden.shape[-1]).index_select(0, chosen)
    labels = ids[:, 1:].reshape(-1).index_select(0, chosen)
    return F.cross_entropy(model.logits(flat).float(), labels, reduction="sum")


class Workers:
    """Threads that take micro-batches from a queue, each with a replica that shares the weights.

    A thread whose core is busy with another program simply takes fewer of them, where operators
    split over all cores would wait for the slowest core at each one.
    """

    def __init__(self, model: Qwen3, count: int) -> None:
        self.model = model
        self.pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
        self.replicas: SimpleQueue[Qwen3] = SimpleQueue()
        self.all: list[Qwen3] = []
        for _ in range(count):
            replica = Qwen3(model.shape)
            for mine, shared in zip(replica.parameters(), model.parameters(), strict=True):
                mine.data = shared.data
            self.all.append(replica)
            self.replicas.put(replica)

    @torch.no_grad()
    def round_weights(self) -> None:
        """Let the replicas compute with the matrices of the model rounded to INT4."""
        for shared, *mine in zip(
            self.model.parameters(), *(r.parameters() for r in self.all), strict=True
        ):
            if shared.ndim == 2:
                rounded = round_int4(shared)
                for p in mine:
                    p.data = rounded

    def _one(
        self, ids: Tensor, segment: Tensor, target: Tensor, turn: tuple[Tensor, Tensor], count: int
    ) -> float:
        replica = self.replicas.get()
        with torch.autocast("cpu", torch.bfloat16):
            hidden = replica(ids, *turn, segment_mask(segment))
            loss = loss_of(replica, hidden, ids, target) / count
        loss.backward()
        self.replicas.put(replica)
        return loss.item()

    def gradient(
        self,
        ids: Tensor,
        segment: Tensor,
        target: Tensor,
        turn: tuple[Tensor, Tensor],
        micro_tokens: int,
    ) -> float:
        """The mean loss of the batch; its gradient is left in the model."""
        count = int(target[:, 1:].sum())
        rows = max(1, micro_tokens // ids.shape[1])
        parts = zip(ids.split(rows), segment.split(rows), target.split(rows), strict=True)
        tasks = [self.pool.submit(self._one, *part, turn, count) for part in parts]
        loss = sum(task.result() for task in tasks)
        for shared, *mine in zip(
            self.model.parameters(), *(r.parameters() for r in self.all), strict=True
        ):
            grads = [p.grad for p in mine if p.grad is not None]
            shared.grad = reduce(torch.add, grads)
            for p in mine:
                p.grad = None
        return loss


Batch = tuple[int, Tensor, Tensor, Tensor]


def batches(paths: list[Path], tokens: int, seed: int) -> Iterator[Batch]:
    """(row length, ids, segments, targets) for ever, each epoch in a new order."""
    rows = [np.load(path) for path in paths]
    sizes = sorted({int(k[3:]) for r in rows for k in r.files if k.startswith("ids")})
    data = {
        s: [
            torch.from_numpy(np.concatenate([r[f"{part}{s}"] for r in rows]).astype(np.int64))
            for part in ("ids", "segment", "target")
        ]
        for s in sizes
    }
    generator = np.random.default_rng(seed)
    while True:
        plan = []
        for s in sizes:
            order = generator.permutation(len(data[s][0]))
            count = max(1, tokens // s)
            plan += [(s, order[i : i + count]) for i in range(0, len(order) - count + 1, count)]
        for i in generator.permutation(len(plan)):
            s, index = plan[i]
            ids, segment, target = (part[index] for part in data[s])
            yield s, ids, segment, target.bool()


def rate(progress: float, warm: float = 0.02, hold: float = 0.35) -> float:
    """Learning-rate factor: warm-up, a plateau, then linear to zero at the end of the budget."""
    if progress < warm:
        return max(progress, 0.001) / warm
    return min(1.0, max(0.0, (1 - progress) / (1 - hold)))


def save_state(path: Path, state: dict[str, object]) -> None:
    """Write a resumable state atomically."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def train(args: argparse.Namespace) -> None:
    """The loop: runs until the time budget is spent."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))
    stop, pad = (tokenizer.token_to_id(t) for t in ("<|im_end|>", "<|endoftext|>"))
    shape = Shape(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
    )
    model = Qwen3(shape)
    if args.start:
        found = load_file(args.start / "model.safetensors")
        model.load_state_dict({k.removeprefix("model."): v for k, v in found.items()})
    workers = Workers(model, args.threads)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    gains = [p for p in model.parameters() if p.ndim == 1]
    optimizers = [
        Muon(matrices, args.lr, 0.95, args.decay, workers.pool),
        torch.optim.AdamW(
            [
                {"params": [model.embed_tokens.weight], "weight_decay": 0.1},
                {"params": gains, "weight_decay": 0.0},
            ],
            lr=args.embedding_lr,
            eps=1e-10,
            fused=True,
        ),
    ]
    step, seen, elapsed = 0, 0, 0.0
    state_path = args.out / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, seen, elapsed = state["step"], state["seen"], state["elapsed"]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {asdict(shape)}", flush=True)
    turn = {s: rotary(shape, s) for s in (256, 512, 1024)}
    budget, saved_at, average = args.minutes * 60, elapsed - args.save_minutes * 60 + 90, 0.0
    begun, first_elapsed, first_seen = time.monotonic(), elapsed, seen

    def checkpoint() -> None:
        int4 = elapsed / budget >= args.int4_after
        export(model, args.tokenizer, args.out / "hf", stop, pad, int4)
        save_state(
            state_path,
            {
                "model": model.state_dict(),
                "step": step,
                "seen": seen,
                "optimizers": [o.state_dict() for o in optimizers],
                "elapsed": elapsed,
            },
        )

    for size, ids, segment, target in batches(args.data, args.batch_tokens, args.seed + step):
        factor = rate(elapsed / budget)
        for optimizer, peak in zip(optimizers, (args.lr, args.embedding_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
                if "betas" in group:
                    group["betas"] = (0.9, 0.99)
        if elapsed / budget >= args.int4_after:
            workers.round_weights()
        loss = workers.gradient(ids, segment, target, turn[size], args.micro_tokens)
        torch.nn.utils.clip_grad_norm_([model.embed_tokens.weight, *gains], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        seen += int((segment > 0).sum())
        elapsed = first_elapsed + time.monotonic() - begun
        average = loss if not average else average + 0.05 * (loss - average)
        if step % args.log_every == 0:
            speed = (seen - first_seen) / (elapsed - first_elapsed)
            print(
                f"step {step} {elapsed / 60:.1f} min {seen / 1e6:.2f} M tokens "
                f"loss {average:.4f} rate {factor:.3f} {speed:.0f} tokens/s",
                flush=True,
            )
        if elapsed - saved_at > args.save_minutes * 60:
            checkpoint()
            saved_at = elapsed
        if elapsed >= budget or step == args.max_steps or stopping:
            break
    checkpoint()


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--start", type=Path, help="begin with the weights of this folder")
    parser.add_argument("--int4-after", type=float, default=0.6, help="share of the budget")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--intermediate", type=int, default=768)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=4.5e-3)
    parser.add_argument("--embedding-lr", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--micro-tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-steps", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=20)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
