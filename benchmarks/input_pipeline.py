"""Images read, decoded and cropped at random per second, alone and through the pipeline.

    python benchmarks/input_pipeline.py [--data_dir FOLDER] [--sizes 224 64] [--workers 0 2] [--batch 16]
        [--batches 40] [--alternations 7]
    python benchmarks/input_pipeline.py --sizes 224 --batches 10 --alternations 3     # small

Uses the photographs of imagenet_eight, 224x224, and the same ones at ImageNet's usual size, 500x375: enlarged and
encoded again (quality 95), so smoother than real ones. Alone is one thread, by CPU time: images per second per core.
Through the pipeline is by wall time, with `--workers` processes, or four threads of one process for 0; the cases take
turns, and each first consumes its prefetched batches. Medians over the alternations.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time

import numpy as np
from PIL import Image

from asyncflax.data import imagenet, pipeline

ENLARGED, AHEAD = 300, 12  # images; batches, more than threads or four processes make ahead (three each)


def enlarged(records: imagenet.Records) -> list[imagenet.Record]:
    """Some of the records, 500x375."""
    large = []
    for i in range(ENLARGED):
        image = Image.fromarray(pipeline.decode(records[i].jpeg)).resize((500, 375), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95)
        large.append(records[i]._replace(jpeg=file.getvalue()))
    return large


def milliseconds(records: imagenet.Records | list[imagenet.Record], size: int, count: int) -> tuple[float, ...]:
    """CPU time per image to read, to decode and to crop, in one thread."""
    rng, cpu = np.random.default_rng(0), [time.process_time()]
    encoded = [records[i % len(records)].jpeg for i in range(count)]
    cpu.append(time.process_time())
    images = [pipeline.decode(jpeg) for jpeg in encoded]
    cpu.append(time.process_time())
    for image in images:
        pipeline.random_crop(image, rng, size=size)
    cpu.append(time.process_time())
    return tuple(1e3 * np.diff(cpu) / count)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 64])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--alternations", type=int, default=7)
    args = parser.parse_args()
    try:
        sample = imagenet.imagenet_eight(args.data_dir).train
    except FileNotFoundError as error:
        print(f"no images to measure: {error}")
        return
    ahead = max(AHEAD, 3 * max(args.workers))
    print(f"{os.cpu_count()} cores, Pillow {Image.__version__}, batches of {args.batch}\n")
    made_by = [f"{workers} process{'es' * (workers > 1)}" if workers else "threads" for workers in args.workers]
    columns = "".join(f" {by}, images/s |" for by in made_by)
    print(f"| images | crop | read ms | decode ms | crop ms | images/s of a core |{columns}")
    print("|---|---|---|---|---|---|" + "---|" * len(args.workers))
    for name, records in {"224x224": sample, "500x375": enlarged(sample)}.items():
        for size in args.sizes:
            with contextlib.ExitStack() as stack:
                pipelines = [
                    stack.enter_context(
                        pipeline.event_batches(
                            records,
                            batch_size=args.batch,
                            num_events=(args.alternations + 1) * (ahead + args.batches) + ahead,  # it never ends
                            image_size=size,
                            decode_processes=workers,
                        )
                    )
                    for workers in args.workers
                ]
                for batches in pipelines:  # workers take seconds to start
                    batches.take(ahead + args.batches)
                alone, wall = [], []
                for _ in range(args.alternations):
                    time.sleep(1)  # while the others prefetch
                    alone.append(milliseconds(records, size, args.batch * args.batches // 4))
                    wall.append([])
                    for batches in pipelines:
                        batches.take(ahead)
                        start = time.perf_counter()
                        batches.take(args.batches)
                        wall[-1].append(args.batch * args.batches / (time.perf_counter() - start))
            read, decode, crop = np.median(alone, axis=0)
            rates = "".join(f" {rate:.0f} |" for rate in np.median(wall, axis=0))
            total = 1e3 / (read + decode + crop)
            print(f"| {name} | {size} | {read:.2f} | {decode:.2f} | {crop:.2f} | {total:.0f} |{rates}", flush=True)


if __name__ == "__main__":
    main()
