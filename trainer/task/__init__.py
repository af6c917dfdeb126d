"""What a model author writes, and nothing else. `Task` shows one.

`task.task` is the page to read.
"""

from trainer.task.given import Learned, TaskError
from trainer.task.protocols import Batch, Gradients, Optimization, Source
from trainer.task.registry import register, registered
from trainer.task.task import Task

__all__ = [
    "Batch",
    "Gradients",
    "Learned",
    "Optimization",
    "Source",
    "Task",
    "TaskError",
    "register",
    "registered",
]
