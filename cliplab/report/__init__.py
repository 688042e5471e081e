"""Run notebooks as experiments and make one page of what they found.

``notebook`` finds notebooks and their parameters, ``execute`` runs one in a process of its own,
``folder`` keeps a run on disk so that it can be interrupted, ``page`` makes its index.html,
``compare`` sets two runs side by side, ``in_place`` is what contributors save notebooks with.
"""
