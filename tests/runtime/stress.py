"""What tests run in processes of their own: ``python -m tests.runtime.stress NAME FOLDER`` prints findings as JSON."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = 16
WEIGHT_BYTES = 1 << 22


def calls(folder: Path) -> dict[str, Any]:
    """16 threads call one loaded model with mixed shapes, and sessions of their own; memory before and after."""
    import torch

    from forgec.runtime import load, write_artifact
    from tests.runtime.examples import MLP_WEIGHTS, cache, dynamic_mlp, weights

    w = weights(*MLP_WEIGHTS)
    write_artifact(folder / "mlp.forge", dynamic_mlp(), w)
    write_artifact(folder / "cache.forge", cache(), {})
    model, stateful = load(folder / "mlp.forge", threads=1), load(folder / "cache.forge", threads=1)
    sessions = [stateful.session() for _ in range(THREADS)]
    totals = [torch.zeros(6, 3) for _ in range(THREADS)]

    def rounds(thread: int, count: int) -> None:
        draw = torch.Generator().manual_seed(thread)
        for number in range(count):
            if number % 4 == 3:
                row, at = torch.randn(1, 3, generator=draw), number // 4 % 6
                sessions[thread](row, torch.tensor([at]), entry="append")
                totals[thread][at] = row
                assert torch.allclose(sessions[thread](entry="read")[0], totals[thread].sum(0), atol=1e-5)
                continue
            x = torch.randn((thread * 7 + number) % 64 + 1, 8, generator=draw)
            result = model(x)
            assert torch.allclose(result["y"], torch.relu(x @ w["up"]) @ w["down"], rtol=1e-5, atol=1e-5)
            assert result["rows"] == len(x)

    torch.set_num_threads(1)
    failures = _in_threads(lambda thread: rounds(thread, 400))
    before = _resident()
    failures += _in_threads(lambda thread: rounds(thread, 10_000 // THREADS))
    return {"failures": failures, "before": before, "after": _resident()}


def forks(folder: Path) -> dict[str, Any]:
    """Forks while threads call; every child calls too and leaves, in both ways that there are."""
    import torch

    from forgec.runtime import load, write_artifact
    from forgec.runtime.session import Session
    from tests.runtime.examples import MLP_WEIGHTS, counter, dynamic_mlp, weights

    torch.set_num_threads(1)
    w = weights(*MLP_WEIGHTS)
    write_artifact(folder / "mlp.forge", dynamic_mlp(), w)
    write_artifact(folder / "counter.forge", counter(), {})
    model, stateful = load(folder / "mlp.forge", threads=1), load(folder / "counter.forge", threads=1)
    session = stateful.session()
    stop = threading.Event()
    draw = random.Random(0)

    def keep_calling(thread: int) -> None:
        while not stop.is_set():
            model(torch.ones(thread + 1, 8))
            session(torch.tensor(1.0))
            time.sleep(0.002)  # the children need time on the processors too

    def use_all(own: Session) -> None:
        x = torch.ones(5, 8)
        assert torch.allclose(model(x)["y"], torch.relu(x @ w["up"]) @ w["down"], atol=1e-5)
        session.reset()  # a call may have been in the middle of it
        assert session(torch.tensor(2.0)).item() == 2.0
        assert own(torch.tensor(3.0)).item() == 3.0

    threads = [threading.Thread(target=keep_calling, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    gc.freeze()  # else a child that leaves looks through all of torch's objects
    statuses: list[int] = []
    for number in range(16):
        time.sleep(draw.random() * 0.01)
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            use_all(stateful.session())
            if number % 3:
                os._exit(0)
            sys.exit(0)
        statuses.append(os.waitpid(child, 0)[1])
    stop.set()
    for thread in threads:
        thread.join()
    return {"statuses": statuses}


def writes(folder: Path) -> dict[str, Any]:
    """Writes artifacts, new ones and one again and again, until it is killed."""
    write_one(folder / "0.forge")
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        write_one(folder / "same.forge")
        write_one(folder / f"{number}.forge")


def write_one(path: Path) -> None:
    """An artifact of a few megabytes; its bytes are always the same."""
    from forgec.runtime import write_artifact
    from tests.runtime.build import EntryBuilder, f32, plan_of

    b = EntryBuilder()
    w = b.param("w", f32(WEIGHT_BYTES // 4))
    write_artifact(path, plan_of(b.build(w)), {"w": bytes(range(256)) * (WEIGHT_BYTES // 256)})


def _in_threads(body: Callable[[int], None]) -> list[str]:
    failures: list[str] = []

    def guarded(index: int) -> None:
        try:
            body(index)
        except BaseException as reason:
            failures.append(repr(reason))

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps({"calls": calls, "forks": forks, "writes": writes}[sys.argv[1]](Path(sys.argv[2]))))
