"""Decoding and cropping of photographs for training and evaluation. Needs pillow (the extra `train`)."""

from __future__ import annotations

import io
import math

import numpy as np

__all__ = ["central_crop", "decode", "random_crop"]

_TRIES = 10  # crops drawn before falling back to the central one


def decode(jpeg: bytes) -> np.ndarray:
    """Decodes a file to uint8 [height, width, 3].

    Args:
      jpeg: a JPEG file, or an 8-bit PNG file (ImageNet has one with the suffix JPEG). Greyscale and CMYK are converted
        to RGB; transparency and EXIF orientation are ignored.

    Raises:
      ValueError: the file is corrupted, truncated or in another format. Flipped bits within the image data usually go
        undetected.

    Example:
      >>> from asyncflax.data import crops
      >>> crops.decode(b"not an image")
      Traceback (most recent call last):
        ...
      ValueError: cannot be decoded (neither a JPEG nor a PNG file)
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG", "PNG"]) as image:
            if image.mode[0] in "IF":  # more than 8 bits, which a conversion would truncate
                raise ValueError(f"its pixels have the mode {image.mode}, not 8 bits")
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError("cannot be decoded (neither a JPEG nor a PNG file)") from None
    except Exception as error:  # parsers may raise anything on invalid bytes
        raise ValueError(f"cannot be decoded ({error})") from error


def random_crop(
    image: np.ndarray,
    generator: np.random.Generator,
    *,
    size: int,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
) -> np.ndarray:
    """Takes a random crop, resizes it to a square (bilinear, antialiased) and mirrors it with probability 1/2.

    Args:
      image: uint8 [height, width, 3].
      generator: the source of randomness.
      size: the side of the result in pixels.
      area: the range of the crop's share of the image area, drawn uniformly.
      aspect: the range of its aspect ratio (width / height), drawn log-uniformly. Crops that do not fit are redrawn;
        after ten tries the largest central one is taken.
      flip: whether to mirror.

    Source: C. Szegedy et al., Going Deeper with Convolutions, 2015 (arXiv:1409.4842), as in torchvision's
      RandomResizedCrop.

    Example:
      >>> import numpy as np
      >>> from asyncflax.data import crops
      >>> image = np.zeros((375, 500, 3), np.uint8)
      >>> crops.random_crop(image, np.random.default_rng(0), size=224).shape
      (224, 224, 3)
    """
    top, left, height, width = _box(image.shape[0], image.shape[1], generator, area, aspect)
    crop = _resize(image[top : top + height, left : left + width], size, size)
    return crop[:, ::-1] if flip and generator.random() < 0.5 else crop


def central_crop(image: np.ndarray, *, size: int) -> np.ndarray:
    """Resizes the shorter side to 256 / 224 of `size` and takes the central crop, as is usual for ImageNet.

    Args:
      image: uint8 [height, width, 3]; not resized if its shorter side already has that length.
      size: the side of the result in pixels.

    Source: A. Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012 (256 and 224).

    Example:
      >>> import numpy as np
      >>> from asyncflax.data import crops
      >>> crops.central_crop(np.zeros((375, 500, 3), np.uint8), size=224).shape
      (224, 224, 3)
    """
    height, width = image.shape[:2]
    shorter, target = min(height, width), round(size * 256 / 224)
    if shorter != target:
        height, width = height * target // shorter, width * target // shorter
        image = _resize(image, height, width)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size]


def _box(
    height: int, width: int, generator: np.random.Generator, area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop."""
    for _ in range(_TRIES):
        target = height * width * generator.uniform(*area)
        ratio = math.exp(generator.uniform(math.log(aspect[0]), math.log(aspect[1])))
        h, w = round(math.sqrt(target / ratio)), round(math.sqrt(target * ratio))
        if 0 < h <= height and 0 < w <= width:
            return int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1)), h, w
    h = min(height, max(1, round(width / aspect[0])))
    w = min(width, max(1, round(height * aspect[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
