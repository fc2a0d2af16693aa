"""Claims of fits, in the threads of a process, on the rules and parameters that they are training."""

import contextlib
import threading
from collections.abc import Iterator

from localearn.errors import UserError
from localearn.trainers.base import Trainer

_guard = threading.Lock()
_claimed: set[int] = set()


@contextlib.contextmanager
def claimed(trainer: Trainer) -> Iterator[None]:
    """Exclude other fits from a rule and its net inside the block.

    Args:
        trainer: The rule, which is claimed with each of its parameters.

    Raises:
        UserError: Where another fit is training any part of them.

    """
    own = {id(part) for part in (trainer, *trainer.parameters())}
    with _guard:
        if own & _claimed:
            raise UserError(
                f"this {type(trainer).__name__}, or a part of its net, is being trained by another fit; wait for that, "
                "or train a copy.deepcopy of it"
            )
        _claimed.update(own)
    try:
        yield
    finally:
        with _guard:
            _claimed.difference_update(own)
