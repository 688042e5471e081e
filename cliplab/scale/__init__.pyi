from .ranks import is_first as is_first, own_share as own_share
