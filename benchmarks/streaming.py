"""What a set of pairs costs a training that streams it: memory, and batches a second, beside the same set in memory.

    python benchmarks/streaming.py --pairs 2500 25000

Writes sets of random pairs, of 64x64x3 unless told otherwise, in the product's format into a temporary folder (2.4 GB for
25,000), draws batches from each in a fresh process, once streamed and once in memory, and removes them. Memory is RssAnon,
what the process keeps for itself; pages of mapped files, which the system may take back at any time, are RssFile. In memory
means held by `PairSet`, whose batches are drawn by the same code; that they are the same is checked. Times of batches are
CPU times, so that other work on the machine counts less.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DRAW = """
import hashlib, json, sys, time
from pathlib import Path
import torch
from msd.data.pairs import PairSet, PairStream
from msd.data.shards import open_pairs
from msd.diffusion.draw import Draw

folder, how, steps, batch_size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)

def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("RssAnon", "RssFile"))}

def held(folder):
    from safetensors.torch import load_file
    shards = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return PairSet(*(torch.cat([shard.pop(name) for shard in shards]) for name in ("noise", "keys", "samples")))

before = memory()
begin = time.perf_counter()
pairs = open_pairs(folder) if how == "streamed" else held(folder)
opened = time.perf_counter() - begin
stream = PairStream(pairs, pairs.keys % 4 == 0, batch_size=batch_size, own_share=0.5, replacement=False)
peak, most_file, digest, seconds = memory()["RssAnon"], 0.0, hashlib.sha256(), []
for step in range(steps):
    begin = time.process_time()
    batch = stream.batch(Draw(0, "dm", step))
    seconds.append(time.process_time() - begin)
    now = memory()
    peak, most_file = max(peak, now["RssAnon"]), max(most_file, now["RssFile"])
    digest.update(batch.samples[::16].numpy().tobytes() + batch.keys.numpy().tobytes())
seconds.sort()
print(json.dumps({
    "num_pairs": len(pairs), "how": how, "seconds_to_open": opened, "anonymous_mib": peak - before["RssAnon"],
    "file_mib": most_file - before["RssFile"], "batch_us": 1e6 * seconds[len(seconds) // 2],
    "slowest_us": 1e6 * seconds[-1], "digest": digest.hexdigest(),
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[2500, 25000])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--shape", type=int, nargs=3, default=[3, 64, 64])
    parser.add_argument("--shard-size", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="where the sets are written (default: the system's temporary folder)")
    options = parser.parse_args()
    wanted = 1.1 * max(options.pairs) * 2 * 4 * math.prod(options.shape)
    free = shutil.disk_usage(options.folder or tempfile.gettempdir()).free
    if free < wanted:
        raise SystemExit(f"{wanted / 2**30:.1f} GiB are needed and {free / 2**30:.1f} are free; give another --folder.")
    print(
        "| pairs | | opened in s | RssAnon, MiB more | RssFile, MiB more | us of CPU a batch, median | slowest | batches/s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for num in options.pairs:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write(Path(folder), num, options.shard_size, tuple(options.shape))
            found = [draw(folder, how, options.steps, options.batch_size) for how in ("streamed", "in memory")]
        for one in found:
            memory = f"{one['anonymous_mib']:,.0f} | {one['file_mib']:,.0f}"
            speed = f"{one['batch_us']:,.0f} | {one['slowest_us']:,.0f} | {1e6 / one['batch_us']:,.0f}"
            print(f"| {one['num_pairs']:,} | {one['how']} | {one['seconds_to_open']:.1f} | {memory} | {speed} |")
        if found[0]["digest"] != found[1]["digest"]:
            raise SystemExit("the batches of the two differ.")


def write(folder: Path, num: int, shard_size: int, shape: tuple[int, ...]) -> None:
    """Random pairs, by the code that writes the teacher's."""
    from msd.data.pairs import PairsPlan, make_pairs

    plan = PairsPlan(num, shard_size, (0.001,) * 1000, 0, "a benchmark's")
    make_pairs(lambda noise, keys: noise.flip(0), shape, folder, plan)


def draw(folder: str, how: str, steps: int, batch_size: int) -> dict[str, float]:
    command = [sys.executable, "-c", DRAW, folder, how, str(steps), str(batch_size)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{how}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
