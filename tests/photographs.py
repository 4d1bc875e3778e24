"""Made-up photographs, as JPEG files, and records of them; and where the real ones of the sample are, if anywhere."""

import io
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from asyncflax.data.imagenet import Record

TFDS_DATA_DIR = os.environ.get("TFDS_DATA_DIR", "")
has_sample = (pathlib.Path(TFDS_DATA_DIR) / "imagenet_eight" / "1.0.0").is_dir()
needs_sample = pytest.mark.skipif(not has_sample, reason="TFDS_DATA_DIR has no imagenet_eight/1.0.0")


def jpeg(seed, width=60, height=45, mode="RGB"):
    """A smooth picture, unlike those of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def records(count):
    """Records of several sizes."""
    return [Record(jpeg(i, 40 + i, 50 - i), label=i % 3, name=f"n{i:08d}.JPEG") for i in range(count)]
