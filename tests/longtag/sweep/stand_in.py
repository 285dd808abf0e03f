"""Stands in for train.py in a sweep: starts at once, and its seed says how it ends.

0 to 9 completes with the seed as its objective; 10 fails with an exception, 11 with a message, 12 is killed; 20 waits
to be stopped, saves, and completes when it is run again.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(config: object) -> None:
    """What a sweep takes for the function of the script."""


def run(seed: int, folder: Path) -> None:
    with (folder / "starts").open("a") as starts:
        starts.write(f"{time.time()} {os.environ.get('CUDA_VISIBLE_DEVICES', 'none')}\n")
    if seed == 10:
        raise RuntimeError("CUDA out of memory")
    if seed == 11:
        print("error: tokens=0: expected 1 or more", file=sys.stderr)
        sys.exit(2)
    if seed == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    checkpoint = folder / "checkpoint"
    if seed == 20 and not checkpoint.is_file():
        wait_to_be_stopped(checkpoint)
    time.sleep(0.3)
    summary = {"status": "completed", "monitor": "val/f1_macro", "best": {"val/f1_macro": float(seed)}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "ended").write_text(str(time.time()))


def wait_to_be_stopped(checkpoint: Path) -> None:
    def save(number: int, frame: object) -> None:
        checkpoint.write_text("saved")
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, save)
    (checkpoint.parent / "waits").touch()
    time.sleep(30)


if __name__ == "__main__":
    options = dict(item.split("=", 1) for item in sys.argv[1:] if "=" in item)
    run(int(options["seed"]), Path(options["folder"]))
