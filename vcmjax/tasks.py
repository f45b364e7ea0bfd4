"""The vision tasks: what each predicts, and the number by which it is scored.

Names are Taskonomy's domain names. A label in memory is always one of three kinds:

* ``class``    int32 scalar, the class index
* ``segment``  uint8 (H, W), the class index of each pixel; `VOID` is not scored
* ``dense``    float32 (H, W, channels); NaN is not scored
"""

from typing import Literal, NamedTuple

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
