"""The README beside an exported file: its input and output, and how to run it in five lines of Python or C++."""

from pathlib import Path
from typing import Any

from hardy.files import write_text

__all__ = ["beside", "text", "write"]


def beside(file: Path) -> Path:
    """The path of the README of the exported ``file``."""
    return file.with_name(f"{file.stem}.README.md")


def write(file: Path, about: dict[str, Any]) -> Path:
    """Write the README of ``file``; ``about`` is its description (see `text`)."""
    write_text(beside(file), text(file.name, about))
    return beside(file)


def text(name: str, about: dict[str, Any]) -> str:
    """The README of the file ``name`` with the description ``about``: size, batch, dynamic, output, labels, checks."""
    height, width = about["size"]
    batch, logits = about["batch"], about["output"] == "logits"
    names = about["labels"]["classes"]
    number = "float" if logits else "uint8_t"
    size = "any size" if about["dynamic"] else f"{height}x{width} pixels (height x width)"
    shape = f"({batch}, {len(names)}, h, w) float32" if logits else f"({batch}, h, w) uint8"
    ids = ", ".join(f"{index} {each}" for index, each in enumerate(names))
    return f"""# {name}

- Takes `images` ({batch}, 3, H, W) float32: RGB in [0, 1], {size}; normalisation is inside.
- Gives `{about["output"]}` {shape}{"; the class of a pixel is the largest" if logits else ": the class of each pixel"}.
- Classes: {ids}.
- {about["checked"]}

Python, with `pip install onnxruntime pillow`:

```python
import numpy, onnxruntime, PIL.Image
session = onnxruntime.InferenceSession("{name}", providers=["CPUExecutionProvider"])
photo = PIL.Image.open("photo.jpg").convert("RGB").resize(({width}, {height}))
images = numpy.asarray(photo, numpy.float32).transpose(2, 0, 1)[None].repeat({batch}, 0) / 255
{about["output"]} = session.run(["{about["output"]}"], {{"images": images}})[0]
```

C++, with `onnxruntime_cxx_api.h`; `rgb` is a `std::vector<float>` of {batch} x 3 x {height} x {width} values:

```cpp
Ort::Env env; Ort::Session session(env, "{name}", Ort::SessionOptions());
std::array<int64_t, 4> shape{{{batch}, 3, {height}, {width}}}; const char *in = "images", *out = "{about["output"]}";
auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
auto images = Ort::Value::CreateTensor<float>(memory, rgb.data(), rgb.size(), shape.data(), shape.size());
auto found = session.Run(Ort::RunOptions(), &in, &images, 1, &out, 1);  // found[0].GetTensorData<{number}>()
```
"""
