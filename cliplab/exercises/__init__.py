"""Exercises of the lessons: functions that students write, checked by what must hold of them.

Nothing is compared with stored answers: an exercise is examined on inputs drawn from a seed, by
closed forms and properties, so that every right solution passes. The notebooks in
`notebooks/solutions` hold the masters: text, solved function, hidden test (`masters`). What a
student sees in a lesson is made from them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
