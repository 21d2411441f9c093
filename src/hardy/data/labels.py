"""The former name of `hardy.data.label_spaces`, for old code; `label_space` is now `find_label_space`."""

from hardy.data.label_spaces import *  # noqa: F403
from hardy.data.label_spaces import find_label_space as label_space  # noqa: F401
