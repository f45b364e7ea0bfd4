"""The vision tasks: what each predicts, and the number by which it is scored.

Names are Taskonomy's domain names. A label in memory is always one of three kinds:

* ``class``    int32 scalar, the class index
* ``segment``  uint8 (H, W), the class index of each pixel; `VOID` is not scored
* ``dense``    float32 (H, W, channels); NaN is not scored
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

from vcmjax.errors import VcmError

VOID = 255
"""Label of a pixel that is neither trained on nor scored."""

Kind = Literal["class", "segment", "dense"]


class Task(NamedTuple):
    """One vision task.

    Attributes:
      name: Taskonomy domain name, e.g. ``segment_semantic``.
      kind: Form of label and network output, see the module docstring.
      channels: Number of classes, or of regressed channels.
      classes: Class names in index order; empty for dense tasks.
    """

    name: str
    kind: Kind
    channels: int
    classes: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """Name of the headline score: ``accuracy``, ``miou`` or ``l1``."""
        return {"class": "accuracy", "segment": "miou", "dense": "l1"}[self.kind]

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger headline score is better."""
        return self.kind != "dense"


_WORD = re.compile(r"\w(?:[\w.-]*\w)?")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.IGNORECASE)
"""What Windows takes for a device, whatever follows a full stop."""
_CONTROL = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories that act on a terminal, break a line of a table, or cannot be written."""


def check_names(names: Iterable[Any]) -> None:
    """Refuse names of tasks that are not words: they become names of files and folders.

    Raises:
      VcmError: Says which name, and what is expected; or which two differ in case alone, and so
        are one file on some systems.
    """
    seen: dict[str, str] = {}
    for name in names:
        word = (
            isinstance(name, str)
            and len(name) <= 100
            and len(name.encode("utf-8", "replace")) <= 200
        )
        if not word or not _WORD.fullmatch(name) or _DEVICE.fullmatch(name):
            raise VcmError(
                f"task is named {_short(name)}; expected a word of at most 100 letters, digits, "
                "'_', '-' and '.', which starts and ends with one of the first three and is no "
                "device of Windows"
            )
        other = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if other != name:
            raise VcmError(
                f"tasks are named {other!r} and {name!r}; expected more than case to differ"
            )


def check(task: Task) -> None:
    """Refuse a task that cannot be stored and read back, or whose names could do harm.

    Raises:
      VcmError: Says what of it, and what is expected.
    """
    check_names([task.name])
    if task.kind not in get_args(Kind):
        expected = ", ".join(get_args(Kind))
        raise VcmError(f"{task.name}: kind is {_short(task.kind)}; expected one of {expected}")
    most = VOID if task.kind == "segment" else 1 << 20
    if type(task.channels) is not int or not 1 <= task.channels <= most:
        raise VcmError(
            f"{task.name}: channels is {_short(task.channels)}; expected an integer of 1 to {most}"
        )
    if not isinstance(task.classes, tuple) or len(task.classes) not in (0, task.channels):
        raise VcmError(
            f"{task.name}: classes are {_short(task.classes)}; expected as many names as channels, "
            f"{task.channels}, or none"
        )
    for name in task.classes:
        if not isinstance(name, str) or {unicodedata.category(c) for c in name} & _CONTROL:
            raise VcmError(
                f"{task.name}: a class is named {_short(name)}; expected text without line breaks "
                "and control characters"
            )


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


SEGMENT_CLASSES = (
    "background", "bottle", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
)  # fmt: skip
"""The 17 classes of Taskonomy's semantic segmentation, in its order."""

OBJECT_CLASSES = SEGMENT_CLASSES[1:]

ROOM_CLASSES = (
    "bathroom", "bedroom", "corridor", "dining room", "kitchen", "library", "living room",
    "office", "storage room", "waiting room",
)  # fmt: skip

ROOMS = {
    task.name: task
    for task in (
        Task("class_scene", "class", len(ROOM_CLASSES), ROOM_CLASSES),
        Task("class_object", "class", len(OBJECT_CLASSES), OBJECT_CLASSES),
        Task("segment_semantic", "segment", len(SEGMENT_CLASSES), SEGMENT_CLASSES),
        Task("normal", "dense", 3),
        Task("reshading", "dense", 1),
        Task("principal_curvature", "dense", 2),
    )
}
"""The six tasks of CVR on the procedural rooms; class counts are those of `rooms`."""

TABLE_3 = ("class_scene", "segment_semantic", "normal", "reshading")
"""The four tasks of CVR Table 3."""
