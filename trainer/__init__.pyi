# The types of what `__init__.py` gives when it is first asked for.
from trainer.base.errors import KeepstepError as KeepstepError
from trainer.checkpoint.fit_callback import KeeperCallback as KeeperCallback
from trainer.checkpoint.keeper import Keeper as Keeper
from trainer.commands.functions import evaluate as evaluate
from trainer.commands.functions import export as export
from trainer.commands.functions import predict as predict
from trainer.commands.functions import train as train
from trainer.inference.restore import restore_weights as restore_weights
from trainer.reporting import hooks as hooks
from trainer.reporting.hook import Hook as Hook
from trainer.task import Task as Task
from trainer.task import register as register

__version__: str
__all__: list[str]
