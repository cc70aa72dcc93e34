"""Stage 5: reference models trained on releases, scored, and set beside published figures."""

from risbench.core.callable_module import make_callable

make_callable(__name__)
