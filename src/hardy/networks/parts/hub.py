"""A weights file of the Hugging Face hub, fetched only when its name is given: ``hf-hub:OWNER/NAME``."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import hf_hub_download

from hardy.errors import InputError
from hardy.networks.parts.encoder_errors import reason

__all__ = ["HUB", "fetched", "no_retries_shown"]

HUB = "hf-hub:"
"""What the name of such weights begins with."""

_FILE = "model.safetensors"


def fetched(weights: str) -> str:
    """The path of the file `_FILE` of the repository ``weights``, downloaded unless it was before.

    Raises:
        InputError: for what cannot be fetched.
    """
    try:
        with no_retries_shown():
            return str(hf_hub_download(weights.removeprefix(HUB), _FILE))
    except Exception as error:
        raise InputError(
            f"{weights}: {_FILE} could not be downloaded; give a weights file ({reason(error)})"
        ) from error


@contextmanager
def no_retries_shown() -> Iterator[None]:
    """Inside the block the hub's library does not log every attempt that fails."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
