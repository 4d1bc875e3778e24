"""CaffeNet and ResNet-50 in PyTorch, and the loop that trains them, for `imagenet_speed.py`.

The layers are those of the oracles in `tests/test_imagenet_models.py`. PyTorch is not a dependency: callers pass it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def network(torch: Any, name: str, size: int, classes: int) -> Any:
    """A module that maps images [n, 3, size, size] to logits [n, classes], channels last, on a GPU if there is one."""
    made = {"CaffeNet": caffenet, "ResNet50": resnet50}[name](torch, size, classes)
    return made.to("cuda" if torch.cuda.is_available() else "cpu", memory_format=torch.channels_last)


def caffenet(torch: Any, size: int, classes: int) -> Any:
    """An AlexNet that pools before it normalises, as Caffe has it."""
    nn = torch.nn
    pool = lambda: (nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))
    norm = lambda: nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
    convolutions = nn.Sequential(
        *(nn.Conv2d(3, 96, 11, stride=4), *pool(), norm()),
        *(nn.Conv2d(96, 256, 5, padding=2, groups=2), *pool(), norm()),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1, groups=2), *pool()),
        nn.Flatten(),
    )
    with torch.no_grad():
        features = convolutions(torch.zeros(1, 3, size, size)).shape[1]
    return nn.Sequential(
        convolutions,
        *(nn.Linear(features, 4096), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(4096, classes),
    )


def resnet50(torch: Any, size: int, classes: int) -> Any:
    """ResNet-50 as torchvision has it, for images of any size."""
    del size
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, features: int, width: int, stride: int):
            super().__init__()
            conv = lambda a, b, size, stride=1: nn.Conv2d(a, b, size, stride, size // 2, bias=False)
            self.body = nn.Sequential(
                *(conv(features, width, 1), nn.BatchNorm2d(width), nn.ReLU()),
                *(conv(width, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()),
                *(conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)),
            )
            same = stride == 1 and features == 4 * width
            projection = [] if same else [conv(features, 4 * width, 1, stride), nn.BatchNorm2d(4 * width)]
            self.shortcut = nn.Sequential(*projection)

        def forward(self, x):
            return torch.relu(self.body(x) + self.shortcut(x))

    layers: list[Any] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    features = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for i in range(count):
            layers.append(Block(features, width, 2 if stage and not i else 1))
            features = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes))


def loop(
    torch: Any,
    logits: Callable[[Any], Any],
    optimizer: Any,
    data: tuple[np.ndarray, np.ndarray],
    rows: np.ndarray,
    precision: str,
) -> Callable[[], None]:
    """A function that trains on batches of rows of the data: bfloat16 by autocast, compiled on a GPU."""
    torch.backends.cudnn.benchmark = True  # XLA searches for the fastest algorithms as well
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compiled = torch.compile(logits) if device.type == "cuda" else logits
    images, labels = (torch.from_numpy(array).to(device) for array in data)
    images = images.permute(0, 3, 1, 2)  # channels last
    batches = [torch.from_numpy(row.astype(np.int64)).to(device) for row in rows]
    dtype = {"bfloat16": torch.bfloat16}.get(precision)

    def run() -> None:
        for batch in batches:
            pixels = images[batch].contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                loss = torch.nn.functional.cross_entropy(compiled(pixels), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run
