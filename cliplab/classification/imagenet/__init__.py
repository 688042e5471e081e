"""Published protocols, run on one's own encoder and data: ``python -m cliplab evaluate``.

`prompts` and `dataset` know what ImageNet is, `classifier` and `chunks` how a long run is cut,
shared between machines and taken up again, `result` what it comes to, `command` how it is called.
"""
