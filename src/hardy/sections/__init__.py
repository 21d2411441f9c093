"""The sections of a recipe: all settings of a run, with type, range and default.

No torch is imported here. `hardy.recipe` reads the sections from YAML and completes them.
"""

from hardy.sections.adaptation import Adapt, Guard, Stream
from hardy.sections.base import Kind, Method, Section
from hardy.sections.pruning import Floors, Prune, Scoring, Search, Stop
from hardy.sections.training import Data, Evaluate, NetworkChoice, Optim, RunSection, Teacher, Teachers

__all__ = [
    "Adapt",
    "Data",
    "Evaluate",
    "Floors",
    "Guard",
    "Kind",
    "Method",
    "NetworkChoice",
    "Optim",
    "Prune",
    "RunSection",
    "Scoring",
    "Search",
    "Section",
    "Stop",
    "Stream",
    "Teacher",
    "Teachers",
]
