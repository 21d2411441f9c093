"""A weights file of the Hugging Face hub, downloaded only if its name is given: ``hf-hub:OWNER/NAME``."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import hf_hub_download

from hardy.errors import InputError
from hardy.networks.parts.encoder_errors import reason

__all__ = ["HUB", "fetched", "no_retries_shown"]

HUB = "hf-hub:"
"""The prefix of the names of such weights."""

_FILE = "model.safetensors"


def fetched(weights: str) -> str:
    """The path of the file ``model.safetensors`` of the repository ``weights``, downloaded if it is not cached.

    Raises:
        InputError: if it cannot be downloaded.
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
    """Inside the block, the hub's library does not log each failed attempt."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
